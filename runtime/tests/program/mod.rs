//! The program under test, and places for its files.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The top of the source tree.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The program, with the models that ship and no ONNX Runtime.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gradresnet"));
    command.env("GRADRESNET_MODELS", root().join("models/zoo"));
    command.env("ORT_DYLIB_PATH", "/nonexistent/libonnxruntime.so");
    command
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// An empty folder of one test's own.
pub fn folder(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

//! The program under test, and places for its files.

#![allow(dead_code, reason = "no file of tests needs all of it")]

use std::io::Write;
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
    // Whoever runs the tests may have models of their own.
    command.env("XDG_DATA_HOME", "/nonexistent");
    command
}

/// Runs `gradresnet denoise`, with paths below `dir`.
pub fn denoise(dir: &Path, args: &[&str]) -> Output {
    program().current_dir(dir).arg("denoise").args(args).output().unwrap()
}

/// Says that a test did nothing: not with `eprintln!`, which a passing test captures.
pub fn skipped(test: &str, reason: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {reason}");
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// An empty folder for one test.
pub fn folder(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(env!("CARGO_CRATE_NAME")).join(name);
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

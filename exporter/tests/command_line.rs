//! What a person and a script see of `gradresnet-export`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed")]

use std::process::{Command, Output};

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gradresnet-export")).args(args).output().unwrap()
}

#[test]
fn bad_input_gives_one_line_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let (nowhere, broken, out) = (path("nowhere"), path("broken"), path("out"));
    std::fs::create_dir(&broken).unwrap();
    std::fs::write(dir.path().join("broken/spec.json"), "{").unwrap();
    let cases = [
        (run(&[&nowhere, "-o", &out]), "nowhere"),
        (run(&[&broken, "-o", &out]), "broken/spec.json"),
        (run(&[&broken]), "--output"),
        (run(&[&broken, "-o", &out, "--opset", "99"]), "17..=21"),
        (run(&[&broken, "-o", &out, "--weights", "none"]), "inline"),
    ];
    for (output, expected) in cases {
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(expected) && !stderr.contains("panicked"), "{stderr}");
        // The cause once, and not again as the error's source.
        let (_, cause) = stderr.trim_end().rsplit_once(": ").unwrap_or_default();
        assert_eq!(stderr.matches(cause).count(), 1, "{stderr}");
        assert!(output.stdout.is_empty() && !dir.path().join("out").exists());
    }
    assert!(run(&["--help"]).status.success());
}

/// Weights are in the graphs or beside them, and a bundle is replaced only on request.
#[test]
fn what_ships_can_be_exported_again() {
    let dir = tempfile::tempdir().unwrap();
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/zoo/photo-fast");
    let out = dir.path().join("out");
    let export = |extra: &[&str]| run(&[&[shipped, "-o", out.to_str().unwrap()], extra].concat());
    let size = || std::fs::metadata(out.join("denoiser.onnx")).unwrap().len();
    let output = export(&["--weights", "shared"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let shared = size();
    let output = export(&["--weights", "inline"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--overwrite"));
    assert_eq!(size(), shared);
    assert!(export(&["--weights", "inline", "--overwrite"]).status.success());
    // What the network has of parameters, in float32.
    let parameters = std::fs::metadata(out.join("model.safetensors")).unwrap().len();
    assert!(size() > shared + parameters / 2, "{} and {shared}", size());
}

//! A folder of images of every kind, some of them broken, read back by Pillow and tifffile.
//!
//! `GRADRESNET_PYTHON` names a Python that has them (`scripts/fetch-native` makes one). `GRADRESNET_MIXED=500` makes
//! the folder larger; four in a hundred are broken.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed")]

mod program;

use program::{denoise, folder, skipped, stderr};
use std::path::Path;
use std::process::{Command, Output};

#[test]
fn formats_depths_orientations_transparency_and_metadata_are_kept() {
    let Some(python) = std::env::var_os("GRADRESNET_PYTHON") else {
        skipped(
            "formats_depths_orientations_transparency_and_metadata_are_kept",
            "GRADRESNET_PYTHON is not set",
        );
        return;
    };
    let count: usize = std::env::var("GRADRESNET_MIXED").map_or(75, |n| n.parse().unwrap());
    let broken = count / 25;
    let dir = folder("mixed");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mixed.py");
    let python = |args: &[&str]| -> Output {
        Command::new(&python).current_dir(&dir).arg(&script).args(args).output().unwrap()
    };
    let built = python(&["build", "in", &count.to_string(), &broken.to_string()]);
    assert!(built.status.success(), "{}", stderr(&built));

    let output = denoise(&dir, &["in", "-o", "out", "--recursive"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    let errors = stderr(&output);
    let list = std::fs::read_to_string(dir.join("in.broken")).unwrap();
    assert_eq!(list.lines().count(), broken);
    for name in list.lines() {
        assert!(
            errors.lines().any(|line| line.starts_with("error") && line.contains(name)),
            "{name}: {errors}"
        );
    }
    assert_eq!(errors.lines().filter(|line| line.starts_with("error")).count(), broken, "{errors}");

    let checked = python(&["check", "in", "out"]);
    assert!(checked.status.success(), "{}{}", String::from_utf8_lossy(&checked.stdout), stderr(&checked));
    let right = format!("{} outputs checked, 0 faults", count - broken);
    assert!(String::from_utf8_lossy(&checked.stdout).contains(&right));
}

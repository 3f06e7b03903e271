//! The seeds and findings of the fuzz targets (`fuzz/`), each through the function that its target calls: a
//! file that was a finding once is none again.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::path::Path;

#[path = "../../fuzz/entry.rs"]
mod entry;

fn check(target: &str, accepts: fn(&[u8]) -> bool) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut accepted = 0;
    for file in std::fs::read_dir(&folder).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy();
        // Printed if the test fails: the last one is at fault.
        println!("{target}/{name}");
        let good = accepts(&std::fs::read(&path).unwrap());
        assert!(good || !name.starts_with("good-"), "it was refused");
        accepted += usize::from(good);
    }
    assert!(accepted > 0, "{} holds no good file", folder.display());
}

#[test]
fn specs() {
    check("spec", entry::spec);
}

#[test]
fn tensors() {
    check("tensors", entry::tensors);
}

#[test]
fn graphs() {
    check("graph", entry::graph);
}

#[test]
fn pictures() {
    check("picture", entry::picture);
}

#[test]
fn bundles() {
    check("bundle", entry::bundle);
}

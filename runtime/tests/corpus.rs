//! The seeds and findings of the fuzz targets (`fuzz/`), each through the function that its target calls: those named
//! `good-…` are accepted, and all others refused.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::path::Path;

#[path = "../../fuzz/entry.rs"]
mod entry;

fn check(target: &str, accepts: fn(&[u8]) -> bool) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut good = 0;
    for file in std::fs::read_dir(&folder).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy();
        // Printed if it panics: the last one is at fault.
        println!("{target}/{name}");
        let accepted = accepts(&std::fs::read(&path).unwrap());
        assert_eq!(accepted, name.starts_with("good-"), "{target}/{name}");
        good += usize::from(accepted);
    }
    assert!(good > 0, "{} holds no good file", folder.display());
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

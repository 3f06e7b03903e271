//! `docs/guarantees.md` names a test for each promise: they must exist.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed")]

use std::collections::BTreeSet;
use std::path::Path;

#[test]
fn every_test_that_a_promise_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = std::fs::read_to_string(root.join("docs/guarantees.md")).unwrap();
    let named: BTreeSet<&str> = page.split('`').filter(|text| text.contains("::")).collect();
    assert!(named.len() > 20, "{named:?}");
    for name in named {
        let (file, function) = name.split_once("::").unwrap();
        let folders = [
            "runtime/tests",
            "runtime/src",
            "runtime/src/picture",
            "models/tests",
            "models/src",
            "exporter/src",
            "tests/tests",
        ];
        let found = folders.iter().any(|folder| {
            let source = std::fs::read_to_string(root.join(folder).join(format!("{file}.rs")));
            source.is_ok_and(|source| is_test(&source, function))
        });
        assert!(found, "{name} does not exist");
    }
}

/// Whether a function of this name has the attribute that makes it a test.
fn is_test(source: &str, function: &str) -> bool {
    let before = source.split_once(&format!("fn {function}(")).map(|(before, _)| before);
    before.is_some_and(|before| before.rfind("#[test]") > before.rfind("fn "))
}

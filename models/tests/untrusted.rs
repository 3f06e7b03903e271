//! No input makes a parser panic, be it noise or a valid file with a few bytes changed.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod common;

use gradresnet_models::{Golden, Spec, Task, tensors};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// A valid file of each kind.
fn valid() -> [Vec<u8>; 3] {
    let checkpoint = common::checkpoint();
    [
        checkpoint.spec.to_json().into_bytes(),
        tensors::serialise(&checkpoint.parameters, &BTreeMap::new()).unwrap(),
        common::golden(&checkpoint.spec).serialise().unwrap(),
    ]
}

/// What is accepted must also be usable.
fn read_everything(bytes: &[u8]) {
    if let Ok(spec) = Spec::parse(bytes) {
        spec.validate().unwrap();
        assert_eq!(Spec::parse(spec.to_json().as_bytes()).unwrap(), spec);
    }
    if let Ok((tensors, _)) = tensors::parse(bytes) {
        for array in tensors.values() {
            assert_eq!(array.to_f64().len(), array.shape().iter().product::<usize>());
        }
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let spec = common::spec();
    for (task, classes) in [(spec.task, spec.classes.clone()), (Task::Denoising, Vec::new())] {
        if let Ok(golden) = Golden::read(file.path(), &Spec { task, classes, ..spec.clone() }) {
            assert!(golden.cases.iter().all(|c| c.size().iter().all(|&d| d > 0)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn noise_is_rejected_quietly(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        read_everything(&bytes);
    }

    #[test]
    fn noise_after_a_plausible_length_is_rejected_quietly(
        header in "[{}\\[\\]\":,a-zA-Z0-9_.]{0,200}",
    ) {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        read_everything(&bytes);
    }

    #[test]
    fn a_valid_file_with_changed_bytes_is_read_or_rejected_quietly(
        which in 0usize..3,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        early in any::<bool>(),
    ) {
        let mut bytes = valid()[which].clone();
        // The header is where the structure is.
        let range = if early { bytes.len().min(400) } else { bytes.len() };
        for (index, byte) in changes {
            bytes[index.index(range)] = byte;
        }
        read_everything(&bytes);
    }

    #[test]
    fn a_valid_file_cut_short_is_rejected(which in 0usize..3, at in any::<prop::sample::Index>()) {
        let whole = &valid()[which];
        // In JSON the last byte is a newline, which may be missing.
        let bytes = &whole[..at.index(whole.len() - 1)];
        prop_assert!(Spec::parse(bytes).is_err());
        prop_assert!(tensors::parse(bytes).is_err());
    }
}

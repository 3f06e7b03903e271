//! What the fuzz targets and the test of their corpus call: one function for each target. Each returns
//! whether the input was accepted, and panics if what was accepted turns out not to be sound.
#![allow(dead_code, reason = "each target calls one of them")]
#![allow(clippy::unwrap_used, reason = "a panic here is a finding, or a disk that is full")]

use gradresnet::engine::{self, Graph, Shape};
use gradresnet::{Bundle, Encoding, Picture, Spec};
use gradresnet_models::bundle::{DENOISER, FORWARD};
use gradresnet_models::checkpoint::{GOLDEN, MODEL, SPEC, check_parameters};
use gradresnet_models::staged::StagedDir;
use gradresnet_models::{Golden, Precision, Task, tensors as safetensors};
use std::collections::BTreeMap;

/// The model that graphs and parameters are compared with.
const TINY: &[u8] = include_bytes!("corpus/spec/good-tiny.json");

/// Larger pictures are legal and slow: a fuzzer learns more from a thousand small ones.
const PICTURE_BYTES: u64 = 4 << 20;

/// Separates the files of a bundle.
const SEPARATOR: &[u8] = b"\n=====\n";

/// `spec.json`: what is accepted is written and read again without a change.
pub fn spec(bytes: &[u8]) -> bool {
    let Ok(spec) = Spec::parse(bytes) else { return false };
    assert_eq!(Spec::parse(spec.to_json().as_bytes()).unwrap(), spec);
    assert!(spec.architecture.stride() > 0 && spec.architecture.multiply_adds_per_pixel() > 0.0);
    true
}

/// A safetensors file, as parameters and as golden values.
pub fn tensors(bytes: &[u8]) -> bool {
    let Ok((tensors, _)) = safetensors::parse(bytes) else { return false };
    // Bytes are compared because a NaN differs from itself.
    let written = safetensors::serialise(&tensors, &BTreeMap::new()).unwrap();
    let (again, _) = safetensors::parse(&written).unwrap();
    assert_eq!(safetensors::serialise(&again, &BTreeMap::new()).unwrap(), written);
    let _ = check_parameters(&Spec::parse(TINY).unwrap(), &tensors);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let spec = Spec::parse(TINY).unwrap();
    for (task, classes) in [(spec.task, spec.classes.clone()), (Task::Denoising, Vec::new())] {
        let spec = Spec { task, classes, ..spec.clone() };
        if let Ok(golden) = Golden::read(file.path(), &spec) {
            assert!(golden.cases.iter().all(|case| !case.size().contains(&0)));
        }
    }
    true
}

/// An ONNX model, as either graph of a bundle whose digests are right.
pub fn graph(bytes: &[u8]) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let staged = StagedDir::new(&dir.path().join("bundle")).unwrap();
    staged.write(FORWARD, bytes).unwrap();
    staged.write(DENOISER, bytes).unwrap();
    staged.write(GOLDEN, b"").unwrap();
    // External data points into this file.
    staged.write(MODEL, &[0; 8192]).unwrap();
    let shape = Shape { batch: 1, height: 8, width: 8 };
    // A graph that says its precision is one of a model that says the same.
    [Precision::Float32, Precision::Float16].into_iter().any(|precision| {
        let spec = Spec { precision, ..Spec::parse(TINY).unwrap() };
        let bundle = Bundle::seal(&staged, &spec).unwrap();
        Graph::ALL.into_iter().any(|graph| engine::check(&bundle, graph, shape).is_ok())
    })
}

/// An image file: what is accepted is written in its format, and read again.
pub fn picture(bytes: &[u8]) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let (source, target) = (dir.path().join("source"), dir.path().join("target"));
    std::fs::write(&source, bytes).unwrap();
    if Picture::header(&source).is_ok_and(|header| header.bytes > PICTURE_BYTES) {
        return false;
    }
    let Ok(picture) = Picture::read(&source) else { return false };
    if picture.write(&target, &Encoding::default()).is_ok() {
        let again = Picture::read(&target).unwrap();
        assert_eq!(again.size(), picture.size());
    }
    true
}

/// The files of a bundle, one after another.
pub fn bundle(bytes: &[u8]) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let mut rest = Some(bytes);
    for name in [SPEC, FORWARD, DENOISER, GOLDEN, MODEL] {
        let Some(part) = rest else { break };
        let end = part.windows(SEPARATOR.len()).position(|window| window == SEPARATOR);
        std::fs::write(dir.path().join(name), &part[..end.unwrap_or(part.len())]).unwrap();
        rest = end.map(|end| &part[end + SEPARATOR.len()..]);
    }
    let Ok(bundle) = Bundle::open(dir.path()) else { return false };
    let sound = bundle.verify_digests().is_ok();
    for name in bundle.spec().files.keys() {
        assert!(!sound || bundle.read(name, safetensors::MAX_TENSOR_BYTES).is_ok());
    }
    let _ = bundle.golden();
    true
}

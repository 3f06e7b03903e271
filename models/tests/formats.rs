//! Checkpoints, golden values and bundles: read as written, and rejected with the reason.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod common;

use common::{checkpoint, golden, spec, tensors};
use gradresnet_models::architecture::DnCnn;
use gradresnet_models::bundle::{DENOISER, FORWARD};
use gradresnet_models::checkpoint::{GOLDEN, MODEL, SPEC, check_parameters};
use gradresnet_models::staged::StagedDir;
use gradresnet_models::tensors::MAX_TENSOR_BYTES;
use gradresnet_models::{
    Array, Bundle, Checkpoint, ErrorKind, Golden, Norm, Spec, Task, Tensors, parameters,
};
use std::fs;
use std::path::{Path, PathBuf};

fn zeros(shape: &[usize]) -> Array {
    Array::f32(shape, vec![0.0; shape.iter().product()]).unwrap()
}

#[test]
fn a_checkpoint_is_read_as_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("made/on/the/way");
    for golden in [checkpoint().golden, None] {
        let checkpoint = Checkpoint { golden, ..checkpoint() };
        checkpoint.write(&target).unwrap();
        assert_eq!(Checkpoint::read(&target).unwrap(), checkpoint);
    }
}

#[test]
fn parameters_are_held_against_the_spec() {
    type Change = fn(&mut Tensors);
    let table: &[(&str, Change)] = &[
        ("tensor `head.weight` is missing", |t| drop(t.remove("head.weight"))),
        ("tensor `extra` is not part", |t| drop(t.insert("extra".into(), zeros(&[1])))),
        ("`energy.weight` has shape", |t| drop(t.insert("energy.weight".into(), zeros(&[3])))),
        // As many values in another arrangement.
        ("`stem.conv.weight` has shape [3, 4, 3, 3]", |t| {
            t.insert("stem.conv.weight".into(), zeros(&[3, 4, 3, 3]));
        }),
        ("`stem.conv.bias` has element type F64", |t| {
            t.insert("stem.conv.bias".into(), Array::f64(&[4], vec![0.0; 4]).unwrap());
        }),
        ("`stem.conv.bias` holds a value that is not finite", |t| {
            t.insert("stem.conv.bias".into(), Array::f32(&[4], vec![0.0, f32::NAN, 0.0, 0.0]).unwrap());
        }),
        ("`stem.conv.bias` holds a value that is not finite", |t| {
            t.insert("stem.conv.bias".into(), Array::f32(&[4], vec![0.0, 0.0, 0.0, f32::INFINITY]).unwrap());
        }),
        ("`stages.0.0.norm.running_var` holds a variance below zero", |t| {
            t.insert(
                "stages.0.0.norm.running_var".into(),
                Array::f32(&[4], vec![1.0, 1.0, -1.0, 1.0]).unwrap(),
            );
        }),
    ];
    let spec = spec();
    check_parameters(&spec, &tensors(&spec)).unwrap();
    for (expected, change) in table {
        let mut tensors = tensors(&spec);
        change(&mut tensors);
        let error = check_parameters(&spec, &tensors).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}: expected {expected}");
    }
}

#[test]
fn a_checkpoint_that_does_not_fit_its_spec_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("checkpoint");
    let mut bad = checkpoint();
    bad.parameters.remove("head.weight");
    assert!(bad.write(&target).is_err());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn an_error_names_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("checkpoint");
    let error = Checkpoint::read(&target).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Missing), "{error}");
    checkpoint().write(&target).unwrap();
    for name in [SPEC, MODEL, GOLDEN] {
        let path = target.join(name);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        let error = Checkpoint::read(&target).unwrap_err();
        assert_eq!(error.path(), Some(path.as_path()), "{error}");
        fs::write(&path, &bytes).unwrap();
    }
    Checkpoint::read(&target).unwrap();
}

/// The length prefix says that the header is larger than the file, or than any file.
#[test]
fn a_header_too_large_is_rejected() {
    for length in [1 << 20, 200 << 20, u64::MAX] {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend(b"{}");
        let error = gradresnet_models::tensors::parse(&bytes).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Safetensors(_)), "{error}");
    }
}

/// Headers that would make a careless reader exhaust memory or read out of bounds.
#[test]
fn a_header_that_lies_about_its_data_is_rejected() {
    for header in [
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,400]}}"#,
        r#"{"a":{"dtype":"F32","shape":[100],"data_offsets":[0,4]}}"#,
        r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}}"#,
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#,
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#,
    ] {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend([0; 4]);
        let error = gradresnet_models::tensors::parse(&bytes).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Safetensors(_)), "{header}: {error}");
    }
}

#[test]
fn an_element_type_without_use_is_rejected() {
    let header = r#"{"a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend([0; 8]);
    let error = gradresnet_models::tensors::parse(&bytes).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::TensorType { .. }), "{error}");
}

/// A sparse file costs its maker nothing; it must cost the reader nothing either.
#[test]
fn a_huge_sparse_file_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    fs::File::create(&path).unwrap().set_len(MAX_TENSOR_BYTES + 1).unwrap();
    let error = gradresnet_models::tensors::read(&path).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::TooLarge { .. }), "{error}");
}

#[test]
fn an_array_holds_exactly_its_shape() {
    assert!(Array::f32(&[2, 3], vec![0.0; 6]).is_some());
    assert!(Array::f32(&[2, 3], vec![0.0; 5]).is_none());
    assert!(Array::f64(&[usize::MAX, 2], vec![]).is_none());
}

fn without_classes() -> Spec {
    Spec { task: Task::Denoising, classes: Vec::new(), ..spec() }
}

fn written(golden: &Golden, dir: &Path) -> PathBuf {
    let path = dir.join(GOLDEN);
    fs::write(&path, golden.serialise().unwrap()).unwrap();
    path
}

#[test]
fn golden_values_are_read_as_they_were_written() {
    let dir = tempfile::tempdir().unwrap();
    for spec in [spec(), without_classes()] {
        let golden = golden(&spec);
        assert_eq!(Golden::read(&written(&golden, dir.path()), &spec).unwrap(), golden);
    }
}

#[test]
fn golden_values_that_contradict_themselves_are_rejected() {
    type Change = fn(&mut Golden);
    let table: &[(&str, Change)] = &[
        ("no case", |g| g.cases.clear()),
        ("more than 64 cases", |g| g.cases = vec![g.cases[0].clone(); 65]),
        ("case 1: `noisy` has shape [2, 4, 4, 6]", |g| g.cases[1].noisy = zeros(&[2, 4, 4, 6])),
        ("case 0: `noisy` has shape [48]", |g| g.cases[0].noisy = zeros(&[48])),
        ("case 0: `sigma` has shape [2]", |g| g.cases[0].sigma = Some(zeros(&[2]))),
        ("case 0: `class_weights` has shape [1, 3]", |g| g.cases[0].class_weights = Some(zeros(&[1, 3]))),
        ("`0.denoised` has element type F32", |g| g.cases[0].denoised = Some(zeros(&[1, 3, 4, 4]))),
        ("`0.logits` is missing", |g| g.cases[0].logits = None),
        ("`0.energy` is missing", |g| g.cases[0].energy = None),
        ("`0.sigma` holds a value that is not finite", |g| {
            g.cases[0].sigma = Array::f32(&[1], vec![f32::NAN]);
        }),
    ];
    let dir = tempfile::tempdir().unwrap();
    for (expected, change) in table {
        let mut golden = golden(&spec());
        change(&mut golden);
        let error = Golden::read(&written(&golden, dir.path()), &spec()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}: expected {expected}");
    }
    // Those of a network with classes do not fit one without.
    let error = Golden::read(&written(&golden(&spec()), dir.path()), &without_classes()).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::TensorUnknown(_)), "{error}");
}

/// A bundle whose graphs are not graphs: this crate does not look into them.
fn bundle(dir: &Path) -> PathBuf {
    let target = dir.join("bundle");
    let staged = StagedDir::new(&target).unwrap();
    for name in [FORWARD, DENOISER, MODEL] {
        staged.write(name, name.as_bytes()).unwrap();
    }
    staged.write(GOLDEN, &golden(&spec()).serialise().unwrap()).unwrap();
    Bundle::seal(&staged, &spec()).unwrap();
    staged.commit(false).unwrap();
    target
}

#[test]
fn the_source_of_golden_values_is_fit_to_be_printed() {
    let dir = tempfile::tempdir().unwrap();
    let golden = Golden { source: "\u{1b}[31m".into(), ..golden(&spec()) };
    let error = Golden::read(&written(&golden, dir.path()), &spec()).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Golden(_)), "{error}");
}

/// A bundle has the graphs that its model has, and no other: one that nobody runs is one that nobody checks.
#[test]
fn a_graph_that_the_model_does_not_have_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let target = bundle(dir.path());
    edit_spec(&target, |spec| {
        let dncnn = DnCnn { depth: 3, width: 4, norm: Norm::None, biases: false };
        (spec.architecture, spec.task, spec.classes) = (dncnn.into(), Task::Denoising, Vec::new());
    });
    let error = Bundle::open(&target).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::FileName(name) if name == FORWARD), "{error}");
    edit_spec(&target, |spec| drop(spec.files.remove(FORWARD)));
    let error = Bundle::open(&target).unwrap_err().to_string();
    assert!(error.contains("`forward.onnx` is not listed"), "{error}");
    fs::remove_file(target.join(FORWARD)).unwrap();
    Bundle::open(&target).unwrap();
}

fn edit_spec(dir: &Path, change: impl Fn(&mut Spec)) {
    let path = dir.join(SPEC);
    let mut spec = Spec::read(&path).unwrap();
    change(&mut spec);
    fs::write(path, spec.to_json()).unwrap();
}

#[test]
fn a_bundle_is_read_as_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = Bundle::open(&bundle(dir.path())).unwrap();
    bundle.verify_digests().unwrap();
    assert_eq!(bundle.golden().unwrap(), golden(&spec()));
    let files: Vec<_> = bundle.spec().files.keys().map(String::as_str).collect();
    assert_eq!(files, [DENOISER, FORWARD, GOLDEN, MODEL]);
    let expected = Spec { files: bundle.spec().files.clone(), ..spec() };
    assert_eq!(*bundle.spec(), expected);
}

#[test]
fn a_changed_byte_in_any_file_is_found_by_its_digest() {
    let dir = tempfile::tempdir().unwrap();
    let target = bundle(dir.path());
    for name in [FORWARD, DENOISER, MODEL, GOLDEN] {
        let path = target.join(name);
        let bytes = fs::read(&path).unwrap();
        let mut changed = bytes.clone();
        *changed.last_mut().unwrap() ^= 1;
        fs::write(&path, changed).unwrap();
        let bundle = Bundle::open(&target).unwrap();
        let mut errors = vec![bundle.verify_digests().unwrap_err()];
        errors.extend((name == GOLDEN).then(|| bundle.golden().unwrap_err()));
        for error in errors {
            assert!(matches!(error.kind(), ErrorKind::Digest { .. }), "{error}");
            assert_eq!(error.path(), Some(path.as_path()));
        }
        fs::write(&path, bytes).unwrap();
    }
    Bundle::open(&target).unwrap().verify_digests().unwrap();
}

/// A bundle is a checkpoint, as long as its parameters are those that were sealed with it.
#[test]
fn a_bundle_is_read_as_a_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let plain = Checkpoint { golden: None, ..checkpoint() };
    let target = dir.path().join("bundle");
    let staged = plain.stage(&target).unwrap();
    for name in [FORWARD, DENOISER] {
        staged.write(name, name.as_bytes()).unwrap();
    }
    staged.write(GOLDEN, &golden(&spec()).serialise().unwrap()).unwrap();
    Bundle::seal(&staged, &spec()).unwrap();
    staged.commit(false).unwrap();
    assert_eq!(Checkpoint::read(&target).unwrap().parameters, plain.parameters);

    let path = target.join(MODEL);
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = Checkpoint::read(&target).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Digest { .. }), "{error}");

    fs::remove_file(&path).unwrap();
    edit_spec(&target, |s| drop(s.files.remove(MODEL)));
    let error = Checkpoint::read(&target).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::NoParameters), "{error}");
    assert_eq!(error.path(), Some(path.as_path()));
}

#[test]
fn a_missing_file_is_named() {
    for name in [SPEC, FORWARD, DENOISER, GOLDEN, MODEL] {
        let dir = tempfile::tempdir().unwrap();
        let target = bundle(dir.path());
        fs::remove_file(target.join(name)).unwrap();
        let error = Bundle::open(&target).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Missing), "{error}");
        assert_eq!(error.path(), Some(target.join(name).as_path()));
    }
}

#[test]
fn a_required_file_that_is_not_listed_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let target = bundle(dir.path());
    edit_spec(&target, |s| drop(s.files.remove(FORWARD)));
    let error = Bundle::open(&target).unwrap_err().to_string();
    assert!(error.contains("field `files`") && error.contains(FORWARD), "{error}");
}

/// Weights without a digest could be replaced unnoticed.
#[test]
fn weights_that_are_there_and_not_listed_are_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let target = bundle(dir.path());
    edit_spec(&target, |s| drop(s.files.remove(MODEL)));
    let error = Bundle::open(&target).unwrap_err().to_string();
    assert!(error.contains("field `files`") && error.contains(MODEL), "{error}");
}

#[test]
fn a_path_that_leaves_the_bundle_is_rejected() {
    for name in ["../secret", "/etc/passwd", "sub/forward.onnx", "..", ""] {
        let dir = tempfile::tempdir().unwrap();
        let target = bundle(dir.path());
        edit_spec(&target, |s| drop(s.files.insert(name.into(), "0".repeat(64))));
        let error = Bundle::open(&target).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::FileName(n) if n == name), "{error}");
    }
}

#[cfg(unix)]
#[test]
fn a_symbolic_link_in_a_bundle_is_rejected() {
    for name in [SPEC, FORWARD, DENOISER, GOLDEN, MODEL] {
        let dir = tempfile::tempdir().unwrap();
        let target = bundle(dir.path());
        let (path, outside) = (target.join(name), dir.path().join("outside"));
        fs::rename(&path, &outside).unwrap();
        std::os::unix::fs::symlink(&outside, &path).unwrap();
        let error = Bundle::open(&target).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::NotRegular), "{name}: {error}");
        assert_eq!(error.path(), Some(path.as_path()));
    }
}

#[test]
fn a_folder_in_place_of_a_file_is_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let target = bundle(dir.path());
    fs::remove_file(target.join(FORWARD)).unwrap();
    fs::create_dir(target.join(FORWARD)).unwrap();
    let error = Bundle::open(&target).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::NotRegular), "{error}");
}

#[test]
fn an_oversized_graph_is_rejected_before_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let target = bundle(dir.path());
    fs::File::create(target.join(DENOISER)).unwrap().set_len(MAX_TENSOR_BYTES + 1).unwrap();
    let error = Bundle::open(&target).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::TooLarge { .. }), "{error}");
}

#[test]
fn a_bundle_without_its_graphs_is_not_sealed() {
    let dir = tempfile::tempdir().unwrap();
    let staged = StagedDir::new(&dir.path().join("bundle")).unwrap();
    let error = Bundle::seal(&staged, &spec()).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Missing), "{error}");
}

/// Names must be unique, or a safetensors file could not hold the list.
#[test]
fn no_two_parameters_share_a_name() {
    let list = parameters::parameters(&spec().architecture, 2);
    let names: std::collections::BTreeSet<_> = list.iter().map(|p| &p.name).collect();
    assert_eq!(names.len(), list.len());
}

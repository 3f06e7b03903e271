//! `spec.json`: what it accepts, and that a rejection names the field.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod common;

use common::spec;
use gradresnet_models::spec::{MAX_PARAMETERS, MAX_SPEC_BYTES};
use gradresnet_models::{
    Architecture, ErrorKind, Norm, SideConnections, SigmaRange, Spec, Stem, Task, parameters,
};

#[test]
fn a_spec_is_read_as_it_was_written() {
    let mut plain = spec();
    (plain.image_size, plain.provenance) = (None, None);
    plain.metrics.clear();
    for spec in [spec(), plain] {
        assert_eq!(Spec::parse(spec.to_json().as_bytes()).unwrap(), spec);
    }
}

type Change = fn(&mut Spec);

#[test]
fn every_rule_names_its_field() {
    let rules: &[(&str, Change)] = &[
        ("name", |s| s.name = String::new()),
        ("name", |s| s.name = "a".repeat(65)),
        ("name", |s| s.name = "../etc".into()),
        ("name", |s| s.name = ".hidden".into()),
        ("architecture.width", |s| s.architecture.width = 0),
        ("architecture.width", |s| s.architecture.width = 1025),
        ("architecture.width", |s| s.architecture.width = 5),
        ("architecture.blocks", |s| s.architecture.blocks = vec![]),
        ("architecture.blocks", |s| s.architecture.blocks = vec![1; 7]),
        ("architecture.blocks", |s| s.architecture.blocks = vec![1, 0]),
        ("architecture.blocks", |s| s.architecture.blocks = vec![65]),
        ("architecture.group_size", |s| s.architecture.group_size = 0),
        ("architecture.group_size", |s| s.architecture.group_size = 1025),
        ("architecture.group_size", |s| (s.architecture.norm, s.architecture.group_size) = (Norm::Group, 3)),
        ("architecture.group_size", |s| {
            (s.architecture.norm, s.architecture.group_size) = (Norm::Homogeneous, 8)
        }),
        ("architecture.centre", |s| s.architecture.centre = f64::NAN),
        ("architecture.centre", |s| s.architecture.centre = -1001.0),
        ("architecture.scale", |s| s.architecture.scale = 0.0),
        ("architecture.scale", |s| s.architecture.scale = -1.0),
        ("architecture.scale", |s| s.architecture.scale = f64::INFINITY),
        ("architecture", |s| (s.architecture.width, s.architecture.blocks) = (1024, vec![1, 1, 1])),
        ("classes", |s| s.classes = (0..=1 << 16).map(|i| i.to_string()).collect()),
        ("classes", |s| s.classes = vec!["cat".into(), "cat".into()]),
        ("classes", |s| s.classes = vec!["cat".into(), String::new()]),
        ("classes", |s| s.classes = vec!["cat".into(), "dog\x1b[2J".into()]),
        ("classes", |s| s.classes = vec!["cat".into()]),
        ("classes", |s| (s.task, s.classes) = (Task::Classification, vec![])),
        ("image_size", |s| s.image_size = Some(0)),
        ("image_size", |s| s.image_size = Some(33)),
        ("image_size", |s| s.image_size = Some((1 << 14) + 2)),
        ("sigma", |s| s.sigma.min = -0.1),
        ("sigma", |s| s.sigma = SigmaRange { min: 0.2, max: 0.1 }),
        ("sigma", |s| s.sigma.max = f64::NAN),
        ("sigma", |s| s.sigma.max = 1001.0),
        ("metrics", |s| s.metrics[0].value = f64::NAN),
        ("metrics", |s| s.metrics[0].sigma = Some(f64::INFINITY)),
    ];
    spec().validate().unwrap();
    for (i, (expected, change)) in rules.iter().enumerate() {
        let mut spec = spec();
        change(&mut spec);
        let error = spec.validate().expect_err(&format!("rule {i}, `{expected}`"));
        let ErrorKind::Field { field, .. } = error.kind() else { panic!("rule {i}: {error}") };
        assert_eq!(field, expected, "rule {i}: {error}");
    }
}

#[test]
fn what_the_rules_do_not_forbid_is_accepted() {
    let accepted: &[Change] = &[
        |s| (s.task, s.classes) = (Task::Denoising, vec![]),
        // Without side connections nothing is halved, and without groups nothing is divided.
        |s| (s.architecture.width, s.architecture.side_connections) = (5, SideConnections::None),
        |s| s.architecture.blocks = vec![1; 6],
        |s| s.image_size = Some(1 << 10),
        |s| s.sigma = SigmaRange { min: 0.0, max: 0.0 },
    ];
    for change in accepted {
        let mut spec = spec();
        change(&mut spec);
        if let Some(size) = &mut spec.image_size {
            *size = size.next_multiple_of(spec.architecture.stride());
        }
        spec.validate().unwrap();
    }
}

/// The widest and deepest network that the single fields allow is far over the limit; counting its
/// parameters must not overflow.
#[test]
fn the_largest_architecture_is_counted_without_overflow() {
    let mut spec = spec();
    spec.architecture = Architecture {
        width: 1024,
        blocks: vec![64; 6],
        norm: Norm::Group,
        stem: Stem::Imagenet,
        ..spec.architecture
    };
    spec.image_size = None;
    spec.classes = (0..1 << 16).map(|i| i.to_string()).collect();
    let list = parameters::parameters(&spec.architecture, spec.classes.len());
    let count: u128 = list.iter().map(|p| p.shape.iter().map(|&d| d as u128).product::<u128>()).sum();
    assert!(count > u128::from(MAX_PARAMETERS));
    let error = spec.validate().unwrap_err().to_string();
    assert!(error.contains("`architecture`") && error.contains(&count.to_string()), "{error}");
}

#[test]
fn a_newer_format_is_named_before_its_unknown_fields() {
    let error = Spec::parse(br#"{"format": 2, "invented": true}"#).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Format { found: 2, known: 1 }), "{error}");
}

#[test]
fn an_unknown_field_is_rejected() {
    for (before, after) in [("\"name\"", "\"nom\": 1, \"name\""), ("\"width\"", "\"depth\": 1, \"width\"")] {
        let text = spec().to_json().replacen(before, after, 1);
        let error = Spec::parse(text.as_bytes()).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Json(_)), "{error}");
    }
}

#[test]
fn a_nan_does_not_survive_as_null() {
    let mut spec = spec();
    spec.sigma.max = f64::NAN;
    assert!(Spec::parse(spec.to_json().as_bytes()).is_err());
}

#[test]
fn an_oversized_spec_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("spec.json");
    std::fs::write(&path, vec![b' '; MAX_SPEC_BYTES as usize + 1]).unwrap();
    let error = Spec::read(&path).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::TooLarge { .. }), "{error}");
    assert_eq!(error.path(), Some(path.as_path()));
}

/// The figures of the paper's network: f̄ has 512 + 128 + 64 + 32 numbers, ResNet-18 about 11 million
/// parameters.
#[test]
fn the_papers_network_has_the_papers_size() {
    let architecture = Architecture {
        width: 64,
        blocks: vec![2, 2, 2, 2],
        side_connections: SideConnections::Stages,
        ..Architecture::default()
    };
    assert_eq!(architecture.features(), 736);
    assert_eq!(architecture.stride(), 8);
    let list = parameters::parameters(&architecture, 10);
    let head = list.iter().find(|p| p.name == "head.weight").unwrap();
    assert_eq!(head.shape, [10, 736]);
    let count: usize = list.iter().map(|p| p.len()).sum();
    assert!((11_000_000..11_400_000).contains(&count), "{count}");
}

//! `spec.json`: what it accepts, and that a rejection names the field.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod common;

use common::spec;
use gradresnet_models::architecture::{DnCnn, DruNet, Energy, GradResNet, ResNet, SideConnections};
use gradresnet_models::spec::{MAX_PARAMETERS, MAX_SPEC_BYTES};
use gradresnet_models::{
    Activation, Architecture, ErrorKind, Graph, Norm, Port, SigmaRange, Spec, Stem, Task, parameters,
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

/// The fields of a spec that has a GradResNet.
fn net(spec: &mut Spec) -> &mut GradResNet {
    match &mut spec.architecture {
        Architecture::GradResNet(a) => a,
        other => panic!("{other:?}"),
    }
}

/// The spec of a classifier.
fn resnet(change: impl Fn(&mut ResNet)) -> impl Fn(&mut Spec) {
    move |spec| {
        let mut a = ResNet {
            stem: Stem::Cifar,
            max_pool: false,
            width: 64,
            blocks: vec![2, 2, 2, 2],
            norm: Norm::Batch,
            group_size: 8,
            activation: Activation::Relu,
            energy: Energy::None,
            centre: 0.5,
            scale: 4.0,
        };
        change(&mut a);
        (spec.architecture, spec.task) = (a.into(), Task::Classification);
    }
}

fn dncnn() -> DnCnn {
    DnCnn { depth: 20, width: 64, norm: Norm::Batch, biases: true }
}

fn drunet() -> DruNet {
    DruNet { width: 64, blocks: 4, noise_map: true }
}

/// The spec with this change breaks a rule about the field `expected`.
fn is_refused(rule: usize, expected: &str, change: impl Fn(&mut Spec)) {
    let mut spec = spec();
    change(&mut spec);
    let error = spec.validate().expect_err(&format!("rule {rule}, `{expected}`"));
    let ErrorKind::Field { field, .. } = error.kind() else { panic!("rule {rule}: {error}") };
    assert_eq!(*field, expected, "rule {rule}: {error}");
}

#[test]
fn every_rule_names_its_field() {
    let rules: &[(&str, Change)] = &[
        ("name", |s| s.name = String::new()),
        ("name", |s| s.name = "a".repeat(65)),
        ("name", |s| s.name = "../etc".into()),
        ("name", |s| s.name = ".hidden".into()),
        ("architecture.width", |s| net(s).width = 0),
        ("architecture.width", |s| net(s).width = 1025),
        ("architecture.width", |s| net(s).width = 5),
        ("architecture.blocks", |s| net(s).blocks = vec![]),
        ("architecture.blocks", |s| net(s).blocks = vec![1; 7]),
        ("architecture.blocks", |s| net(s).blocks = vec![1, 0]),
        ("architecture.blocks", |s| net(s).blocks = vec![65]),
        ("architecture.group_size", |s| net(s).group_size = 0),
        ("architecture.group_size", |s| net(s).group_size = 1025),
        ("architecture.group_size", |s| (net(s).norm, net(s).group_size) = (Norm::Group, 3)),
        ("architecture.group_size", |s| (net(s).norm, net(s).group_size) = (Norm::Homogeneous, 8)),
        ("architecture.centre", |s| net(s).centre = f64::NAN),
        ("architecture.centre", |s| net(s).centre = -1001.0),
        ("architecture.scale", |s| net(s).scale = 0.0),
        ("architecture.scale", |s| net(s).scale = -1.0),
        ("architecture.scale", |s| net(s).scale = f64::INFINITY),
        ("architecture", |s| (net(s).width, net(s).blocks) = (1024, vec![1, 1, 1])),
        ("classes", |s| s.classes = (0..=1 << 16).map(|i| i.to_string()).collect()),
        ("classes", |s| s.classes = vec!["cat".into(), "cat".into()]),
        ("classes", |s| s.classes = vec!["cat".into(), String::new()]),
        ("classes", |s| s.classes = vec!["cat".into(), "dog\x1b[2J".into()]),
        ("classes", |s| s.classes = vec!["cat".into()]),
        ("classes", |s| (s.task, s.classes) = (Task::Classification, vec![])),
        ("image_size", |s| s.image_size = Some(0)),
        ("image_size", |s| s.image_size = Some(33)),
        ("image_size", |s| s.image_size = Some((1 << 10) + 2)),
        ("sigma", |s| s.sigma.min = -0.1),
        ("sigma", |s| s.sigma = SigmaRange { min: 0.2, max: 0.1 }),
        ("sigma", |s| s.sigma.max = f64::NAN),
        ("sigma", |s| s.sigma.max = 1001.0),
        ("provenance.cpu_hours", |s| s.provenance.as_mut().unwrap().cpu_hours = -1.0),
        ("provenance.cpu_hours", |s| s.provenance.as_mut().unwrap().cpu_hours = 1e306),
        ("metrics", |s| s.metrics[0].value = f64::NAN),
        ("metrics", |s| s.metrics[0].sigma = Some(f64::INFINITY)),
    ];
    spec().validate().unwrap();
    for (i, (expected, change)) in rules.iter().enumerate() {
        is_refused(i, expected, change);
    }
}

#[test]
fn what_the_rules_do_not_forbid_is_accepted() {
    let accepted: &[Change] = &[
        |s| (s.task, s.classes) = (Task::Denoising, vec![]),
        // Without side connections nothing is halved, and without groups nothing is divided.
        |s| (net(s).width, net(s).side_connections) = (5, SideConnections::None),
        |s| net(s).blocks = vec![1; 6],
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

/// The widest and deepest network that each field by itself allows is far over the limit; counting its
/// parameters must not overflow.
#[test]
fn the_largest_architecture_is_counted_without_overflow() {
    let mut spec = spec();
    let a = GradResNet { width: 1024, blocks: vec![64; 6], stem: Stem::Imagenet, ..GradResNet::default() };
    spec.architecture = a.into();
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

/// A message reaches a terminal, which obeys escape sequences.
#[test]
fn a_message_holds_no_control_character_of_the_file() {
    for text in [r#"{"format": 1, "\u001b[31mX": 1}"#, r#"{"format": 1, "\nX": 1}"#] {
        let message = Spec::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(message.contains('X') && !message.contains(char::is_control), "{message:?}");
    }
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
    let architecture = GradResNet {
        width: 64,
        blocks: vec![2, 2, 2, 2],
        side_connections: SideConnections::Stages,
        ..GradResNet::default()
    };
    assert_eq!(architecture.features(), 736);
    let architecture = Architecture::from(architecture);
    assert_eq!(architecture.stride(), 8);
    let list = parameters::parameters(&architecture, 10);
    let head = list.iter().find(|p| p.name == "head.weight").unwrap();
    assert_eq!(head.shape, [10, 736]);
    let count: usize = list.iter().map(|p| p.len()).sum();
    assert!((11_000_000..11_400_000).contains(&count), "{count}");
}

/// Parameters as published: torchvision's ResNet-18 has 11,689,512 for 1000 classes, the one for CIFAR
/// 11,173,962 for ten; colour DnCNN of 20 layers 0.67 million, DRUNet 32.6 million.
#[test]
fn the_baselines_have_their_published_sizes() {
    let count = |architecture: Architecture, classes| -> usize {
        let list = parameters::parameters(&architecture, classes);
        list.iter().filter(|p| p.is_trained()).map(|p| p.len()).sum()
    };
    let mut classifier = spec();
    resnet(|_| ())(&mut classifier);
    assert_eq!(count(classifier.architecture.clone(), 10), 11_173_962);
    resnet(|a| (a.stem, a.max_pool) = (Stem::Imagenet, true))(&mut classifier);
    assert_eq!(count(classifier.architecture.clone(), 1000), 11_689_512);
    assert_eq!(classifier.architecture.stride(), 32);
    assert_eq!(count(dncnn().into(), 0), 669_379);
    assert_eq!(count(drunet().into(), 0), 32_640_960);
}

#[test]
fn multiply_adds_are_those_of_the_kernels() {
    // The sum over convolutions of the kernel's size times the output's pixels, per image pixel.
    let direct = |a: Architecture| {
        let pixels = |name: &str| -> f64 {
            let scale = |prefix: &str| name.strip_prefix(prefix)?.split('.').next()?.parse::<i32>().ok();
            match (scale("down."), scale("up.")) {
                // A strided convolution outputs the pixels of the scale below; its transpose takes them.
                (Some(s), _) | (_, Some(s)) if name.contains(".stride") => 0.25f64.powi(s + 1),
                (Some(s), _) | (_, Some(s)) => 0.25f64.powi(s),
                _ if name.starts_with("body") => 0.25f64.powi(3),
                _ => 1.0,
            }
        };
        let list = parameters::parameters(&a, 0);
        list.iter().filter(|p| p.shape.len() == 4).map(|p| p.len() as f64 * pixels(&p.name)).sum::<f64>()
    };
    for a in [dncnn().into(), drunet().into()] {
        let found = Architecture::multiply_adds_per_pixel(&a);
        assert!((found / direct(a) - 1.0).abs() < 1e-12);
    }
}

#[test]
fn features_are_those_of_the_stem_and_the_blocks() {
    let mut spec = spec();
    let mut features = |width, blocks: &[usize], stem| {
        let Architecture::GradResNet(a) = &mut spec.architecture else { unreachable!() };
        (a.width, a.blocks, a.stem) = (width, blocks.to_vec(), stem);
        spec.architecture.features_per_pixel()
    };
    // 48 channels in the stem and in the first stage, 96 at a quarter of the pixels, 192 at a sixteenth.
    assert_eq!(features(48, &[1, 1, 1], Stem::Cifar), 48.0 + 48.0 + 96.0 / 4.0 + 192.0 / 16.0);
    assert_eq!(features(16, &[2, 2, 2, 2], Stem::Cifar), 16.0 + 32.0 + 16.0 + 8.0 + 4.0);
    assert_eq!(features(64, &[1], Stem::Imagenet), 2.0 * 64.0 / 4.0);
}

#[test]
fn rules_of_the_other_families_name_their_field() {
    type Rule = (&'static str, Box<dyn Fn(&mut Spec)>);
    let rules: Vec<Rule> = vec![
        ("task", Box::new(|s| (resnet(|_| ())(s), s.task = Task::Joint).1)),
        ("classes", Box::new(|s| (resnet(|_| ())(s), s.classes.clear()).1)),
        ("classes", Box::new(|s| (s.architecture, s.task) = (dncnn().into(), Task::Denoising))),
        ("architecture.max_pool", Box::new(resnet(|a| (a.max_pool, a.energy) = (true, Energy::LogSumExp)))),
        ("architecture.width", Box::new(resnet(|a| a.width = 0))),
        ("architecture.group_size", Box::new(resnet(|a| (a.norm, a.group_size) = (Norm::Group, 5)))),
        ("architecture.depth", Box::new(|s| s.architecture = DnCnn { depth: 2, ..dncnn() }.into())),
        ("architecture.norm", Box::new(|s| s.architecture = DnCnn { norm: Norm::Group, ..dncnn() }.into())),
        ("architecture.blocks", Box::new(|s| s.architecture = DruNet { blocks: 0, ..drunet() }.into())),
    ];
    for (i, (expected, change)) in rules.iter().enumerate() {
        is_refused(i, expected, change);
    }
}

#[test]
fn each_family_has_its_graphs_and_ports() {
    let joint = spec();
    let mut classifier = spec();
    resnet(|_| ())(&mut classifier);
    let mut jem = spec();
    resnet(|a| a.energy = Energy::LogSumExp)(&mut jem);
    jem.task = Task::Joint;
    let denoiser = |architecture| Spec { architecture, task: Task::Denoising, classes: vec![], ..spec() };
    let (blind, told) = (denoiser(dncnn().into()), denoiser(drunet().into()));
    use Port::{ClassWeights, Denoised, Image, Logits, Sigma};
    for (spec, forward, backward) in [
        (
            joint,
            vec![Image, Logits, Port::Energy],
            vec![Image, Sigma, ClassWeights, Denoised, Logits, Port::Energy],
        ),
        (
            jem,
            vec![Image, Logits, Port::Energy],
            vec![Image, Sigma, ClassWeights, Denoised, Logits, Port::Energy],
        ),
        (classifier, vec![Image, Logits], vec![]),
        (blind, vec![], vec![Image, Denoised]),
        (told, vec![], vec![Image, Sigma, Denoised]),
    ] {
        spec.validate().unwrap();
        for (graph, expected) in [(Graph::Forward, forward), (Graph::Denoiser, backward)] {
            let found = if graph.is_of(&spec) {
                [graph.inputs(&spec), graph.outputs(&spec)].concat()
            } else {
                vec![]
            };
            assert_eq!(found, expected, "{graph} of {:?}", spec.architecture);
        }
    }
}

//! Networks with random parameters, for this crate's tests: every value of every field of the
//! architecture.

use gradresnet_models::architecture::{BlockForm, DnCnn, Energy, GradResNet, ResNet, SideConnections};
use gradresnet_models::parameters::parameters;
use gradresnet_models::{
    Activation, Architecture, Array, Checkpoint, Norm, ParameterKind, SigmaRange, Spec, Stem, Task, Tensors,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;

/// A checkpoint with random parameters and no golden values.
pub fn checkpoint(architecture: impl Into<Architecture>, classes: usize) -> Checkpoint {
    let architecture = architecture.into();
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let tensors: Tensors = parameters(&architecture, classes)
        .into_iter()
        .map(|p| {
            let fan_in: usize = p.shape[1..].iter().product();
            let (centre, spread) = match p.kind {
                ParameterKind::Gain | ParameterKind::RunningVariance => (1.0, 0.5),
                ParameterKind::Bias | ParameterKind::RunningMean => (0.0, 0.5),
                ParameterKind::Energy => (0.0, 1.0),
                _ => (0.0, (6.0 / fan_in as f32).sqrt()),
            };
            let values = (0..p.len()).map(|_| centre + spread * rng.random_range(-1.0..1.0f32)).collect();
            (p.name.clone(), Array::f32(&p.shape, values).unwrap())
        })
        .collect();
    let spec = Spec {
        format: gradresnet_models::spec::FORMAT,
        name: "random".into(),
        task: match (architecture.denoises(), classes) {
            (true, 0) => Task::Denoising,
            (true, _) => Task::Joint,
            (false, _) => Task::Classification,
        },
        architecture,
        classes: (0..classes).map(|i| format!("class{i}")).collect(),
        image_size: None,
        precision: gradresnet_models::Precision::Float32,
        sigma: SigmaRange { min: 0.0, max: 0.3 },
        provenance: None,
        metrics: Vec::new(),
        files: BTreeMap::new(),
    };
    Checkpoint { spec, parameters: tensors, golden: None }
}

/// The network that the others differ from.
pub fn base() -> GradResNet {
    GradResNet { width: 8, blocks: vec![1, 1], ..GradResNet::default() }
}

/// Networks with an energy, one of each kind.
pub fn all() -> Vec<Checkpoint> {
    let mut all = vec![checkpoint(base(), 0)];
    let mut add = |change: &dyn Fn(&mut GradResNet)| {
        let mut architecture = base();
        change(&mut architecture);
        all.push(checkpoint(architecture, 3));
    };
    for norm in [Norm::Group, Norm::Homogeneous, Norm::Batch, Norm::None] {
        for block in [BlockForm::Residual, BlockForm::Postact, BlockForm::End] {
            add(&|a| (a.norm, a.block, a.biases) = (norm, block, block == BlockForm::Postact));
        }
    }
    for activation in [Activation::Relu, Activation::Silu] {
        add(&|a| a.activation = activation);
    }
    for side in [SideConnections::None, SideConnections::Stages] {
        add(&|a| a.side_connections = side);
    }
    add(&|a| (a.stem, a.blocks) = (Stem::Imagenet, vec![2]));
    all.push(checkpoint(ResNet { energy: Energy::LogSumExp, norm: Norm::None, ..resnet() }, 3));
    all.push(checkpoint(ResNet { energy: Energy::LogSumExp, activation: Activation::Silu, ..resnet() }, 3));
    all
}

/// Networks with one graph only.
pub fn single() -> Vec<Checkpoint> {
    let dncnn = |norm, biases| checkpoint(DnCnn { depth: 4, width: 8, norm, biases }, 0);
    vec![
        checkpoint(resnet(), 3),
        checkpoint(ResNet { stem: Stem::Imagenet, max_pool: true, norm: Norm::Group, ..resnet() }, 3),
        dncnn(Norm::Batch, true),
        dncnn(Norm::None, false),
    ]
}

fn resnet() -> ResNet {
    ResNet {
        stem: Stem::Cifar,
        max_pool: false,
        width: 8,
        blocks: vec![1, 1],
        norm: Norm::Batch,
        group_size: 8,
        activation: Activation::Relu,
        energy: Energy::None,
        centre: 0.5,
        scale: 2.0,
    }
}

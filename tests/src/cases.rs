//! Networks with random weights, and their inputs.

use gradresnet_models::architecture::{BlockForm, DnCnn, Energy, GradResNet, ResNet, SideConnections};
use gradresnet_models::{
    Activation, Architecture, Array, Bundle, Checkpoint, Norm, ParameterKind, SigmaRange, Spec, Stem, Task,
    parameters,
};
use gradresnet_train::golden::golden;
use gradresnet_train::nets::Network;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use std::collections::BTreeMap;
use tch::{Device, Kind};

/// A network to be built.
#[derive(Clone, Debug)]
pub struct Variant {
    /// What is special about it.
    pub name: String,
    /// The network.
    pub architecture: Architecture,
    /// Number of classes; 0 for none.
    pub classes: usize,
}

/// The class weights a (eq. 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClassWeights {
    /// a = 0: the unconditional denoiser D_u.
    Zero,
    /// a one-hot: the conditional denoiser D_c.
    OneHot,
    /// a = 3 for one class, −0.5 for the next: guidance.
    Scaled,
}

/// The inputs of one run, in float32.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// `[N, H, W]`.
    pub size: [usize; 3],
    /// `[N,3,H,W]`, image units.
    pub noisy: Vec<f32>,
    /// `[N]`, image units.
    pub sigma: Vec<f32>,
    /// `[N,C]`; empty without classes.
    pub class_weights: Vec<f32>,
}

/// The network that the others differ from in one thing or two: small, so that there can be many.
fn base() -> GradResNet {
    GradResNet {
        stem: Stem::Cifar,
        width: 8,
        blocks: vec![1, 1],
        block: BlockForm::Residual,
        norm: Norm::Group,
        group_size: 8,
        side_connections: SideConnections::Stem,
        activation: Activation::Gelu,
        biases: false,
        centre: 0.5,
        scale: 4.0,
    }
}

/// Every value of every field of a GradResNet, and the pairs that interact (block form × norm, biases × norm);
/// then the baselines.
pub fn variants() -> Vec<Variant> {
    let mut all = Vec::new();
    let mut add = |name: String, classes: usize, change: &dyn Fn(&mut GradResNet)| {
        let mut a = base();
        change(&mut a);
        all.push(Variant { name, architecture: a.into(), classes });
    };
    add("base".into(), 5, &|_| ());
    for norm in [Norm::Group, Norm::Homogeneous, Norm::Batch, Norm::None] {
        for block in [BlockForm::Residual, BlockForm::Postact, BlockForm::End] {
            add(format!("{block:?} {norm:?}"), 5, &|a| (a.block, a.norm) = (block, norm));
        }
        add(format!("biases {norm:?}"), 5, &|a| (a.biases, a.norm) = (true, norm));
    }
    for activation in [Activation::Relu, Activation::Silu] {
        add(format!("{activation:?}"), 5, &|a| a.activation = activation);
    }
    for side in [SideConnections::None, SideConnections::Stages] {
        add(format!("side connections {side:?}"), 5, &|a| a.side_connections = side);
    }
    add("no classes".into(), 0, &|_| ());
    add("imagenet stem".into(), 5, &|a| a.stem = Stem::Imagenet);
    add("width 24".into(), 5, &|a| a.width = 24);
    add("groups of 4".into(), 5, &|a| a.group_size = 4);
    add("one stage of two blocks".into(), 5, &|a| a.blocks = vec![2]);
    add("four stages".into(), 5, &|a| a.blocks = vec![2, 1, 1, 1]);
    add("neither centred nor scaled".into(), 5, &|a| (a.centre, a.scale) = (0.0, 1.0));
    // The shapes of the bundles that ship.
    add("photo".into(), 0, &|a| (a.width, a.blocks) = (48, vec![1, 1, 1]));
    add("photo-fast".into(), 0, &|a| (a.width, a.blocks) = (24, vec![1, 1, 1]));
    // The paper's, as far as described, at a small width.
    add("paper".into(), 10, &|a| {
        (a.block, a.side_connections, a.blocks) =
            (BlockForm::Postact, SideConnections::Stages, vec![2, 2, 2, 2]);
    });
    // All fields away from their defaults at once.
    add("all different".into(), 2, &|a| {
        *a = GradResNet {
            stem: Stem::Imagenet,
            width: 16,
            blocks: vec![1, 2, 1],
            block: BlockForm::End,
            norm: Norm::Homogeneous,
            group_size: 4,
            side_connections: SideConnections::Stages,
            activation: Activation::Silu,
            biases: true,
            centre: 0.25,
            scale: 2.0,
        };
    });

    let mut add = |name: &str, classes, architecture: Architecture| {
        all.push(Variant { name: name.into(), architecture, classes });
    };
    let resnet = ResNet {
        stem: Stem::Cifar,
        max_pool: false,
        width: 8,
        blocks: vec![2, 1],
        norm: Norm::Batch,
        group_size: 4,
        activation: Activation::Relu,
        energy: Energy::None,
        centre: 0.5,
        scale: 4.0,
    };
    add("ResNet", 5, resnet.clone().into());
    let pooled = ResNet { stem: Stem::Imagenet, max_pool: true, norm: Norm::Group, ..resnet.clone() };
    add("ResNet, imagenet stem, group norm", 5, pooled.into());
    let jem = ResNet { norm: Norm::None, energy: Energy::LogSumExp, activation: Activation::Silu, ..resnet };
    add("JEM", 5, jem.into());
    add("DnCNN", 0, DnCnn { depth: 5, width: 8, norm: Norm::Batch, biases: true }.into());
    let bare = DnCnn { depth: 4, width: 8, norm: Norm::None, biases: false };
    add("DnCNN without biases and norms", 0, bare.into());
    all
}

/// The sizes and class weights that `variant` is run on: everything for the base, two for the others.
pub fn inputs(variant: &Variant) -> Vec<(ClassWeights, Inputs)> {
    use ClassWeights::{OneHot, Scaled, Zero};
    let make = |size, weights| (weights, Inputs::new(variant, size, weights));
    if variant.name == "base" {
        let mut all = Vec::new();
        for size in [[1, 32, 32], [3, 32, 32], [1, 40, 64], [3, 40, 64]] {
            all.extend([Zero, OneHot, Scaled].map(|weights| make(size, weights)));
        }
        return all;
    }
    vec![make([3, 32, 32], Scaled), make([1, 40, 64], OneHot)]
}

impl Variant {
    /// A checkpoint with random parameters and its golden values, the same on every call.
    pub fn checkpoint(&self) -> Checkpoint {
        let net = Network::random(&self.architecture, self.classes, 1, Kind::Float, Device::Cpu);
        let mut tensors = net.to_tensors();
        // Initial gains, biases and statistics (0 or 1) would hide errors in their use.
        let mut rng = self.rng();
        for parameter in parameters::parameters(&self.architecture, self.classes) {
            let mut fill = |centre: f32, spread: f32| {
                let values =
                    (0..parameter.len()).map(|_| centre + spread * rng.random_range(-1.0..1.0f32)).collect();
                let array = Array::f32(&parameter.shape, values).expect("as many values as the shape has");
                tensors.insert(parameter.name.clone(), array);
            };
            match parameter.kind {
                ParameterKind::Gain | ParameterKind::RunningVariance => fill(1.0, 0.5),
                ParameterKind::Bias | ParameterKind::RunningMean => fill(0.0, 0.5),
                _ => {}
            }
        }
        // A fresh JEM changes an image by less than float32 resolves.
        if matches!(&self.architecture, Architecture::ResNet(a) if a.energy == Energy::LogSumExp) {
            for (_, array) in tensors.iter_mut().filter(|(name, _)| name.ends_with(".weight")) {
                let values = array.to_f64().iter().map(|v| 3.0 * *v as f32).collect();
                *array = Array::f32(array.shape(), values).expect("as many values as before");
            }
        }
        let spec = Spec {
            format: gradresnet_models::spec::FORMAT,
            name: "random".into(),
            architecture: self.architecture.clone(),
            task: match (self.architecture.denoises(), self.classes) {
                (true, 0) => Task::Denoising,
                (true, _) => Task::Joint,
                (false, _) => Task::Classification,
            },
            classes: (0..self.classes).map(|i| format!("class{i}")).collect(),
            image_size: None,
            precision: gradresnet_models::Precision::Float32,
            sigma: SigmaRange { min: 0.0, max: 0.3 },
            provenance: None,
            metrics: Vec::new(),
            files: BTreeMap::new(),
        };
        let golden = golden(&spec, &tensors);
        Checkpoint { spec, parameters: tensors, golden }
    }

    fn rng(&self) -> ChaCha8Rng {
        let mut seed = [0u8; 32];
        for (i, byte) in self.name.bytes().enumerate() {
            seed[i % 32] ^= byte;
        }
        ChaCha8Rng::from_seed(seed)
    }
}

impl Inputs {
    /// Smooth images with noise, at sizes rounded up to the network's stride.
    pub fn new(variant: &Variant, [batch, height, width]: [usize; 3], weights: ClassWeights) -> Inputs {
        let stride = variant.architecture.stride();
        let (height, width) = (height.next_multiple_of(stride), width.next_multiple_of(stride));
        let mut rng = variant.rng();
        let mut noisy = Vec::new();
        let mut sigma = Vec::new();
        let mut class_weights = Vec::new();
        for _ in 0..batch {
            let level: f32 = rng.random_range(0.05..0.3);
            for _ in 0..3 {
                let (along, across, phase) = (
                    rng.random_range(-0.4..0.4f32),
                    rng.random_range(-0.4..0.4f32),
                    rng.random_range(0.0..6.0f32),
                );
                for y in 0..height {
                    for x in 0..width {
                        let clean = 0.5 + 0.4 * (along * x as f32 + across * y as f32 + phase).sin();
                        let noise: f32 = StandardNormal.sample(&mut rng);
                        noisy.push(clean + level * noise);
                    }
                }
            }
            sigma.push(level);
            if variant.classes > 0 {
                let mut row = vec![0.0; variant.classes];
                let class = rng.random_range(0..variant.classes);
                match weights {
                    ClassWeights::Zero => {}
                    ClassWeights::OneHot => row[class] = 1.0,
                    ClassWeights::Scaled => {
                        row[class] = 3.0;
                        row[(class + 1) % variant.classes] = -0.5;
                    }
                }
                class_weights.extend(row);
            }
        }
        Inputs { size: [batch, height, width], noisy, sigma, class_weights }
    }
}

/// A variant's checkpoint, and the bundle that the exporter made of it.
#[derive(Debug)]
pub struct Model {
    /// Where it came from.
    pub variant: Variant,
    /// Its parameters.
    pub checkpoint: Checkpoint,
    /// Its graphs.
    pub bundle: Bundle,
    // Holds the bundle; removed on drop.
    _folder: tempfile::TempDir,
}

impl Model {
    /// Exports `variant` with random parameters.
    ///
    /// # Errors
    /// Those of the exporter.
    pub fn new(variant: Variant, options: &gradresnet_export::Options) -> anyhow::Result<Model> {
        let checkpoint = variant.checkpoint();
        let folder = tempfile::tempdir()?;
        let dir = folder.path().join("bundle");
        gradresnet_export::export(&checkpoint, &dir, options)?;
        let bundle = Bundle::open(&dir)?;
        Ok(Model { variant, checkpoint, bundle, _folder: folder })
    }
}

//! GradResNet (section 3.2): one network for log p(y, c), with the logits of log p(c|y) from its forward
//! pass and the score ∇log p(y) from its backward pass.
//!
//! [`Architecture`] says what each field means; this file is its reading on libtorch.

use super::norm;
use crate::convert::{from_array, to_array};
use gradresnet_models::parameters::{has_shortcut, parameters, side_connections};
use gradresnet_models::spec::NORM_EPSILON;
use gradresnet_models::{
    Activation, Architecture, BlockForm, Norm, Parameter, ParameterKind, SideConnections, Stem, Tensors,
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor};

/// Weight of the newest batch in the running statistics of a batch norm.
const BATCH_NORM_MOMENTUM: f64 = 0.1;

/// A network with its parameters.
#[derive(Debug)]
pub struct GradResNet {
    architecture: Architecture,
    list: Vec<Parameter>,
    tensors: BTreeMap<String, Tensor>,
}

/// What one forward pass yields for N images.
#[derive(Debug)]
pub struct Output {
    /// log p(y) without its constant, `[N]`, in nats (eq. 11).
    pub log_p: Tensor,
    /// `[N,C]` (eq. 10); `None` without classes.
    pub logits: Option<Tensor>,
}

/// What the denoiser graph yields.
#[derive(Debug)]
pub struct Denoised {
    /// y + σ² ∇_y [log p(y) + Σ_c a_c log p(c|y)], `[N,3,H,W]`, image units (eq. 7).
    pub denoised: Tensor,
    /// −log p(y) without its constant, `[N]`, in nats.
    pub energy: Tensor,
    /// `[N,C]`; `None` without classes.
    pub logits: Option<Tensor>,
}

/// Whether batch norms use, and move towards, the statistics of the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// They do.
    Training,
    /// They use their running statistics.
    Evaluation,
}

impl GradResNet {
    /// A network with random parameters: He's normal initialisation for convolutions, unit gains,
    /// zero biases, heads of variance 1/K. A function of the seed alone.
    pub fn random(
        architecture: &Architecture,
        classes: usize,
        seed: u64,
        kind: Kind,
        device: Device,
    ) -> GradResNet {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut normal = |shape: &[usize], deviation: f64| -> Tensor {
            let count = shape.iter().product();
            let values: Vec<f32> = (0..count)
                .map(|_| {
                    let unit: f64 = StandardNormal.sample(&mut rng);
                    (deviation * unit) as f32
                })
                .collect();
            let shape: Vec<i64> = shape.iter().map(|&d| d as i64).collect();
            Tensor::from_slice(&values).reshape(shape)
        };
        let ones = |shape: &[usize]| Tensor::ones([shape[0] as i64], (Kind::Float, Device::Cpu));
        let list = parameters(architecture, classes);
        let tensors = list
            .iter()
            .map(|p| {
                let fan_in: usize = p.shape[1..].iter().product();
                let tensor = match p.kind {
                    // A shortcut is linear: it keeps variance with gain 1, not He's √2.
                    ParameterKind::Convolution if p.shape[2] == 1 => {
                        normal(&p.shape, (1.0 / fan_in as f64).sqrt())
                    }
                    ParameterKind::Convolution => normal(&p.shape, (2.0 / fan_in as f64).sqrt()),
                    ParameterKind::Linear | ParameterKind::Head => {
                        normal(&p.shape, (1.0 / fan_in as f64).sqrt())
                    }
                    ParameterKind::Energy => normal(&p.shape, (1.0 / p.len() as f64).sqrt()),
                    ParameterKind::Gain | ParameterKind::RunningVariance => ones(&p.shape),
                    ParameterKind::Bias | ParameterKind::RunningMean => ones(&p.shape).zeros_like(),
                };
                (p.name.clone(), tensor.to_kind(kind).to_device(device).set_requires_grad(p.is_trained()))
            })
            .collect();
        GradResNet { architecture: architecture.clone(), list, tensors }
    }

    /// A network with given parameters, which must be those of the architecture (a
    /// [`gradresnet_models::Checkpoint`] has checked that); `None` if one is missing.
    pub fn from_tensors(
        architecture: &Architecture,
        classes: usize,
        values: &Tensors,
        kind: Kind,
        device: Device,
    ) -> Option<GradResNet> {
        let list = parameters(architecture, classes);
        let tensors = list
            .iter()
            .map(|p| {
                let tensor = from_array(values.get(&p.name)?).to_kind(kind).to_device(device);
                Some((p.name.clone(), tensor.set_requires_grad(p.is_trained())))
            })
            .collect::<Option<_>>()?;
        Some(GradResNet { architecture: architecture.clone(), list, tensors })
    }

    /// The parameters in float32, for a checkpoint.
    pub fn to_tensors(&self) -> Tensors {
        self.tensors.iter().map(|(name, t)| (name.clone(), to_array(&t.to_kind(Kind::Float)))).collect()
    }

    /// Names, shapes and kinds, in the order of the forward pass.
    pub fn list(&self) -> &[Parameter] {
        &self.list
    }

    /// The parameter of that name. Shares storage with the network.
    ///
    /// # Panics
    /// If [`GradResNet::list`] has no such name.
    pub fn parameter(&self, name: &str) -> &Tensor {
        &self.tensors[name]
    }

    /// A network with copies of the parameters.
    pub fn copy(&self) -> GradResNet {
        let copy = |(name, t): (&String, &Tensor)| {
            (name.clone(), t.detach().copy().set_requires_grad(t.requires_grad()))
        };
        GradResNet {
            architecture: self.architecture.clone(),
            list: self.list.clone(),
            tensors: self.tensors.iter().map(copy).collect(),
        }
    }

    /// Moves every parameter, in place, the fraction `weight` of the way to that of `target`, a network
    /// of the same architecture.
    pub fn move_towards(&self, target: &GradResNet, weight: f64) {
        let _no_grad = tch::no_grad_guard();
        for (name, tensor) in &self.tensors {
            let _ = tensor.shallow_clone().lerp_(&target.tensors[name], weight);
        }
    }

    /// Logits and log p of images `[N,3,H,W]` in image units; H and W multiples of the stride.
    pub fn forward(&self, image: &Tensor, phase: Phase) -> Output {
        let a = &self.architecture;
        let mean = |x: &Tensor| x.mean_dim([2i64, 3].as_slice(), false, None::<Kind>);

        let z = (image - a.centre) * a.scale;
        let (stride, padding) = match a.stem {
            Stem::Cifar => (1, 1),
            Stem::Imagenet => (2, 3),
        };
        let mut x = self.activation(&self.convolution("stem.conv", &z, stride, padding));

        // Pooled outputs of the stem and of all stages but the last, in the order of the forward pass.
        let mut pooled = Vec::new();
        if a.side_connections == SideConnections::Stem {
            pooled.push(mean(&x));
        }
        for (stage, &blocks) in a.blocks.iter().enumerate() {
            for block in 0..blocks {
                x = self.block(stage, block, &x, phase);
            }
            if a.side_connections != SideConnections::None && stage + 1 < a.blocks.len() {
                pooled.push(mean(&x));
            }
        }
        let mut features = vec![mean(&x)];
        for ((name, _), pooled) in side_connections(a).iter().zip(pooled.iter().rev()) {
            features.push(pooled.linear(&self.tensors[name], None::<&Tensor>));
        }
        let features = Tensor::cat(&features, 1);

        let (height, width) = (image.size()[2], image.size()[3]);
        let projection = features.mv(&self.tensors["energy.weight"]);
        Output {
            log_p: projection.square() * (-0.5 * (height * width) as f64),
            logits: self.tensors.get("head.weight").map(|head| features.linear(head, None::<&Tensor>)),
        }
    }

    /// ∇_y log p(y), with the graph that training differentiates a second time. `image` must require
    /// a gradient.
    pub fn score_for_training(&self, image: &Tensor) -> Tensor {
        let log_p = self.forward(image, Phase::Training).log_p.sum(None::<Kind>);
        Tensor::run_backward(&[log_p], &[image], true, true).remove(0)
    }

    /// The denoiser: forward and backward pass in one.
    ///
    /// `noisy` `[N,3,H,W]` and `sigma` `[N]` in image units; `class_weights` `[N,C]`, absent meaning zero.
    pub fn denoise(&self, noisy: &Tensor, sigma: &Tensor, class_weights: Option<&Tensor>) -> Denoised {
        let noisy = noisy.detach().set_requires_grad(true);
        let output = self.forward(&noisy, Phase::Evaluation);
        let mut objective = output.log_p.sum(None::<Kind>);
        if let (Some(weights), Some(logits)) = (class_weights, &output.logits) {
            objective += (weights * logits.log_softmax(1, None::<Kind>)).sum(None::<Kind>);
        }
        let gradient = Tensor::run_backward(&[objective], &[&noisy], false, false).remove(0);
        Denoised {
            denoised: noisy.detach() + sigma.square().view([-1, 1, 1, 1]) * gradient,
            energy: -output.log_p.detach(),
            logits: output.logits.map(|l| l.detach()),
        }
    }

    fn block(&self, stage: usize, block: usize, x: &Tensor, phase: Phase) -> Tensor {
        let path = format!("stages.{stage}.{block}");
        let changes = has_shortcut(stage, block);
        let stride = if changes { 2 } else { 1 };
        let h = self.activation(&self.convolution(&format!("{path}.conv1"), x, stride, 1));
        let h = self.convolution(&format!("{path}.conv2"), &h, 1, 1);
        let shortcut = if changes {
            let r = self.convolution(&format!("{path}.shortcut.conv"), x, stride, 0);
            self.norm(&format!("{path}.shortcut.norm"), &r, phase)
        } else {
            x.shallow_clone()
        };
        let norm = |x: &Tensor| self.norm(&format!("{path}.norm"), x, phase);
        match self.architecture.block {
            BlockForm::Residual => shortcut + norm(&h),
            BlockForm::Postact => self.activation(&(shortcut + norm(&h))),
            BlockForm::End => norm(&self.activation(&(shortcut + h))),
        }
    }

    fn convolution(&self, path: &str, x: &Tensor, stride: i64, padding: i64) -> Tensor {
        let weight = &self.tensors[&format!("{path}.weight")];
        let bias = self.tensors.get(&format!("{path}.bias"));
        x.conv2d(weight, bias, [stride, stride], [padding, padding], [1, 1], 1)
    }

    fn norm(&self, path: &str, x: &Tensor, phase: Phase) -> Tensor {
        let parameter = |name: &str| self.tensors.get(&format!("{path}.{name}"));
        let (Some(gain), bias) = (parameter("weight"), parameter("bias")) else {
            return x.shallow_clone();
        };
        let groups = gain.size()[0] / self.architecture.group_size as i64;
        match self.architecture.norm {
            Norm::None => x.shallow_clone(),
            Norm::Group => norm::group(x, groups, gain, bias, NORM_EPSILON),
            Norm::Homogeneous => norm::homogeneous(x, groups, gain, bias, NORM_EPSILON),
            Norm::Batch => x.batch_norm(
                Some(gain),
                bias,
                parameter("running_mean"),
                parameter("running_var"),
                phase == Phase::Training,
                BATCH_NORM_MOMENTUM,
                NORM_EPSILON,
                false,
            ),
        }
    }

    fn activation(&self, x: &Tensor) -> Tensor {
        match self.architecture.activation {
            Activation::Gelu => x.gelu("none"),
            Activation::Relu => x.relu(),
            Activation::Silu => x.silu(),
        }
    }
}

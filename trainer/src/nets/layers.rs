//! The parameters of a network by their path, and the layers that they belong to.

use super::{Phase, norm};
use crate::convert::{from_array, to_array};
use gradresnet_models::architecture::NORM_EPSILON;
use gradresnet_models::{Norm, Parameter, ParameterKind, Tensors};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor};

/// Weight of the newest batch in the running statistics of a batch norm.
const BATCH_NORM_MOMENTUM: f64 = 0.1;

#[derive(Debug)]
pub(super) struct Layers {
    list: Vec<Parameter>,
    tensors: BTreeMap<String, Tensor>,
    /// What convolutions compute in; parameters, norms and sums keep their own kind.
    convolutions: Kind,
}

impl Layers {
    /// Normal convolutions of variance `gain` over their fan-in, unit gains of norms, zero biases, heads of
    /// variance 1/K. A function of the seed alone.
    pub(super) fn random(list: Vec<Parameter>, gain: f64, seed: u64, kind: Kind, device: Device) -> Layers {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut normal = |shape: &[usize], variance: f64| -> Tensor {
            let values: Vec<f32> = (0..shape.iter().product())
                .map(|_| {
                    let unit: f64 = StandardNormal.sample(&mut rng);
                    (variance.sqrt() * unit) as f32
                })
                .collect();
            let shape: Vec<i64> = shape.iter().map(|&d| d as i64).collect();
            Tensor::from_slice(&values).reshape(shape)
        };
        let ones = |shape: &[usize]| Tensor::ones([shape[0] as i64], (Kind::Float, Device::Cpu));
        let tensors = list
            .iter()
            .map(|p| {
                let fan_in: usize = p.shape[1..].iter().product();
                let tensor = match p.kind {
                    // A shortcut is linear: no activation takes half of its variance.
                    ParameterKind::Convolution if p.shape[2] == 1 => {
                        normal(&p.shape, gain.min(1.0) / fan_in as f64)
                    }
                    ParameterKind::Convolution => normal(&p.shape, gain / fan_in as f64),
                    // Linear too, and its stride is its side: an output pixel has one tap for each channel.
                    ParameterKind::TransposedConvolution => {
                        normal(&p.shape, gain.min(1.0) / p.shape[0] as f64)
                    }
                    ParameterKind::Linear | ParameterKind::Head => normal(&p.shape, 1.0 / fan_in as f64),
                    ParameterKind::Energy => normal(&p.shape, 1.0 / p.len() as f64),
                    ParameterKind::Gain | ParameterKind::RunningVariance => ones(&p.shape),
                    ParameterKind::Bias | ParameterKind::RunningMean => ones(&p.shape).zeros_like(),
                };
                (p.name.clone(), tensor.to_kind(kind).to_device(device).set_requires_grad(p.is_trained()))
            })
            .collect();
        Layers { list, tensors, convolutions: kind }
    }

    /// `None` if a parameter is missing.
    pub(super) fn from_tensors(
        list: Vec<Parameter>,
        values: &Tensors,
        kind: Kind,
        device: Device,
    ) -> Option<Layers> {
        let tensors = list
            .iter()
            .map(|p| {
                let tensor = from_array(values.get(&p.name)?).to_kind(kind).to_device(device);
                Some((p.name.clone(), tensor.set_requires_grad(p.is_trained())))
            })
            .collect::<Option<_>>()?;
        Some(Layers { list, tensors, convolutions: kind })
    }

    pub(super) fn to_tensors(&self) -> Tensors {
        self.tensors.iter().map(|(name, t)| (name.clone(), to_array(&t.to_kind(Kind::Float)))).collect()
    }

    pub(super) fn list(&self) -> &[Parameter] {
        &self.list
    }

    pub(super) fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    pub(super) fn copy(&self) -> Layers {
        self.with(|t| t.detach().copy().set_requires_grad(t.requires_grad()))
    }

    /// With the same tensors.
    pub(super) fn shared(&self) -> Layers {
        self.with(Tensor::shallow_clone)
    }

    fn with(&self, tensor: impl Fn(&Tensor) -> Tensor) -> Layers {
        let tensors = self.tensors.iter().map(|(name, t)| (name.clone(), tensor(t))).collect();
        Layers { list: self.list.clone(), tensors, convolutions: self.convolutions }
    }

    pub(super) fn convolve_in(self, kind: Kind) -> Layers {
        Layers { convolutions: kind, ..self }
    }

    pub(super) fn move_towards(&self, target: &Layers, weight: f64) {
        let _no_grad = tch::no_grad_guard();
        for (name, tensor) in &self.tensors {
            let _ = tensor.shallow_clone().lerp_(&target.tensors[name], weight);
        }
    }

    /// The convolution at `path`, with its bias if it has one, in the kind of the parameters.
    pub(super) fn convolution(&self, path: &str, x: &Tensor, stride: i64, padding: i64) -> Tensor {
        self.convolution_unwidened(path, x, stride, padding)
            .to_kind(self.tensors[&format!("{path}.weight")].kind())
    }

    /// The convolution at `path` in the kind that convolutions compute in: for results that only an activation
    /// separates from the next convolution, which would round them to that kind anyway. (The second derivative of
    /// GELU, several operations in libtorch, is rounded after each.)
    pub(super) fn convolution_unwidened(&self, path: &str, x: &Tensor, stride: i64, padding: i64) -> Tensor {
        let weight = &self.tensors[&format!("{path}.weight")];
        let bias = self.get(&format!("{path}.bias"));
        let cast = |t: &Tensor| t.to_kind(self.convolutions);
        cast(x).conv2d(&cast(weight), bias.map(cast), [stride, stride], [padding, padding], [1, 1], 1)
    }

    /// The 2×2 transposed convolution of stride 2 at `path`.
    pub(super) fn upsample(&self, path: &str, x: &Tensor) -> Tensor {
        let weight = &self.tensors[&format!("{path}.weight")];
        let cast = |t: &Tensor| t.to_kind(self.convolutions);
        let y = cast(x).conv_transpose2d(&cast(weight), None::<&Tensor>, [2, 2], [0, 0], [0, 0], 1, [1, 1]);
        y.to_kind(weight.kind())
    }

    /// The linear map `path`.weight on `[N,K]`, with `path`.bias if there is one; `None` without a weight.
    pub(super) fn linear(&self, path: &str, x: &Tensor) -> Option<Tensor> {
        let weight = self.get(&format!("{path}.weight"))?;
        Some(x.linear(weight, self.get(&format!("{path}.bias"))))
    }

    /// The norm at `path`: the identity if it has no gain.
    pub(super) fn norm(&self, path: &str, kind: Norm, group_size: usize, x: &Tensor, phase: Phase) -> Tensor {
        let parameter = |name: &str| self.get(&format!("{path}.{name}"));
        let (Some(gain), bias) = (parameter("weight"), parameter("bias")) else {
            return x.shallow_clone();
        };
        let groups = gain.size()[0] / group_size as i64;
        match kind {
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
}

/// The mean over the image plane, `[N,C]`.
pub(super) fn mean(x: &Tensor) -> Tensor {
    x.mean_dim([2i64, 3].as_slice(), false, None::<Kind>)
}

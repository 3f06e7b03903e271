//! Networks, each built from a spec and written to read like its paper's figure.
//!
//! A [`Network`] is a family of [`gradresnet_models::Architecture`] with its parameters. What it yields
//! depends on the family: log p(y) and logits, logits alone, or a denoised image.

mod dncnn;
mod drunet;
mod gradresnet;
mod layers;
mod norm;
mod resnet;

use gradresnet_models::{Activation, Architecture, Norm, Parameter, Tensors, parameters::parameters};
use layers::Layers;
use tch::{Device, Kind, Tensor};

/// A network with its parameters.
#[derive(Debug)]
pub struct Network {
    architecture: Architecture,
    layers: Layers,
}

/// What one forward pass says of N images.
#[derive(Debug)]
pub struct Output {
    /// log p(y) without its constant, `[N]`, in nats (eq. 11); `None` without an energy.
    pub log_p: Option<Tensor>,
    /// `[N,C]` (eq. 10); `None` without classes.
    pub logits: Option<Tensor>,
}

/// What the graphs of an exported network yield.
#[derive(Debug)]
pub struct Outputs {
    /// y + σ² ∇_y [log p(y) + Σ_c a_c log p(c|y)] (eq. 7), or what a direct denoiser outputs, `[N,3,H,W]`,
    /// image units; `None` for a network that does not denoise.
    pub denoised: Option<Tensor>,
    /// −log p(y) without its constant, `[N]`, in nats.
    pub energy: Option<Tensor>,
    /// `[N,C]`; `None` without classes.
    pub logits: Option<Tensor>,
}

/// Whether batch norms use, and move towards, the statistics of the batch; and whether a score can be
/// differentiated again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// They do, and it can.
    Training,
    /// They use their running statistics, and it cannot.
    Evaluation,
}

impl Network {
    /// A network with random parameters: He's normal initialisation for convolutions (a smaller one in a DRUNet and in
    /// a ResNet without norms), unit gains, zero biases, heads of variance 1/K. A function of
    /// the seed alone.
    pub fn random(
        architecture: &Architecture,
        classes: usize,
        seed: u64,
        kind: Kind,
        device: Device,
    ) -> Network {
        let gain = convolution_gain(architecture);
        let layers = Layers::random(parameters(architecture, classes), gain, seed, kind, device);
        Network { architecture: architecture.clone(), layers }
    }

    /// A network with given parameters, which must be those of the architecture (a
    /// [`gradresnet_models::Checkpoint`] has checked that); `None` if one is missing.
    pub fn from_tensors(
        architecture: &Architecture,
        classes: usize,
        values: &Tensors,
        kind: Kind,
        device: Device,
    ) -> Option<Network> {
        let layers = Layers::from_tensors(parameters(architecture, classes), values, kind, device)?;
        Some(Network { architecture: architecture.clone(), layers })
    }

    /// The architecture.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// The parameters in float32, for a checkpoint.
    pub fn to_tensors(&self) -> Tensors {
        self.layers.to_tensors()
    }

    /// Names, shapes and kinds, in the order of the forward pass.
    pub fn list(&self) -> &[Parameter] {
        self.layers.list()
    }

    /// The parameter of that name, if [`Network::list`] has it. Shares storage with the network.
    pub fn parameter(&self, name: &str) -> Option<&Tensor> {
        self.layers.get(name)
    }

    /// A network with copies of the parameters.
    pub fn copy(&self) -> Network {
        Network { architecture: self.architecture.clone(), layers: self.layers.copy() }
    }

    /// Another handle on the network: the same parameters, for another thread.
    pub fn shared(&self) -> Network {
        Network { architecture: self.architecture.clone(), layers: self.layers.shared() }
    }

    /// The network with convolutions that compute in `kind`; parameters, norms, sums and outputs keep theirs.
    pub fn convolve_in(self, kind: Kind) -> Network {
        Network { layers: self.layers.convolve_in(kind), ..self }
    }

    /// Moves every parameter, in place, the fraction `weight` of the way to that of `target`, a network
    /// of the same architecture.
    pub fn move_towards(&self, target: &Network, weight: f64) {
        self.layers.move_towards(&target.layers, weight);
    }

    /// Log p and logits of images `[N,3,H,W]` in image units; H and W multiples of the stride. Neither for a
    /// direct denoiser.
    pub fn density(&self, image: &Tensor, phase: Phase) -> Output {
        match &self.architecture {
            Architecture::GradResNet(a) => gradresnet::forward(a, &self.layers, image, phase),
            Architecture::ResNet(a) => resnet::forward(a, &self.layers, image, phase),
            Architecture::DnCnn(_) | Architecture::DruNet(_) => Output { log_p: None, logits: None },
        }
    }

    /// What a direct denoiser makes of images `[N,3,H,W]` with noise levels `sigma` `[N]`; `None` for other
    /// families.
    fn direct(&self, noisy: &Tensor, sigma: &Tensor, phase: Phase) -> Option<Tensor> {
        match &self.architecture {
            Architecture::DnCnn(a) => Some(dncnn::denoise(a, &self.layers, noisy, phase)),
            Architecture::DruNet(a) => Some(drunet::denoise(a, &self.layers, noisy, sigma)),
            Architecture::GradResNet(_) | Architecture::ResNet(_) => None,
        }
    }

    /// The score at `noisy` `[N,3,H,W]`: ∇_y [log p(y) + Σ_c a_c log p(c|y)], with class weights a `[N,C]`,
    /// absent meaning zero; for a direct denoiser D, (D(y) − y)/σ², which is the same by Tweedie's formula
    /// (eq. 6). `sigma` `[N]` in image units. `None` for a network that does not denoise.
    ///
    /// In [`Phase::Training`] it can be differentiated by the parameters.
    pub fn score(
        &self,
        noisy: &Tensor,
        sigma: &Tensor,
        class_weights: Option<&Tensor>,
        phase: Phase,
    ) -> Option<Tensor> {
        if let Some(denoised) = self.direct(noisy, sigma, phase) {
            return Some((denoised - noisy) / sigma.square().view([-1, 1, 1, 1]));
        }
        let noisy = noisy.detach().set_requires_grad(true);
        let output = self.density(&noisy, phase);
        let differentiable = phase == Phase::Training;
        Some(gradient(&objective(&output, class_weights)?, &noisy, differentiable))
    }

    /// All that the network yields for `noisy` `[N,3,H,W]` and `sigma` `[N]` in image units; `class_weights`
    /// `[N,C]`, absent meaning zero.
    pub fn outputs(&self, noisy: &Tensor, sigma: &Tensor, class_weights: Option<&Tensor>) -> Outputs {
        if self.architecture.is_direct() {
            let denoised = tch::no_grad(|| self.direct(noisy, sigma, Phase::Evaluation));
            return Outputs { denoised, energy: None, logits: None };
        }
        let noisy = noisy.detach().set_requires_grad(true);
        let output = self.density(&noisy, Phase::Evaluation);
        let denoised = objective(&output, class_weights).map(|objective| {
            noisy.detach() + sigma.square().view([-1, 1, 1, 1]) * gradient(&objective, &noisy, false)
        });
        Outputs {
            denoised,
            energy: output.log_p.map(|log_p| -log_p.detach()),
            logits: output.logits.map(|l| l.detach()),
        }
    }
}

/// Σ_n [log p(y_n) + Σ_c a_nc log p(c|y_n)]; `None` without an energy.
pub fn objective(output: &Output, class_weights: Option<&Tensor>) -> Option<Tensor> {
    let mut objective = output.log_p.as_ref()?.sum(None::<Kind>);
    if let (Some(weights), Some(logits)) = (class_weights, &output.logits) {
        objective += (weights * logits.log_softmax(1, None::<Kind>)).sum(None::<Kind>);
    }
    Some(objective)
}

/// The gradient of a scalar with respect to `at`.
pub fn gradient(scalar: &Tensor, at: &Tensor, differentiable: bool) -> Tensor {
    Tensor::run_backward(&[scalar], &[at], differentiable, differentiable).remove(0)
}

/// The variance of a new convolution times its fan-in: 2 keeps that of a ReLU's input (He et al. 2015).
/// Without norms every residual block would then double it, so a DRUNet and JEM's ResNet start with the
/// variance that their authors' programs give them.
fn convolution_gain(architecture: &Architecture) -> f64 {
    match architecture {
        // Orthogonal, of gain 0.2.
        Architecture::DruNet(_) => 0.2 * 0.2,
        // PyTorch's default, uniform in ±1/√fan-in.
        Architecture::ResNet(a) if a.norm == Norm::None => 1.0 / 3.0,
        _ => 2.0,
    }
}

fn activation(kind: Activation, x: &Tensor) -> Tensor {
    match kind {
        Activation::Gelu => x.gelu("none"),
        Activation::Relu => x.relu(),
        Activation::Silu => x.silu(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gradresnet_models::architecture::{DnCnn, DruNet, Energy, ResNet, Stem};

    #[test]
    fn convolutions_start_with_the_variance_of_their_family() {
        let resnet = |norm| ResNet {
            stem: Stem::Cifar,
            max_pool: false,
            width: 16,
            blocks: vec![1, 1],
            norm,
            group_size: 8,
            activation: Activation::Relu,
            energy: Energy::None,
            centre: 0.5,
            scale: 4.0,
        };
        let dncnn = DnCnn { depth: 4, width: 16, norm: Norm::None, biases: false };
        let drunet = DruNet { width: 16, blocks: 1, noise_map: false };
        for (architecture, name, expected) in [
            (resnet(Norm::Batch).into(), "stages.0.0.1.conv.weight", 2.0),
            (resnet(Norm::None).into(), "stages.0.0.1.conv.weight", 1.0 / 3.0),
            (dncnn.into(), "layers.1.conv.weight", 2.0),
            (drunet.into(), "down.0.0.conv1.weight", 0.04),
        ] {
            let net = Network::random(&architecture, 0, 1, Kind::Double, Device::Cpu);
            let weight = net.parameter(name).unwrap();
            let found = weight.square().mean(None::<Kind>).double_value(&[]) * 9.0 * 16.0;
            // Five standard errors of the variance of a normal variable, 16·16·9 draws.
            assert!((found / expected - 1.0).abs() < 5.0 * (2.0 / 2304.0f64).sqrt(), "{name}: {found}");
        }
    }
}

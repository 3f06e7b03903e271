//! Projected gradient descent against a classifier, with the conventions of foolbox 3
//! (`LinfPGD`, `L2PGD`; Rauber et al. 2020), to be comparable.

use super::subject::{gradient, noise_like, norms};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// The ball that a perturbation stays in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Norm {
    /// No value of a pixel moves by more than ε.
    Linf,
    /// The Euclidean norm of the perturbation of an image is at most ε.
    L2,
}

/// An attack without its strength.
#[derive(Clone, Copy, Debug)]
pub struct Pgd {
    /// The ball.
    pub norm: Norm,
    /// Gradient steps.
    pub steps: usize,
    /// Length of a step over ε.
    pub relative_step: f64,
}

impl Pgd {
    /// foolbox's defaults: 40 steps of ε/30 for ℓ∞, 50 of ε/40 for ℓ2, from a random start. They move by at
    /// most 1.33 ε and 1.25 ε, too little to cross the ball from a start on the wrong side.
    pub fn foolbox(norm: Norm) -> Pgd {
        match norm {
            Norm::Linf => Pgd { norm, steps: 40, relative_step: 0.01 / 0.3 },
            Norm::L2 => Pgd { norm, steps: 50, relative_step: 0.025 },
        }
    }

    /// Images within `epsilon` (image units) of `clean` `[N,3,H,W]`, and in [0, 1], that raise the
    /// cross-entropy of `classes` `[N]` under `logits`, a differentiable function of images; `logits` is
    /// given the number of the step.
    ///
    /// The start is uniform in the ball; then steps along the gradient (its signs for ℓ∞, at unit norm for
    /// ℓ2), each projected to the ball and clipped. The last image counts, not the best one.
    pub fn attack(
        &self,
        logits: impl Fn(&Tensor, usize) -> Tensor,
        clean: &Tensor,
        classes: &Tensor,
        epsilon: f64,
        seed: u64,
    ) -> Tensor {
        if epsilon == 0.0 {
            return clean.shallow_clone();
        }
        let clip = |x: Tensor| x.clamp(0.0, 1.0).detach();
        let mut x = clip(clean + self.start(clean, seed) * epsilon);
        for step in 0..self.steps {
            let at = x.set_requires_grad(true);
            let loss =
                logits(&at, step).cross_entropy_loss::<Tensor>(classes, None, tch::Reduction::Sum, -100, 0.0);
            let direction = self.unit(&gradient(&loss, &at, false));
            let moved = at.detach() + direction * (self.relative_step * epsilon);
            x = clip(clean + self.project(&(moved - clean), epsilon));
        }
        x
    }

    /// Uniform in the unit ball.
    fn start(&self, like: &Tensor, seed: u64) -> Tensor {
        let normal = noise_like(like, seed, 0);
        match self.norm {
            // Φ of a normal number is uniform.
            Norm::Linf => (normal / 2f64.sqrt()).erf(),
            Norm::L2 => {
                // A point on a sphere of two more dimensions, without those (Voelker et al. 2017).
                let n = like.size()[0];
                let more = noise_like(&like.flatten(1, -1).narrow(1, 0, 2), seed, 1);
                let squares = norms(&normal).square() + norms(&more).square();
                normal / squares.sqrt().view([n, 1, 1, 1])
            }
        }
    }

    fn unit(&self, gradient: &Tensor) -> Tensor {
        match self.norm {
            Norm::Linf => gradient.sign(),
            Norm::L2 => gradient / norms(gradient).clamp_min(1e-12).view([-1, 1, 1, 1]),
        }
    }

    fn project(&self, perturbation: &Tensor, epsilon: f64) -> Tensor {
        match self.norm {
            Norm::Linf => perturbation.clamp(-epsilon, epsilon),
            Norm::L2 => {
                let factor = (norms(perturbation).clamp_min(1e-12).reciprocal() * epsilon).clamp_max(1.0);
                perturbation * factor.view([-1, 1, 1, 1])
            }
        }
    }
}

/// Logits whose softmax is the mean of the softmax over `draws` of noise with deviation `sigma` (image
/// units): randomised smoothing (section 5.1). With `sigma` 0 they are those of the network.
pub fn smoothed(
    logits: impl Fn(&Tensor) -> Tensor,
    image: &Tensor,
    sigma: f64,
    draws: usize,
    seed: u64,
) -> Tensor {
    if sigma == 0.0 {
        return logits(image);
    }
    let log_p: Vec<Tensor> = (0..draws)
        .map(|draw| {
            let noisy = image + noise_like(image, seed, draw as u64) * sigma;
            logits(&noisy).log_softmax(1, None::<Kind>)
        })
        .collect();
    Tensor::stack(&log_p, 0).logsumexp(0, false) - (draws as f64).ln()
}

#[cfg(test)]
mod tests {
    use super::super::subject::Model;
    use super::super::subject::tests::Quadratic;
    use super::*;
    use tch::Device;

    /// For a linear classifier of two classes the worst perturbation is known: along the difference d of the
    /// rows of B, changing the margin by ε‖d‖₁ or ε‖d‖₂.
    #[test]
    fn a_linear_classifier_loses_exactly_its_margin() {
        let net = Quadratic::random(12, 2);
        let clean = noise_like(&Tensor::zeros([4, 3, 2, 2], (Kind::Double, Device::Cpu)), 3, 0) * 0.05 + 0.5;
        let classes = Tensor::from_slice(&[0i64, 1, 0, 1]);
        let d = net.b.get(1) - net.b.get(0);
        let logit = |x: &Tensor| x.flatten(1, -1).mv(&d);
        let sign = &classes * 2 - 1;
        let epsilon = 0.1;
        for norm in [Norm::Linf, Norm::L2] {
            // foolbox's own number of steps does not cross the ball from every start.
            let attack = Pgd { steps: 200, ..Pgd::foolbox(norm) };
            let x = attack.attack(|x, _| net.forward(x).logits.unwrap(), &clean, &classes, epsilon, 7);
            let lost = (logit(&clean) - logit(&x)) * &sign;
            let dual = match norm {
                Norm::Linf => d.abs().sum(Kind::Double),
                Norm::L2 => d.norm(),
            };
            let expected = epsilon * dual.double_value(&[]);
            // Two hundred projected steps come this close to the best point of a sphere.
            assert!((lost / expected - 1.0).abs().max().double_value(&[]) < 2e-3, "{norm:?}");
            let size = match norm {
                Norm::Linf => (x - &clean).abs().max(),
                Norm::L2 => norms(&(x - &clean)).max(),
            };
            assert!(size.double_value(&[]) <= epsilon + 1e-12);
        }
    }

    #[test]
    fn images_stay_images_and_a_start_fills_the_ball() {
        let net = Quadratic::random(12, 2);
        let clean = Tensor::ones([64, 3, 2, 2], (Kind::Double, Device::Cpu));
        let classes = Tensor::zeros([64], (Kind::Int64, Device::Cpu));
        let attack = Pgd { steps: 0, ..Pgd::foolbox(Norm::L2) };
        let start = attack.start(&clean, 1);
        // The median radius of a uniform point of the 12-dimensional ball is 0.5^(1/12) = 0.944.
        let median = norms(&start).median().double_value(&[]);
        assert!((0.9..0.98).contains(&median), "{median}");
        let attack = Pgd::foolbox(Norm::Linf);
        let x = attack.attack(|x, _| net.forward(x).logits.unwrap(), &clean, &classes, 0.3, 0);
        assert!(x.max().double_value(&[]) <= 1.0 && x.min().double_value(&[]) >= 0.7 - 1e-12);
    }

    #[test]
    fn smoothing_averages_probabilities() {
        let net = Quadratic::random(12, 3);
        let image = Tensor::zeros([1, 3, 2, 2], (Kind::Double, Device::Cpu));
        let logits = |x: &Tensor| net.forward(x).logits.unwrap();
        let p = smoothed(logits, &image, 0.4, 5, 9).exp();
        assert!((p.sum(Kind::Double).double_value(&[]) - 1.0).abs() < 1e-12);
        let each = (0..5).map(|i| logits(&(noise_like(&image, 9, i) * 0.4)).softmax(1, Kind::Double));
        let mean = each.reduce(|a, b| a + b).unwrap() / 5.0;
        assert!((p - mean).abs().max().double_value(&[]) < 1e-12);
    }
}

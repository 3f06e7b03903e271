//! Muon: momentum, orthogonalised (Jordan et al. 2024, "Muon: An optimizer for hidden layers").
//!
//! The kernel of a convolution counts as a matrix of its output channels by everything else. The update
//! is the Nesterov momentum with its singular values brought near 1 by five Newton–Schulz iterations.

use crate::refusal::{Refusal, require};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Coefficients of the odd quintic polynomial that is iterated; chosen by its authors so that small
/// singular values grow fast and all end between 0.7 and 1.2.
const QUINTIC: [f64; 3] = [3.4445, -4.7750, 2.0315];
const ITERATIONS: usize = 5;

/// The rule's constants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Muon {
    /// Step size: the spectral norm of an update, but for a factor √(rows/columns) if it is tall.
    pub learning_rate: f64,
    /// Decay of the momentum.
    #[serde(default = "momentum")]
    pub momentum: f64,
    /// Decay of the weights, per unit of learning rate.
    #[serde(default)]
    pub weight_decay: f64,
}

fn momentum() -> f64 {
    0.95
}

impl Muon {
    pub(super) fn validate(&self) -> Result<(), Refusal> {
        require(
            self.learning_rate > 0.0 && self.learning_rate <= 10.0,
            "optimizer.muon.learning_rate",
            "must be above 0 and at most 10",
        )?;
        require(
            (0.0..1.0).contains(&self.momentum),
            "optimizer.muon.momentum",
            "must be at least 0 and below 1",
        )?;
        require((0.0..=1.0).contains(&self.weight_decay), "optimizer.muon.weight_decay", "must be 0 to 1")
    }

    pub(super) fn step(&self, parameter: &mut Tensor, gradient: &Tensor, state: &mut Tensor, rate: f64) {
        let _ = state.lerp_(gradient, 1.0 - self.momentum);
        let nesterov = gradient.lerp(state, self.momentum);
        let rows = parameter.size()[0];
        let matrix = nesterov.reshape([rows, -1]);
        let columns = matrix.size()[1];
        let update = orthogonalise(&matrix).reshape(parameter.size());
        let rate = rate * self.learning_rate;
        if self.weight_decay > 0.0 {
            *parameter *= 1.0 - rate * self.weight_decay;
        }
        *parameter -= update * (rate * (rows as f64 / columns as f64).max(1.0).sqrt());
    }
}

/// The matrix X with its singular values brought near 1, and its singular vectors kept.
///
/// An iteration multiplies X by a polynomial P of G = XXᵀ and turns G into P²G, so the long side of X takes
/// part twice in all, not twice per iteration. Forming G loses singular values below 3e-4 of the largest, which
/// five iterations would leave below 0.15.
fn orthogonalise(matrix: &Tensor) -> Tensor {
    let [a, b, c] = QUINTIC;
    let tall = matrix.size()[0] > matrix.size()[1];
    let wide = if tall { matrix.tr() } else { matrix.shallow_clone() };
    let x = &wide / (wide.square().sum(Kind::Float).sqrt() + 1e-7);
    let identity = Tensor::eye(x.size()[0], (x.kind(), x.device()));
    let polynomial = |gram: &Tensor| &identity * a + gram * b + gram.matmul(gram) * c;
    let mut gram = x.matmul(&x.tr());
    let mut factor = polynomial(&gram);
    let mut product = factor.shallow_clone();
    for _ in 1..ITERATIONS {
        gram = factor.matmul(&gram).matmul(&factor);
        factor = polynomial(&gram);
        product = factor.matmul(&product);
    }
    let x = product.matmul(&x);
    if tall { x.tr() } else { x }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    /// The iteration as its authors write it.
    fn iterated(matrix: &Tensor) -> Tensor {
        let [a, b, c] = QUINTIC;
        let mut x = matrix / matrix.square().sum(matrix.kind()).sqrt();
        for _ in 0..ITERATIONS {
            let gram = x.matmul(&x.tr());
            x = &x * a + (&gram * b + gram.matmul(&gram) * c).matmul(&x);
        }
        x
    }

    #[test]
    fn the_short_side_alone_is_iterated_to_the_same_end() {
        tch::manual_seed(4);
        // The singular values of the second fall over five decades, those of the third to 0. Float32 alone errs by
        // 4e-6, and with small ones by 1.5e-4, which is what G forgets of them.
        let spread =
            |least: f64| Tensor::logspace(0.0, least, 48, 10.0, (Kind::Float, Device::Cpu)).unsqueeze(1);
        for (scale, tolerance) in [(spread(0.0), 1e-5), (spread(-5.0), 1e-3), (spread(-30.0), 1e-3)] {
            let matrix = scale * Tensor::randn([48, 432], (Kind::Float, Device::Cpu));
            let exact = iterated(&matrix.to_kind(Kind::Double));
            let tall = orthogonalise(&matrix.tr()).tr();
            for x in [orthogonalise(&matrix), tall] {
                let error = (x - &exact).norm().double_value(&[]) / exact.norm().double_value(&[]);
                assert!(error < tolerance, "{error}");
            }
        }
        let nothing = Tensor::zeros([48, 432], (Kind::Float, Device::Cpu));
        assert!(orthogonalise(&nothing).equal(&nothing));
    }

    #[test]
    fn singular_values_end_near_one() {
        tch::manual_seed(3);
        for shape in [[24i64, 216], [48, 24], [10, 10]] {
            let matrix = Tensor::randn(shape, (Kind::Float, Device::Cpu));
            let x = orthogonalise(&matrix).to_kind(Kind::Double);
            let gram = if shape[0] > shape[1] { x.tr().matmul(&x) } else { x.matmul(&x.tr()) };
            let values = gram.linalg_eigvalsh("L").sqrt();
            let (low, high) = (values.min().double_value(&[]), values.max().double_value(&[]));
            // Jordan et al. state 0.7 to 1.2; a nearly singular square matrix may stay a little below.
            assert!(low > 0.3 && high < 1.3, "{shape:?}: {low} to {high}");
        }
    }
}

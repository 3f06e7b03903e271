//! The constants b and v of eq. 4, by the formulas of appendix D, for the family of [`super::gaussian`].
//!
//! All derivatives are automatic, in float64; all expectations are quadratures.

use super::gaussian::{Linear, Node, Truth, conditional_entropy, fit_discriminative, linear};
use crate::convert::to_array;
use anyhow::{Context, Result};
use gradresnet_models::tensors::Values;
use nalgebra::{DMatrix, DVector};
use tch::{Kind, Tensor};

/// What error a classifier tends to, and how fast: E ε(θ_n) = b + (v + s)/2n + o(1/n).
#[derive(Clone, Copy, Debug)]
pub struct Constants {
    /// b (eq. 26, 27), in nats: the error that remains with infinitely many samples.
    pub bias: f64,
    /// v (eq. 26, 27), of the second-order term of eq. 25.
    pub variance: f64,
    /// s = 2 gᵀβ, of the first-order term that eq. 25 leaves out: g the gradient of the error at θ⋆, β the
    /// limit of n·E[θ_n − θ⋆]. It is 0 for the discriminative classifier, whose θ⋆ is where g = 0, and for
    /// a well-specified generative one.
    pub shift: f64,
}

/// Constants of the generative classifier, and the rank of the conditional Fisher matrix in its eight
/// parameters (prior, two means, three entries of the covariance).
///
/// # Errors
/// If a matrix cannot be inverted.
pub fn generative(truth: &Truth, nodes: &[Node]) -> Result<(Constants, usize)> {
    let pooled = truth.covariances[0] * truth.probability(0) + truth.covariances[1] * truth.probability(1);
    let values = [
        truth.prior,
        truth.means[0][0],
        truth.means[0][1],
        truth.means[1][0],
        truth.means[1][1],
        pooled[(0, 0)],
        pooled[(0, 1)],
        pooled[(1, 1)],
    ];
    let theta = Tensor::from_slice(&values).set_requires_grad(true);
    let sums = Sums::new(nodes);
    let joint = sums.of_class(&log_joint(&theta, &sums.points));
    let conditional = sums.of_class(&log_joint(&theta, &sums.points).log_softmax(1, Kind::Double));

    let inverse = sums.hessian(&joint, &theta).try_inverse().context("the joint model is singular")?;
    let covariance = &inverse * sums.outer(&joint, &theta) * &inverse;
    let curvature = sums.hessian(&conditional, &theta);
    // The maximum-likelihood estimates of means and proportion are unbiased; that of the covariance is too
    // small by one class covariance over n for each class, since each mean is fitted.
    let short = truth.covariances[0] + truth.covariances[1];
    let beta = [0.0, 0.0, 0.0, 0.0, 0.0, -short[(0, 0)], -short[(0, 1)], -short[(1, 1)]];
    let gradient = sums.gradient(&conditional, &theta);

    let precision = pooled.try_inverse().context("the covariance is singular")?;
    let limit = linear(truth.prior, &truth.means, &precision);
    let constants = Constants {
        bias: super::gaussian::cross_entropy(nodes, &limit) - conditional_entropy(truth, nodes),
        variance: (covariance * &curvature).trace(),
        shift: 2.0 * gradient.dot(&DVector::from_row_slice(&beta)),
    };
    Ok((constants, rank(&sums.outer(&conditional, &theta))))
}

/// Constants of the discriminative classifier, in its identifiable parameters (b, w).
///
/// # Errors
/// If the best linear classifier is not found or its Hessian cannot be inverted.
pub fn discriminative(truth: &Truth, nodes: &[Node]) -> Result<Constants> {
    let all = nodes.iter().map(|node| (node.x, node.class, node.weight));
    let limit = fit_discriminative(all, Linear::zeros()).context("no best linear classifier")?;
    let theta = Tensor::from_slice(limit.as_slice()).set_requires_grad(true);
    let sums = Sums::new(nodes);
    let logit = theta.get(0) + sums.points.matmul(&theta.narrow(0, 1, 2));
    let logits = Tensor::stack(&[logit.zeros_like(), logit], 1);
    let conditional = sums.of_class(&logits.log_softmax(1, Kind::Double));
    // Σ E[−∇²log p(c|x)] = E[−∇²]⁻¹ Cov[∇] (eq. 24 in eq. 27).
    let inverse = sums.hessian(&conditional, &theta).try_inverse().context("the Hessian is singular")?;
    Ok(Constants {
        bias: super::gaussian::cross_entropy(nodes, &limit) - conditional_entropy(truth, nodes),
        variance: (inverse * sums.outer(&conditional, &theta)).trace(),
        shift: 0.0,
    })
}

/// log p_θ(x, c) of points `[M,2]` for both classes, `[M,2]`.
fn log_joint(theta: &Tensor, points: &Tensor) -> Tensor {
    let at = |index: i64| theta.get(index);
    let determinant = at(5) * at(7) - at(6).square();
    let prior = at(0);
    let log_prior = Tensor::stack(&[(-&prior).log1p(), prior.log()], 0);
    let mahalanobis = [1, 3].map(|mean| {
        let r = points - theta.narrow(0, mean, 2);
        let (x, y) = (r.select(1, 0), r.select(1, 1));
        (x.square() * at(7) - &x * &y * at(6) * 2.0 + y.square() * at(5)) / &determinant
    });
    let [a, b] = mahalanobis;
    log_prior - Tensor::stack(&[a, b], 1) * 0.5 - determinant.log() * 0.5 - (2.0 * std::f64::consts::PI).ln()
}

/// Number of eigenvalues that rounding does not explain.
fn rank(fisher: &DMatrix<f64>) -> usize {
    let eigenvalues = fisher.clone().symmetric_eigenvalues();
    eigenvalues.iter().filter(|&&e| e > 1e-10 * eigenvalues.max()).count()
}

/// The quadrature as tensors.
struct Sums {
    points: Tensor,
    classes: Tensor,
    weights: Tensor,
}

impl Sums {
    fn new(nodes: &[Node]) -> Sums {
        let points: Vec<f64> = nodes.iter().flat_map(|n| [n.x[0], n.x[1]]).collect();
        let classes: Vec<i64> = nodes.iter().map(|n| n.class as i64).collect();
        let weights: Vec<f64> = nodes.iter().map(|n| n.weight).collect();
        Sums {
            points: Tensor::from_slice(&points).view([-1, 2]),
            classes: Tensor::from_slice(&classes).view([-1, 1]),
            weights: Tensor::from_slice(&weights).set_requires_grad(true),
        }
    }

    /// −log p `[M]` of each node's class, from log p `[M,2]` of both.
    fn of_class(&self, log_p: &Tensor) -> Tensor {
        -log_p.gather(1, &self.classes, false).squeeze_dim(1)
    }

    fn derivative(&self, loss: &Tensor, theta: &Tensor) -> Tensor {
        let expectation = (loss * &self.weights).sum(Kind::Double);
        Tensor::run_backward(&[expectation], &[theta], true, true).remove(0)
    }

    /// ∇E[loss].
    fn gradient(&self, loss: &Tensor, theta: &Tensor) -> DVector<f64> {
        DVector::from_vec(doubles(&self.derivative(loss, theta)))
    }

    /// E[∇² loss].
    fn hessian(&self, loss: &Tensor, theta: &Tensor) -> DMatrix<f64> {
        let gradient = self.derivative(loss, theta);
        let m = gradient.numel();
        let rows = (0..m).flat_map(|k| {
            doubles(&Tensor::run_backward(&[gradient.get(k as i64)], &[theta], true, false).remove(0))
        });
        DMatrix::from_row_iterator(m, m, rows)
    }

    /// E[∇loss ∇lossᵀ], the covariance of the gradient where its mean is 0.
    fn outer(&self, loss: &Tensor, theta: &Tensor) -> DMatrix<f64> {
        // ∇E[loss] is linear in the weights: its derivative by a weight is the gradient at that node.
        let gradient = self.derivative(loss, theta);
        let m = gradient.numel();
        let columns: Vec<DVector<f64>> = (0..m)
            .map(|k| {
                let each = Tensor::run_backward(&[gradient.get(k as i64)], &[&self.weights], true, false);
                DVector::from_vec(doubles(&each[0]))
            })
            .collect();
        let gradients = DMatrix::from_columns(&columns);
        let weights = DVector::from_vec(doubles(&self.weights));
        gradients.transpose() * DMatrix::from_diagonal(&weights) * gradients
    }
}

fn doubles(tensor: &Tensor) -> Vec<f64> {
    match to_array(tensor).values() {
        Values::F64(values) => values.clone(),
        Values::F32(values) => values.iter().map(|&v| f64::from(v)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nalgebra::{Matrix2, Vector2};

    #[test]
    fn well_specified_constants_are_those_of_eqs_28_and_29() {
        let truth = Truth::well_specified();
        let nodes = truth.quadrature();
        let (generative, rank) = generative(&truth, &nodes).unwrap();
        let discriminative = discriminative(&truth, &nodes).unwrap();
        // v_dis = m = 3: an offset and two slopes; the rank of the Fisher matrix in all eight parameters.
        assert!((discriminative.variance - 3.0).abs() < 1e-6, "{discriminative:?}");
        assert_eq!(rank, 3);
        assert!(generative.variance < 2.9 && generative.variance > 0.0, "{generative:?}");
        for constants in [generative, discriminative] {
            assert!(constants.bias.abs() < 1e-8 && constants.shift.abs() < 1e-6, "{constants:?}");
        }
    }

    /// With equal means, p(x) says nothing about the slopes: v_gen = d + 1, whatever the covariance.
    #[test]
    fn without_separation_the_generative_classifier_has_no_advantage() {
        let covariance = Matrix2::new(2.0, 0.5, 0.5, 1.0);
        let truth = Truth { prior: 0.3, means: [Vector2::new(0.5, 0.1); 2], covariances: [covariance; 2] };
        let (constants, _) = generative(&truth, &truth.quadrature()).unwrap();
        assert!((constants.variance - 3.0).abs() < 1e-8, "{constants:?}");
    }

    #[test]
    fn misspecification_costs_bias_and_the_generative_classifier_more() {
        let truth = Truth::misspecified();
        let nodes = truth.quadrature();
        let (generative, _) = generative(&truth, &nodes).unwrap();
        let discriminative = discriminative(&truth, &nodes).unwrap();
        assert!(discriminative.bias > 1e-3 && generative.bias > discriminative.bias);
        assert!((discriminative.variance - 3.0).abs() > 0.01 && generative.shift.abs() > 0.01);
    }
}

//! Two classes of Gaussian points in the plane, where maximum likelihood has a closed form (linear
//! discriminant analysis) or is a convex problem (logistic regression), and expectations are sums.

use nalgebra::{DMatrix, DVector, Matrix2, Matrix3, SymmetricEigen, Vector2, Vector3};
use rand::{Rng, RngExt};
use rand_distr::{Distribution, StandardNormal};

/// Gauss–Hermite nodes along each axis: the cross-entropies below change by less than 1e-9 with more.
const NODES: usize = 48;

/// The distribution that points and classes are drawn from.
#[derive(Clone, Debug)]
pub struct Truth {
    /// Probability of class 1.
    pub prior: f64,
    /// Mean of each class.
    pub means: [Vector2<f64>; 2],
    /// Covariance of each class. The models assume one for both.
    pub covariances: [Matrix2<f64>; 2],
}

impl Truth {
    /// One that the models contain. Its classes overlap (the best rule errs on about a tenth), so that
    /// the probability of no maximum-likelihood estimate is negligible.
    pub fn well_specified() -> Truth {
        let covariance = Matrix2::new(1.0, 0.3, 0.3, 1.0);
        Truth {
            prior: 0.4,
            means: [Vector2::new(-0.85, -0.5), Vector2::new(1.0, 0.75)],
            covariances: [covariance, covariance],
        }
    }

    /// One that they do not: the classes lie across one another.
    pub fn misspecified() -> Truth {
        Truth {
            covariances: [Matrix2::new(1.0, 0.8, 0.8, 1.0), Matrix2::new(1.0, -0.8, -0.8, 1.0)],
            ..Truth::well_specified()
        }
    }

    /// Probability of `class`.
    pub fn probability(&self, class: usize) -> f64 {
        if class == 1 { self.prior } else { 1.0 - self.prior }
    }

    /// log p(x, c).
    pub fn log_joint(&self, x: &Vector2<f64>, class: usize) -> f64 {
        let covariance = self.covariances[class];
        let r = x - self.means[class];
        let whitened = covariance.try_inverse().map_or(f64::INFINITY, |inverse| r.dot(&(inverse * r)));
        self.probability(class).ln()
            - 0.5 * (whitened + covariance.determinant().ln())
            - (2.0 * std::f64::consts::PI).ln()
    }

    /// `n` draws.
    pub fn sample(&self, n: usize, rng: &mut impl Rng) -> Vec<(Vector2<f64>, usize)> {
        let factors = self.covariances.map(square_root);
        (0..n)
            .map(|_| {
                let class = usize::from(rng.random_bool(self.prior));
                let z = Vector2::from_fn(|_, _| StandardNormal.sample(&mut *rng));
                (self.means[class] + factors[class] * z, class)
            })
            .collect()
    }

    /// The truth as a finite sum: E g(x, c) = Σ weight · g(x, c), by Gauss–Hermite quadrature.
    pub fn quadrature(&self) -> Vec<Node> {
        let (nodes, weights) = gauss_hermite(NODES);
        let factors = self.covariances.map(square_root);
        let mut all = Vec::with_capacity(2 * NODES * NODES);
        for (class, factor) in factors.iter().enumerate() {
            for (&a, &wa) in nodes.iter().zip(&weights) {
                for (&b, &wb) in nodes.iter().zip(&weights) {
                    all.push(Node {
                        x: self.means[class] + factor * Vector2::new(a, b),
                        class,
                        weight: self.probability(class) * wa * wb,
                    });
                }
            }
        }
        all
    }
}

/// One term of an expectation.
#[derive(Clone, Copy, Debug)]
pub struct Node {
    /// The point.
    pub x: Vector2<f64>,
    /// Its class.
    pub class: usize,
    /// The factor of the term.
    pub weight: f64,
}

/// The symmetric square root of a covariance.
fn square_root(covariance: Matrix2<f64>) -> Matrix2<f64> {
    let eigen = SymmetricEigen::new(covariance);
    eigen.eigenvectors
        * Matrix2::from_diagonal(&eigen.eigenvalues.map(f64::sqrt))
        * eigen.eigenvectors.transpose()
}

/// Nodes and weights for the standard normal density (Golub & Welsch 1969): eigenvalues of the Jacobi
/// matrix of the Hermite polynomials, and squared first components of its eigenvectors.
fn gauss_hermite(n: usize) -> (Vec<f64>, Vec<f64>) {
    let jacobi =
        DMatrix::from_fn(n, n, |i, j| if i.abs_diff(j) == 1 { (i.max(j) as f64).sqrt() } else { 0.0 });
    let eigen = SymmetricEigen::new(jacobi);
    let weights = eigen.eigenvectors.row(0).iter().map(|v| v * v).collect();
    (eigen.eigenvalues.iter().copied().collect(), weights)
}

/// A classifier: log p(1|x) − log p(0|x) = b + wᵀx, as (b, w₁, w₂).
pub type Linear = Vector3<f64>;

/// Cross-entropy E[−log p(c|x)] over the nodes.
pub fn cross_entropy(nodes: &[Node], linear: &Linear) -> f64 {
    nodes.iter().map(|node| node.weight * loss(linear, &node.x, node.class)).sum()
}

/// −log p(c|x) = log(1 + e^{∓(b + wᵀx)}).
fn loss(linear: &Linear, x: &Vector2<f64>, class: usize) -> f64 {
    let logit = linear[0] + linear[1] * x[0] + linear[2] * x[1];
    let margin = if class == 1 { logit } else { -logit };
    (-margin.abs()).exp().ln_1p() + (-margin).max(0.0)
}

/// The generative classifier: maximum likelihood of p(x, c) under one covariance for both classes
/// (linear discriminant analysis). `None` if a class is missing or the points lie on a line.
pub fn fit_generative(data: &[(Vector2<f64>, usize)]) -> Option<Linear> {
    let mut counts = [0.0; 2];
    let mut sums = [Vector2::zeros(); 2];
    let mut squares = Matrix2::zeros();
    for (x, class) in data {
        counts[*class] += 1.0;
        sums[*class] += x;
        squares += x * x.transpose();
    }
    if counts.contains(&0.0) {
        return None;
    }
    let means = [sums[0] / counts[0], sums[1] / counts[1]];
    let mut covariance = squares;
    for class in 0..2 {
        covariance -= counts[class] * means[class] * means[class].transpose();
    }
    let precision = (covariance / data.len() as f64).try_inverse()?;
    Some(linear(counts[1] / data.len() as f64, &means, &precision))
}

/// The classifier that follows from a prior, two means and the inverse of their common covariance.
pub fn linear(prior: f64, means: &[Vector2<f64>; 2], precision: &Matrix2<f64>) -> Linear {
    let w = precision * (means[1] - means[0]);
    let b = (prior / (1.0 - prior)).ln() - 0.5 * w.dot(&(means[0] + means[1]));
    Linear::new(b, w[0], w[1])
}

/// The discriminative classifier: maximum likelihood of p(c|x) (logistic regression), by Newton's method
/// from `start`. `None` if it does not converge, as when a line separates the classes.
pub fn fit_discriminative(
    data: impl Iterator<Item = (Vector2<f64>, usize, f64)> + Clone,
    start: Linear,
) -> Option<Linear> {
    let mut at = start;
    for _ in 0..50 {
        let mut gradient = Vector3::zeros();
        let mut hessian = Matrix3::zeros();
        for (x, class, weight) in data.clone() {
            let features = Vector3::new(1.0, x[0], x[1]);
            let p = 1.0 / (1.0 + (-at.dot(&features)).exp());
            gradient += features * (weight * (p - class as f64));
            hessian += features * features.transpose() * (weight * p * (1.0 - p));
        }
        let step = hessian.try_inverse()? * gradient;
        at -= step;
        // If classes are separable, the gradient vanishes as the estimate runs away, but not the steps.
        if step.norm() < 1e-9 * (1.0 + at.norm()) {
            return Some(at);
        }
    }
    None
}

/// Entropy E[−log p(c|x)] of the truth itself, below which no classifier's cross-entropy goes.
pub fn conditional_entropy(truth: &Truth, nodes: &[Node]) -> f64 {
    let term = |node: &Node| {
        let joint = DVector::from_fn(2, |class, _| truth.log_joint(&node.x, class));
        let top = joint.max();
        let log_marginal = top + joint.iter().map(|l| (l - top).exp()).sum::<f64>().ln();
        node.weight * (log_marginal - joint[node.class])
    };
    nodes.iter().map(term).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn quadrature_has_the_moments_of_the_truth() {
        let truth = Truth::misspecified();
        let nodes = truth.quadrature();
        let expectation = |g: &dyn Fn(&Node) -> f64| nodes.iter().map(|n| n.weight * g(n)).sum::<f64>();
        assert!((expectation(&|_| 1.0) - 1.0).abs() < 1e-12);
        let of_class_1 = |g: &dyn Fn(&Vector2<f64>) -> f64| {
            expectation(&|n| if n.class == 1 { g(&n.x) } else { 0.0 }) / truth.prior
        };
        assert!((of_class_1(&|x| x[0]) - truth.means[1][0]).abs() < 1e-10);
        let covariance = of_class_1(&|x| (x[0] - truth.means[1][0]) * (x[1] - truth.means[1][1]));
        assert!((covariance - truth.covariances[1][(0, 1)]).abs() < 1e-10);
        // E e^{x} of a normal variable.
        let expected = (truth.means[1][0] + truth.covariances[1][(0, 0)] / 2.0).exp();
        assert!((of_class_1(&|x| x[0].exp()) / expected - 1.0).abs() < 1e-10);
    }

    #[test]
    fn both_fits_approach_the_truth_and_its_entropy() {
        let truth = Truth::well_specified();
        let nodes = truth.quadrature();
        let precision = truth.covariances[0].try_inverse().unwrap();
        let best = linear(truth.prior, &truth.means, &precision);
        let entropy = conditional_entropy(&truth, &nodes);
        assert!((cross_entropy(&nodes, &best) - entropy).abs() < 1e-9);

        let data = truth.sample(200_000, &mut ChaCha8Rng::seed_from_u64(1));
        let generative = fit_generative(&data).unwrap();
        let points = data.iter().map(|&(x, class)| (x, class, 1.0));
        let discriminative = fit_discriminative(points, Linear::zeros()).unwrap();
        for fit in [generative, discriminative] {
            // Standard errors are near 0.01.
            assert!((fit - best).norm() < 0.05, "{fit} {best}");
            assert!((0.0..1e-4).contains(&(cross_entropy(&nodes, &fit) - entropy)));
        }
    }

    #[test]
    fn separable_classes_have_no_discriminative_estimate() {
        let data = [(-1.0, 0), (-2.0, 0), (1.0, 1), (2.0, 1)].map(|(x, c)| (Vector2::new(x, x * x), c, 1.0));
        assert!(fit_discriminative(data.into_iter(), Linear::zeros()).is_none());
        assert!(fit_generative(&[(Vector2::zeros(), 0)]).is_none());
    }
}

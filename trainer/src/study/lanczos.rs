//! Lanczos' method with full reorthogonalisation: eigenpairs of a symmetric map that is known only by its
//! products with vectors.

use nalgebra::{DMatrix, DVector, SVD, SymmetricEigen};
use tch::{Kind, Tensor};

/// An approximate eigenpair.
#[derive(Debug)]
pub struct Eigenpair {
    /// λ.
    pub value: f64,
    /// v, of unit norm.
    pub vector: Tensor,
    /// ‖Av − λv‖: some eigenvalue lies this close to λ.
    pub residual: f64,
}

/// A Krylov space: A Q = Q T + β q eᵀ, the columns of Q orthonormal, T tridiagonal.
#[derive(Debug)]
pub struct Lanczos {
    /// `[k,n]`: Qᵀ.
    basis: Tensor,
    tridiagonal: DMatrix<f64>,
    last: f64,
}

impl Lanczos {
    /// At most `steps` products of the map with vectors of the shape of `start`, which must not be 0;
    /// fewer if the space is exhausted. Calls `progress` after each.
    pub fn run(
        map: impl Fn(&Tensor) -> Tensor,
        start: &Tensor,
        steps: usize,
        mut progress: impl FnMut(),
    ) -> Lanczos {
        let steps = steps.min(start.numel());
        let mut q = (start / start.norm()).flatten(0, -1);
        let mut basis = q.unsqueeze(0);
        let (mut diagonal, mut off) = (Vec::new(), Vec::new());
        loop {
            let mut w = map(&q.view_as(start)).flatten(0, -1);
            diagonal.push(q.dot(&w).double_value(&[]));
            // Twice is enough (Parlett): the second removes what rounding left of the basis in w.
            for _ in 0..2 {
                w = &w - basis.tr().mv(&basis.mv(&w));
            }
            progress();
            let beta = w.norm().double_value(&[]);
            let scale = diagonal.iter().chain(&off).fold(0.0f64, |a, b| a.max(b.abs()));
            if diagonal.len() == steps || beta <= 1e-13 * scale {
                let k = diagonal.len();
                let tridiagonal = DMatrix::from_fn(k, k, |i, j| match i.abs_diff(j) {
                    0 => diagonal[i],
                    1 => off[i.min(j)],
                    _ => 0.0,
                });
                return Lanczos { basis, tridiagonal, last: beta };
            }
            off.push(beta);
            q = w / beta;
            basis = Tensor::cat(&[basis, q.unsqueeze(0)], 0);
        }
    }

    /// The `count` Ritz pairs of largest magnitude, largest first.
    pub fn leading(&self, count: usize) -> Vec<Eigenpair> {
        self.ritz(count, f64::abs)
    }

    /// The `count` Ritz pairs of largest value, largest first.
    pub fn greatest(&self, count: usize) -> Vec<Eigenpair> {
        self.ritz(count, |value| value)
    }

    fn ritz(&self, count: usize, rank: fn(f64) -> f64) -> Vec<Eigenpair> {
        let eigen = SymmetricEigen::new(self.tridiagonal.clone());
        let k = eigen.eigenvalues.len();
        let mut order: Vec<usize> = (0..k).collect();
        order.sort_by(|&a, &b| rank(eigen.eigenvalues[b]).total_cmp(&rank(eigen.eigenvalues[a])));
        order.iter().take(count).map(|&i| self.pair(&eigen.eigenvectors.column(i).into_owned())).collect()
    }

    /// The `count` vectors of the space that the map shrinks most, smallest first.
    ///
    /// Small eigenvalues lie inside the spectrum, where Ritz pairs are poor. But ‖Av‖ of v = Qs is ‖T̄s‖, T̄
    /// being T with the row β eᵀ below: its right singular vectors are the best of the space.
    pub fn smallest(&self, count: usize) -> Vec<Eigenpair> {
        let k = self.tridiagonal.nrows();
        let mut extended = self.tridiagonal.clone().insert_row(k, 0.0);
        extended[(k, k - 1)] = self.last;
        let svd = SVD::new(extended, false, true);
        let Some(right) = svd.v_t else { return Vec::new() };
        let mut order: Vec<usize> = (0..k).collect();
        order.sort_by(|&a, &b| svd.singular_values[a].total_cmp(&svd.singular_values[b]));
        order.iter().take(count).map(|&i| self.pair(&right.row(i).transpose())).collect()
    }

    /// The vector Qs with its Rayleigh quotient.
    fn pair(&self, s: &DVector<f64>) -> Eigenpair {
        let image = &self.tridiagonal * s;
        let value = s.dot(&image);
        let rest = (image - s * value).norm();
        let residual = rest.hypot(self.last * s[s.len() - 1]);
        let weights =
            Tensor::from_slice(s.as_slice()).to_kind(self.basis.kind()).to_device(self.basis.device());
        let vector = self.basis.tr().mv(&weights);
        let norm = vector.norm();
        Eigenpair { value, vector: vector / norm, residual }
    }
}

/// |⟨u, Av⟩ − ⟨v, Au⟩| / (‖Au‖‖v‖): 0 for a symmetric map, whatever u and v.
pub fn symmetry_defect(map: impl Fn(&Tensor) -> Tensor, u: &Tensor, v: &Tensor) -> f64 {
    let dot = |a: &Tensor, b: &Tensor| (a * b).sum(Kind::Double).double_value(&[]);
    let (au, av) = (map(u), map(v));
    (dot(u, &av) - dot(v, &au)).abs() / (dot(&au, &au) * dot(v, v)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::super::subject::noise_like;
    use super::*;
    use tch::Device;

    fn vector(n: i64, seed: u64) -> Tensor {
        noise_like(&Tensor::zeros([n], (Kind::Double, Device::Cpu)), seed, 0)
    }

    #[test]
    fn pairs_are_those_of_a_dense_decomposition() {
        let n = 40;
        let square = vector(n * n, 1).view([n, n]);
        let a = &square + square.tr();
        let (values, _) = a.linalg_eigh("L");
        let mut expected: Vec<f64> = (0..n).map(|i| values.double_value(&[i])).collect();
        expected.sort_by(|x, y| y.abs().total_cmp(&x.abs()));

        // A few steps find the ends; as many as there are dimensions find everything.
        let all = Lanczos::run(|v| a.mv(v), &vector(n, 2), n as usize, || ());
        for (pair, value) in all.leading(40).iter().zip(&expected) {
            assert!((pair.value - value).abs() < 1e-9 && pair.residual < 1e-6, "{pair:?} {value}");
            let residual = (a.mv(&pair.vector) - &pair.vector * pair.value).norm().double_value(&[]);
            assert!(residual < 1e-6, "{residual}");
        }
        for (pair, value) in all.smallest(3).iter().zip(expected.iter().rev()) {
            assert!((pair.value - value).abs() < 1e-6, "{} {value}", pair.value);
        }
        let greatest = expected.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        assert!((all.greatest(1)[0].value - greatest).abs() < 1e-9);
        let few = Lanczos::run(|v| a.mv(v), &vector(n, 2), 25, || ());
        assert!((few.leading(1)[0].value - expected[0]).abs() < 1e-2);
        // The residual of a pair that is not found is reported as it is.
        let pair = &few.smallest(1)[0];
        let residual = (a.mv(&pair.vector) - &pair.vector * pair.value).norm().double_value(&[]);
        assert!((residual - pair.residual).abs() < 1e-9 && residual > 1e-3, "{residual}");
        // No Ritz vector is shrunk as much.
        let size = |pair: &Eigenpair| a.mv(&pair.vector).norm().double_value(&[]);
        assert!(few.leading(25).iter().all(|ritz| size(ritz) > 1.05 * size(pair)), "{}", size(pair));
    }

    #[test]
    fn an_exhausted_space_ends_the_run() {
        let projection = vector(10, 3);
        let unit = &projection / projection.norm();
        let run = Lanczos::run(|v| &unit * unit.dot(v), &vector(10, 4), 10, || ());
        assert!(run.tridiagonal.nrows() < 5);
        assert!((run.leading(1)[0].value - 1.0).abs() < 1e-12);
    }

    #[test]
    fn the_defect_sees_asymmetry() {
        let a = vector(25, 5).view([5, 5]);
        let (u, v) = (vector(5, 6), vector(5, 7));
        assert!(symmetry_defect(|x| a.mv(x), &u, &v) > 1e-2);
        assert!(symmetry_defect(|x| (&a + a.tr()).mv(x), &u, &v) < 1e-14);
    }
}

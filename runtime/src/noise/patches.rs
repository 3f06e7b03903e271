//! Noise levels from the covariance of small patches: its small eigenvalues are those of directions in which
//! there is only noise.

use nalgebra::DMatrix;
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};

/// Side of the patches; smaller for images that have few. Larger ones take more time and find no better
/// levels.
const SIDE: usize = 5;
/// Patches used of a large image, spread evenly over it.
const PATCHES: usize = 16384;

/// Side of the patches of weak texture.
const WEAK_SIDE: usize = 6;
/// A patch of noise alone, σ = 1, has less texture than this with probability 0.9999. Its texture is the
/// sum of the squared differences between the neighbours among its 36 pixels, whose mean is 120 and whose
/// variance is 1072; the bound is that of the gamma distribution with these moments.
const NOISE_TEXTURE: f64 = 281.232_744;
/// Rounds of choosing patches and estimating again; the level hardly moves after three.
const ROUNDS: usize = 5;

/// An image to take patches from.
pub(super) struct Patches<P, S> {
    pub channels: usize,
    pub height: usize,
    pub width: usize,
    /// A sample by channel, row and column.
    pub pixel: P,
    /// Whether the pixel in a row and column can be seen.
    pub seen: S,
}

impl<P: Fn(usize, usize, usize) -> f32, S: Fn(usize, usize) -> bool> Patches<P, S> {
    /// Estimates σ from all patches.
    ///
    /// Chen, Zhu & Heng 2015 ("An Efficient Statistical Method for Image Noise Level Estimation"): clean
    /// patches lie near a subspace of few dimensions, so the small eigenvalues of the covariance of noisy
    /// patches scatter around σ². Large ones are dropped until the mean of the others is their median.
    pub fn of_all(&self) -> f32 {
        // With too few patches per sample of a patch, the eigenvalues scatter and the small ones are too
        // small: with 4 patches per sample, σ = 15 in 32×32 pixels is found to be 12.
        let found = (1..=SIDE).rev().find_map(|side| Some((side, self.enough_places(side)?)));
        let Some((side, places)) = found else {
            return 0.0;
        };
        deviation(tail_mean(&eigenvalues(self.patches(side, &places).view())))
    }

    /// Estimates σ of one channel from the patches that have hardly more texture than noise has.
    ///
    /// Liu, Tanaka & Okutomi 2013 ("Single-Image Noise Level Estimation for Blind Denoising"): the smallest
    /// eigenvalue of their covariance; the level and the choice of patches are refined in turn, from all
    /// patches on. That few patches remain makes the level some 2 % too small.
    ///
    /// The levels go down from round to round; the first that is not above `least` is the last.
    pub fn of_weak_texture(&self, least: f32) -> f32 {
        let Some(places) = self.enough_places(WEAK_SIDE) else {
            return self.of_all();
        };
        let patches = self.patches(WEAK_SIDE, &places);
        let textures: Vec<f32> = patches.outer_iter().map(texture).collect();
        let smallest = |limit: f64| {
            let weak: Vec<usize> = (0..textures.len()).filter(|&i| f64::from(textures[i]) < limit).collect();
            let enough = weak.len() >= self.needed(WEAK_SIDE);
            enough.then(|| eigenvalues(patches.select(Axis(0), &weak).view())[0].max(0.0))
        };
        let next = |&v: &f64| if deviation(v) > least { smallest(v * NOISE_TEXTURE) } else { None };
        let rounds = std::iter::successors(smallest(f64::INFINITY), next);
        deviation(rounds.take(ROUNDS + 1).last().unwrap_or(0.0))
    }

    /// Patches that a covariance needs.
    fn needed(&self, side: usize) -> usize {
        16 * self.channels * side * side
    }

    /// Where patches are taken: evenly over the image, where they can be seen. `None` if they are too few.
    fn enough_places(&self, side: usize) -> Option<Vec<(usize, usize)>> {
        if side > self.height.min(self.width) {
            return None;
        }
        let (rows, columns) = (self.height - side + 1, self.width - side + 1);
        let step = ((rows * columns) as f64 / PATCHES as f64).sqrt().ceil().max(1.0) as usize;
        let seen = |&(y, x): &(usize, usize)| (y..y + side).all(|y| (x..x + side).all(|x| (self.seen)(y, x)));
        let all = (0..rows).step_by(step).flat_map(|y| (0..columns).step_by(step).map(move |x| (y, x)));
        let places: Vec<(usize, usize)> = all.filter(seen).collect();
        // Stepping leaves a large image no less than a quarter of the patches aimed at.
        let enough = rows * columns >= self.needed(side)
            && !places.is_empty()
            && places.len() >= self.needed(side).min(PATCHES / 4);
        enough.then_some(places)
    }

    /// Patches of `side`² pixels and all channels, one per row, less the first pixel of the first: near 0,
    /// float32 is exact enough.
    fn patches(&self, side: usize, places: &[(usize, usize)]) -> Array2<f32> {
        let zero = |c| places.first().map_or(0.0, |&(y, x)| (self.pixel)(c, y, x));
        let zero: Vec<f32> = (0..self.channels).map(zero).collect();
        let mut patches = Array2::zeros((places.len(), self.channels * side * side));
        for (mut patch, &(top, left)) in patches.outer_iter_mut().zip(places) {
            let mut samples = patch.iter_mut();
            for (c, zero) in zero.iter().enumerate() {
                for y in top..top + side {
                    for (x, sample) in (left..left + side).zip(&mut samples) {
                        *sample = (self.pixel)(c, y, x) - zero;
                    }
                }
            }
        }
        patches
    }
}

/// Sum of the squared differences between neighbours in a patch of [`WEAK_SIDE`]² pixels.
fn texture(patch: ArrayView1<f32>) -> f32 {
    let pixel = |y: usize, x: usize| patch[y * WEAK_SIDE + x];
    let pairs = (0..WEAK_SIDE).flat_map(|i| (1..WEAK_SIDE).map(move |j| (i, j)));
    let square = |v: f32| v * v;
    pairs.map(|(i, j)| square(pixel(i, j) - pixel(i, j - 1)) + square(pixel(j, i) - pixel(j - 1, i))).sum()
}

/// Eigenvalues, in ascending order, of the covariance of patches, one per row.
fn eigenvalues(patches: ArrayView2<f32>) -> Vec<f64> {
    let dimensions = patches.ncols();
    let (mut products, mut sums) =
        (Array2::<f64>::zeros((dimensions, dimensions)), Array1::zeros(dimensions));
    // Sums of this many products lose little in float32, and take half the time.
    for some in patches.axis_chunks_iter(Axis(0), 1024) {
        products += &some.t().dot(&some).mapv(f64::from);
        sums += &some.sum_axis(Axis(0)).mapv(f64::from);
    }
    let count = patches.nrows().max(1) as f64;
    let covariance = DMatrix::from_fn(dimensions, dimensions, |i, j| {
        products[[i, j]] / count - sums[i] / count * (sums[j] / count)
    });
    let mut eigenvalues: Vec<f64> = covariance.symmetric_eigenvalues().iter().copied().collect();
    eigenvalues.sort_by(f64::total_cmp);
    eigenvalues
}

fn deviation(variance: f64) -> f32 {
    variance.max(0.0).sqrt() as f32
}

/// Mean of the largest set of smallest eigenvalues (given in ascending order) whose mean is its median.
pub(super) fn tail_mean(eigenvalues: &[f64]) -> f64 {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
    (1..=eigenvalues.len())
        .rev()
        .map(|n| &eigenvalues[..n])
        .find(|rest| {
            let mean = mean(rest);
            let above = rest.iter().filter(|&&v| v > mean).count();
            let below = rest.iter().filter(|&&v| v < mean).count();
            above >= below
        })
        .map_or(0.0, mean)
}

//! Noise levels from the covariance of small patches: its small eigenvalues are those of directions that
//! the image has no part in.

use nalgebra::DMatrix;
use ndarray::Array2;

/// Side of the patches; smaller for images that have few.
const SIDE: usize = 8;
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
        // With too few patches for the samples of one, the eigenvalues scatter and the small ones are too
        // small: of 4 times as many patches, σ = 15 in 32×32 pixels is found to be 12.
        let found = (1..=SIDE).rev().find_map(|side| Some((side, self.enough_places(side)?)));
        found.map_or(0.0, |(side, places)| deviation(tail_mean(&self.eigenvalues(side, &places))))
    }

    /// Estimates σ of one channel from the patches that have hardly more texture than noise has.
    ///
    /// Liu, Tanaka & Okutomi 2013 ("Single-Image Noise Level Estimation for Blind Denoising"): the smallest
    /// eigenvalue of their covariance; the level and the choice of patches follow from one another, from
    /// that of all patches on. What few patches they are makes the level some 2 % too small.
    pub fn of_weak_texture(&self) -> f32 {
        let Some(places) = self.enough_places(WEAK_SIDE) else {
            return self.of_all();
        };
        let smallest = |places: &[(usize, usize)]| self.eigenvalues(WEAK_SIDE, places)[0].max(0.0);
        let textures: Vec<f64> = places.iter().map(|&place| self.texture(place)).collect();
        let mut variance = smallest(&places);
        for _ in 0..ROUNDS {
            let weak = |(place, &texture): (&(usize, usize), &f64)| {
                (texture < variance * NOISE_TEXTURE).then_some(*place)
            };
            let weak: Vec<(usize, usize)> = places.iter().zip(&textures).filter_map(weak).collect();
            if weak.len() < self.needed(WEAK_SIDE) {
                break;
            }
            variance = smallest(&weak);
        }
        deviation(variance)
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
        // Steps thin the patches of a large image to no less than a quarter of those aimed at.
        let enough = rows * columns >= self.needed(side)
            && !places.is_empty()
            && places.len() >= self.needed(side).min(PATCHES / 4);
        enough.then_some(places)
    }

    /// Sum of the squared differences between neighbours in a patch of weak texture's size.
    fn texture(&self, (top, left): (usize, usize)) -> f64 {
        let pixel = |y: usize, x: usize| f64::from((self.pixel)(0, top + y, left + x));
        let pairs = (0..WEAK_SIDE).flat_map(|i| (1..WEAK_SIDE).map(move |j| (i, j)));
        let square = |v: f64| v * v;
        pairs
            .map(|(i, j)| square(pixel(i, j) - pixel(i, j - 1)) + square(pixel(j, i) - pixel(j - 1, i)))
            .sum()
    }

    /// Eigenvalues, in ascending order, of the covariance of the patches of `side`² pixels and all channels.
    fn eigenvalues(&self, side: usize, places: &[(usize, usize)]) -> Vec<f64> {
        let dimensions = self.channels * side * side;
        let mut sum = Array2::<f64>::zeros((dimensions, dimensions));
        let mut mean = ndarray::Array1::<f64>::zeros(dimensions);
        for some in places.chunks(1024) {
            let patches = Array2::from_shape_fn((some.len(), dimensions), |(n, i)| {
                let ((y, x), c, offset) = (some[n], i / (side * side), i % (side * side));
                f64::from((self.pixel)(c, y + offset / side, x + offset % side))
            });
            ndarray::linalg::general_mat_mul(1.0, &patches.t(), &patches, 1.0, &mut sum);
            mean += &patches.sum_axis(ndarray::Axis(0));
        }
        let count = places.len() as f64;
        let covariance = DMatrix::from_fn(dimensions, dimensions, |i, j| {
            sum[[i, j]] / count - mean[i] / count * (mean[j] / count)
        });
        let mut eigenvalues: Vec<f64> = covariance.symmetric_eigenvalues().iter().copied().collect();
        eigenvalues.sort_by(f64::total_cmp);
        eigenvalues
    }
}

fn deviation(variance: f64) -> f32 {
    variance.max(0.0).sqrt() as f32
}

/// Mean of the largest set of smallest eigenvalues (given in ascending order) whose mean is its median.
fn tail_mean(eigenvalues: &[f64]) -> f64 {
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

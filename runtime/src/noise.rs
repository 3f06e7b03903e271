//! White Gaussian noise: adding it, and estimating how much there is.

use crate::error::{ErrorKind, Result};
use crate::picture::Picture;
use nalgebra::DMatrix;
use ndarray::{Array2, ArrayView3, Axis};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use sha2::{Digest, Sha256};

/// Adds noise of standard deviation `sigma` (image units, finite and at least 0) to every sample,
/// without clipping. A grey picture stays grey.
/// Transparency gets none.
///
/// The noise is a function of `seed` and `name` alone: the generator is ChaCha8, keyed by the SHA-256 of
/// the seed (eight bytes, little endian) and the name (UTF-8), and draws in the order of the samples.
pub fn add(picture: &mut Picture, sigma: f32, seed: u64, name: &str) {
    let key = Sha256::new().chain_update(seed.to_le_bytes()).chain_update(name).finalize();
    let mut rng = ChaCha8Rng::from_seed(key.into());
    picture.map_samples(|v| v + sigma * rng.sample::<f32, _>(StandardNormal));
}

/// Side of the patches; smaller for images that have few.
const PATCH: usize = 8;
/// Patches used of a large image, spread evenly over it.
const PATCHES: usize = 16384;

/// Estimates the standard deviation of white Gaussian noise in an image `[C,H,W]`, in its unit.
///
/// Chen, Zhu & Heng 2015 ("An Efficient Statistical Method for Image Noise Level Estimation"): clean
/// patches lie near a subspace of few dimensions, so the small eigenvalues of the covariance of noisy
/// patches scatter around σ². Large ones are dropped until the mean of the others is their median.
/// Channels that are equal count once. An image of a few pixels has no noise.
///
/// # Errors
/// [`ErrorKind::NotFinite`].
pub fn estimate(image: ArrayView3<f32>) -> Result<f32> {
    if !image.iter().all(|v| v.is_finite()) {
        return Err(ErrorKind::NotFinite("the image").into());
    }
    let grey = image.outer_iter().skip(1).all(|plane| plane == image.index_axis(Axis(0), 0));
    let (channels, height, width) = image.dim();
    let channels = if grey { channels.min(1) } else { channels };
    let seen = |_, _| true;
    Ok(Patches { channels, height, width, pixel: |c, y, x| image[[c, y, x]], seen }.sigma())
}

/// [`estimate`] of a picture, from patches that can be seen wholly.
pub fn estimate_picture(picture: &Picture) -> f32 {
    let (height, width) = picture.size();
    let channels = if picture.is_colorless() { 1 } else { 3 };
    let seen = |y, x| !picture.is_hidden(y, x);
    Patches { channels, height, width, pixel: |c, y, x| picture.pixel(c, y, x), seen }.sigma()
}

/// An image to take patches from.
struct Patches<P, S> {
    channels: usize,
    height: usize,
    width: usize,
    /// A sample by channel, row and column.
    pixel: P,
    /// Whether the pixel in a row and column can be seen.
    seen: S,
}

impl<P: Fn(usize, usize, usize) -> f32, S: Fn(usize, usize) -> bool> Patches<P, S> {
    fn sigma(&self) -> f32 {
        // With too few patches for the samples of one, the eigenvalues scatter and the small ones are too
        // small: of 4 times as many patches, σ = 15 in 32×32 pixels is found to be 12.
        let mut sides = (1..=PATCH.min(self.height).min(self.width)).rev();
        let found = sides.find_map(|side| {
            let needed = 16 * self.channels * side * side;
            let possible = (self.height - side + 1) * (self.width - side + 1);
            let places = if possible >= needed { self.places(side) } else { Vec::new() };
            (!places.is_empty() && places.len() >= needed.min(PATCHES / 4)).then_some((side, places))
        });
        let Some((side, places)) = found else {
            return 0.0;
        };
        let covariance = self.covariance(side, &places);
        let mut eigenvalues: Vec<f64> = covariance.symmetric_eigenvalues().iter().copied().collect();
        eigenvalues.sort_by(f64::total_cmp);
        noise_variance(&eigenvalues).max(0.0).sqrt() as f32
    }

    /// Where patches are taken: evenly over the image, where they can be seen.
    fn places(&self, side: usize) -> Vec<(usize, usize)> {
        let (rows, columns) = (self.height - side + 1, self.width - side + 1);
        let step = ((rows * columns) as f64 / PATCHES as f64).sqrt().ceil().max(1.0) as usize;
        let seen = |&(y, x): &(usize, usize)| (y..y + side).all(|y| (x..x + side).all(|x| (self.seen)(y, x)));
        (0..rows)
            .step_by(step)
            .flat_map(|y| (0..columns).step_by(step).map(move |x| (y, x)))
            .filter(seen)
            .collect()
    }

    /// Covariance of the patches of `side`² pixels and all channels.
    fn covariance(&self, side: usize, places: &[(usize, usize)]) -> DMatrix<f64> {
        let dimensions = self.channels * side * side;
        let mut sum = Array2::<f64>::zeros((dimensions, dimensions));
        let mut mean = ndarray::Array1::<f64>::zeros(dimensions);
        for some in places.chunks(1024) {
            let patches = Array2::from_shape_fn((some.len(), dimensions), |(n, i)| {
                let ((y, x), c, offset) = (some[n], i / (side * side), i % (side * side));
                f64::from((self.pixel)(c, y + offset / side, x + offset % side))
            });
            ndarray::linalg::general_mat_mul(1.0, &patches.t(), &patches, 1.0, &mut sum);
            mean += &patches.sum_axis(Axis(0));
        }
        let count = places.len() as f64;
        DMatrix::from_fn(dimensions, dimensions, |i, j| {
            sum[[i, j]] / count - mean[i] / count * (mean[j] / count)
        })
    }
}

/// Mean of the largest set of smallest eigenvalues (given in ascending order) whose mean is its median.
fn noise_variance(eigenvalues: &[f64]) -> f64 {
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

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array3;

    fn smooth(height: usize, width: usize) -> Picture {
        let pixels = Array3::from_shape_fn((3, height, width), |(c, y, x)| {
            let t = (c as f32) + (y as f32) * 0.07 + (x as f32) * 0.05;
            0.5 + 0.3 * t.sin() + if (x / 16 + y / 24) % 2 == 0 { 0.1 } else { 0.0 }
        });
        Picture::from_pixels(pixels.view())
    }

    #[test]
    fn the_level_that_was_added_is_found() {
        for sigma in [5.0, 15.0, 25.0, 50.0] {
            for size in [(32, 32), (128, 96), (320, 480)] {
                let mut picture = smooth(size.0, size.1);
                add(&mut picture, sigma / 255.0, 7, "a");
                let found = 255.0 * estimate(picture.pixels().view()).unwrap();
                assert_eq!(found, 255.0 * estimate_picture(&picture));
                // The smallest has few patches, and its estimate a few per cent of scatter.
                let tolerance = if size == (32, 32) { 0.15 } else { 0.05 };
                assert!((found / sigma - 1.0).abs() < tolerance, "{found} for {sigma} at {size:?}");
            }
        }
    }

    #[test]
    fn tiny_and_flat_images_have_no_noise() {
        for (h, w) in [(1, 1), (1, 50), (3, 3), (9, 9)] {
            assert!(estimate(Array3::from_elem((3, h, w), 0.4).view()).unwrap() < 1e-6);
        }
        let mut bad = Array3::zeros((3, 8, 8));
        bad[[1, 2, 3]] = f32::NAN;
        assert!(estimate(bad.view()).is_err());
    }

    #[test]
    fn noise_depends_on_seed_and_name_alone() {
        let noisy = |seed, name| {
            let mut picture = smooth(20, 20);
            add(&mut picture, 0.1, seed, name);
            picture.pixels()
        };
        assert_eq!(noisy(1, "a/b.png"), noisy(1, "a/b.png"));
        assert_ne!(noisy(1, "a/b.png"), noisy(2, "a/b.png"));
        assert_ne!(noisy(1, "a/b.png"), noisy(1, "b.png"));
    }
}

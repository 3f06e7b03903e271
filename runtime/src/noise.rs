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
/// without clipping. A grey picture gets the same noise in its three channels, so that it stays grey.
///
/// The noise is a function of `seed` and `name` alone: the generator is ChaCha8, keyed by the SHA-256 of
/// the seed (eight bytes, little endian) and the name (UTF-8), and draws in the order of the samples.
pub fn add(picture: &mut Picture, sigma: f32, seed: u64, name: &str) {
    let key = Sha256::new().chain_update(seed.to_le_bytes()).chain_update(name).finalize();
    let mut rng = ChaCha8Rng::from_seed(key.into());
    let mut draw = || sigma * rng.sample::<f32, _>(StandardNormal);
    if picture.is_grey() {
        let (_, height, width) = picture.pixels.dim();
        picture.pixels += &Array2::from_shape_simple_fn((height, width), draw);
    } else {
        picture.pixels.mapv_inplace(|v| v + draw());
    }
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
/// Channels that are equal count once. An image of one pixel has no noise.
///
/// # Errors
/// [`ErrorKind::NotFinite`].
pub fn estimate(image: ArrayView3<f32>) -> Result<f32> {
    if !image.iter().all(|v| v.is_finite()) {
        return Err(ErrorKind::NotFinite("the image").into());
    }
    let grey = image.outer_iter().skip(1).all(|plane| plane == image.index_axis(Axis(0), 0));
    let image = if grey { image.slice(ndarray::s![..1, .., ..]) } else { image };
    let (channels, height, width) = image.dim();
    // With too few patches for the samples of one, the eigenvalues scatter and the small ones are too
    // small: of 4 times as many patches, σ = 15 in 32×32 pixels is found to be 12.
    let side = (1..=PATCH.min(height).min(width))
        .rev()
        .find(|d| (height - d + 1) * (width - d + 1) >= 16 * channels * d * d);
    let Some(side) = side else {
        return Ok(0.0);
    };
    let mut eigenvalues: Vec<f64> = covariance(image, side).symmetric_eigenvalues().iter().copied().collect();
    eigenvalues.sort_by(f64::total_cmp);
    Ok(noise_variance(&eigenvalues).max(0.0).sqrt() as f32)
}

/// Covariance of the patches of `side`² pixels and all channels.
fn covariance(image: ArrayView3<f32>, side: usize) -> DMatrix<f64> {
    let (channels, height, width) = image.dim();
    let (rows, columns) = (height - side + 1, width - side + 1);
    let step = ((rows * columns) as f64 / PATCHES as f64).sqrt().ceil().max(1.0) as usize;
    let places: Vec<(usize, usize)> =
        (0..rows).step_by(step).flat_map(|y| (0..columns).step_by(step).map(move |x| (y, x))).collect();
    let dimensions = channels * side * side;
    let mut sum = Array2::<f64>::zeros((dimensions, dimensions));
    let mut mean = ndarray::Array1::<f64>::zeros(dimensions);
    for some in places.chunks(1024) {
        let patches = Array2::from_shape_fn((some.len(), dimensions), |(n, i)| {
            let ((y, x), c, offset) = (some[n], i / (side * side), i % (side * side));
            f64::from(image[[c, y + offset / side, x + offset % side]])
        });
        ndarray::linalg::general_mat_mul(1.0, &patches.t(), &patches, 1.0, &mut sum);
        mean += &patches.sum_axis(Axis(0));
    }
    let count = places.len() as f64;
    DMatrix::from_fn(dimensions, dimensions, |i, j| sum[[i, j]] / count - mean[i] / count * (mean[j] / count))
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
        Picture::from_pixels(Array3::from_shape_fn((3, height, width), |(c, y, x)| {
            let t = (c as f32) + (y as f32) * 0.07 + (x as f32) * 0.05;
            0.5 + 0.3 * t.sin() + if (x / 16 + y / 24) % 2 == 0 { 0.1 } else { 0.0 }
        }))
    }

    #[test]
    fn the_level_that_was_added_is_found() {
        for sigma in [5.0, 15.0, 25.0, 50.0] {
            for size in [(32, 32), (128, 96), (320, 480)] {
                let mut picture = smooth(size.0, size.1);
                add(&mut picture, sigma / 255.0, 7, "a");
                let found = 255.0 * estimate(picture.pixels.view()).unwrap();
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
            picture.pixels
        };
        assert_eq!(noisy(1, "a/b.png"), noisy(1, "a/b.png"));
        assert_ne!(noisy(1, "a/b.png"), noisy(2, "a/b.png"));
        assert_ne!(noisy(1, "a/b.png"), noisy(1, "b.png"));
    }
}

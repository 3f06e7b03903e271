//! White Gaussian noise: adding it, estimating how much there is, putting back what clipping took from it, and making
//! it independent in the channels.

pub(crate) mod clipping;
mod draw;
mod patches;
pub(crate) mod whitening;

use crate::picture::Picture;
use clipping::before_clipping;
use gradresnet_models::SigmaRange;
use patches::Patches;
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

/// The noise in a picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Noise {
    /// Standard deviation in every channel, in image units, before any clipping; for [`Spread::Luminance`],
    /// before chroma was smoothed.
    pub sigma: f32,
    /// How the channels share it.
    pub spread: Spread,
    /// What the level is multiplied by when noise is removed: 1 is what networks were made for, less keeps more detail
    /// and noise.
    pub strength: f32,
}

/// How the channels of a picture share its noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// Each channel has its own, as networks are trained on.
    Independent,
    /// The channels' high frequencies are the same, because chroma was smoothed, as in JPEG files with
    /// subsampled chroma: there is noise in the luminance alone.
    Luminance,
    /// There is one channel, or three equal ones.
    Grey,
}

/// Weights of R, G and B in the luminance (ITU-R BT.601, as in JPEG).
const LUMINANCE: [f32; 3] = [0.299, 0.587, 0.114];

/// Standard deviation of the luminance of independent noise of 1 in each channel: √(0.299² + 0.587² + 0.114²).
const LUMINANCE_SIGMA: f32 = 0.668_6;

/// Below this, noise in the luminance alone cannot be told from texture: in 12 clean photographs it was
/// estimated at 1.4 ± 1.5 of 255.
const LEAST_LUMINANCE: f32 = 4.0 / 255.0;

/// Estimates the noise of a picture, from patches that are visible throughout. Pictures of a few pixels get
/// 0.
///
/// In colour, the estimate is that of Chen, Zhu & Heng 2015; for one channel, which has fewer dimensions
/// for noise to be alone in, that of Liu, Tanaka & Okutomi 2013. If the luminance has more than
/// twice the noise that the colours show, chroma was smoothed. If no sample lies beyond [0, 1], it is the level
/// from before clipping. Figures: `docs/denoising.md`.
pub fn estimate(picture: &Picture) -> Noise {
    let (sigma, spread) = estimate_left(picture);
    Noise { sigma: before_clipping(picture, spread, sigma), spread, strength: 1.0 }
}

/// Estimates what clipping has left of the noise.
fn estimate_left(picture: &Picture) -> (f32, Spread) {
    let (height, width) = picture.size();
    let seen = |y, x| !picture.is_hidden(y, x);
    let luminance = |_, y, x| (0..3).map(|c| LUMINANCE[c] * picture.pixel(c, y, x)).sum();
    let luminance = Patches { channels: 1, height, width, pixel: luminance, seen };
    if picture.is_colorless() {
        return (luminance.of_weak_texture(0.0), Spread::Grey);
    }
    let pixel = |c, y, x| picture.pixel(c, y, x);
    let colors = Patches { channels: 3, height, width, pixel, seen }.of_all();
    let least = LEAST_LUMINANCE.max(2.0 * colors);
    let luminance = luminance.of_weak_texture(LUMINANCE_SIGMA * least) / LUMINANCE_SIGMA;
    if luminance > least { (luminance, Spread::Luminance) } else { (colors, Spread::Independent) }
}

impl Noise {
    /// The same with at least the lowest level that a model was trained on. Above its highest, the level that there is
    /// serves better than the highest (`docs/denoising.md`).
    pub fn at_least_of(self, range: SigmaRange) -> Noise {
        Noise { sigma: self.sigma.max(range.min as f32), ..self }
    }

    /// What a network is told to remove.
    pub(crate) fn removed(self) -> Noise {
        Noise { sigma: self.strength * self.sigma, strength: 1.0, ..self }
    }

    /// Standard deviation of what all channels share; `None` if each has its own.
    pub(crate) fn shared_sigma(&self) -> Option<f32> {
        match self.spread {
            Spread::Independent => None,
            Spread::Luminance => Some(LUMINANCE_SIGMA * self.sigma),
            Spread::Grey => Some(self.sigma),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::{Encoding, Format};
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
                let found = estimate(&picture);
                assert_eq!(found.spread, Spread::Independent);
                // The smallest has few patches, and its estimate a few per cent of scatter.
                let tolerance = if size == (32, 32) { 0.15 } else { 0.05 };
                let ratio = 255.0 * found.sigma / sigma;
                assert!((ratio - 1.0).abs() < tolerance, "{ratio} of {sigma} at {size:?}");
            }
        }
    }

    #[test]
    fn noise_of_grey_and_of_luminance_is_told_apart() {
        let clean = smooth(200, 300).pixels();
        let noise = Array3::from_elem((3, 200, 300), 0.0);
        let mut noise = Picture::from_pixels(noise.view());
        add(&mut noise, 20.0 / 255.0, 3, "a");
        let noise = noise.pixels();
        let luminance = |y, x| (0..3).map(|c| LUMINANCE[c] * noise[[c, y, x]]).sum::<f32>();
        let grey = Array3::from_shape_fn((3, 200, 300), |(_, y, x)| clean[[1, y, x]] + noise[[0, y, x]]);
        let smoothed = Array3::from_shape_fn((3, 200, 300), |(c, y, x)| clean[[c, y, x]] + luminance(y, x));
        for (pixels, spread) in [(grey, Spread::Grey), (smoothed, Spread::Luminance)] {
            let found = estimate(&Picture::from_pixels(pixels.view()));
            assert_eq!(found.spread, spread);
            assert!((found.sigma * 255.0 / 20.0 - 1.0).abs() < 0.05, "{found:?}");
        }
        assert_eq!(estimate(&Picture::from_pixels(clean.view())).spread, Spread::Independent);
    }

    #[test]
    fn a_jpeg_file_with_subsampled_chroma_has_noise_in_its_luminance() {
        let mut picture = smooth(200, 304);
        add(&mut picture, 20.0 / 255.0, 3, "a");
        // 2×2 pixels of one chroma, as the files hold it.
        let pixels = picture.pixels();
        let luminance = |y, x| (0..3).map(|c| LUMINANCE[c] * pixels[[c, y, x]]).sum::<f32>();
        let subsampled = Array3::from_shape_fn((3, 200, 304), |(c, y, x)| {
            let block = (0..4).map(|i| (y / 2 * 2 + i / 2, x / 2 * 2 + i % 2));
            luminance(y, x) + block.map(|(y, x)| pixels[[c, y, x]] - luminance(y, x)).sum::<f32>() / 4.0
        });
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jpg");
        let encoding = Encoding { format: Some(Format::Jpeg), ..Encoding::default() };
        Picture::from_pixels(subsampled.view()).write(&path, &encoding).unwrap();
        let found = estimate(&Picture::read(&path).unwrap());
        assert_eq!(found.spread, Spread::Luminance);
        // Compression takes some noise away, and brings some.
        assert!((found.sigma * 255.0 / 20.0 - 1.0).abs() < 0.1, "{found:?}");
    }

    #[test]
    fn tiny_and_flat_images_have_no_noise() {
        for (h, w) in [(1, 1), (1, 50), (3, 3), (9, 9), (64, 64)] {
            let found = estimate(&Picture::from_pixels(Array3::from_elem((3, h, w), 0.4).view()));
            assert!(found.sigma < 1e-6, "{found:?}");
        }
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

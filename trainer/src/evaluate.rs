//! What a network is worth on a set of images: accuracy and calibration, PSNR and SSIM.

use crate::convert::sum;
use crate::data::augment::reflect;
use crate::data::images::{Images, Pixels};
use crate::nets::{Network, Phase};
use crate::quality::{psnr, ssim};
use anyhow::{Context, Result};
use gradresnet_models::{Graph, Spec};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use serde::Serialize;
use tch::{Device, Kind, Tensor};

/// Images that go through the network together, if they have the same size; bounded by pixels too.
const BATCH: usize = 64;
const BATCH_PIXELS: usize = 1 << 19;

/// Bins of confidence that the calibration error is a mean over.
const BINS: usize = 15;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Noise levels of the PSNR, in 8-bit units.
    pub sigmas: Vec<f64>,
    /// Images at most, spread over the set; `None` for all.
    pub limit: Option<usize>,
    /// Central crop in pixels, to bound the work; `None` for whole images.
    pub crop: Option<usize>,
    /// Element type of the computation.
    pub kind: Kind,
    /// Where to compute.
    pub device: Device,
}

/// `value` rounded down to `decimals`, never better than measured. The added 1e-6 keeps decimal fractions, inexact
/// in binary, from losing a digit.
pub fn rounded_down(value: f64, decimals: i32) -> f64 {
    let scale = 10f64.powi(decimals);
    (value * scale + 1e-6).floor() / scale
}

/// What was measured, over `images` images.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Evaluation {
    /// Images measured on.
    pub images: usize,
    /// Fraction of the clean images whose largest logit is that of their class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// Expected calibration error of clean images, a fraction (Guo et al. 2017): the mean distance between the
    /// largest probability and how often it is right, over 15 bins of that probability.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration_error: Option<f64>,
    /// Mean of −log p(c|y) in nats over the clean images and their classes. It tells two networks apart that
    /// classify as many images correctly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cross_entropy: Option<f64>,
    /// One per noise level.
    pub denoising: Vec<Denoising>,
}

impl Evaluation {
    /// Whether there is a figure in it.
    pub fn measures_something(&self) -> bool {
        self.accuracy.is_some() || !self.denoising.is_empty()
    }
}

/// PSNR in dB and SSIM, means over images; noise not clipped, outputs clipped to [0, 1], peak 1.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Denoising {
    /// Noise level in 8-bit units.
    pub sigma: f64,
    /// PSNR of D_u, which knows no class.
    pub psnr: f64,
    /// PSNR of D_c with the image's true class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psnr_conditional: Option<f64>,
    /// SSIM of D_u; `None` if an image is smaller than its window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssim: Option<f64>,
}

/// What the network says of one image.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prediction {
    /// Where the image came from.
    pub path: String,
    /// Name of the class with the largest logit.
    pub label: String,
    /// Its probability, p(c|y).
    pub probability: f64,
}

/// Measures `net` on `images`. Calls `progress` with the number of images done.
///
/// The noise of image i at level σ depends only on i, σ and the image's size when padded to the network's stride. The
/// padding continues the clean image, with noise of its own.
///
/// # Errors
/// If an image cannot be read.
pub fn evaluate(
    net: &Network,
    spec: &Spec,
    images: &Images,
    options: &Options,
    mut progress: impl FnMut(usize),
) -> Result<(Evaluation, Vec<Prediction>)> {
    let count = options.limit.unwrap_or(usize::MAX).min(images.len());
    let chosen: Vec<usize> = (0..count).map(|i| i * images.len() / count).collect();
    let sigmas: &[f64] = if Graph::Denoiser.is_of(spec) { &options.sigmas } else { &[] };
    let classified = images.have_classes_of(spec);
    let mut confidence = Vec::new();
    let mut cross_entropy = 0.0;
    let mut sums = vec![(0.0, 0.0, Some(0.0)); sigmas.len()];
    let mut predictions = Vec::new();
    let mut done = 0;
    while done < chosen.len() {
        let batch = Prepared::gather(images, &chosen[done..], spec.architecture.stride(), options)?;
        let indices = &chosen[done..done + batch.len];
        let clean = batch.clean.to_device(options.device).to_kind(options.kind);
        let classes = classified.then(|| classes(images, indices).to_device(options.device));
        if !spec.classes.is_empty() {
            let logits = tch::no_grad(|| net.density(&clean, Phase::Evaluation).logits);
            let logits = logits.context("the network has no class head")?;
            let log_probabilities = logits.log_softmax(1, Kind::Double);
            if let Some(classes) = &classes {
                cross_entropy -= sum(&log_probabilities.gather(1, &classes.unsqueeze(1), false));
            }
            let (probabilities, labels) = log_probabilities.exp().max_dim(1, false);
            let (probabilities, labels) =
                (Vec::<f64>::try_from(probabilities)?, Vec::<i64>::try_from(labels)?);
            for ((&index, &label), &probability) in indices.iter().zip(&labels).zip(&probabilities) {
                confidence.push((probability, images.class(index) == Some(label as usize)));
                let path = images.path(index).display().to_string();
                let label = spec.classes[label as usize].clone();
                predictions.push(Prediction { path, label, probability });
            }
        }
        for (&sigma, sums) in sigmas.iter().zip(&mut sums) {
            let noise = batch.noise(indices, sigma).to_device(options.device).to_kind(options.kind);
            let level = Tensor::full([batch.len as i64], sigma / 255.0, (options.kind, options.device));
            let noisy = &clean + noise * (sigma / 255.0);
            let denoised = |weights: Option<&Tensor>| -> Result<Tensor> {
                let denoised = net.outputs(&noisy, &level, weights).denoised;
                Ok(batch.inside(&denoised.context("the network does not denoise")?))
            };
            let (clean, unconditional) = (&batch.inside(&clean), denoised(None)?);
            sums.0 += sum(&psnr(&unconditional, clean));
            sums.2 = sums.2.zip(ssim(&unconditional, clean)).map(|(total, ssim)| total + sum(&ssim));
            if let Some(classes) = &classes {
                let one_hot = classes.one_hot(spec.classes.len() as i64).to_kind(options.kind);
                sums.1 += sum(&psnr(&denoised(Some(&one_hot))?, clean));
            }
        }
        done += batch.len;
        progress(done);
    }
    let mean = |sum: f64| sum / count.max(1) as f64;
    let denoising = sigmas
        .iter()
        .zip(sums)
        .map(|(&sigma, (unconditional, conditional, ssim))| Denoising {
            sigma,
            psnr: mean(unconditional),
            psnr_conditional: classified.then(|| mean(conditional)),
            ssim: ssim.map(mean),
        })
        .collect();
    let correct = confidence.iter().filter(|(_, correct)| *correct).count();
    let accuracy = classified.then(|| mean(correct as f64));
    let calibration_error = classified.then(|| calibration_error(&confidence));
    let cross_entropy = classified.then(|| mean(cross_entropy));
    let evaluation = Evaluation { images: count, accuracy, calibration_error, cross_entropy, denoising };
    Ok((evaluation, predictions))
}

/// Classes of labelled images, by their positions in the set.
fn classes(images: &Images, indices: &[usize]) -> Tensor {
    let classes: Vec<i64> = indices.iter().filter_map(|&i| images.class(i)).map(|c| c as i64).collect();
    Tensor::from_slice(&classes)
}

/// From each prediction's probability, and whether it was right.
fn calibration_error(predictions: &[(f64, bool)]) -> f64 {
    // Probabilities less successes: a bin's sum is its size times the distance of the two means.
    let mut bins = [0.0; BINS];
    for &(probability, correct) in predictions {
        let bin = ((probability * BINS as f64) as usize).min(BINS - 1);
        bins[bin] += probability - f64::from(u8::from(correct));
    }
    bins.iter().map(|bin| bin.abs()).sum::<f64>() / predictions.len().max(1) as f64
}

/// Images of one size, padded to the network's stride by reflection.
struct Prepared {
    clean: Tensor,
    len: usize,
    height: usize,
    width: usize,
}

impl Prepared {
    /// As many of the next images as have the same size and fit into a batch.
    fn gather(images: &Images, indices: &[usize], stride: usize, options: &Options) -> Result<Prepared> {
        let mut values: Vec<f32> = Vec::new();
        let (mut len, mut height, mut width) = (0, 0, 0);
        let mut padded = (0, 0);
        for &index in indices.iter().take(BATCH) {
            let pixels = images.pixels(index)?;
            let crop = options.crop.unwrap_or(usize::MAX);
            let size = (pixels.height.min(crop), pixels.width.min(crop));
            if len == 0 {
                (height, width) = size;
                padded = (height.next_multiple_of(stride), width.next_multiple_of(stride));
            } else if size != (height, width) || (len + 1) * padded.0 * padded.1 > BATCH_PIXELS {
                break;
            }
            planes(&pixels, (height, width), padded, &mut values);
            len += 1;
        }
        let shape = [len as i64, 3, padded.0 as i64, padded.1 as i64];
        Ok(Prepared { clean: Tensor::from_slice(&values).reshape(shape), len, height, width })
    }

    fn noise(&self, indices: &[usize], sigma: f64) -> Tensor {
        let each = self.clean.numel() / self.len;
        let values: Vec<f32> = indices
            .iter()
            .flat_map(|&index| {
                let mut rng = ChaCha8Rng::seed_from_u64(sigma.to_bits());
                rng.set_stream(index as u64);
                StandardNormal.sample_iter(rng).take(each)
            })
            .collect();
        Tensor::from_slice(&values).reshape(self.clean.size())
    }

    /// The images without the padding.
    fn inside(&self, padded: &Tensor) -> Tensor {
        padded.narrow(2, 0, self.height as i64).narrow(3, 0, self.width as i64)
    }
}

/// Appends the central part of an image as planes, continued by reflection to the padded size.
fn planes(pixels: &Pixels, size: (usize, usize), padded: (usize, usize), out: &mut Vec<f32>) {
    let (top, left) = ((pixels.height - size.0) / 2, (pixels.width - size.1) / 2);
    for channel in 0..3 {
        for row in 0..padded.0 {
            let y = top + reflect(row as isize, size.0);
            for column in 0..padded.1 {
                let x = left + reflect(column as isize, size.1);
                out.push(f32::from(pixels.rgb[(y * pixels.width + x) * 3 + channel]) / 255.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_rounded_down_and_keep_their_digits() {
        for count in 0..=10_000u32 {
            // As it is recorded, and as a table shows it.
            let recorded = rounded_down(f64::from(count) / 1e4, 4);
            assert_eq!(format!("{recorded:.4}"), format!("{:.4}", f64::from(count) / 1e4));
            let shown = format!("{:.2}", rounded_down(100.0 * recorded, 2));
            assert_eq!(shown, format!("{}.{:02}", count / 100, count % 100));
        }
        assert_eq!(rounded_down(30.4099, 2), 30.4);
    }

    #[test]
    fn a_calibrated_classifier_has_no_calibration_error() {
        let of = |probability: f64, right: usize| (0..10).map(move |i| (probability, i < right));
        let calibrated: Vec<_> = of(0.9, 9).chain(of(0.5, 5)).chain(of(1.0, 10)).collect();
        assert!(calibration_error(&calibrated) < 1e-12);
        // Too sure by 0.4 in one bin, too modest by 0.2 in another of the same size: they do not cancel.
        let wrong: Vec<_> = of(0.9, 5).chain(of(0.3, 5)).collect();
        assert!((calibration_error(&wrong) - 0.3).abs() < 1e-12);
        assert_eq!(calibration_error(&[]), 0.0);
    }
}

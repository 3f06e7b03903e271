//! `attack`: accuracy under projected gradient descent (section 4.3, Figure 4), with and without noise at
//! test time (section 5.1).

use super::figure::{Axis, Legend, Mark, Panel, Series, plot};
use super::pgd::{Norm, Pgd, smoothed};
use super::report::{Report, progress};
use super::subject::{Batch, Inputs, Need, Subject, bounded, correct};
use crate::console::line;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Seeds of the noise: predictions never see the attack's.
const ATTACK_SEED: u64 = 1 << 32;
const PREDICTION_SEED: u64 = 2 << 32;

/// Measure accuracy under adversarial attack (Figure 4), over attack strengths and noise levels at test time
///
/// Projected gradient descent with foolbox's conventions: from a random start, 40 steps of ε/30 for ℓ∞, 50 of
/// ε/40 for ℓ2, clipped to [0, 1]; the last image counts. Where --noise is not 0 the classifier is the smoothed
/// one, whose probabilities are averaged over --draws of noise, and the attack follows the gradient of that
/// average, with new noise at every step. Writes attack.json, .md and attack.png.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    inputs: Inputs,
    /// Images, spread evenly over the data
    #[arg(long, default_value = "500", value_parser = clap::value_parser!(u32).range(1..))]
    images: u32,
    /// Strengths of the ℓ∞ attack, in 8-bit units
    #[arg(long, value_delimiter = ',', default_value = "0,1,2,4,8,16", value_parser = bounded)]
    linf: Vec<f64>,
    /// Strengths of the ℓ2 attack, in image units (values from 0 to 1, norm over the image)
    #[arg(long, value_delimiter = ',', default_value = "0,0.1,0.25,0.5,0.75,1", value_parser = bounded)]
    l2: Vec<f64>,
    /// Noise levels at test time, in 8-bit units
    #[arg(long, value_delimiter = ',', default_value = "0", value_parser = bounded)]
    noise: Vec<f64>,
    /// Draws of the noise that a smoothed prediction averages over
    #[arg(long, default_value = "4", value_parser = clap::value_parser!(u32).range(1..))]
    draws: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct Row {
    model: String,
    norm: Norm,
    /// 8-bit units for ℓ∞, image units for ℓ2.
    epsilon: f64,
    /// Noise level at test time in 8-bit units.
    noise: f64,
    /// Fraction of the attacked images that is classified correctly.
    accuracy: f64,
    /// Binomial.
    standard_error: f64,
}

/// Runs the study.
///
/// # Errors
/// If inputs cannot be read, do not have classes, or results cannot be written.
pub fn run(args: &Args) -> Result<()> {
    let (subjects, images) = args.inputs.open(Kind::Float, &[Need::Logits])?;
    let settings = serde_json::json!({
        "data": args.inputs.data_settings(&images), "images": args.images, "draws": args.draws,
    });
    let mut report = args.inputs.report::<Row>("attack", &settings, &subjects)?;
    let attacks: Vec<(Norm, f64)> =
        (args.linf.iter().map(|&e| (Norm::Linf, e))).chain(args.l2.iter().map(|&e| (Norm::L2, e))).collect();
    let bar = progress(subjects.len() * args.noise.len() * attacks.len(), "attacks")?;
    for subject in &subjects {
        let batch = Batch::spread(&images, args.images as usize, subject)?;
        batch.require_classes(subject)?;
        for &noise in &args.noise {
            for &(norm, epsilon) in &attacks {
                report.row(&format!("{}/{norm:?}/{epsilon}/{noise}", subject.key()), || {
                    let accuracy =
                        robust_accuracy(subject, &batch, norm, epsilon, noise, args.draws as usize)?;
                    let count = batch.images.size()[0] as f64;
                    Ok(Row {
                        model: subject.spec.name.clone(),
                        norm,
                        epsilon,
                        noise,
                        accuracy,
                        standard_error: (accuracy * (1.0 - accuracy) / count).sqrt(),
                    })
                })?;
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    plot(
        &args.inputs.output.join("attack.png"),
        &[
            panel(&report, Norm::Linf, "l-inf PGD", "strength (8-bit units)"),
            panel(&report, Norm::L2, "l2 PGD", "strength (image units)"),
        ],
    )?;
    line(report.markdown()?);
    Ok(())
}

fn robust_accuracy(
    subject: &Subject,
    batch: &Batch,
    norm: Norm,
    epsilon: f64,
    noise: f64,
    draws: usize,
) -> Result<f64> {
    let epsilon = if norm == Norm::Linf { epsilon / 255.0 } else { epsilon };
    let sigma = noise / 255.0;
    let net = subject.net.as_ref();
    let attack = Pgd::foolbox(norm);
    let mut right = 0.0;
    for (first, part) in batch.parts() {
        let classes = part.require_classes(subject)?;
        // The network has the classes of the images, hence logits.
        let logits = |x: &Tensor| net.forward(x).logits.unwrap_or_else(|| x.flatten(1, -1));
        let seeds = |base: u64, step: usize| base + ((first as u64) << 8) + step as u64;
        let attacked = attack.attack(
            |x, step| smoothed(logits, x, sigma, draws, seeds(ATTACK_SEED, step)),
            &part.images,
            classes,
            epsilon,
            first as u64,
        );
        let predicted = tch::no_grad(|| smoothed(logits, &attacked, sigma, draws, seeds(PREDICTION_SEED, 0)));
        right += correct(&predicted, classes);
    }
    Some(right / batch.images.size()[0] as f64).filter(|a| a.is_finite()).context("no images")
}

fn panel(report: &Report<Row>, norm: Norm, title: &str, label: &str) -> Panel {
    let mut series: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
    for row in report.rows().filter(|r| r.norm == norm) {
        let model = row.model.clone();
        let key = if row.noise == 0.0 { model } else { format!("{model}, noise {}", row.noise) };
        let point = (row.epsilon, 100.0 * row.accuracy);
        match series.iter_mut().find(|(k, _)| *k == key) {
            Some((_, points)) => points.push(point),
            None => series.push((key, vec![point])),
        }
    }
    let largest = series.iter().flat_map(|(_, p)| p.iter().map(|p| p.0)).fold(1e-9, f64::max);
    let series = series.into_iter().enumerate().map(|(colour, (label, mut points))| {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Series::new(&label, Mark::LinePoints, colour, points)
    });
    Panel {
        title: title.into(),
        x: Axis::linear(label, 0.0, 1.05 * largest),
        y: Axis::linear("accuracy (%)", 0.0, 100.0),
        legend: Legend::UpperRight,
        series: series.collect(),
    }
}

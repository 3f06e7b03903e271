//! A run that a person watches: progress, metrics, validation, checkpoints, and a clean stop.

use crate::console::note;
use crate::evaluate::Evaluation;
use crate::metrics::Metrics;
use crate::run::{Run, Step};
use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What the names of a validation's figures begin with.
const HELD_OUT: &str = "held_out/";

/// Time between checkpoints.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(300);

/// Takes the steps that are left of `run` and keeps its folder up to date: a line of metrics per step,
/// regular validations, a checkpoint every five minutes, before each of those and at the end. When `stop` becomes true it writes
/// a checkpoint and ends.
///
/// # Errors
/// If a step fails, a file cannot be written, or the run was stopped before its end.
pub fn fit(run: &mut Run, dir: &Path, stop: &AtomicBool) -> Result<()> {
    let (mut metrics, validated) = Metrics::open(dir, run.steps(), HELD_OUT)?;
    let (total, every) = (run.config().steps, run.config().validate_every);
    let due = |step: u64| step.is_multiple_of(every) || step == total;
    let bar = ProgressBar::new(total).with_position(run.steps());
    bar.set_style(ProgressStyle::with_template(
        "{bar:30} {human_pos}/{human_len} steps, {per_sec}, {eta} left, {msg}",
    )?);
    // One that failed or was cut off; not of the network that the run began with.
    if run.steps() > run.first_step() && due(run.steps()) && !validated {
        validate(run, &mut metrics, &bar, "")?;
    }
    bar.reset_eta();
    let mut saved = Instant::now();
    while run.steps() < total {
        let start = Instant::now();
        let step = run.step()?;
        metrics.write(run.steps(), &figures(&step, start.elapsed()))?;
        bar.set_message(format!("loss {:.4}", step.loss));
        bar.inc(1);
        let last = run.steps() == total;
        let stopped = stop.load(Ordering::Relaxed);
        let due = due(run.steps());
        // Before a validation: one that fails would fail again after steps that were lost and done again.
        if due || stopped || saved.elapsed() >= CHECKPOINT_EVERY {
            run.checkpoint(dir)?;
            saved = Instant::now();
        }
        if due {
            validate(run, &mut metrics, &bar, &format!("loss {:.4}, ", step.loss))?;
        }
        if stopped && !last {
            bar.abandon();
            bail!(
                "stopped after step {}; the checkpoint is written, `gradresnet-train resume {}` continues",
                run.steps(),
                dir.display()
            );
        }
    }
    bar.finish();
    Ok(())
}

/// Measures the network on held-out images, if there are any, and reports that after `before`.
fn validate(run: &Run, metrics: &mut Metrics, bar: &ProgressBar, before: &str) -> Result<()> {
    if let Some(evaluation) = run.validate()? {
        metrics.write(run.steps(), &evaluation_figures(&evaluation))?;
        say(bar, format!("step {}: {before}{}", run.steps(), summary(&evaluation)));
    }
    Ok(())
}

/// Above the bar on a terminal, a plain line elsewhere.
fn say(bar: &ProgressBar, line: String) {
    if bar.is_hidden() {
        note(line);
    } else {
        bar.println(line);
    }
}

fn figures(step: &Step, time: Duration) -> Vec<(String, f64)> {
    let mut figures = vec![("train/loss".to_string(), step.loss)];
    figures.extend(step.terms.iter().map(|(name, value)| (format!("train/{name}"), *value)));
    figures.push(("train/gradient_norm".into(), step.gradient_norm));
    figures.push(("train/rate".into(), step.rate));
    figures.push(("train/images_per_second".into(), step.images as f64 / time.as_secs_f64().max(1e-9)));
    figures
}

fn evaluation_figures(evaluation: &Evaluation) -> Vec<(String, f64)> {
    let mut figures: Vec<_> =
        evaluation.accuracy.map(|a| (format!("{HELD_OUT}accuracy"), a)).into_iter().collect();
    figures.extend(evaluation.calibration_error.map(|e| (format!("{HELD_OUT}calibration_error"), e)));
    figures.extend(evaluation.cross_entropy.map(|e| (format!("{HELD_OUT}cross_entropy"), e)));
    for level in &evaluation.denoising {
        let sigma = level.sigma;
        figures.push((format!("{HELD_OUT}psnr_{sigma}"), level.psnr));
        figures.extend(level.psnr_conditional.map(|c| (format!("{HELD_OUT}psnr_{sigma}_conditional"), c)));
        figures.extend(level.ssim.map(|s| (format!("{HELD_OUT}ssim_{sigma}"), s)));
    }
    figures
}

/// An evaluation in one line, for people.
pub fn summary(evaluation: &Evaluation) -> String {
    let mut parts: Vec<String> =
        evaluation.accuracy.map(|a| format!("accuracy {:.2} %", 100.0 * a)).into_iter().collect();
    parts.extend(evaluation.calibration_error.map(|e| format!("calibration error {:.2} %", 100.0 * e)));
    parts.extend(evaluation.cross_entropy.map(|e| format!("cross-entropy {e:.3}")));
    for level in &evaluation.denoising {
        let conditional = level.psnr_conditional.map(|c| format!(" ({c:.2} with its class)"));
        let ssim = level.ssim.map(|s| format!(", SSIM {s:.4}")).unwrap_or_default();
        let conditional = conditional.unwrap_or_default();
        parts.push(format!("σ = {}: {:.2} dB{conditional}{ssim}", level.sigma, level.psnr));
    }
    format!("{} ({} images)", parts.join(", "), evaluation.images)
}

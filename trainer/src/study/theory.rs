//! `theory`: generative against discriminative classifiers, measured against appendix D.

use super::asymptotics::{self, Constants};
use super::figure::{Axis, Legend, Mark, Panel, Series, plot};
use super::gaussian::{Node, Truth, conditional_entropy, cross_entropy, fit_discriminative, fit_generative};
use super::report::{Report, progress};
use crate::console::line;
use anyhow::{Result, ensure};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Measure how generative and discriminative classifiers learn, against appendix D (no network)
///
/// Two Gaussian classes in the plane; linear discriminant analysis is the generative classifier, logistic
/// regression the discriminative one. The models contain one of two truths (one covariance for both classes)
/// but not the other. Writes the constants b and v of eq. 4 (constants.json, .md), the measured errors
/// (errors.json, .md), error.png, scaled-error.png (n·(error − b) against v/2) and figure1.png (the
/// paper's Figure 1).
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Folder for the results, made if missing; a second run goes on where the first stopped
    #[arg(short, long)]
    output: PathBuf,
    /// Numbers of training points
    #[arg(long, value_delimiter = ',', default_value = "100,200,400,800,1600,3200",
        value_parser = clap::value_parser!(u32).range(10..=100_000))]
    samples: Vec<u32>,
    /// Training sets for each number of points
    #[arg(long, default_value = "40000", value_parser = clap::value_parser!(u32).range(2..))]
    repeats: u32,
    /// Seed of the training sets
    #[arg(long, default_value = "0")]
    seed: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct ConstantsRow {
    truth: String,
    classifier: String,
    /// b, in nats.
    b: f64,
    /// v of eq. 26 and 27.
    v: f64,
    /// The first-order term that eq. 25 leaves out; see [`Constants::shift`].
    shift: f64,
    /// Parameters of the classifier that can be told apart: the rank of its Fisher matrix.
    m: usize,
}

#[derive(Debug, Serialize, Deserialize)]
struct ErrorRow {
    truth: String,
    classifier: String,
    n: u32,
    /// Mean of ε (eq. 3) over the training sets, in nats.
    error: f64,
    /// n·(error − b).
    scaled: f64,
    /// Standard error of `scaled`.
    standard_error: f64,
    /// v/2, which eq. 4 says `scaled` tends to.
    half_v: f64,
    /// (v + shift)/2.
    half_v_shift: f64,
    /// Training sets without a maximum-likelihood estimate, left out.
    without_estimate: u32,
}

const CLASSIFIERS: [&str; 2] = ["generative", "discriminative"];

/// Runs the study.
///
/// # Errors
/// If the results cannot be written, or those in the folder have other settings.
pub fn run(args: &Args) -> Result<()> {
    let settings = serde_json::json!({ "repeats": args.repeats, "seed": args.seed });
    let mut constants_report = Report::open(&args.output, "constants", &settings)?;
    let mut report = Report::<ErrorRow>::open(&args.output, "errors", &settings)?;
    let truths = [("well specified", Truth::well_specified()), ("misspecified", Truth::misspecified())];
    let bar = progress(truths.len() * args.samples.len(), "training-set sizes")?;
    let (mut errors, mut scaled) = (Vec::new(), Vec::new());
    for (number, (name, truth)) in truths.iter().enumerate() {
        let nodes = truth.quadrature();
        let (generative, rank) = asymptotics::generative(truth, &nodes)?;
        let constants = [generative, asymptotics::discriminative(truth, &nodes)?];
        for (classifier, c) in CLASSIFIERS.iter().zip(&constants) {
            constants_report.row(&format!("{name}/{classifier}"), || {
                let (truth, classifier) = (name.to_string(), classifier.to_string());
                Ok(ConstantsRow { truth, classifier, b: c.bias, v: c.variance, shift: c.shift, m: rank })
            })?;
        }
        for &n in &args.samples {
            let mut measured = None;
            for (index, classifier) in CLASSIFIERS.iter().enumerate() {
                let c = constants[index];
                report.row(&format!("{name}/{classifier}/{n}"), || {
                    // Both classifiers see the same training sets.
                    let both = measured.get_or_insert_with(|| {
                        let mut rng = ChaCha8Rng::seed_from_u64(args.seed);
                        rng.set_stream((number as u64) << 32 | u64::from(n));
                        measure(truth, &nodes, n, args.repeats, &mut rng)
                    });
                    let Sample { mean, standard_error, missing } = both[index];
                    // One alone has no deviation.
                    let found = args.repeats - missing;
                    ensure!(
                        found > 1,
                        "{found} of {} training sets of {n} points have an estimate, and two are needed: raise --repeats or \
                         --samples",
                        args.repeats
                    );
                    Ok(ErrorRow {
                        truth: name.to_string(),
                        classifier: classifier.to_string(),
                        n,
                        error: mean,
                        scaled: f64::from(n) * (mean - c.bias),
                        standard_error: f64::from(n) * standard_error,
                        half_v: c.variance / 2.0,
                        half_v_shift: (c.variance + c.shift) / 2.0,
                        without_estimate: missing,
                    })
                })?;
            }
            bar.inc(1);
        }
        errors.push(error_panel(name, &report, &constants, &args.samples));
        scaled.push(scaled_panel(name, &report, &constants, &args.samples));
    }
    bar.finish_and_clear();
    plot(&args.output.join("error.png"), &errors)?;
    plot(&args.output.join("scaled-error.png"), &scaled)?;
    plot(&args.output.join("figure1.png"), &figure1())?;
    line(format_args!("{}\n{}", constants_report.markdown()?, report.markdown()?));
    Ok(())
}

/// Mean error over training sets.
#[derive(Clone, Copy, Debug)]
struct Sample {
    mean: f64,
    standard_error: f64,
    missing: u32,
}

/// ε (eq. 3) of the generative and the discriminative classifier over `repeats` training sets of `n`.
fn measure(truth: &Truth, nodes: &[Node], n: u32, repeats: u32, rng: &mut ChaCha8Rng) -> [Sample; 2] {
    let entropy = conditional_entropy(truth, nodes);
    let mut errors = [Vec::new(), Vec::new()];
    for _ in 0..repeats {
        let data = truth.sample(n as usize, rng);
        let generative = fit_generative(&data);
        let points = data.iter().map(|&(x, class)| (x, class, 1.0));
        let discriminative = generative.and_then(|start| fit_discriminative(points, start));
        for (errors, fit) in errors.iter_mut().zip([generative, discriminative]) {
            errors.extend(fit.map(|fit| cross_entropy(nodes, &fit) - entropy));
        }
    }
    errors.map(|errors| {
        let count = errors.len() as f64;
        let mean = errors.iter().sum::<f64>() / count;
        let variance = errors.iter().map(|e| (e - mean).powi(2)).sum::<f64>() / (count - 1.0);
        Sample { mean, standard_error: (variance / count).sqrt(), missing: repeats - errors.len() as u32 }
    })
}

fn curve(from: f64, to: f64, f: impl Fn(f64) -> f64) -> Vec<(f64, f64)> {
    let step = (to / from).powf(0.01);
    (0..=100).map(|i| from * step.powi(i)).map(|n| (n, f(n))).collect()
}

fn limits(samples: &[u32]) -> (f64, f64) {
    let (low, high) = samples.iter().fold((u32::MAX, 0), |(low, high), &n| (low.min(n), high.max(n)));
    (f64::from(low) / 1.2, f64::from(high) * 1.2)
}

fn points<'a>(
    report: &'a Report<ErrorRow>,
    truth: &'a str,
    classifier: &'a str,
    samples: &'a [u32],
) -> impl Iterator<Item = &'a ErrorRow> {
    report.rows().filter(move |r| r.truth == truth && r.classifier == classifier && samples.contains(&r.n))
}

fn error_panel(truth: &str, report: &Report<ErrorRow>, constants: &[Constants; 2], samples: &[u32]) -> Panel {
    let (low, high) = limits(samples);
    let mut series = Vec::new();
    for (colour, (classifier, c)) in CLASSIFIERS.iter().zip(constants).enumerate() {
        let measured =
            points(report, truth, classifier, samples).map(|r| (f64::from(r.n), r.error)).collect();
        series.push(Series::new(classifier, Mark::Points, colour, measured));
        let law = curve(low, high, |n| c.bias + (c.variance + c.shift) / (2.0 * n));
        series.push(Series::new("", Mark::Line, colour, law));
    }
    Panel {
        title: format!("{truth}: lines are b + (v + s)/2n"),
        x: Axis::log("training points n", low, high),
        y: Axis::log_around("error (nats)", &series),
        legend: Legend::UpperRight,
        series,
    }
}

fn scaled_panel(
    truth: &str,
    report: &Report<ErrorRow>,
    constants: &[Constants; 2],
    samples: &[u32],
) -> Panel {
    let (low, high) = limits(samples);
    let mut series = Vec::new();
    for (colour, (classifier, c)) in CLASSIFIERS.iter().zip(constants).enumerate() {
        let rows = || points(report, truth, classifier, samples);
        let measured = rows().map(|r| (f64::from(r.n), r.scaled)).collect();
        let bars = rows().map(|r| 2.0 * r.standard_error).collect();
        series.push(Series::new(classifier, Mark::Points, colour, measured).with_bars(bars));
        let level = |value: f64| vec![(low, value), (high, value)];
        series.push(Series::new("", Mark::Line, colour, level((c.variance + c.shift) / 2.0)));
        if c.shift.abs() > 1e-6 {
            series.push(Series::new("v/2 alone", Mark::Dashes, colour, level(c.variance / 2.0)));
        }
    }
    Panel {
        title: format!("{truth}: lines are (v + s)/2"),
        x: Axis::log("training points n", low, high),
        y: Axis::around("n (error - b), nats", &series),
        legend: Legend::UpperRight,
        series,
    }
}

/// The paper's Figure 1 with its own constants. It plots b + v/n, where eq. 4 has b + v/2n.
fn figure1() -> Vec<Panel> {
    let panel = |title: &str, constants: [(f64, f64); 2], high: f64| {
        let series: Vec<Series> = CLASSIFIERS
            .iter()
            .zip(constants)
            .enumerate()
            .map(|(colour, (name, (b, v)))| {
                Series::new(name, Mark::Line, colour, curve(1.0, high, |n| b + v / n))
            })
            .collect();
        Panel {
            title: title.into(),
            x: Axis::log("n", 1.0, high),
            y: Axis::log_around("b + v/n", &series),
            legend: Legend::UpperRight,
            series,
        }
    };
    vec![
        panel("bias-dominated", [(5.0, 20.0), (1.0, 100.0)], 1e3),
        panel("variance-dominated", [(1.0, 100.0), (1.0, 1e4)], 1e5),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The law of eq. 4 at 400 points, within the next order (about 1/n) and four standard errors; in the
    /// misspecified case only with the term that eq. 25 leaves out.
    #[test]
    fn measured_errors_follow_the_constants() {
        for truth in [Truth::well_specified(), Truth::misspecified()] {
            let nodes = truth.quadrature();
            let constants = [
                asymptotics::generative(&truth, &nodes).unwrap().0,
                asymptotics::discriminative(&truth, &nodes).unwrap(),
            ];
            let mut rng = ChaCha8Rng::seed_from_u64(3);
            for (sample, c) in measure(&truth, &nodes, 400, 4000, &mut rng).iter().zip(constants) {
                let scaled = 400.0 * (sample.mean - c.bias);
                let expected = (c.variance + c.shift) / 2.0;
                let slack = 0.05 * expected + 4.0 * 400.0 * sample.standard_error;
                assert!((scaled - expected).abs() < slack, "{scaled} {expected} {slack}");
            }
        }
    }
}

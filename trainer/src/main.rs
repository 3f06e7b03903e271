//! The command line: arguments become a plan for the library, and its results a report.

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};
use gradresnet_models::{Checkpoint, Measurement, Spec, checkpoint, staged};
use gradresnet_train::config::Config;
use gradresnet_train::console::{line, note};
use gradresnet_train::data::{Images, Split};
use gradresnet_train::device::Machine;
use gradresnet_train::evaluate::{self, Evaluation, Prediction, evaluate, rounded_down};
use gradresnet_train::fit::{fit, summary};
use gradresnet_train::metrics::METRICS;
use gradresnet_train::nets::Network;
use gradresnet_train::run::{CHECKPOINT, CONFIG, Origin, Place, Run};
use gradresnet_train::study::{self, subject::bounded};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tch::{Device, Kind};

/// Trains and evaluates classification-denoising networks.
#[derive(Parser)]
#[command(
    version,
    after_help = "\
Examples:
  gradresnet-train fit --config trainer/configs/photo.toml --data photographs/ -o runs/photo
  gradresnet-train resume runs/photo
  gradresnet-train fit --config longer.toml --data photographs/ --from models/zoo/photo -o runs/longer
  gradresnet-train average models/zoo/photo runs/longer/checkpoint -o runs/mean
  gradresnet-train eval runs/photo/checkpoint --data test-images/ --sigma 15,25,50
  gradresnet-train eval runs/photo/checkpoint --data photographs/ --held-out 0.05
  gradresnet-export runs/photo/checkpoint -o photo      (makes the bundle that `gradresnet` runs)

Data: a flat folder of PNG or JPEG photographs, a folder of class folders (with train/ and test/
above them, or without), or the official binary version of CIFAR-10."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train a network, from random weights or from those of a checkpoint or bundle
    Fit(Fit),
    /// Go on with a run that was stopped or cut off, exactly as if it had not been
    Resume(Resume),
    /// Measure accuracy, calibration, cross-entropy, PSNR and SSIM of a checkpoint or bundle
    Eval(Eval),
    /// Make one network of several states of a run: the mean of their weights
    Average(Average),
    Theory(study::theory::Args),
    Jacobian(study::jacobian::Args),
    Attack(study::attack::Args),
    Adversarial(study::adversarial::Args),
    Linearity(study::linearity::Args),
    Generalize(study::generalize::Args),
    Sample(study::sample::Args),
    Ood(study::ood::Args),
    Table(study::table::Args),
}

#[derive(Args)]
struct Fit {
    /// What to train and how; see trainer/configs/
    #[arg(long)]
    config: PathBuf,
    /// Training images
    #[arg(long)]
    data: PathBuf,
    /// Folder of the run, made if missing: config, metrics and checkpoint
    #[arg(short, long)]
    output: PathBuf,
    /// Go on from this checkpoint or bundle, at its step, with a new optimiser: for longer training, or for images of
    /// your own. The config must have its architecture, and more `steps` than it has. A denoiser without classes gains
    /// those of the data if the config has [classification]
    #[arg(long, value_name = "CHECKPOINT")]
    from: Option<PathBuf>,
    #[command(flatten)]
    machine: Machine,
}

#[derive(Args)]
struct Resume {
    /// Folder of the run
    run: PathBuf,
    /// Training images, if they have moved
    #[arg(long)]
    data: Option<PathBuf>,
    #[command(flatten)]
    machine: Machine,
}

#[derive(Args)]
struct Average {
    /// Folders of checkpoints or bundles: states of one run, or of runs that went on from one another
    #[arg(value_name = "CHECKPOINT", required = true)]
    checkpoints: Vec<PathBuf>,
    /// Folder of the checkpoint that is made; must not exist
    #[arg(short, long)]
    output: PathBuf,
}

/// The noise levels that figures are usually given at, 8-bit units.
const SIGMAS: &str = "15,25,50";

#[derive(Args)]
struct Eval {
    /// Folder of the checkpoint, or of a bundle
    checkpoint: PathBuf,
    /// Images to measure on; of data with a training and a test half, the test half
    #[arg(long)]
    data: PathBuf,
    /// Measure on what a config with this `held_out` keeps from training, to choose among networks; of data with a
    /// training and a test half, that is a part of the training half
    #[arg(long, value_name = "FRACTION", value_parser = fraction)]
    held_out: Option<f64>,
    /// Noise levels in 8-bit units
    #[arg(long, value_delimiter = ',', default_value = SIGMAS, value_parser = bounded)]
    sigma: Vec<f64>,
    /// Largest number of images, spread evenly over the data
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Compute in float64, for reference values
    #[arg(long)]
    float64: bool,
    /// One JSON object on stdout instead of a line for people
    #[arg(long)]
    json: bool,
    /// Write what the classifier says of each image, as JSON lines, to a new file
    #[arg(long, value_name = "FILE")]
    predictions: Option<PathBuf>,
    /// Keep the figures in the checkpoint's spec.json, under this name of the data, in place of all that it has under it
    #[arg(long, value_name = "NAME")]
    record: Option<String>,
    #[command(flatten)]
    machine: Machine,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are not failures. If stderr is closed, nothing can be done.
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    let result = match cli.command {
        Command::Fit(args) => start(args),
        Command::Resume(args) => resume(args),
        Command::Eval(args) => eval(args),
        Command::Average(args) => average(&args),
        Command::Theory(args) => study::theory::run(&args),
        Command::Jacobian(args) => study::jacobian::run(&args),
        Command::Attack(args) => study::attack::run(&args),
        Command::Adversarial(args) => study::adversarial::run(&args),
        Command::Linearity(args) => study::linearity::run(&args),
        Command::Generalize(args) => study::generalize::run(&args),
        Command::Sample(args) => study::sample::run(&args),
        Command::Ood(args) => study::ood::run(&args),
        Command::Table(args) => study::table::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            note(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// A part of the images on the command line, as in a config.
fn fraction(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(f) if f > 0.0 && f <= 0.5 => Ok(f),
        _ => Err("expected a number above 0 and up to 0.5".into()),
    }
}

/// One thread for each objective keeps up with a network on a CPU; a GPU needs more.
fn loader_threads(device: Device) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if device.is_cuda() { (cores / 2).clamp(1, 8) } else { 1 }
}

fn start(args: Fit) -> Result<()> {
    let (config, text) = Config::read_with_text(&args.config)?;
    let path = args.output.join(CONFIG);
    ensure!(
        !path.exists(),
        "{}: there is a run already; `gradresnet-train resume {}` continues it",
        path.display(),
        args.output.display()
    );
    let checkpoint = args.output.join(CHECKPOINT);
    ensure!(
        !checkpoint.exists(),
        "{}: there already, without a run's config; remove it, or choose another folder",
        checkpoint.display()
    );
    let metrics = args.output.join(METRICS);
    ensure!(!metrics.exists(), "{}: there already, without a run's config; move it away", metrics.display());
    let (device, threads) = args.machine.prepare();
    let place = Place { data: args.data.clone(), device, threads, loader_threads: loader_threads(device) };
    let mut command = format!(
        "gradresnet-train fit --config {} --data {}",
        portable(&args.config).display(),
        portable(&args.data).display()
    );
    let mut run = match &args.from {
        Some(path) => {
            command += &format!(" --from {}", portable(path).display());
            let checkpoint = Checkpoint::read(path)?;
            Run::start(config, place, command, Some(Origin { path, checkpoint: &checkpoint }))?
        }
        None => Run::start(config, place, command, None)?,
    };
    run.checkpoint(&args.output)?;
    // From here on there is something to resume, whatever happens.
    staged::write_file(&path, text.as_bytes())?;
    watch(&mut run, &args.output)
}

/// The part of a path that means something on another machine: all of a relative one, an absolute one's name.
fn portable(path: &Path) -> &Path {
    if path.is_relative() { path } else { path.file_name().map_or(path, Path::new) }
}

fn resume(args: Resume) -> Result<()> {
    let mut run = Run::resume(&args.run, |state| {
        let (device, threads) = args.machine.prepare_as(state.device.as_deref(), state.threads)?;
        let data = args.data.unwrap_or_else(|| state.data.clone());
        Ok(Place { data, device, threads, loader_threads: loader_threads(device) })
    })?;
    watch(&mut run, &args.run)
}

fn watch(run: &mut Run, dir: &Path) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed)).context("signals cannot be caught")?;
    let parameters: usize = run.published().list().iter().map(|p| p.len()).sum();
    let (at, total) = (run.steps(), run.config().steps);
    note(format_args!("{}: {parameters} parameters, step {at} of {total}", run.config().name));
    if run.precision() != run.config().precision {
        note("note: this processor has no bfloat16 instructions, so convolutions compute in float32");
    }
    fit(run, dir, &stop)?;
    note(format_args!("checkpoint: {}", dir.join(CHECKPOINT).display()));
    Ok(())
}

fn average(args: &Average) -> Result<()> {
    ensure!(!args.output.exists(), "{}: exists already; name another folder", args.output.display());
    let mut command = "gradresnet-train average".to_string();
    for path in &args.checkpoints {
        command += &format!(" {}", portable(path).display());
    }
    let checkpoint = gradresnet_train::average::average(&args.checkpoints, &command)?;
    checkpoint.stage(&args.output)?.commit(false)?;
    note(format_args!("checkpoint: {}", args.output.display()));
    Ok(())
}

fn eval(args: Eval) -> Result<()> {
    // Before the work whose result would be refused.
    if let Some(path) = &args.predictions {
        ensure!(!path.exists(), "{}: exists already; name another file", path.display());
    }
    let (device, _) = args.machine.prepare();
    let Checkpoint { spec, parameters, .. } = Checkpoint::read(&args.checkpoint)?;
    ensure!(
        args.predictions.is_none() || !spec.classes.is_empty(),
        "--predictions: {} does not classify",
        args.checkpoint.display()
    );
    let images = match args.held_out {
        None => Images::open(&args.data, Split::Test)?,
        Some(fraction) => Images::open(&args.data, Split::Train)?.hold_out(fraction).1,
    };
    ensure!(
        !images.is_empty(),
        "{}: has too few images for `--held-out` to leave one; a larger fraction would",
        args.data.display()
    );
    if !spec.classes.is_empty() && !images.classes().is_empty() && !images.have_classes_of(&spec) {
        note(format_args!(
            "note: {}: not the {} classes that {} knows, so what takes an image's class is not measured",
            args.data.display(),
            spec.classes.len(),
            args.checkpoint.display()
        ));
    }
    let kind = if args.float64 { Kind::Double } else { Kind::Float };
    let net = Network::from_tensors(&spec.architecture, spec.classes.len(), &parameters, kind, device)
        .with_context(|| format!("{}: parameters are missing", args.checkpoint.display()))?;
    let options = evaluate::Options {
        sigmas: args.sigma.clone(),
        limit: args.limit.map(|l| l as usize),
        crop: None,
        kind,
        device,
    };
    let bar = ProgressBar::new(images.len().min(options.limit.unwrap_or(usize::MAX)) as u64);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} images, {eta} left")?);
    let (evaluation, predictions) =
        evaluate(&net, &spec, &images, &options, |done| bar.set_position(done as u64))?;
    bar.finish_and_clear();
    ensure!(
        evaluation.measures_something() || args.predictions.is_some() && args.record.is_none(),
        "{}: nothing to measure: {} does not denoise, and the images do not have its classes",
        args.data.display(),
        args.checkpoint.display()
    );
    if let Some(path) = &args.predictions {
        let lines = json_lines(&predictions)?;
        staged::write_with(path, false, |file| anyhow::Ok(file.write_all(lines.as_bytes())?))?;
    }
    // Before anything is printed, which may fail.
    if let Some(name) = &args.record {
        record(&args, name, &spec, &evaluation)?;
    }
    if args.json {
        line(serde_json::to_string(&evaluation)?);
    } else {
        line(summary(&evaluation));
    }
    Ok(())
}

fn json_lines(predictions: &[Prediction]) -> Result<String> {
    let lines = predictions.iter().map(|p| Ok(serde_json::to_string(p)? + "\n"));
    lines.collect()
}

/// Replaces the figures on the data set `name` in the spec of the checkpoint, if that is still the one that was
/// `measured`.
fn record(args: &Eval, name: &str, measured: &Spec, evaluation: &Evaluation) -> Result<()> {
    let path = args.checkpoint.join(checkpoint::SPEC);
    let option = |name, value: Option<String>| value.map(|v| format!(" {name} {v}")).unwrap_or_default();
    let limit = option("--limit", args.limit.map(|l| l.to_string()));
    let held_out = option("--held-out", args.held_out.map(|f| f.to_string()));
    let data = portable(&args.data).display();
    let sigmas = args.sigma.iter().map(f64::to_string).collect::<Vec<_>>().join(",");
    let sigma = if sigmas == SIGMAS { String::new() } else { format!(" --sigma {sigmas}") };
    let float64 = if args.float64 { " --float64" } else { "" };
    let command = format!("gradresnet-train eval CHECKPOINT --data {data}{held_out}{sigma}{limit}{float64}");
    let mut spec = Spec::read(&path)?;
    ensure!(
        Spec { metrics: measured.metrics.clone(), ..spec.clone() } == *measured,
        "{}: the checkpoint was replaced while it was measured, perhaps by its run; measure a copy of it",
        path.display()
    );
    spec.metrics.retain(|m| m.data != name);
    let figure = |metric: &str, sigma, value: f64| Measurement {
        data: name.to_string(),
        metric: metric.to_string(),
        sigma,
        value: rounded_down(value, 4),
        command: command.clone(),
    };
    spec.metrics.extend(evaluation.accuracy.map(|a| figure("accuracy", None, a)));
    // Of these the lower is the better, so they are rounded up.
    let errors =
        [("calibration_error", evaluation.calibration_error), ("cross_entropy", evaluation.cross_entropy)];
    spec.metrics.extend(errors.into_iter().filter_map(|(metric, error)| {
        error.map(|e| Measurement { value: -rounded_down(-e, 4), ..figure(metric, None, e) })
    }));
    for level in &evaluation.denoising {
        let sigma = Some(level.sigma);
        spec.metrics.push(figure("psnr", sigma, level.psnr));
        spec.metrics.extend(level.psnr_conditional.map(|c| figure("psnr_conditional", sigma, c)));
        spec.metrics.extend(level.ssim.map(|s| figure("ssim", sigma, s)));
    }
    spec.validate().with_context(|| format!("--record: {} is left as it was", path.display()))?;
    staged::write_file(&path, spec.to_json().as_bytes())?;
    Ok(())
}

//! `gradresnet denoise`

use super::console::{Outcome, about};
use super::inputs::{ExistingArgs, InputArgs, Job, place};
use super::model::{ModelArgs, sigma};
use anyhow::{Context, Result, anyhow, ensure};
use clap::ValueEnum;
use gradresnet::{EXTENSIONS, ErrorKind, Format, Picture, Session, Tiling};
use ndarray::{Array2, Axis};
use rayon::prelude::*;
use serde::Serialize;
use std::borrow::Cow;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Write clean copies of noisy images
///
/// The model removes white Gaussian noise. Its strength is estimated for each image unless --sigma
/// gives it. Grey images stay grey, 16-bit images stay 16-bit, transparency and colour profiles are
/// kept. Large images are cut into overlapping tiles and blended.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  gradresnet denoise examples/noisy -o out
  gradresnet denoise shots/ -o clean --recursive --skip-existing --report clean.jsonl
  gradresnet denoise a.png b.jpg -o out --sigma 25 --format png
  gradresnet denoise small/ -o out --model cifar10 --class ship --guidance 2")]
pub struct Args {
    #[command(flatten)]
    inputs: InputArgs,
    /// Folder of the outputs, made if missing; subfolders are mirrored
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
    /// Noise level in 8-bit units, or `auto` to estimate it for each image
    #[arg(long, default_value = "auto", value_parser = sigma_or_auto, value_name = "auto|S",
          allow_negative_numbers = true)]
    sigma: Sigma,
    /// What the images show, for a model with classes
    #[arg(long, value_name = "NAME")]
    class: Option<String>,
    /// How strongly the class counts
    #[arg(long, default_value = "1", requires = "class", value_parser = guidance, value_name = "G",
          allow_negative_numbers = true)]
    guidance: f32,
    /// Side of the tiles in pixels [default: 256, for images of more than 512×512 pixels]
    #[arg(long, value_name = "N")]
    tile: Option<usize>,
    /// Pixels that neighbouring tiles share [default: 32, and a quarter of small tiles]
    #[arg(long, value_name = "N", requires = "tile")]
    overlap: Option<usize>,
    #[command(flatten)]
    existing: ExistingArgs,
    /// File format of the outputs
    #[arg(long, value_enum, default_value = "keep")]
    format: OutputFormat,
    /// Write what was done with each file as JSON lines, in the order of completion
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Clean images of the same names, to report PSNR against
    #[arg(long, value_name = "DIR")]
    reference: Option<PathBuf>,
    /// Say nothing but errors
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Clone, Copy)]
enum Sigma {
    Auto,
    /// In 8-bit units.
    Given(f32),
}

fn sigma_or_auto(text: &str) -> Result<Sigma, String> {
    if text == "auto" { Ok(Sigma::Auto) } else { sigma(text).map(Sigma::Given) }
}

fn guidance(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(g) if g.is_finite() => Ok(g),
        _ => Err("guidance is a finite number".into()),
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum OutputFormat {
    /// That of the input
    Keep,
    Png,
    Jpeg,
    Tiff,
}

impl OutputFormat {
    fn format(self) -> Option<Format> {
        match self {
            OutputFormat::Keep => None,
            OutputFormat::Png => Some(Format::Png),
            OutputFormat::Jpeg => Some(Format::Jpeg),
            OutputFormat::Tiff => Some(Format::Tiff),
        }
    }
}

/// A line of the report.
#[derive(Serialize)]
struct Record<'a> {
    path: Cow<'a, str>,
    output: Cow<'a, str>,
    #[serde(flatten)]
    done: Option<Done>,
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Serialize)]
struct Done {
    height: usize,
    width: usize,
    /// In 8-bit units.
    sigma: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    psnr: Option<f64>,
}

/// The lines are written as files are done: what was done stays known if the work is interrupted.
struct Report {
    path: PathBuf,
    file: Mutex<File>,
}

impl Report {
    fn create(path: &Path) -> Result<Report> {
        let file = File::create(path).with_context(|| format!("{}: cannot be written", path.display()))?;
        Ok(Report { path: path.to_path_buf(), file: Mutex::new(file) })
    }

    fn add(&self, record: &Record) -> Result<()> {
        let line = serde_json::to_string(record)? + "\n";
        // A line is written whole or not at all; a thread that panicked has not left half of one.
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(line.as_bytes()).with_context(|| format!("{}: cannot be written", self.path.display()))
    }
}

/// What is the same for every file.
struct Plan {
    session: Session,
    sigma: Sigma,
    /// `[1,C]`
    class_weights: Option<Array2<f32>>,
    tiling: Tiling,
    format: Option<Format>,
    reference: Option<PathBuf>,
}

pub fn run(args: &Args) -> Result<Outcome> {
    let session = args.model.open("photo")?;
    let class_weights =
        args.class.as_deref().map(|c| class_weights(&session, c, args.guidance)).transpose()?;
    let tiling = args.tile.map_or(Ok(Tiling::default()), |tile| Tiling::new(tile, args.overlap))?;
    if let Some(dir) = &args.reference {
        ensure!(dir.is_dir(), "{}: --reference is no folder", dir.display());
    }
    let found = args.inputs.find(Some(&args.output));
    let console = found.console(args.quiet);
    let format = args.format.format();
    let extension = format.map(Format::extension);
    let jobs = place(found.inputs, &args.output, extension, &args.existing, &console)?;
    if let Sigma::Given(sigma) = args.sigma {
        let range = session.spec().sigma;
        let (min, max) = (255.0 * range.min, 255.0 * range.max);
        if f64::from(sigma) > 1.001 * max {
            let name = &session.spec().name;
            console.say(format!("note: `{name}` was trained for noise levels from {min:.0} to {max:.0}"));
        }
    }
    let report = args.report.as_deref().map(Report::create).transpose()?;
    let reference = args.reference.clone();
    let plan = Plan { session, sigma: args.sigma, class_weights, tiling, format, reference };

    let records: Vec<Record> = jobs
        .par_iter()
        .map(|job| {
            let start = Instant::now();
            let result = plan.denoise(job);
            let seconds = start.elapsed().as_secs_f64();
            console.advance();
            let (done, error) = match result {
                Ok(done) => {
                    let psnr = done.psnr.map(|p| format!(", {p:.2} dB")).unwrap_or_default();
                    let (output, sigma) = (job.output.display(), done.sigma);
                    console.log(format!("{output}: σ = {sigma:.1}{psnr}, {seconds:.2} s"));
                    (Some(done), None)
                }
                Err(error) => {
                    console.fail(&error);
                    (None, Some(format!("{error:#}")))
                }
            };
            let (path, output) = (job.input.path.to_string_lossy(), job.output.to_string_lossy());
            let record = Record { path, output, done, seconds, error };
            if let Some(report) = &report
                && let Err(error) = report.add(&record)
            {
                console.fail(&error);
            }
            record
        })
        .collect();

    let psnr: Vec<f64> = records.iter().filter_map(|r| r.done.as_ref()?.psnr).collect();
    if !psnr.is_empty() {
        let mean = psnr.iter().sum::<f64>() / psnr.len() as f64;
        console.say(format!("mean PSNR of {} images: {mean:.2} dB", psnr.len()));
    }
    Ok(console.finish())
}

/// G times the one-hot vector of a class, `[1,C]`.
fn class_weights(session: &Session, class: &str, guidance: f32) -> Result<Array2<f32>> {
    let spec = session.spec();
    if spec.classes.is_empty() {
        return Err(gradresnet::Error::from(ErrorKind::NoClasses(spec.name.clone())).into());
    }
    let index = spec.class_index(class).ok_or_else(|| unknown_class(class, &spec.classes))?;
    let mut weights = Array2::zeros((1, spec.classes.len()));
    weights[[0, index]] = guidance;
    Ok(weights)
}

fn unknown_class(name: &str, classes: &[String]) -> anyhow::Error {
    let shown = classes.iter().take(20).cloned().collect::<Vec<_>>().join(", ");
    let more = if classes.len() > 20 { ", …" } else { "" };
    let known = format!("the model has {shown}{more}");
    gradresnet::Error::from(ErrorKind::UnknownClass { name: name.into(), known }).into()
}

impl Plan {
    fn denoise(&self, job: &Job) -> Result<Done> {
        let path = &job.input.path;
        let reference = self.reference.as_deref().map(|dir| find_reference(dir, &job.input.relative));
        let reference = reference.transpose().map_err(|e| about(path, e))?;
        let mut picture = Picture::read(path)?;
        let sigma = match self.sigma {
            Sigma::Given(sigma) => sigma / 255.0,
            Sigma::Auto => self.session.estimate_sigma(picture.pixels.view()).map_err(|e| about(path, e))?,
        };
        let weights = self.class_weights.as_ref().map(|w| w.view());
        let noisy = picture.pixels.view().insert_axis(Axis(0));
        let denoised = self.session.denoise(noisy, &[sigma], weights, &self.tiling);
        picture.pixels = denoised.map_err(|e| about(path, e))?.index_axis_move(Axis(0), 0);
        if let Some(parent) = job.output.parent() {
            std::fs::create_dir_all(parent)
                .with_context(|| format!("{}: cannot be made", parent.display()))?;
        }
        let (height, width) = picture.size();
        let psnr = reference
            .map(|reference| -> Result<f64> {
                let clean = Picture::read(&reference)?;
                // As it is written, but for rounding.
                let clipped = picture.pixels.mapv(|v| v.clamp(0.0, 1.0));
                gradresnet::psnr::psnr(clipped.view(), clean.pixels.view()).map_err(|e| about(path, e))
            })
            .transpose()?;
        picture.write(&job.output, self.format)?;
        Ok(Done { height, width, sigma: 255.0 * sigma, psnr })
    }
}

/// The file of the same relative path in `dir`, whatever its extension.
fn find_reference(dir: &Path, relative: &Path) -> Result<PathBuf> {
    let place = dir.join(relative);
    let candidates = std::iter::once(place.clone()).chain(EXTENSIONS.iter().map(|e| place.with_extension(e)));
    let mut existing = candidates.filter(|path| path.is_file());
    existing.next().ok_or_else(|| anyhow!("no reference of this name in {}", dir.display()))
}

//! `gradresnet denoise`

use super::console::{Console, Outcome, about, images as in_words, note};
use super::inputs::{ExistingArgs, Failure, InputArgs, Job, Placed, Target, is_image, place, resolved};
use super::model::{ModelArgs, sigma};
use super::workers::{self, Budget};
use anyhow::{Context, Result, anyhow, ensure};
use clap::ValueEnum;
use gradresnet::engine::{EngineKind, Graph};
use gradresnet::psnr::of_pictures;
use gradresnet::{Encoding, ErrorKind, Format, Picture, Session, Tiling, extensions};
use ndarray::Array2;
use serde::Serialize;
use std::borrow::Cow;
use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Write clean copies of noisy images
///
/// The model removes white Gaussian noise. Its strength is estimated for each image unless --sigma
/// gives it; --strength makes more or less of it. Outputs have the format, bit depth, channels,
/// transparency, colour profile, EXIF and XMP of their inputs, and are turned upright. Large images are
/// cut into overlapping tiles and blended.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  gradresnet denoise examples/noisy -o out
  gradresnet denoise shots/ -o clean --recursive --skip-existing --report clean.jsonl
  gradresnet denoise 'shots/**/*.jpg' -o clean --strength 0.7 --quality 90
  gradresnet denoise a.png b.jpg -o out --sigma 25 --format png --strip
  gradresnet denoise small/ -o out --model cifar10 --class ship --guidance 2

An interrupted run goes on with --skip-existing: outputs appear whole or not at all. With --in-place it names the
first file that is left.")]
pub struct Args {
    #[command(flatten)]
    inputs: InputArgs,
    /// Folder of the outputs, made if missing; subfolders are mirrored
    #[arg(short, long, value_name = "DIR", required_unless_present = "in_place")]
    output: Option<PathBuf>,
    /// Replace the inputs
    #[arg(long, conflicts_with_all = ["output", "format", "skip_existing", "overwrite"])]
    in_place: bool,
    #[command(flatten)]
    existing: ExistingArgs,
    /// Print what would be done and do nothing; an error if the model or the engine is missing, or the report exists
    /// and may not be replaced
    #[arg(long)]
    dry_run: bool,
    /// Noise level in 8-bit units, `auto` to estimate it for each image, or `folder` for the median of
    /// the estimates of all images. Levels are those before clipping at black and white
    #[arg(long, default_value = "auto", value_parser = noise_level, value_name = "auto|folder|S",
          allow_negative_numbers = true, help_heading = "Denoising")]
    sigma: Sigma,
    /// Factor on the noise level: below 1 keeps more detail and noise, above 1 less
    #[arg(long, default_value = "1", value_parser = strength, value_name = "F",
          allow_negative_numbers = true, help_heading = "Denoising")]
    strength: f32,
    /// Class of the images, for a model with classes
    #[arg(long, value_name = "NAME", help_heading = "Denoising")]
    class: Option<String>,
    /// Weight of the class
    #[arg(long, default_value = "1", requires = "class", value_parser = guidance, value_name = "G",
          allow_negative_numbers = true, help_heading = "Denoising")]
    guidance: f32,
    #[command(flatten)]
    model: ModelArgs,
    /// Memory: half for the images being worked on and their references, half for tiles, whose size follows
    /// from it unless --tile gives it; a single image may take more [default: 1G for images per thread, and
    /// what tiles take: 0.5 GiB each with `photo` and tract, 2 GiB with ONNX Runtime]
    #[arg(long, value_parser = memory, value_name = "SIZE", help_heading = "Resources")]
    memory: Option<u64>,
    /// Side of the tiles in pixels [default: 448, for images of more than 512×512 pixels, less if
    /// --memory is short]
    #[arg(long, value_name = "N", help_heading = "Resources")]
    tile: Option<usize>,
    /// Pixels that neighbouring tiles share [default: 32, and a quarter of small tiles]
    #[arg(long, value_name = "N", requires = "tile", help_heading = "Resources")]
    overlap: Option<usize>,
    /// File format of the outputs
    #[arg(long, value_enum, default_value = "keep", help_heading = "Outputs")]
    format: OutputFormat,
    /// Quality of JPEG outputs, 1 to 100
    #[arg(long, default_value = "95", value_name = "Q", value_parser = clap::value_parser!(u8).range(1..=100),
          help_heading = "Outputs")]
    quality: u8,
    /// Leave out EXIF, XMP and the colour profile
    #[arg(long, help_heading = "Outputs")]
    strip: bool,
    /// Write what was done with each file as JSON lines, in the order of completion
    #[arg(long, value_name = "FILE", help_heading = "Outputs")]
    report: Option<PathBuf>,
    /// Clean images of the same names, to report the PSNR of the outputs against
    #[arg(long, value_name = "DIR", help_heading = "Outputs")]
    reference: Option<PathBuf>,
    /// Print errors only
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Clone, Copy)]
enum Sigma {
    Auto,
    Folder,
    /// In 8-bit units.
    Given(f32),
}

fn noise_level(text: &str) -> Result<Sigma, String> {
    match text {
        "auto" => Ok(Sigma::Auto),
        "folder" => Ok(Sigma::Folder),
        number => sigma(number).map(Sigma::Given),
    }
}

fn guidance(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(g) if g.is_finite() => Ok(g),
        _ => Err("guidance is a finite number".into()),
    }
}

fn strength(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(f) if (0.0..=10.0).contains(&f) => Ok(f),
        _ => Err("strength is a number from 0 (no change) to 10; 1 is what the model was trained for".into()),
    }
}

/// A number of bytes, with K, M or G for powers of 1024.
fn memory(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_uppercase().trim_end_matches("IB").trim_end_matches('B') {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => return Err("a size is a number with K, M or G, such as 512M".into()),
    };
    let bytes = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(1 << unit));
    bytes.filter(|&bytes| bytes > 0).ok_or_else(|| "a size is a positive whole number, such as 512M".into())
}

#[derive(Clone, Copy, ValueEnum)]
enum OutputFormat {
    /// That of the input
    Keep,
    /// 8 or 16 bits, without loss
    Png,
    /// 8 bits, lossy
    Jpeg,
    /// 8 bits, without loss
    Webp,
    /// 8, 16 or 32 bits, without loss
    Tiff,
}

impl OutputFormat {
    fn format(self) -> Option<Format> {
        match self {
            OutputFormat::Keep => None,
            OutputFormat::Png => Some(Format::Png),
            OutputFormat::Jpeg => Some(Format::Jpeg),
            OutputFormat::Webp => Some(Format::Webp),
            OutputFormat::Tiff => Some(Format::Tiff),
        }
    }
}

/// A line of the report.
#[derive(Serialize)]
struct Record<'a> {
    path: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    skipped: bool,
    #[serde(flatten)]
    done: Option<Done>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Clone, Copy, Serialize)]
struct Done {
    height: usize,
    width: usize,
    /// In 8-bit units, without the strength.
    sigma: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    psnr: Option<f64>,
}

/// Lines are written as files are done, so that an interrupted run leaves a record.
struct Report {
    path: PathBuf,
    file: Mutex<File>,
}

impl Report {
    /// A resumed run appends to the lines of the one before; any other replaces no file unasked.
    fn create(path: &Path, existing: &ExistingArgs, in_place: bool) -> Result<Report> {
        let mut options = File::options();
        if existing.skip_existing {
            options.append(true).create(true);
        } else if existing.overwrite {
            options.write(true).create(true).truncate(true);
        } else {
            options.write(true).create_new(true);
        }
        let unwritable = |error| anyhow!("{}: cannot be written: {error}", path.display());
        // It may lie in the output folder, which is made if missing.
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(unwritable)?;
        }
        let file = options.open(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => Report::would_replace(path, in_place),
            _ => unwritable(error),
        })?;
        Ok(Report { path: path.to_path_buf(), file: Mutex::new(file) })
    }

    fn would_replace(path: &Path, in_place: bool) -> anyhow::Error {
        // With --in-place there is neither option.
        let cure =
            if in_place { "name another" } else { "--overwrite replaces it, --skip-existing adds to it" };
        anyhow!("{}: exists; {cure}", path.display())
    }

    fn add(&self, record: &Record) -> Result<()> {
        let line = serde_json::to_string(record)? + "\n";
        // A line is written whole or not at all; a thread that panicked has not left half of one.
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(line.as_bytes()).with_context(|| format!("{}: cannot be written", self.path.display()))
    }

    /// Adds what is known before the start.
    fn add_placed(&self, failures: &[&Failure], skipped: &[Job]) -> Result<()> {
        for failure in failures {
            self.add(&Record {
                path: failure.path.to_string_lossy(),
                output: None,
                skipped: false,
                done: None,
                seconds: None,
                error: Some(format!("{:#}", failure.error)),
            })?;
        }
        skipped.iter().try_for_each(|job| self.add(&Record { skipped: true, ..Record::of(job) }))
    }
}

impl<'a> Record<'a> {
    fn of(job: &'a Job) -> Record<'a> {
        let (path, output) = (job.input.path.to_string_lossy(), Some(job.output.to_string_lossy()));
        Record { path, output, skipped: false, done: None, seconds: None, error: None }
    }
}

/// What is the same for every file.
struct Plan {
    session: Session,
    sigma: Sigma,
    strength: f32,
    /// `[1,C]`
    class_weights: Option<Array2<f32>>,
    tiling: Tiling,
    encoding: Encoding,
    reference: Option<PathBuf>,
    budget: Budget,
}

/// Tiles get the memory divided by this, images the rest.
const TILES: u64 = 2;

pub fn run(args: &Args) -> Result<Outcome> {
    let found = args.inputs.find(args.output.as_deref());
    let console = found.console(args.quiet);
    let format = args.format.format();
    let target = match &args.output {
        Some(folder) => Target::Folder(folder, format.map(Format::extension)),
        None => Target::InPlace,
    };
    let mut placed = place(found.inputs, &target, args.existing)?;
    let jobs = std::mem::take(&mut placed.jobs);
    let mut plan = Plan::new(args, jobs.len())?;
    if let Some(report) = args.report.as_deref().map(resolved) {
        let paths = jobs.iter().chain(&placed.skipped).flat_map(|job| [&*job.input.path, &*job.output]);
        ensure!(
            !is_image(&report) && paths.map(resolved).all(|image| image != report),
            "{}: --report names an image; name another file, such as report.jsonl",
            report.display()
        );
    }
    if let Some(references) = &args.reference {
        let outputs: HashSet<PathBuf> = jobs.iter().map(|job| resolved(&job.output)).collect();
        // One that is not there is named when its image is denoised.
        let found = jobs.iter().filter_map(|job| find_reference(references, &job.input.relative).ok());
        for reference in found {
            ensure!(
                !outputs.contains(&resolved(&reference)),
                "{} is one of the references, and would be replaced",
                reference.display()
            );
        }
    }
    if args.dry_run {
        if let Some(path) = args.report.as_deref().filter(|path| path.symlink_metadata().is_ok()) {
            let ExistingArgs { overwrite, skip_existing } = args.existing;
            ensure!(overwrite || skip_existing, Report::would_replace(path, args.in_place));
        }
        placed.say(&console);
        for job in &jobs {
            console.line(format_args!("{} -> {}", job.input.path.display(), job.output.display()));
        }
        if jobs.is_empty() {
            note("nothing would be done");
        }
        return Ok(console.finish());
    }
    Placed::check(&jobs)?;
    let report = args.report.as_deref().map(|path| Report::create(path, &args.existing, args.in_place));
    let report = report.transpose()?;
    placed.say(&console);
    if let Some(report) = &report {
        let failures: Vec<&Failure> = found.failures.iter().chain(&placed.failures).collect();
        report.add_placed(&failures, &placed.skipped)?;
    }
    workers::finish_files_when_interrupted()?;
    Placed::clean(&jobs);
    // With those of an earlier run, so that this one goes on at its level.
    let images: Vec<&Job> = jobs.iter().chain(&placed.skipped).collect();
    plan.settle_sigma(if jobs.is_empty() { &[] } else { &images }, &console);

    let (psnr, written) = (Mutex::new(Vec::new()), AtomicUsize::new(0));
    let taken = workers::for_each(&jobs, &console, |job| {
        let start = Instant::now();
        let mut record = Record::of(job);
        match plan.denoise(job) {
            Ok(Some(done)) => {
                let seconds = start.elapsed().as_secs_f64();
                let decibels = done.psnr.map(|p| format!(", {p:.2} dB")).unwrap_or_default();
                let (output, sigma) = (job.output.display(), done.sigma);
                let text = format!("{output}: σ = {sigma:.1}{decibels}, {seconds:.2} s");
                // What was asked for is told beside a bar, too.
                if done.psnr.is_some() {
                    console.say(text)
                } else {
                    console.log(text)
                }
                written.fetch_add(1, Ordering::Relaxed);
                psnr.lock().unwrap_or_else(PoisonError::into_inner).extend(done.psnr);
                (record.done, record.seconds) = (Some(done), Some(seconds));
            }
            Ok(None) => record.skipped = true,
            Err(error) => {
                console.fail(&error);
                record.error = Some(format!("{error:#}"));
            }
        }
        if let Some(report) = &report
            && let Err(error) = report.add(&record)
        {
            console.fail_beside(&error);
        }
    });

    let psnr = psnr.into_inner().unwrap_or_else(PoisonError::into_inner);
    if !psnr.is_empty() {
        let mean = psnr.iter().sum::<f64>() / psnr.len() as f64;
        console.say(format!("mean PSNR of {}: {mean:.2} dB", in_words(psnr.len())));
    }
    let place = args.output.as_deref().map_or("in place".into(), |folder| format!("to {}", folder.display()));
    console.say(format!("{} written {place}", in_words(written.into_inner())));
    Ok(match jobs.get(taken) {
        // Files done already must not be denoised twice.
        Some(next) if args.in_place => console
            .finish_or(format_args!("{} and the files after it are unchanged", next.input.path.display())),
        None if args.in_place => console.finish_or("nothing was left to do"),
        _ => console.finish(),
    })
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
    fn new(args: &Args, jobs: usize) -> Result<Plan> {
        // Tiles have a thread each already: tract notices that, ONNX Runtime does not.
        let threads = match args.model.engine.engine {
            EngineKind::Tract => args.model.jobs.within(jobs),
            EngineKind::Ort => 1,
        };
        let session = args.model.open("photo", threads)?;
        let spec = session.spec();
        if !Graph::Denoiser.is_of(spec) {
            let (model, graph) = (spec.name.clone(), Graph::Denoiser.name());
            return Err(gradresnet::Error::from(ErrorKind::NoGraph { model, graph }).into());
        }
        ensure!(
            spec.architecture.takes_sigma() || matches!(args.sigma, Sigma::Auto) && args.strength == 1.0,
            "model `{}` finds the noise itself and takes no level: leave out --sigma and --strength",
            spec.name
        );
        let class = args.class.as_deref();
        let class_weights = class.map(|c| class_weights(&session, c, args.guidance)).transpose()?;
        if let Some(dir) = &args.reference {
            ensure!(dir.is_dir(), "{}: --reference must name a folder", dir.display());
        }
        let threads = rayon::current_num_threads();
        // Without a limit, tiles are the same on every engine, and so are the results.
        let tiling = match (args.tile, args.memory) {
            (Some(tile), _) => Tiling::new(tile, args.overlap)?,
            (None, Some(memory)) => {
                Tiling::within(memory / TILES, threads, session.bytes_per_pixel(Graph::Denoiser))
                    .context("--memory is too small (half of it is for tiles)")?
            }
            (None, None) => Tiling::default(),
        };
        Ok(Plan {
            session,
            sigma: args.sigma,
            strength: args.strength,
            class_weights,
            tiling,
            encoding: Encoding {
                format: args.format.format(),
                jpeg_quality: args.quality,
                metadata: !args.strip,
            },
            reference: args.reference.clone(),
            budget: args.memory.map_or_else(Budget::of_threads, |m| Budget::new(m - m / TILES)),
        })
    }

    /// Estimates the noise level that all files share, if asked to; notes one outside the model's range.
    fn settle_sigma(&mut self, jobs: &[&Job], console: &Console) {
        if let Sigma::Folder = self.sigma {
            let found = Mutex::new(Vec::new());
            workers::for_each(jobs, &Console::new(jobs.len(), true), |job| {
                // Files that cannot be read are reported when denoised.
                if let Ok((_share, picture)) = self.read(&job.input.path, None) {
                    let sigma = 255.0 * self.session.estimate_noise(&picture).sigma;
                    found.lock().unwrap_or_else(PoisonError::into_inner).push(sigma);
                }
            });
            let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
            found.sort_by(f32::total_cmp);
            if let Some(median) = median(&found) {
                console.say(format!("σ = {median:.1}, the median of {}", in_words(found.len())));
                self.sigma = Sigma::Given(median);
            }
        }
        if let Sigma::Given(sigma) = self.sigma {
            let range = self.session.spec().sigma;
            let (min, max) = (255.0 * range.min, 255.0 * range.max);
            let removed = f64::from(sigma * self.strength);
            if removed > 1.001 * max || removed > 0.0 && removed < 0.999 * min {
                let name = &self.session.spec().name;
                console.say(format!("note: `{name}` was trained for noise levels from {min:.0} to {max:.0}"));
            }
        }
    }

    /// Reads a picture once there is memory for it and its reference. Both are claimed together: two files that each
    /// held one share and waited for a second would wait for ever.
    fn read(&self, path: &Path, reference: Option<&Path>) -> Result<(workers::Share<'_>, Picture)> {
        let of_picture = Picture::header(path)?.bytes;
        let of_reference = reference.map(Picture::header).transpose().map_err(|e| about(path, e))?;
        let of_reference = of_reference.map_or(0, |header| header.bytes);
        let share = self.budget.take(needed(of_picture, of_reference));
        Ok((share, Picture::read(path)?))
    }

    /// Returns `None` if [`Job::is_done`].
    fn denoise(&self, job: &Job) -> Result<Option<Done>> {
        if job.is_done() {
            return Ok(None);
        }
        let path = &job.input.path;
        let reference = self.reference.as_deref().map(|dir| find_reference(dir, &job.input.relative));
        let reference = reference.transpose().map_err(|e| about(path, e))?;
        let (_share, mut picture) = self.read(path, reference.as_deref())?;
        picture.ensure_fits(&self.encoding).map_err(|e| about(path, e))?;
        let (height, width) = picture.size();
        let clean = reference.as_deref().map(|reference| read_reference(reference, (height, width)));
        let clean = clean.transpose().map_err(|e| about(path, e))?;
        // The image tells how its channels share the noise, even where the level is given.
        let mut noise = self.session.estimate_noise(&picture);
        if let Sigma::Given(sigma) = self.sigma {
            noise.sigma = sigma / 255.0;
        }
        noise.strength = self.strength;
        let weights = self.class_weights.as_ref().map(|w| w.view());
        let denoised = self.session.denoise_picture(&mut picture, noise, weights, &self.tiling);
        denoised.map_err(|e| about(path, e))?;
        if !job.write(&picture, &self.encoding).map_err(|e| about(path, e))? {
            return Ok(None);
        }
        drop(picture);
        // Measured on the written file, with all that its format rounds or loses.
        let psnr = clean.map(|clean| of_pictures(&Picture::read(&job.output)?, &clean)).transpose()?;
        Ok(Some(Done { height, width, sigma: 255.0 * noise.sigma, psnr }))
    }
}

/// The median of values in order; of an even number of them, the mean of the middle two.
fn median(sorted: &[f32]) -> Option<f32> {
    let last = sorted.len().checked_sub(1)?;
    Some((sorted[last / 2] + sorted[sorted.len() / 2]) / 2.0)
}

/// Memory for a picture, its reference and a copy of the larger: one is copied while it is decoded and turned, and
/// again while the output is encoded.
fn needed(picture: u64, reference: u64) -> u64 {
    picture.saturating_add(reference).saturating_add(picture.max(reference))
}

/// The file in `dir` with the same relative path, whatever its extension.
fn find_reference(dir: &Path, relative: &Path) -> Result<PathBuf> {
    let place = dir.join(relative);
    let endings = extensions().flat_map(|ending| [ending.to_string(), ending.to_ascii_uppercase()]);
    let candidates = std::iter::once(place.clone()).chain(endings.map(|ending| place.with_extension(ending)));
    let mut existing = candidates.filter(|path| path.is_file());
    existing.next().ok_or_else(|| anyhow!("no reference with this name in {}", dir.display()))
}

/// A reference, which must have the size of its image.
fn read_reference(path: &Path, (height, width): (usize, usize)) -> Result<Picture> {
    let reference = Picture::read(path)?;
    let (h, w) = reference.size();
    ensure!((h, w) == (height, width), "{width}×{height} pixels, and {} has {w}×{h}", path.display());
    Ok(reference)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_for_a_picture_its_reference_and_a_copy() {
        assert_eq!([needed(3, 0), needed(3, 3), needed(3, 12)], [6, 9, 27]);
        // What a header may claim.
        assert_eq!(needed(u64::MAX, u64::MAX), u64::MAX);
    }

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!([median(&[]), median(&[1.0]), median(&[1.0, 4.0])], [None, Some(1.0), Some(2.5)]);
        assert_eq!(median(&[1.0, 4.0, 5.0]), Some(4.0));
    }

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in
            [("1", 1), ("3k", 3 << 10), ("512M", 512 << 20), ("2GiB", 2 << 30), ("2GB", 2 << 30)]
        {
            assert_eq!(memory(text), Ok(bytes), "{text}");
        }
        for text in ["", "0", "-1", "1T", "M", "1.5G", "99999999999999999999", "18446744073709551615G", "1é"]
        {
            assert!(memory(text).is_err(), "{text}");
        }
    }
}

//! `gradresnet add-noise`

use super::console::Outcome;
use super::inputs::{ExistingArgs, InputArgs, Job, Placed, Target, place};
use super::model::sigma;
use super::workers::{self, Budget};
use anyhow::Result;
use clap::ValueEnum;
use gradresnet::{Encoding, Format, noise};
use std::path::PathBuf;

/// Write copies of images with white Gaussian noise added
///
/// The noise of a file depends on the seed and on its path below the folder that was named, and on
/// nothing else. 8-bit and 16-bit files are clipped and rounded; `--format tiff32` keeps float samples
/// as they are, which is how the literature measures denoisers.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  gradresnet add-noise clean/ -o noisy --sigma 25
  gradresnet add-noise clean/ -o noisy --sigma 25 --seed 7 --format tiff32")]
pub struct Args {
    #[command(flatten)]
    inputs: InputArgs,
    /// Folder of the outputs, made if missing; subfolders are mirrored
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Noise level in 8-bit units
    #[arg(long, value_parser = sigma, value_name = "S", allow_negative_numbers = true)]
    sigma: f32,
    /// Seed of the noise
    #[arg(long, default_value = "0", value_name = "N")]
    seed: u64,
    /// File format of the outputs; JPEG would compress the noise
    #[arg(long, value_enum, default_value = "keep")]
    format: OutputFormat,
    #[command(flatten)]
    existing: ExistingArgs,
    /// Print errors only
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum OutputFormat {
    /// That of the input
    Keep,
    /// 8 or 16 bits
    Png,
    /// 8 bits, lossy
    Jpeg,
    /// 8, 16 or 32 bits
    Tiff,
    /// TIFF with 32-bit float samples, not clipped
    Tiff32,
}

impl OutputFormat {
    fn format(self) -> Option<Format> {
        match self {
            OutputFormat::Keep => None,
            OutputFormat::Png => Some(Format::Png),
            OutputFormat::Jpeg => Some(Format::Jpeg),
            OutputFormat::Tiff => Some(Format::Tiff),
            OutputFormat::Tiff32 => Some(Format::Tiff32),
        }
    }
}

pub fn run(args: &Args) -> Result<Outcome> {
    let found = args.inputs.find(Some(&args.output));
    let console = found.console(args.quiet);
    let format = args.format.format();
    let target = Target::Folder(&args.output, format.map(Format::extension));
    let placed = place(found.inputs, &target, args.existing)?;
    placed.say(&console);
    let budget = Budget::of_threads();
    let add = |job: &Job| -> Result<bool> {
        // Its samples as floats take up to four times the bytes; what is encoded of them, and the file that grows, as
        // much again.
        let (_share, mut picture) =
            budget.read(&job.input.path, |header| Ok(header.bytes.saturating_mul(8)))?;
        noise::add(&mut picture, args.sigma / 255.0, args.seed, &job.input.relative.to_string_lossy());
        job.write(&picture, &Encoding { format, ..Encoding::default() })
    };
    workers::finish_files_when_interrupted()?;
    Placed::check(&placed.jobs)?;
    Placed::clean(&placed.jobs);
    workers::for_each(&placed.jobs, &console, |job| match add(job) {
        Ok(true) => console.log(job.output.display()),
        Ok(false) => {}
        Err(error) => console.fail(&error),
    });
    Ok(console.finish())
}

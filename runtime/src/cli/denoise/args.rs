//! What `gradresnet denoise` is told.

use crate::cli::inputs::{ExistingArgs, InputArgs};
use crate::cli::model::{ModelArgs, sigma};
use clap::ValueEnum;
use gradresnet::Format;
use std::path::PathBuf;

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

An interrupted run goes on with --skip-existing: outputs appear whole or not at all.
With --in-place it names the first file that is left.")]
pub struct Args {
    #[command(flatten)]
    pub inputs: InputArgs,
    /// Folder of the outputs, made if missing; subfolders are mirrored
    #[arg(short, long, value_name = "DIR", required_unless_present = "in_place")]
    pub output: Option<PathBuf>,
    /// Replace the inputs
    #[arg(long, conflicts_with_all = ["output", "format", "skip_existing", "overwrite"])]
    pub in_place: bool,
    #[command(flatten)]
    pub existing: ExistingArgs,
    /// Print what would be done and do nothing; an error if the model or the engine is missing, or the report exists
    /// and may not be replaced
    #[arg(long)]
    pub dry_run: bool,
    /// Noise level in 8-bit units, `auto` to estimate it for each image, or `folder` for the median of
    /// the estimates of all images. Levels are those before clipping at black and white
    #[arg(long, default_value = "auto", value_parser = noise_level, value_name = "auto|folder|S",
          allow_negative_numbers = true, help_heading = "Denoising")]
    pub sigma: Sigma,
    /// Factor on the noise level: below 1 keeps more detail and noise, above 1 less
    #[arg(long, default_value = "1", value_parser = strength, value_name = "F",
          allow_negative_numbers = true, help_heading = "Denoising")]
    pub strength: f32,
    /// Class of the images, for a model with classes
    #[arg(long, value_name = "NAME", help_heading = "Denoising")]
    pub class: Option<String>,
    /// Weight of the class
    #[arg(long, default_value = "1", requires = "class", value_parser = guidance, value_name = "G",
          allow_negative_numbers = true, help_heading = "Denoising")]
    pub guidance: f32,
    #[command(flatten)]
    pub model: ModelArgs,
    /// Memory: half for the images being worked on and their references, half for tiles, whose size follows
    /// from it unless --tile gives it; a single image may take more [default: 1G for images per thread, and
    /// what tiles take: 0.5 GiB each with `photo` and tract, 2 GiB with ONNX Runtime]
    #[arg(long, value_parser = memory, value_name = "SIZE", help_heading = "Resources")]
    pub memory: Option<u64>,
    /// Side of the tiles in pixels [default: 448, for images of more than 512×512 pixels, less if
    /// --memory is short]
    #[arg(long, value_name = "N", help_heading = "Resources")]
    pub tile: Option<usize>,
    /// Pixels that neighbouring tiles share [default: 32, and a quarter of small tiles]
    #[arg(long, value_name = "N", requires = "tile", help_heading = "Resources")]
    pub overlap: Option<usize>,
    /// File format of the outputs
    #[arg(long, value_enum, default_value = "keep", help_heading = "Outputs")]
    pub format: OutputFormat,
    /// Quality of JPEG outputs, 1 to 100
    #[arg(long, default_value = "95", value_name = "Q", value_parser = clap::value_parser!(u8).range(1..=100),
          help_heading = "Outputs")]
    pub quality: u8,
    /// Leave out EXIF, XMP and the colour profile
    #[arg(long, help_heading = "Outputs")]
    pub strip: bool,
    /// Write what was done with each file as JSON lines, in the order of completion
    #[arg(long, value_name = "FILE", help_heading = "Outputs")]
    pub report: Option<PathBuf>,
    /// Clean images of the same names, to report the PSNR of the outputs against
    #[arg(long, value_name = "DIR", help_heading = "Outputs")]
    pub reference: Option<PathBuf>,
    /// Print errors only
    #[arg(long, short)]
    pub quiet: bool,
}

/// Which noise level an image is taken to have.
#[derive(Clone, Copy)]
pub enum Sigma {
    /// The estimate of each image.
    Auto,
    /// The median of the estimates of all images.
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

/// File formats that hold what a picture holds: samples as deep as the input's, or less.
#[derive(Clone, Copy, ValueEnum)]
pub enum OutputFormat {
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
    /// `None` keeps that of the input.
    pub fn format(self) -> Option<Format> {
        match self {
            OutputFormat::Keep => None,
            OutputFormat::Png => Some(Format::Png),
            OutputFormat::Jpeg => Some(Format::Jpeg),
            OutputFormat::Webp => Some(Format::Webp),
            OutputFormat::Tiff => Some(Format::Tiff),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

//! `gradresnet compare`

use super::console::Outcome;
use super::inputs::{ExistingArgs, resolved};
use anyhow::{Context, Result, bail, ensure};
use gradresnet::{Encoding, Format, Picture};
use ndarray::{Array3, Axis, concatenate};
use std::path::PathBuf;

/// White pixels between two pictures.
const GAP: usize = 4;

/// Write a strip of pictures side by side, as PNG
///
/// From left to right: the noisy image, the denoised one, what was taken away (grey where nothing was),
/// and the reference if there is one.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  gradresnet compare noisy/a.jpg out/a.jpg -o strip.png
  gradresnet compare noisy/a.png out/a.png --reference clean/a.png --gain 8 -o strip.png")]
pub struct Args {
    /// The noisy image
    noisy: PathBuf,
    /// The denoised image
    denoised: PathBuf,
    /// The strip, a .png file
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// A clean image of the same size
    #[arg(long, value_name = "FILE")]
    reference: Option<PathBuf>,
    /// Factor on the difference
    #[arg(long, default_value = "4", value_name = "G", value_parser = gain)]
    gain: f32,
    #[command(flatten)]
    existing: ExistingArgs,
}

fn gain(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(gain) if gain > 0.0 && gain.is_finite() => Ok(gain),
        _ => Err("a gain is a positive number".into()),
    }
}

pub fn run(args: &Args) -> Result<Outcome> {
    ensure!(
        args.output.extension().is_some_and(|e| e.eq_ignore_ascii_case("png")),
        "{}: a strip is a PNG file; let its name end in .png",
        args.output.display()
    );
    let mut compared = [&args.noisy, &args.denoised].into_iter().chain(&args.reference);
    ensure!(
        compared.all(|path| resolved(path) != resolved(&args.output)),
        "{}: is one of the images that are compared; name another file with -o",
        args.output.display()
    );
    if args.output.exists() && !args.existing.overwrite {
        if args.existing.skip_existing {
            return Ok(Outcome::Done);
        }
        bail!("{}: exists; --overwrite replaces it, --skip-existing leaves it", args.output.display());
    }
    let noisy = Picture::read(&args.noisy)?.pixels();
    let mut others = Vec::new();
    for path in std::iter::once(&args.denoised).chain(&args.reference) {
        let pixels = Picture::read(path)?.pixels();
        let ((_, h, w), (_, eh, ew)) = (pixels.dim(), noisy.dim());
        ensure!((h, w) == (eh, ew), "{}: {w}×{h} pixels, and the noisy image has {ew}×{eh}", path.display());
        others.push(pixels);
    }
    let difference = (&noisy - &others[0]).mapv(|d| 0.5 + args.gain * d);
    let mut strip = noisy;
    others.insert(1, difference);
    let gap = Array3::ones((3, strip.dim().1, GAP));
    for picture in others {
        strip = concatenate(Axis(2), &[strip.view(), gap.view(), picture.view()])
            .context("the pictures cannot be put together")?;
    }
    let encoding = Encoding { format: Some(Format::Png), ..Encoding::default() };
    args.existing.write(&Picture::from_pixels(strip.view()), &args.output, &encoding)?;
    Ok(Outcome::Done)
}

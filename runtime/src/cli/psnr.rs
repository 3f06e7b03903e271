//! `gradresnet psnr`

use super::console::{Console, Outcome, about, images as in_words};
use super::inputs::{Input, InputArgs};
use anyhow::{Result, anyhow, bail, ensure};
use gradresnet::Picture;
use gradresnet::psnr::of_pictures;
use rayon::prelude::*;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Print the PSNR of images against references of the same names
///
/// In dB, with peak 1, over all pixels and channels. Two files are compared; in two folders, files are matched by
/// their path below them, without the extension. The images are clipped to [0, 1] first, as the literature does with outputs,
/// and the references are not.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  gradresnet psnr out/ clean/
  gradresnet psnr out/ clean/ --json | tail -n 1")]
pub struct Args {
    /// An image, or a folder of them
    #[arg(value_name = "PATH")]
    dir: PathBuf,
    /// Its reference, or a folder of them
    #[arg(value_name = "REFERENCE")]
    reference: PathBuf,
    /// One JSON object per line: path, psnr (null: the images are equal); at the end mean, files
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<Outcome> {
    let list = |dir: &PathBuf| -> Result<BTreeMap<PathBuf, PathBuf>> {
        if dir.is_file() {
            return Ok(BTreeMap::from([(PathBuf::new(), dir.clone())]));
        }
        ensure!(dir.is_dir(), "{}: neither a folder nor a file", dir.display());
        let found = InputArgs { paths: vec![dir.clone()], recursive: true }.find(None);
        if let Some(failure) = found.failures.into_iter().next() {
            return Err(failure.error);
        }
        let mut files = BTreeMap::new();
        for Input { path, relative } in found.inputs {
            if let Some(other) = files.insert(relative.with_extension(""), path.clone()) {
                bail!("{} and {} have one name, and names are matched", other.display(), path.display());
            }
        }
        Ok(files)
    };
    ensure!(
        args.dir.is_file() == args.reference.is_file(),
        "{} and {}: two files are compared, or two folders",
        args.dir.display(),
        args.reference.display()
    );
    let (images, references) = (list(&args.dir)?, list(&args.reference)?);
    let console = Console::new(images.len(), false);
    let measured: Vec<Result<f64>> = images
        .par_iter()
        .map(|(stem, path)| {
            let reference = references.get(stem);
            let reference = reference
                .ok_or_else(|| anyhow!("no reference with this name in {}", args.reference.display()));
            let value = reference
                .and_then(|reference| Ok(of_pictures(&Picture::read(path)?, &Picture::read(reference)?)?));
            console.advance();
            value.map_err(|error| about(path, error))
        })
        .collect();
    let mut values = Vec::new();
    for (path, value) in images.values().zip(measured) {
        let path = path.display().to_string();
        match value {
            Ok(value) if args.json => console.line(json!({ "path": path, "psnr": value })),
            Ok(value) => console.line(format_args!("{value:8.3} dB  {path}")),
            Err(ref error) => console.fail(error),
        }
        values.extend(value.ok());
    }
    if !values.is_empty() {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        match args.json {
            true => console.line(json!({ "mean": mean, "files": values.len() })),
            false => console.line(format_args!("{mean:8.3} dB  mean of {}", in_words(values.len()))),
        }
    }
    Ok(console.finish())
}

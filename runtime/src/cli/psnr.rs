//! `gradresnet psnr`

use super::console::{Console, Outcome, about, images as in_words};
use super::inputs::{Input, InputArgs};
use super::workers::{self, Budget, with_reference};
use anyhow::{Result, bail, ensure};
use gradresnet::Picture;
use gradresnet::psnr::of_pictures;
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

/// Print the PSNR of images against references of the same names
///
/// In dB, with peak 1, over all pixels and channels. Two files are compared; in two folders, files are matched by
/// their path below them, if need be without the extension. References without an image are counted. The images are
/// clipped to [0, 1] first, as the literature does with outputs, and the references are not.
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
    /// One JSON object per line: path, psnr (null: the images are equal); at the end mean (null if one of them is), files,
    /// and unused, the references without an image
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<Outcome> {
    ensure!(
        args.dir.is_file() == args.reference.is_file(),
        "{} and {}: two files are compared, or two folders",
        args.dir.display(),
        args.reference.display()
    );
    let (images, references) = (list(&args.dir)?, list(&args.reference)?);
    let places = References::new(&args.reference, &references);
    let console = Console::new(images.len(), false);
    let budget = Budget::of_threads();
    let measured = workers::map(&images, &console, |image| {
        let measure = || {
            let reference = &places.of(image)?.path;
            let (_share, picture) = budget.read(&image.path, |header| {
                Ok(with_reference(header.bytes, Picture::header(reference)?.bytes))
            })?;
            Ok(of_pictures(&picture, &Picture::read(reference)?)?)
        };
        measure().map_err(|error: anyhow::Error| about(&image.path, error))
    });
    let mut values = Vec::new();
    for (Input { path, .. }, value) in images.iter().zip(measured) {
        let path = path.display().to_string();
        match value {
            Ok(value) if args.json => console.verbatim(json!({ "path": path, "psnr": value })),
            Ok(value) => console.line(format_args!("{value:8.3} dB  {path}")),
            Err(ref error) => console.fail(error),
        }
        values.extend(value.ok());
    }
    let used: HashSet<&Path> =
        images.iter().flat_map(|image| places.candidates(image)).map(|r| r.path.as_path()).collect();
    let unused = references.len() - used.len();
    if !values.is_empty() {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        match args.json {
            true => console.verbatim(json!({ "mean": mean, "files": values.len(), "unused": unused })),
            false => console.line(format_args!("{mean:8.3} dB  mean of {}", in_words(values.len()))),
        }
    }
    if unused > 0 {
        console.say(format_args!("references without an image: {unused} of {}", references.len()));
    }
    Ok(console.finish())
}

/// The images of a folder and of those below it, or the one that is named.
fn list(path: &Path) -> Result<Vec<Input>> {
    if path.is_file() {
        return Ok(vec![Input { path: path.to_path_buf(), relative: PathBuf::new() }]);
    }
    ensure!(path.is_dir(), "{}: neither a folder nor a file", path.display());
    let found = InputArgs { paths: vec![path.to_path_buf()], recursive: true }.find(None);
    match found.failures.into_iter().next() {
        Some(failure) => Err(failure.error),
        None => Ok(found.inputs),
    }
}

/// References by their paths, whole and without the extension.
struct References<'a> {
    dir: &'a Path,
    whole: HashMap<&'a Path, &'a Input>,
    stems: HashMap<PathBuf, Vec<&'a Input>>,
}

impl<'a> References<'a> {
    fn new(dir: &'a Path, references: &'a [Input]) -> References<'a> {
        let mut stems: HashMap<PathBuf, Vec<&Input>> = HashMap::new();
        for reference in references {
            stems.entry(reference.relative.with_extension("")).or_default().push(reference);
        }
        References { dir, whole: references.iter().map(|r| (r.relative.as_path(), r)).collect(), stems }
    }

    /// The one of the same path; if there is none, those whose paths differ in their extensions alone.
    fn candidates(&self, image: &Input) -> &[&'a Input] {
        let same = self.whole.get(image.relative.as_path()).map(std::slice::from_ref);
        same.or_else(|| self.stems.get(&image.relative.with_extension("")).map(Vec::as_slice))
            .unwrap_or_default()
    }

    /// The only candidate.
    fn of(&self, image: &Input) -> Result<&'a Input> {
        match self.candidates(image) {
            [one] => Ok(one),
            [] => bail!("no reference with this name in {}", self.dir.display()),
            [one, other, ..] => {
                let (one, other) = (one.path.display(), other.path.display());
                bail!("{one} and {other} could both be its reference; give it the extension of one of them")
            }
        }
    }
}

//! `gradresnet energy` and `gradresnet noise`: one number for each image.

use super::console::{Outcome, about};
use super::inputs::{Found, Input, InputArgs};
use super::model::{JobsArgs, ModelArgs};
use super::workers::{self, Budget, with_reference};
use anyhow::{Result, ensure};
use gradresnet::engine::Graph;
use gradresnet::{Error, ErrorKind, Header, zoo};
use serde_json::json;
use std::path::Path;

/// Print −log p(y) of images, an anomaly score
///
/// In nats, without the constant that is the same for all images: compare images of one size under one
/// model. Larger means less likely. Images are not cut into tiles: one of a megapixel takes 1.2 GiB with `photo`
/// and half of that with `photo-fast`, and one of more than 16.7 megapixels is refused. Those of a folder share 1 GiB
/// for each thread, and larger ones are scored alone.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  gradresnet energy shots/
  gradresnet energy shots/ --recursive --json > energies.jsonl")]
pub struct EnergyArgs {
    #[command(flatten)]
    inputs: InputArgs,
    #[command(flatten)]
    model: ModelArgs,
    /// One JSON object per line: path, energy
    #[arg(long)]
    json: bool,
}

/// Print estimates of the noise level of images
///
/// In 8-bit units, from the covariance of small patches (Chen, Zhu & Heng 2015; Liu, Tanaka & Okutomi
/// 2013), and at least the lowest that the model was trained on: what `denoise --sigma auto` uses. Levels are those
/// before clipping at black and white.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  gradresnet noise shots/ --json")]
pub struct NoiseArgs {
    #[command(flatten)]
    inputs: InputArgs,
    /// The model whose lowest level counts: a name (`gradresnet models`) or a folder
    #[arg(long, default_value = "photo", value_name = "NAME|DIR")]
    model: String,
    #[command(flatten)]
    jobs: JobsArgs,
    /// One JSON object per line: path, sigma
    #[arg(long)]
    json: bool,
}

pub fn energy(args: &EnergyArgs) -> Result<Outcome> {
    let found = args.inputs.find(None);
    let session = args.model.open("photo", args.model.jobs.within(found.inputs.len()))?;
    let spec = session.spec();
    ensure!(spec.has_energy(), Error::from(ErrorKind::NoEnergy(spec.name.clone())));
    let budget = Budget::of_threads();
    each(&found, args.json, "energy", |path| {
        let (_share, picture) = budget.read(path, |Header { bytes, pixels }| {
            let run = pixels.saturating_mul(session.bytes_per_pixel(Graph::Forward));
            Ok(run.saturating_add(with_reference(bytes, 0)))
        })?;
        session.energy_picture(&picture)
    })
}

pub fn noise(args: &NoiseArgs) -> Result<Outcome> {
    let range = zoo::find(&args.model)?.spec().sigma;
    args.jobs.start()?;
    let budget = Budget::of_threads();
    each(&args.inputs.find(None), args.json, "sigma", |path| {
        let (_share, picture) = budget.read(path, |header| Ok(with_reference(header.bytes, 0)))?;
        Ok(255.0 * gradresnet::noise::estimate(&picture).at_least_of(range).sigma)
    })
}

/// Prints `score` of every image, in order, under the name `key`.
fn each(
    found: &Found,
    json: bool,
    key: &str,
    score: impl Fn(&Path) -> gradresnet::Result<f32> + Sync,
) -> Result<Outcome> {
    let console = found.console(false);
    // A few at a time, so that results appear in order while the work goes on.
    for some in found.inputs.chunks(4 * rayon::current_num_threads()) {
        let scores =
            workers::map(some, &console, |Input { path, .. }| score(path).map_err(|e| about(path, e)));
        for (input, score) in some.iter().zip(scores) {
            let path = input.path.display().to_string();
            match score {
                Ok(value) if json => console.verbatim(json!({ "path": path, key: value })),
                Ok(value) => console.line(format_args!("{value:12.3}  {path}")),
                Err(error) => console.fail(&error),
            }
        }
    }
    Ok(console.finish())
}

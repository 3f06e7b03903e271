//! `gradresnet energy` and `gradresnet noise`: one number for each image.

use super::console::{Outcome, about};
use super::inputs::{Input, InputArgs};
use super::model::{JobsArgs, ModelArgs};
use anyhow::{Result, ensure};
use gradresnet::{Error, ErrorKind, Picture, zoo};
use rayon::prelude::*;
use serde_json::json;

/// Print −log p(y) of images, an anomaly score
///
/// In nats, without the constant that is the same for all images: compare images of one size under one
/// model. Larger means less likely.
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
/// 2013), within the range that the model was trained on: what `denoise --sigma auto` uses. Levels are those
/// before clipping at black and white.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  gradresnet noise shots/ --json")]
pub struct NoiseArgs {
    #[command(flatten)]
    inputs: InputArgs,
    /// The model whose range counts: a name (`gradresnet models`) or a folder
    #[arg(long, default_value = "photo", value_name = "NAME|DIR")]
    model: String,
    #[command(flatten)]
    jobs: JobsArgs,
    /// One JSON object per line: path, sigma
    #[arg(long)]
    json: bool,
}

pub fn energy(args: &EnergyArgs) -> Result<Outcome> {
    let session = args.model.open("photo", 1)?;
    let spec = session.spec();
    ensure!(spec.has_energy(), Error::from(ErrorKind::NoEnergy(spec.name.clone())));
    each(&args.inputs, args.json, "energy", |picture| session.energy_picture(picture))
}

pub fn noise(args: &NoiseArgs) -> Result<Outcome> {
    let range = zoo::find(&args.model)?.spec().sigma;
    args.jobs.start()?;
    each(&args.inputs, args.json, "sigma", |picture| {
        Ok(255.0 * gradresnet::noise::estimate(picture).within(range).sigma)
    })
}

/// Prints `score` of every image, in order, under the name `key`.
fn each(
    inputs: &InputArgs,
    json: bool,
    key: &str,
    score: impl Fn(&Picture) -> gradresnet::Result<f32> + Sync,
) -> Result<Outcome> {
    let found = inputs.find(None);
    let console = found.console(false);
    let one = |input: &Input| -> Result<f32> {
        let value = Picture::read(&input.path).and_then(|picture| score(&picture));
        console.advance();
        value.map_err(|e| about(&input.path, e))
    };
    // A few at a time, so that results appear in order while the work goes on.
    for some in found.inputs.chunks(4 * rayon::current_num_threads()) {
        let scores: Vec<Result<f32>> = some.par_iter().map(one).collect();
        for (input, score) in some.iter().zip(scores) {
            let path = input.path.display().to_string();
            match score {
                Ok(value) if json => console.line(json!({ "path": path, key: value })),
                Ok(value) => console.line(format_args!("{value:12.3}  {path}")),
                Err(error) => console.fail(&error),
            }
        }
    }
    Ok(console.finish())
}

//! `gradresnet classify`

use super::console::{Console, Outcome, about, images};
use super::inputs::{Input, InputArgs};
use super::model::ModelArgs;
use super::workers::{self, Budget};
use anyhow::{Result, anyhow, ensure};
use gradresnet::engine::Graph;
use gradresnet::{ErrorKind, Header, Session};
use ndarray::{Array3, Array4};
use rayon::prelude::*;
use serde_json::json;

/// Images of a model's size that go through the network together, and the pixels that they have at most.
const BATCH: usize = 64;
const BATCH_PIXELS: usize = 1 << 20;

/// Bytes of a pixel of three floats.
const FLOATS: u64 = 12;

/// Classes of the model that a note lists.
const SHOWN_CLASSES: usize = 10;

/// Print the most probable classes of images
///
/// The central square of an image is scaled to the size that the model was trained on.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  gradresnet classify shots/ --top 3
  gradresnet classify shots/ --recursive --json --engine ort")]
pub struct Args {
    #[command(flatten)]
    inputs: InputArgs,
    /// How many classes
    #[arg(long, default_value = "1", value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    top: u32,
    #[command(flatten)]
    model: ModelArgs,
    /// One JSON object per line: path, top (label and probability, best first)
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<Outcome> {
    let session = args.model.open("cifar10", 1)?;
    let spec = session.spec();
    ensure!(!spec.classes.is_empty(), gradresnet::Error::from(ErrorKind::NoClasses(spec.name.clone())));
    let found = args.inputs.find(None);
    let console = found.console(false);
    let budget = Budget::of_threads();
    let mut scaled = 0;
    // Images of any size go through the network one by one.
    let batch = spec.image_size.map_or(1, |side| (BATCH_PIXELS / (side * side)).clamp(1, BATCH));
    for some in found.inputs.chunks(4 * batch * rayon::current_num_threads()) {
        let rows = if let Some(side) = spec.image_size {
            // An image counts when it is classified.
            let silent = Console::new(some.len(), true);
            let pictures = workers::map(some, &silent, |input| load(input, side, &budget));
            scaled += pictures.iter().flatten().filter(|p| p.scaled).count();
            let rows: Vec<_> =
                pictures.par_chunks(batch).flat_map_iter(|batch| classify(batch, side, &session)).collect();
            rows.iter().for_each(|_| console.advance());
            rows
        } else {
            workers::map(some, &console, |input| whole(input, &session, &budget))
        };
        for (input, row) in some.iter().zip(rows) {
            match row {
                Ok(row) => report(&console, input, &row, args, &spec.classes),
                Err(error) => console.fail(&about(&input.path, error)),
            }
        }
    }
    if let (Some(size), true) = (spec.image_size, scaled > 0) {
        console.say(format!("cut to a square and scaled to {size}×{size} pixels: {}", images(scaled)));
        // Users of images unlike the model's own may expect classes that it lacks.
        let some = spec.classes.iter().take(SHOWN_CLASSES).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = if spec.classes.len() > SHOWN_CLASSES { ", …" } else { "" };
        let (name, count) = (&spec.name, spec.classes.len());
        console.say(format!("`{name}` assigns every image one of {count} classes: {some}{more}"));
    }
    Ok(console.finish())
}

struct Loaded {
    /// `[3,S,S]`, S the size of the model's images.
    pixels: Array3<f32>,
    scaled: bool,
}

/// The pixels that a model of one size sees.
fn load(input: &Input, side: usize, budget: &Budget) -> Result<Loaded> {
    let (_share, picture) = budget.read(&input.path, |header| Ok(needed(header)))?;
    Ok(if picture.size() == (side, side) {
        Loaded { pixels: picture.pixels(), scaled: false }
    } else {
        Loaded { pixels: picture.resized(side), scaled: true }
    })
}

/// Probabilities of an image for a model of any size. It has its memory until they are known.
fn whole(input: &Input, session: &Session, budget: &Budget) -> Result<Vec<f32>> {
    let (_share, picture) = budget.read(&input.path, |header| {
        let run = header.pixels.saturating_mul(session.bytes_per_pixel(Graph::Forward));
        Ok(run.saturating_add(needed(header)))
    })?;
    Ok(session.classify_picture(&picture)?.to_vec())
}

/// Memory for a picture and its pixels as floats, or the copy that is made while it is decoded.
fn needed(header: Header) -> u64 {
    header.bytes.saturating_add(header.bytes.max(header.pixels.saturating_mul(FLOATS)))
}

/// Probabilities of each picture of one side, or its error.
fn classify(batch: &[Result<Loaded>], side: usize, session: &Session) -> Vec<Result<Vec<f32>>> {
    let sound: Vec<&Loaded> = batch.iter().flatten().collect();
    let mut images = Array4::zeros((sound.len(), 3, side, side));
    for (mut target, loaded) in images.outer_iter_mut().zip(&sound) {
        target.assign(&loaded.pixels);
    }
    // An error for no images at all is nobody's.
    let all = session.classify(images.view());
    let mut next = 0;
    let row = |loaded: &Result<Loaded>| match (loaded, &all) {
        (Ok(_), Ok(all)) => {
            next += 1;
            Ok(all.row(next - 1).to_vec())
        }
        (Ok(_), Err(error)) => Err(anyhow!("{error}")),
        (Err(error), _) => Err(anyhow!("{error:#}")),
    };
    batch.iter().map(row).collect()
}

/// Prints the line of one image.
fn report(console: &Console, input: &Input, row: &[f32], args: &Args, classes: &[String]) {
    let mut order: Vec<usize> = (0..row.len()).collect();
    order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
    order.truncate(args.top as usize);
    let path = input.path.display().to_string();
    if args.json {
        let top: Vec<_> =
            order.iter().map(|&c| json!({ "label": classes[c], "probability": row[c] })).collect();
        console.verbatim(json!({ "path": path, "top": top }));
    } else {
        let top: Vec<String> =
            order.iter().map(|&c| format!("{} {:.1} %", classes[c], 100.0 * row[c])).collect();
        console.line(format_args!("{path}: {}", top.join(", ")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_for_a_picture_and_its_floats() {
        // Grey of 8 bits, colour of 64, and what a header may claim.
        let headers = [(1, 1), (24, 1), (u64::MAX, u64::MAX)].map(|(bytes, pixels)| Header { bytes, pixels });
        assert_eq!(headers.map(needed), [13, 48, u64::MAX]);
    }
}

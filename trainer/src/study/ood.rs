//! `ood`: −log p(y) as a score of images from another distribution (section 6).

use super::report::progress;
use super::subject::{Batch, Inputs, Need, Subject, bounded, noise_like};
use crate::console::line;
use crate::data::images::{Images, Listing, Split};
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use tch::{Kind, Tensor};

/// Measure −log p(y) as a score of foreign images (AUROC), at several noise levels
///
/// Foreign images are photographs given by --other, shrunk to the size of the data's images; noise (every value
/// uniform); flat (one colour each); gratings (a sine wave of one direction and colour each). AUROC is the
/// probability that a foreign image scores higher than one of the data: 0.5 is chance, below it the foreign
/// images look more probable. Beside the energy −log p: typicality |−log p − median of the data| (Nalisnick et
/// al. 2019) and, with classes, 1 − max p(c|y). Writes ood.json, .md.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    inputs: Inputs,
    /// Folders of photographs
    #[arg(long)]
    other: Vec<PathBuf>,
    /// Noise levels in 8-bit units
    #[arg(long, value_delimiter = ',', default_value = "0,5,15,25,50", value_parser = bounded)]
    sigma: Vec<f64>,
    /// Most images of each source
    #[arg(long, default_value = "400", value_parser = clap::value_parser!(u32).range(10..))]
    images: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct Row {
    model: String,
    source: String,
    images: i64,
    /// 8-bit units, on both sides.
    sigma: f64,
    /// Mean −log p of the source's images, in nats.
    mean_energy: f64,
    auroc_energy: f64,
    auroc_typicality: f64,
    auroc_softmax: Option<f64>,
}

/// Runs the study.
///
/// # Errors
/// If inputs cannot be read or results cannot be written.
pub fn run(args: &Args) -> Result<()> {
    let (subjects, images) = args.inputs.open(Kind::Float, &[Need::Energy])?;
    let settings = serde_json::json!({ "data": args.inputs.data_settings(&images), "images": args.images });
    let mut report = args.inputs.report::<Row>("ood", &settings, &subjects)?;
    let bar = progress(subjects.len() * args.sigma.len(), "noise levels")?;
    for subject in &subjects {
        // Half of the data says what is typical, the other is to be told from foreign images.
        let all = Batch::spread(&images, 2 * args.images as usize, subject)?.images;
        let count = all.size()[0] / 2;
        ensure!(count > 0, "the data has too few images");
        let halves = all.narrow(0, 0, 2 * count).view([count, 2, 3, all.size()[2], all.size()[3]]);
        let (typical, data) = (halves.select(1, 0), halves.select(1, 1));
        let source = |name: &str, images| Source { name: name.into(), key: name.into(), images };
        let mut sources = vec![source("data", data.shallow_clone())];
        for folder in &args.other {
            let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let images = Images::open(folder, Split::Test)?;
            let Listing { count, checksum } = images.listing();
            let key = format!("{name}, {count} images, checksum {checksum:08x}");
            sources.push(Source { name, key, images: shrunk(&images, args.images as usize, &data)? });
        }
        sources.extend(drawn(&data).map(|(name, images)| source(name, images)));
        for (i, Source { name, .. }) in sources.iter().enumerate() {
            let other = sources[..i].iter().any(|other| other.name == *name);
            ensure!(!other, "two sources of images are named {name}: rename the folder given by --other");
        }
        for Source { name, key, .. } in &sources {
            ensure!(
                report.keyed().all(|(k, row)| row.source != *name || k.split('/').nth(1) == Some(key)),
                "{}: it has rows of other images by the name {name}; choose another folder",
                args.inputs.output.display()
            );
        }
        for &sigma in &args.sigma {
            let reference = Scores::of(subject, &typical, sigma)?;
            let own = Scores::of(subject, &data, sigma)?;
            for Source { name, key, images } in &sources {
                report.row(&format!("{}/{key}/{sigma}", subject.key()), || {
                    let scores = Scores::of(subject, images, sigma)?;
                    let softmax = scores.softmax.as_ref().zip(own.softmax.as_ref());
                    let energies = (&scores.energy, &own.energy);
                    let typicality = |s: &Scores| s.typicality(&reference);
                    Ok(Row {
                        model: subject.spec.name.clone(),
                        source: name.clone(),
                        images: images.size()[0],
                        sigma,
                        mean_energy: scores.energy.iter().sum::<f64>() / scores.energy.len() as f64,
                        auroc_energy: auroc(energies.0, energies.1),
                        auroc_typicality: auroc(&typicality(&scores), &typicality(&own)),
                        auroc_softmax: softmax.map(|(foreign, own)| auroc(foreign, own)),
                    })
                })?;
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    line(report.markdown()?);
    Ok(())
}

/// Some images of one origin.
struct Source {
    name: String,
    /// What a row's key says of them.
    key: String,
    /// `[N,3,H,W]` in image units.
    images: Tensor,
}

/// Scores of some images: the higher, the stranger.
struct Scores {
    /// −log p.
    energy: Vec<f64>,
    /// 1 − max p(c|y).
    softmax: Option<Vec<f64>>,
}

impl Scores {
    fn of(subject: &Subject, images: &Tensor, sigma: f64) -> Result<Scores> {
        let batch = Batch { images: images.shallow_clone(), classes: None };
        let (mut energy, mut softmax) = (Vec::new(), Vec::new());
        for (first, part) in batch.parts() {
            let output = tch::no_grad(|| subject.net.forward(&part.noisy(sigma / 255.0, first)));
            energy.push(-output.log_p.context("a network without an energy")?);
            softmax.extend(output.logits.map(|l| 1.0 - l.softmax(1, Kind::Double).max_dim(1, false).0));
        }
        let flat = |parts: &[Tensor]| {
            let all = Tensor::cat(parts, 0).to_kind(Kind::Double);
            (0..all.numel() as i64).map(|i| all.double_value(&[i])).collect::<Vec<f64>>()
        };
        Ok(Scores { energy: flat(&energy), softmax: (!softmax.is_empty()).then(|| flat(&softmax)) })
    }

    /// |energy − median energy of `reference`|.
    fn typicality(&self, reference: &Scores) -> Vec<f64> {
        let mut sorted = reference.energy.clone();
        sorted.sort_by(f64::total_cmp);
        let median = sorted[sorted.len() / 2];
        self.energy.iter().map(|e| (e - median).abs()).collect()
    }
}

/// P(foreign > own) + ½ P(foreign = own) over all pairs.
fn auroc(foreign: &[f64], own: &[f64]) -> f64 {
    let mut sorted = own.to_vec();
    sorted.sort_by(f64::total_cmp);
    let below: usize =
        foreign.iter().map(|f| sorted.partition_point(|o| o < f) + sorted.partition_point(|o| o <= f)).sum();
    below as f64 / (2 * foreign.len() * own.len()) as f64
}

/// The largest central squares of photographs, shrunk by averaging to the size of `like`.
fn shrunk(images: &Images, count: usize, like: &Tensor) -> Result<Tensor> {
    let count = count.min(images.len());
    let (height, width) = (like.size()[2] as u32, like.size()[3] as u32);
    let pictures: Vec<Tensor> = (0..count)
        .map(|i| {
            let pixels = images.pixels(i * images.len() / count)?;
            let whole = super::subject::planes_of(&pixels);
            let side = whole.size()[1].min(whole.size()[2]);
            let (top, left) = ((whole.size()[1] - side) / 2, (whole.size()[2] - side) / 2);
            let square = whole.narrow(1, top, side).narrow(2, left, side).unsqueeze(0);
            Ok(square.adaptive_avg_pool2d([i64::from(height), i64::from(width)]).squeeze_dim(0))
        })
        .collect::<Result<_>>()?;
    Ok(Tensor::stack(&pictures, 0).to_kind(like.kind()).to_device(like.device()))
}

/// Synthetic images, as many as in `like` and of that size.
fn drawn(like: &Tensor) -> [(&'static str, Tensor); 3] {
    let size = like.size();
    // Φ of a normal number is uniform in [0, 1].
    let uniform = |shape: &Tensor, stream| (noise_like(shape, 10, stream) / 2f64.sqrt()).erf() * 0.5 + 0.5;
    let colour = like.narrow(2, 0, 1).narrow(3, 0, 1);
    let one = colour.narrow(1, 0, 1);
    let options = (like.kind(), like.device());
    let x = Tensor::arange(size[3], options).view([1, 1, 1, -1]);
    let y = Tensor::arange(size[2], options).view([1, 1, -1, 1]);
    // Periods of 4 to 16 pixels.
    let frequency = (uniform(&one, 4) * 12.0 + 4.0).reciprocal() * (2.0 * std::f64::consts::PI);
    let angle = uniform(&one, 5) * std::f64::consts::PI;
    let wave = ((x * angle.cos() + y * angle.sin()) * frequency + uniform(&one, 6) * 6.0).sin() * 0.5;
    [
        ("noise", uniform(like, 2)),
        ("flat", uniform(&colour, 3).expand_as(like).contiguous()),
        ("gratings", wave * uniform(&colour, 7) + 0.5),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn auroc_counts_pairs() {
        assert_eq!(auroc(&[2.0, 3.0], &[0.0, 1.0]), 1.0);
        assert_eq!(auroc(&[0.0, 1.0], &[2.0, 3.0]), 0.0);
        assert_eq!(auroc(&[1.0, 1.0], &[1.0]), 0.5);
        // Of four pairs, three are won and one is a tie.
        assert_eq!(auroc(&[1.0, 2.0], &[0.0, 1.0]), 0.875);
    }

    #[test]
    fn drawn_images_are_images() {
        let like = Tensor::zeros([5, 3, 8, 8], (Kind::Float, Device::Cpu));
        for (name, images) in drawn(&like) {
            assert_eq!(images.size(), like.size(), "{name}");
            let (low, high) = (images.min().double_value(&[]), images.max().double_value(&[]));
            assert!((0.0..0.5).contains(&low) && (0.5..=1.0).contains(&high), "{name}: {low} {high}");
        }
        let flat = &drawn(&like)[1].1;
        assert_eq!(flat.flatten(2, -1).std_dim([2i64].as_slice(), false, false).max().double_value(&[]), 0.0);
    }
}

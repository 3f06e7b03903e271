//! `sample`: images from p(y) and p(y|c) by the learned score (section 5.2).

use super::figure::sheet;
use super::report::progress;
use super::subject::{Batch, Inputs, Need, Subject, bounded, correct, noise_like, norms};
use crate::console::line;
use crate::convert::sum;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// Draw images from the model, without and with classes (section 5.2)
///
/// The score does not know the noise level, so the sampler does not prescribe it either (Kadkhodaie & Simoncelli
/// 2021): each step reads the level off the score, σ = √n/‖∇log p‖ for an image of n values, moves a fraction of
/// the way to the denoised image and adds part of the noise again, such that the level falls geometrically from
/// --sigma to 1. The start is grey with that much noise. For each guidance strength g the score is that of
/// log p(y) + g log p(c|y):
/// 0 ignores the class, 1 is p(y|c). Writes sample.json, .md, where statistics of the samples stand beside
/// those of images of the data, and a contact sheet for each strength, one column per class.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    inputs: Inputs,
    /// Guidance strengths
    #[arg(long, value_delimiter = ',', default_value = "0,1,10", value_parser = bounded)]
    guidance: Vec<f64>,
    /// Highest noise level in 8-bit units [default: the highest that the network was trained with]
    #[arg(long, value_parser = bounded)]
    sigma: Option<f64>,
    /// Samples of each class
    #[arg(long, default_value = "6", value_parser = clap::value_parser!(u32).range(1..))]
    each: u32,
    /// Steps from the highest noise level to the lowest
    #[arg(long, default_value = "200", value_parser = clap::value_parser!(u32).range(2..))]
    steps: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct Row {
    model: String,
    /// What the statistics are of.
    images: String,
    /// Fraction that the network itself puts into the class asked for: consistency, not quality.
    as_asked: Option<f64>,
    /// Mean −log p in nats.
    energy: f64,
    /// Mean and standard deviation of all values, in image units.
    mean: f64,
    deviation: f64,
    /// Mean over images of the standard deviation within an image.
    contrast: f64,
    /// Root mean square of the difference of neighbouring pixels over the deviation: fine detail.
    detail: f64,
}

/// Runs the study.
///
/// # Errors
/// If inputs cannot be read or results cannot be written.
pub fn run(args: &Args) -> Result<()> {
    let (subjects, images) = args.inputs.open(Kind::Float, &[Need::Energy])?;
    let settings = serde_json::json!({
        "data": args.inputs.data_settings(&images), "sigma": args.sigma, "each": args.each, "steps": args.steps,
    });
    let mut report = args.inputs.report::<Row>("sample", &settings, &subjects)?;
    let bar = progress(subjects.len() * args.guidance.len() * (args.steps as usize + 1), "steps")?;
    for subject in &subjects {
        let classes = subject.spec.classes.len().max(1) as i64;
        let asked = Tensor::arange(classes, (Kind::Int64, Device::Cpu)).repeat([i64::from(args.each)]);
        let asked = asked.to_device(subject.device);
        let batch = Batch::spread(&images, asked.numel(), subject)?;
        // As many as are asked for, though there may be fewer images.
        let mut size = batch.images.size();
        size[0] = asked.size()[0];
        let like = Tensor::zeros(&size, (subject.kind, subject.device));
        report.row(&format!("{}/data", subject.key()), || {
            statistics(subject, "data", &batch.images, batch.classes.as_ref())
        })?;
        let highest = args.sigma.map_or(subject.spec.sigma.max, |s| s / 255.0);
        for &strength in &args.guidance {
            report.row(&format!("{}/{strength}", subject.key()), || {
                let guided = strength > 0.0 && !subject.spec.classes.is_empty();
                let weights = guided.then(|| subject.class_weights(&asked, strength));
                let samples = draw(subject, &like, weights.as_ref(), highest, args.steps, || {
                    bar.inc(1);
                })?;
                let rows: Vec<Vec<(String, Tensor)>> = (0..i64::from(args.each))
                    .map(|row| {
                        let column = |c: i64| {
                            let name = guided.then(|| subject.spec.classes.get(c as usize).cloned());
                            let caption = name.flatten().filter(|_| row == 0).unwrap_or_default();
                            (caption, samples.get(row * classes + c))
                        };
                        (0..classes).map(column).collect()
                    })
                    .collect();
                let file = format!("{}-guidance-{strength}.png", subject.spec.name);
                sheet(&args.inputs.output.join(file), &rows)?;
                let name = format!("samples, guidance {strength}");
                statistics(subject, &name, &samples, guided.then_some(&asked))
            })?;
        }
    }
    bar.finish_and_clear();
    line(report.markdown()?);
    Ok(())
}

/// Share of a step's progress that is not undone by new noise (β of Kadkhodaie & Simoncelli).
const PROGRESS: f64 = 0.5;

/// One image for each of `like`; class weights as for the denoiser. `highest` in image units.
fn draw(
    subject: &Subject,
    like: &Tensor,
    weights: Option<&Tensor>,
    highest: f64,
    steps: u32,
    mut progress: impl FnMut(),
) -> Result<Tensor> {
    // A step multiplies the noise level by 1 − βh, which gives the fraction h.
    let fall = (1.0 / 255.0 / highest).powf(1.0 / f64::from(steps)).min(1.0);
    let fraction = ((1.0 - fall) / PROGRESS).min(1.0);
    let renewed = (fall.powi(2) - (1.0 - fraction).powi(2)).max(0.0).sqrt();
    let root_n = (like.numel() as f64 / like.size()[0] as f64).sqrt();
    let mut y = noise_like(like, 0, 0) * highest + subject.spec.architecture.centre();
    for step in 0..=steps {
        let at = y.set_requires_grad(true);
        let score = subject.net.score(&at, weights, false)?;
        let sigma = (norms(&score).reciprocal() * root_n).view([-1, 1, 1, 1]);
        // The last step goes all the way and is the denoiser.
        let (fraction, renewed) = if step < steps { (fraction, renewed) } else { (1.0, 0.0) };
        let noise = noise_like(like, 0, 1 + u64::from(step)) * renewed;
        y = (at + score * sigma.square() * fraction + noise * sigma).detach();
        progress();
    }
    Ok(y)
}

fn statistics(subject: &Subject, name: &str, images: &Tensor, asked: Option<&Tensor>) -> Result<Row> {
    let count = images.size()[0] as f64;
    let output = tch::no_grad(|| subject.net.forward(images));
    let deviation = images.std(false).double_value(&[]);
    let within = images.flatten(1, -1).std_dim([1i64].as_slice(), false, false);
    let width = images.size()[3];
    let steps = images.narrow(3, 1, width - 1) - images.narrow(3, 0, width - 1);
    let as_asked = asked.and_then(|c| Some(correct(output.logits.as_ref()?, c) / count));
    let log_p = output.log_p.as_ref().context("a network without an energy")?;
    Ok(Row {
        model: subject.spec.name.clone(),
        images: name.to_string(),
        as_asked,
        energy: -sum(log_p) / count,
        mean: images.mean(Kind::Double).double_value(&[]),
        deviation,
        contrast: within.mean(Kind::Double).double_value(&[]),
        detail: steps.square().mean(Kind::Double).double_value(&[]).sqrt() / deviation,
    })
}

#[cfg(test)]
mod tests {
    use super::super::subject::tests::Blind;
    use super::*;
    use gradresnet_models::{Architecture, Spec};

    /// A model of flat grey: its samples are grey, whatever the noise at the start.
    #[test]
    fn sampling_ends_where_the_density_is() {
        let architecture: Architecture = serde_json::from_str(
            r#"{"gradresnet": {"stem": "cifar", "width": 8, "blocks": [1], "block": "residual", "norm": "none",
                "side_connections": "none", "activation": "gelu", "biases": false, "centre": 0.5, "scale": 1.0}}"#,
        )
        .unwrap();
        let spec = Spec {
            format: gradresnet_models::spec::FORMAT,
            name: "grey".into(),
            architecture,
            task: gradresnet_models::Task::Denoising,
            classes: Vec::new(),
            image_size: None,
            precision: gradresnet_models::Precision::Float32,
            sigma: gradresnet_models::SigmaRange { min: 0.004, max: 0.4 },
            provenance: None,
            metrics: Vec::new(),
            files: Default::default(),
        };
        let subject =
            Subject { spec, net: Box::new(Blind), kind: Kind::Float, device: Device::Cpu, norm: 0.0 };
        let like = Tensor::zeros([2, 3, 8, 8], (Kind::Float, Device::Cpu));
        let samples = draw(&subject, &like, None, 0.4, 50, || ()).unwrap();
        let deviation = statistics(&subject, "", &samples, None).unwrap().deviation;
        assert!(deviation < 2.0 / 255.0, "{deviation}");
    }
}

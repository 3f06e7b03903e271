//! `adversarial`: the classifier's gradient as a difference of denoisers (eq. 9), as the noise vanishes.

use super::figure::{Axis, Legend, Mark, Panel, Series, plot};
use super::report::{Report, progress};
use super::subject::{Batch, Inputs, Model, Need, Subject, bounded, correct, gradient, norms};
use crate::console::line;
use crate::convert::sum;
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Compare the classifier's gradient with the difference of denoisers (eq. 9) as the noise level falls
///
/// At y = x + σε, with one ε for all σ: the gradient ∇ log p(c|y) for the true class c, and how far
/// (D_c − D_u)/σ², from two runs of the denoiser, is from it, in float32 and float64. The identity is exact; what is
/// left is rounding, which the division by σ² magnifies. Writes adversarial.json, .md and adversarial.png.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    inputs: Inputs,
    /// Noise levels in 8-bit units, above 0
    #[arg(long, value_delimiter = ',', default_value = "100,50,25,15,10,5,2,1,0.5,0.1,0.01", value_parser = bounded)]
    sigma: Vec<f64>,
    /// Images, spread evenly over the data
    #[arg(long, default_value = "128", value_parser = clap::value_parser!(u32).range(1..))]
    images: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct Row {
    model: String,
    /// 8-bit units.
    sigma: f64,
    accuracy: f64,
    /// Mean over images of ‖∇ log p(c|y)‖, in nats per image unit.
    gradient: f64,
    /// Its cosine with the gradient at the clean image, mean over images.
    cosine_with_clean: f64,
    /// Mean over images of ‖D_c − D_u‖ = σ²‖∇ log p(c|y)‖, in image units.
    difference: f64,
    /// ‖(D_c − D_u)/σ² − ∇ log p(c|y)‖ / ‖∇ log p(c|y)‖ over all images.
    defect_float64: f64,
    defect_float32: f64,
}

/// Runs the study.
///
/// # Errors
/// If inputs cannot be read, do not have classes, or results cannot be written.
pub fn run(args: &Args) -> Result<()> {
    ensure!(
        args.sigma.iter().all(|&s| s > 0.0),
        "--sigma: eq. 9 divides by the noise level, which is above 0"
    );
    let (doubles, images) = args.inputs.open(Kind::Double, &[Need::Energy, Need::Logits])?;
    let (floats, _) = args.inputs.open(Kind::Float, &[Need::Energy, Need::Logits])?;
    let settings = serde_json::json!({ "data": args.inputs.data_settings(&images), "images": args.images });
    let mut report = args.inputs.report::<Row>("adversarial", &settings, &doubles)?;
    let bar = progress(doubles.len() * args.sigma.len(), "noise levels")?;
    for (double, float) in doubles.iter().zip(&floats) {
        let batch = Batch::spread(&images, args.images as usize, double)?;
        batch.require_classes(double)?;
        for &sigma in &args.sigma {
            report.row(&format!("{}/{sigma}", double.key()), || study(double, float, &batch, sigma))?;
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    plot(&args.inputs.output.join("adversarial.png"), &panels(&report))?;
    line(report.markdown()?);
    Ok(())
}

/// ∇_y log p(c|y), `[N,3,H,W]`, from the classifier alone.
fn class_gradient(net: &dyn Model, image: &Tensor, weights: &Tensor) -> Result<Tensor> {
    let at = image.detach().set_requires_grad(true);
    let logits = net.forward(&at).logits.context("a network without classes")?;
    Ok(gradient(&(weights * logits.log_softmax(1, None::<Kind>)).sum(None::<Kind>), &at, false))
}

/// (D_c − D_u)/σ² from two runs of the denoiser.
fn by_denoisers(net: &dyn Model, noisy: &Tensor, sigma: f64, weights: &Tensor) -> Result<Tensor> {
    Ok((net.denoise(noisy, sigma, Some(weights))? - net.denoise(noisy, sigma, None)?) / sigma.powi(2))
}

fn study(double: &Subject, float: &Subject, batch: &Batch, level: f64) -> Result<Row> {
    let sigma = level / 255.0;
    let count = batch.images.size()[0] as f64;
    let (mut right, mut size, mut cosine) = (0.0, 0.0, 0.0);
    let (mut squares, mut squares64, mut squares32) = (0.0, 0.0, 0.0);
    for (first, part) in batch.parts() {
        let classes = part.require_classes(double)?;
        let net = double.net.as_ref();
        let noisy = part.noisy(sigma, first);
        let weights = double.class_weights(classes, 1.0);
        let at_clean = class_gradient(net, &part.images, &weights)?;
        let direct = class_gradient(net, &noisy, &weights)?;
        right += net.logits(&noisy).map_or(0.0, |l| correct(&l, classes));
        size += sum(&norms(&direct));
        let dot = (&direct * &at_clean).flatten(1, -1).sum_dim_intlist(1, false, Kind::Double);
        cosine += sum(&(dot / (norms(&direct) * norms(&at_clean)).clamp_min(1e-300)));
        squares += sum(&direct.square());
        squares64 += sum(&(by_denoisers(net, &noisy, sigma, &weights)? - &direct).square());
        let noisy32 = noisy.to_kind(Kind::Float);
        let difference =
            by_denoisers(float.net.as_ref(), &noisy32, sigma, &float.class_weights(classes, 1.0))?;
        squares32 += sum(&(difference.to_kind(Kind::Double) - &direct).square());
    }
    Ok(Row {
        model: double.spec.name.clone(),
        sigma: level,
        accuracy: right / count,
        gradient: size / count,
        cosine_with_clean: cosine / count,
        difference: sigma.powi(2) * size / count,
        defect_float64: (squares64 / squares).sqrt(),
        defect_float32: (squares32 / squares).sqrt(),
    })
}

type Value = fn(&Row) -> f64;

fn panels(report: &Report<Row>) -> Vec<Panel> {
    let panel = |title: &str, values: [(&str, Value); 2]| {
        let series: Vec<Series> = values
            .iter()
            .enumerate()
            .map(|(colour, (label, value))| {
                let points = report.rows().map(|r| (r.sigma, value(r))).filter(|p| p.1 > 0.0).collect();
                Series::new(label, Mark::Points, colour, points)
            })
            .collect();
        let sigmas = || report.rows().map(|r| r.sigma);
        Panel {
            title: title.into(),
            x: Axis::log(
                "noise level (8-bit units)",
                sigmas().fold(1e3, f64::min) / 1.5,
                sigmas().fold(1e-3, f64::max) * 1.5,
            ),
            y: Axis::log_around(title, &series),
            legend: Legend::MiddleRight,
            series,
        }
    };
    vec![
        panel(
            "norm of the gradient",
            [("gradient of log p(c|y)", |r| r.gradient), ("D_c - D_u", |r| r.difference)],
        ),
        panel("defect of eq. 9", [("float32", |r| r.defect_float32), ("float64", |r| r.defect_float64)]),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::subject::noise_like;
    use super::super::subject::tests::Quadratic;
    use super::*;
    use tch::Device;

    #[test]
    fn equation_9_is_exact() {
        let net = Quadratic::random(12, 3);
        let noisy = noise_like(&Tensor::zeros([2, 3, 2, 2], (Kind::Double, Device::Cpu)), 2, 0);
        let weights = Tensor::from_slice(&[1i64, 0]).one_hot(3).to_kind(Kind::Double);
        let direct = class_gradient(&net, &noisy, &weights).unwrap();
        let p = noisy.flatten(1, -1).matmul(&net.b.tr()).softmax(1, Kind::Double);
        let expected = (&weights - p).matmul(&net.b).view_as(&noisy);
        for gradient in [&direct, &by_denoisers(&net, &noisy, 0.1, &weights).unwrap()] {
            assert!((gradient - &expected).abs().max().double_value(&[]) < 1e-11);
        }
    }
}

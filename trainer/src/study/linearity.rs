//! `linearity`: whether D(y) = ∇D(y) y (section 4.2), and the classifier under noise without attack.

use super::figure::{Axis, Legend, Mark, Panel, Series, plot};
use super::jacobian::Jacobian;
use super::report::{Report, progress};
use super::subject::{Batch, Inputs, Subject, bounded, correct, norms};
use crate::console::line;
use crate::convert::sum;
use anyhow::Result;
use gradresnet_models::Graph;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Measure how far the denoiser is from D(y) = J(y) y (section 4.2), and accuracy under noise without attack
///
/// A denoiser that is homogeneous of degree 1, as a bias-free network of convolutions and ReLUs is, equals its
/// Jacobian times its input (Mohan et al. 2020). But a GradResNet's is y + σ² ∇log p(y), and if the image and
/// σ both grow by α, ∇log p has to shrink by α: then D is homogeneous in y and σ together, and Euler's relation is
/// D(y) = J(y) y + 2(D(y) − y). Both defects are given in float64, also for y and D(y) less the centre that the
/// network subtracts. For a direct denoiser the product with J is a central difference; for a network that only
/// classifies there is accuracy alone. Writes linearity.json, .md and linearity.png.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    inputs: Inputs,
    /// Noise levels in 8-bit units
    #[arg(long, value_delimiter = ',', default_value = "0,2,5,10,15,20,25,35,50,75,100", value_parser = bounded)]
    sigma: Vec<f64>,
    /// Images, spread evenly over the data
    #[arg(long, default_value = "256", value_parser = clap::value_parser!(u32).range(1..))]
    images: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct Row {
    model: String,
    /// 8-bit units.
    sigma: f64,
    /// Accuracy on the noisy images.
    accuracy: Option<f64>,
    /// Mean over images of ‖D(y) − J(y) y‖ / ‖D(y)‖; none without a denoiser, or without noise, where D is the
    /// identity.
    defect: Option<f64>,
    /// The same with y and D(y) less the network's centre.
    defect_about_centre: Option<f64>,
    /// Mean over images of ‖D(y) − J(y) y‖ / ‖D(y) − y‖: relative to what the denoiser removes.
    defect_over_removed: Option<f64>,
    /// Mean over images of ‖D(y) − J(y) y − 2(D(y) − y)‖ / ‖D(y) − y‖, about the centre: 0 if D is homogeneous in
    /// y and σ together.
    joint_defect: Option<f64>,
}

/// Runs the study.
///
/// # Errors
/// If inputs cannot be read or results cannot be written.
pub fn run(args: &Args) -> Result<()> {
    let (subjects, images) = args.inputs.open(Kind::Double, &[])?;
    let settings = serde_json::json!({ "data": args.inputs.data_settings(&images), "images": args.images });
    let mut report = args.inputs.report::<Row>("linearity", &settings, &subjects)?;
    let bar = progress(subjects.len() * args.sigma.len(), "noise levels")?;
    for subject in &subjects {
        let batch = Batch::spread(&images, args.images as usize, subject)?;
        for &sigma in &args.sigma {
            report.row(&format!("{}/{sigma}", subject.key()), || study(subject, &batch, sigma))?;
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    plot(&args.inputs.output.join("linearity.png"), &panels(&report))?;
    line(report.markdown()?);
    Ok(())
}

fn study(subject: &Subject, batch: &Batch, level: f64) -> Result<Row> {
    let sigma = level / 255.0;
    let count = batch.images.size()[0] as f64;
    let a = &subject.spec.architecture;
    let (centre, denoises) = (a.centre(), Graph::Denoiser.is_of(&subject.spec));
    let (mut right, mut defects) = (0.0, [0.0; 4]);
    for (first, part) in batch.parts() {
        let noisy = part.noisy(sigma, first);
        if let (Some(classes), Some(logits)) = (&part.classes, subject.net.logits(&noisy)) {
            right += correct(&logits, classes);
        }
        let of_part = if !denoises {
            continue;
        } else if a.has_energy() {
            let jacobian = Jacobian::new(subject.net.as_ref(), &noisy, sigma)?;
            defects_of(&jacobian.denoised(), |v| Ok(jacobian.product(v)), &noisy, centre)?
        } else {
            let denoise = |y: &Tensor| subject.net.denoise(y, sigma, None);
            defects_of(&denoise(&noisy)?, |v| difference(denoise, &noisy, v), &noisy, centre)?
        };
        for (sum, defect) in defects.iter_mut().zip(of_part) {
            *sum += defect;
        }
    }
    let mean = |index: usize| (level > 0.0 && denoises).then(|| defects[index] / count);
    Ok(Row {
        model: subject.spec.name.clone(),
        sigma: level,
        accuracy: batch.classes.as_ref().map(|_| right / count),
        defect: mean(0),
        defect_about_centre: mean(1),
        defect_over_removed: mean(2),
        joint_defect: mean(3),
    })
}

/// J v of a denoiser at `y`, in float64; the step is so short that hardly a ReLU switches.
fn difference(denoise: impl Fn(&Tensor) -> Result<Tensor>, y: &Tensor, v: &Tensor) -> Result<Tensor> {
    const STEP: f64 = 1e-6;
    Ok((denoise(&(y + v * STEP))? - denoise(&(y - v * STEP))?) / (2.0 * STEP))
}

/// Sums over the images of the four defects of [`Row`], from D(y) and products with J(y).
fn defects_of(
    denoised: &Tensor,
    product: impl Fn(&Tensor) -> Result<Tensor>,
    noisy: &Tensor,
    centre: f64,
) -> Result<[f64; 4]> {
    let removed = denoised - noisy;
    let gap = denoised - product(noisy)?;
    let centred = denoised - centre;
    let centred_gap = &centred - product(&(noisy - centre))?;
    let ratio = |a: &Tensor, b: &Tensor| sum(&(norms(a) / norms(b)));
    Ok([
        ratio(&gap, denoised),
        ratio(&centred_gap, &centred),
        ratio(&gap, &removed),
        ratio(&(centred_gap - &removed * 2), &removed),
    ])
}

fn panels(report: &Report<Row>) -> Vec<Panel> {
    let mut models: Vec<&str> = Vec::new();
    for row in report.rows() {
        if !models.contains(&row.model.as_str()) {
            models.push(&row.model);
        }
    }
    let sigmas = report.rows().map(|r| r.sigma).fold(1.0, f64::max);
    let panel = |title: &str, high: f64, value: fn(&Row) -> Option<f64>| Panel {
        title: title.into(),
        x: Axis::linear("noise level (8-bit units)", 0.0, 1.03 * sigmas),
        y: Axis::linear(title, 0.0, high),
        legend: Legend::UpperRight,
        series: models
            .iter()
            .enumerate()
            .map(|(colour, model)| {
                let mut points: Vec<(f64, f64)> = (report.rows().filter(|r| r.model == *model))
                    .filter_map(|r| Some((r.sigma, value(r)?)))
                    .collect();
                points.sort_by(|a, b| a.0.total_cmp(&b.0));
                Series::new(model, Mark::LinePoints, colour, points)
            })
            .collect(),
    };
    let highest = |value: fn(&Row) -> Option<f64>| report.rows().filter_map(value).fold(1e-9, f64::max) * 1.3;
    vec![
        panel("|D(y) - J y| / |D(y)|", highest(|r| r.defect), |r| r.defect),
        panel("accuracy under noise (%)", 100.0, |r| r.accuracy.map(|a| 100.0 * a)),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::subject::tests::{Blind, Quadratic};
    use super::super::subject::{Model, noise_like};
    use super::*;
    use crate::nets::Network;
    use gradresnet_models::architecture::DnCnn;
    use gradresnet_models::{Norm, ParameterKind};
    use tch::Device;

    fn noisy() -> Tensor {
        noise_like(&Tensor::zeros([1, 3, 2, 2], (Kind::Double, Device::Cpu)), 3, 0)
    }

    fn defects(net: &dyn Model) -> [f64; 4] {
        let jacobian = Jacobian::new(net, &noisy(), 0.5).unwrap();
        defects_of(&jacobian.denoised(), |v| Ok(jacobian.product(v)), &noisy(), 0.5).unwrap()
    }

    /// Mohan et al. (2020): D(y) = J(y) y without biases and norms, but not with biases.
    #[test]
    fn a_direct_denoiser_without_biases_is_its_jacobian_times_its_input() {
        for biases in [false, true] {
            let a = DnCnn { depth: 4, width: 8, norm: Norm::None, biases };
            let net = Network::random(&a.into(), 0, 1, Kind::Double, Device::Cpu);
            for parameter in net.list().iter().filter(|p| p.kind == ParameterKind::Bias) {
                let _ = tch::no_grad(|| net.parameter(&parameter.name).unwrap().shallow_clone().fill_(0.3));
            }
            let denoise = |y: &Tensor| net.denoise(y, 0.5, None);
            let y = noisy();
            let found = defects_of(&denoise(&y).unwrap(), |v| difference(denoise, &y, v), &y, 0.0).unwrap();
            // Central differences in float64 err by 1e-10.
            assert!(if biases { found[0] > 1e-2 } else { found[0] < 1e-8 }, "{biases}: {found:?}");
        }
    }

    /// A quadratic log-density has a linear denoiser: no defect about 0, one about any other centre.
    #[test]
    fn a_linear_denoiser_has_no_defect() {
        let net = Quadratic::random(12, 2);
        let [defect, centred, removed, joint] = defects(&net);
        assert!(defect < 1e-12 && removed < 1e-11, "{defect} {removed}");
        assert!(centred > 1e-3 && joint > 0.1, "{centred} {joint}");
    }

    /// A log-density of degree 0 about ½ has a score of degree −1 about it, and a defect of twice what the
    /// denoiser removes.
    #[test]
    fn a_score_that_shrinks_as_the_image_grows_obeys_eulers_relation() {
        let [_, centred, _, joint] = defects(&Blind);
        assert!(joint < 1e-12 && centred > 0.1, "{centred} {joint}");
    }
}

//! `generalize`: denoising at noise levels outside the training range ("Bias removal", section 3.2).

use super::figure::{Axis, Legend, Mark, Panel, Series, plot};
use super::report::{Report, progress};
use super::subject::{Batch, Inputs, Need, Subject, bounded};
use crate::console::line;
use crate::convert::sum;
use crate::quality::psnr;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use tch::Kind;

/// Measure PSNR at noise levels inside and outside the training range, for several checkpoints
///
/// The paper removes all biases because bias-free denoisers are said to work beyond the noise levels they were
/// trained for (Mohan et al. 2020): give it networks with and without. Noise is not clipped, outputs are. Images
/// that differ in size are cut to their common centre. Writes generalize.json, .md and generalize.png.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    inputs: Inputs,
    /// Noise levels in 8-bit units
    #[arg(long, value_delimiter = ',', default_value = "1,5,15,25,50,75,100,125,150,200,255", value_parser = bounded)]
    sigma: Vec<f64>,
    /// Images, spread evenly over the data
    #[arg(long, default_value = "256", value_parser = clap::value_parser!(u32).range(1..))]
    images: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct Row {
    model: String,
    biases: bool,
    /// 8-bit units.
    sigma: f64,
    /// Whether the network was trained with that noise level.
    in_training_range: bool,
    /// Mean PSNR in dB of the noisy images and of D_u, both clipped to [0, 1].
    noisy: f64,
    denoised: f64,
}

/// Runs the study.
///
/// # Errors
/// If inputs cannot be read or results cannot be written.
pub fn run(args: &Args) -> Result<()> {
    let (subjects, images) = args.inputs.open(Kind::Float, &[Need::Denoiser])?;
    let settings = serde_json::json!({ "data": args.inputs.data_settings(&images), "images": args.images });
    let mut report = args.inputs.report::<Row>("generalize", &settings, &subjects)?;
    let bar = progress(subjects.len() * args.sigma.len(), "noise levels")?;
    for subject in &subjects {
        let batch = Batch::spread(&images, args.images as usize, subject)?;
        for &sigma in &args.sigma {
            report.row(&format!("{}/{sigma}", subject.key()), || study(subject, &batch, sigma))?;
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    plot(&args.inputs.output.join("generalize.png"), &[panel(&report)])?;
    line(report.markdown()?);
    Ok(())
}

fn study(subject: &Subject, batch: &Batch, level: f64) -> Result<Row> {
    let sigma = level / 255.0;
    let (mut before, mut after) = (0.0, 0.0);
    for (first, part) in batch.parts() {
        let noisy = part.noisy(sigma, first);
        before += sum(&psnr(&noisy, &part.images));
        after += sum(&psnr(&subject.net.denoise(&noisy, sigma, None)?, &part.images));
    }
    let count = batch.images.size()[0] as f64;
    // The range was rounded as text: its ends count.
    let range = subject.spec.sigma.min - 1e-9..=subject.spec.sigma.max + 1e-9;
    Ok(Row {
        model: subject.spec.name.clone(),
        biases: subject.spec.architecture.biases(),
        sigma: level,
        in_training_range: range.contains(&sigma),
        noisy: before / count,
        denoised: after / count,
    })
}

fn panel(report: &Report<Row>) -> Panel {
    let mut series: Vec<(String, Vec<(f64, f64)>)> = vec![("noisy".into(), Vec::new())];
    for row in report.rows() {
        if series.iter().all(|(name, _)| *name != row.model) {
            series.push((row.model.clone(), Vec::new()));
        }
        for (name, points) in &mut series {
            if *name == row.model {
                points.push((row.sigma, row.denoised));
            } else if name == "noisy" && points.iter().all(|p| p.0 != row.sigma) {
                points.push((row.sigma, row.noisy));
            }
        }
    }
    let series: Vec<Series> = series
        .into_iter()
        .enumerate()
        .map(|(colour, (name, mut points))| {
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            let mark = if name == "noisy" { Mark::Dashes } else { Mark::LinePoints };
            Series::new(&name, mark, colour, points)
        })
        .collect();
    let highest = report.rows().map(|r| r.sigma).fold(1.0, f64::max);
    Panel {
        title: "PSNR against noise level".into(),
        x: Axis::linear("noise level (8-bit units)", 0.0, 1.03 * highest),
        y: Axis::around("PSNR (dB)", &series),
        legend: Legend::UpperRight,
        series,
    }
}

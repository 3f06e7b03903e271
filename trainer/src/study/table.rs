//! `table`: runs in the shape of Tables 1, 2 and 3, beside the paper's own figures.

use super::report::Report;
use crate::console::line;
use crate::evaluate::rounded_down;
use anyhow::{Result, ensure};
use gradresnet_models::{Measurement, Spec, Task, checkpoint};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Collect the recorded figures of checkpoints into the shape of Table 1, 2 or 3
///
/// The figures are those that `eval --record NAME` left in the checkpoints: no row without a run behind it. Rows of
/// the paper are marked as such; they were measured on its data and, for the time, on one A100 GPU. Writes
/// table.json, .md anew.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Folders of checkpoints
    #[arg(required = true, value_name = "CHECKPOINT")]
    checkpoints: Vec<PathBuf>,
    /// Table of the paper whose rows stand beside them: 1 (CIFAR-10), 2 (ImageNet) or 3 (ablations)
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u8).range(1..=3))]
    paper: u8,
    /// Folder for the table, made if missing
    #[arg(short, long)]
    output: PathBuf,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Row {
    task: String,
    architecture: String,
    /// Per cent.
    accuracy: Option<f64>,
    /// PSNR in dB at noise levels of 15, 25 and 50.
    psnr_15: Option<f64>,
    psnr_25: Option<f64>,
    psnr_50: Option<f64>,
    training_hours: Option<f64>,
    /// What ran for these hours.
    machine: String,
    data: String,
    source: String,
}

type Published = (&'static str, &'static str, Option<f64>, Option<[f64; 3]>, Option<f64>);

/// Tables 1, 2 and 3 of the paper: task, architecture, accuracy, PSNR, hours.
const PAPER: [&[Published]; 3] = [
    &[
        ("classification", "ResNet18", Some(96.5), None, Some(0.7)),
        ("classification", "GradResNet", Some(96.1), None, Some(0.7)),
        ("denoising", "DnCNN", None, Some([32.05, 29.07, 25.23]), Some(0.8)),
        ("denoising", "DRUNet", None, Some([32.12, 29.20, 25.52]), Some(0.9)),
        ("denoising", "GradResNet", None, Some([32.21, 29.28, 25.51]), Some(1.3)),
        ("joint", "JEM (WideResNet)", Some(92.9), None, Some(36.0)),
        ("joint", "GradResNet", Some(96.3), Some([31.90, 29.00, 25.25]), Some(1.3)),
    ],
    &[
        ("classification", "ResNet18", Some(69.8), None, Some(96.0)),
        ("joint", "GradResNet", Some(68.6), Some([34.59, 31.94, 27.17]), Some(208.0)),
    ],
    &[
        ("joint", "GradResNet", Some(96.3), Some([31.90, 29.00, 25.25]), None),
        ("joint", "(ReLU)", Some(92.0), Some([29.59, 24.90, 17.11]), None),
        ("joint", "(BatchNorm)", Some(11.9), Some([24.33, 20.84, 18.06]), None),
        ("joint", "(Biases)", Some(95.9), Some([31.95, 29.03, 25.30]), None),
        ("joint", "(No side co.)", Some(94.0), Some([31.86, 28.95, 25.17]), None),
    ],
];

/// Runs the command.
///
/// # Errors
/// If a checkpoint cannot be read or has no figures, or the table cannot be written.
pub fn run(args: &Args) -> Result<()> {
    let mut report = Report::new(&args.output, "table", &args.paper)?;
    let index = usize::from(args.paper - 1);
    let data = ["CIFAR-10", "ImageNet", "CIFAR-10"][index];
    for (number, row) in PAPER[index].iter().enumerate() {
        report.row(&format!("paper/{number}"), || Ok(published(row, data, args.paper)))?;
    }
    for dir in &args.checkpoints {
        for row in measured(dir)? {
            let key = format!("{}/{}", dir.display(), row.data);
            report.row(&key, || Ok(row))?;
        }
    }
    line(report.markdown()?);
    Ok(())
}

fn published(row: &Published, data: &str, table: u8) -> Row {
    let (task, architecture, accuracy, psnr, hours) = *row;
    Row {
        task: task.into(),
        architecture: architecture.into(),
        accuracy,
        psnr_15: psnr.map(|p| p[0]),
        psnr_25: psnr.map(|p| p[1]),
        psnr_50: psnr.map(|p| p[2]),
        training_hours: hours,
        machine: match hours {
            // The paper took this row from Grathwohl et al. (2019).
            Some(_) if architecture.starts_with("JEM") => "not said".into(),
            Some(_) => "A100 GPU".into(),
            None => String::new(),
        },
        data: data.into(),
        source: format!("paper, Table {table}"),
    }
}

/// A row for each data set that the checkpoint in `dir` has figures on.
fn measured(dir: &Path) -> Result<Vec<Row>> {
    let spec = Spec::read(&dir.join(checkpoint::SPEC))?;
    ensure!(
        !spec.metrics.is_empty(),
        "{}: no figures recorded; `gradresnet-train eval {} --data … --record NAME` does",
        dir.display(),
        dir.display()
    );
    let mut names: Vec<&str> = Vec::new();
    for metric in &spec.metrics {
        if !names.contains(&metric.data.as_str()) {
            names.push(&metric.data);
        }
    }
    let task = match spec.task {
        Task::Denoising => "denoising",
        Task::Classification => "classification",
        Task::Joint => "joint",
    };
    let row = |data: &str| {
        let figure = |scale: f64, wanted: &dyn Fn(&Measurement) -> bool| {
            let metric = spec.metrics.iter().find(|m| m.data == data && wanted(m))?;
            Some(rounded_down(metric.value * scale, 2))
        };
        let psnr = |sigma: f64| figure(1.0, &|m| m.metric == "psnr" && m.sigma == Some(sigma));
        Row {
            task: task.into(),
            architecture: format!("`{}`, width {}", spec.name, spec.architecture.width()),
            accuracy: figure(100.0, &|m| m.metric == "accuracy"),
            psnr_15: psnr(15.0),
            psnr_25: psnr(25.0),
            psnr_50: psnr(50.0),
            training_hours: spec.provenance.as_ref().map(|p| p.cpu_hours),
            machine: "CPU core".into(),
            data: data.into(),
            source: "measured here".into(),
        }
    };
    Ok(names.into_iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_gives_a_row_for_each_data_set() {
        let dir = tempfile::tempdir().unwrap();
        let spec = |metrics: &str| {
            format!(
                r#"{{"format": 1, "name": "tiny", "task": "denoising", "classes": [],
                "sigma": {{"min": 0.004, "max": 0.3}}, "metrics": [{metrics}],
                "architecture": {{"gradresnet": {{"stem": "cifar", "width": 8, "blocks": [1], "block": "residual",
                "norm": "none", "side_connections": "none", "activation": "gelu", "biases": false, "centre": 0.5,
                "scale": 1.0}}}}}}"#
            )
        };
        let write = |text: String| std::fs::write(dir.path().join(checkpoint::SPEC), text).unwrap();
        write(spec(
            r#"{"data": "a", "metric": "psnr", "sigma": 25.0, "value": 30.509},
               {"data": "b", "metric": "accuracy", "value": 0.5},
               {"data": "a", "metric": "psnr_conditional", "sigma": 15.0, "value": 1.0}"#,
        ));
        let rows = measured(dir.path()).unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].psnr_25, rows[0].psnr_15, rows[0].accuracy), (Some(30.5), None, None));
        assert_eq!((rows[1].data.as_str(), rows[1].accuracy), ("b", Some(50.0)));

        write(spec(""));
        assert!(measured(dir.path()).unwrap_err().to_string().contains("--record"));
    }
}

//! The command line: arguments become options of the library, and its report is printed.

use anyhow::Result;
use clap::{Parser, ValueEnum};
use gradresnet_export::{ErrorKind, Options, Report, Weights, export};
use gradresnet_models::{Checkpoint, Precision};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Turns a checkpoint into a bundle that `gradresnet` and any ONNX engine can run.
///
/// A GradResNet's bundle has two graphs: forward.onnx (logits and energy) and denoiser.onnx (the unrolled
/// gradient). A ResNet's has the first, a DnCNN's the second.
/// Before the bundle is put in place, its graphs are run on every engine found here and compared with the
/// checkpoint's golden values, and where there are two, the denoiser is compared with central differences of the
/// forward graph.
#[derive(Parser)]
#[command(
    version,
    after_help = "\
Examples:
  gradresnet-export runs/photo/checkpoint -o photo
  gradresnet-export runs/photo/checkpoint -o photo --weights shared --overwrite
  gradresnet-export models/zoo/photo -o photo-gpu --precision float16
  gradresnet denoise noisy/ -o out --model ./photo

ONNX Runtime takes part in the verification if ORT_DYLIB_PATH names its library.
Exit status: 0 the bundle stands; 1 it does not, and nothing was written."
)]
struct Cli {
    /// Folder of the checkpoint, or of a bundle
    checkpoint: PathBuf,
    /// Folder of the bundle
    #[arg(short, long)]
    output: PathBuf,
    /// Where the parameters go
    #[arg(long, value_enum, default_value = "inline")]
    weights: WeightsArgument,
    /// What convolutions compute in
    #[arg(long, value_enum, default_value = "float32")]
    precision: PrecisionArgument,
    /// Version of the ONNX operators
    #[arg(long, default_value = "17", value_parser = clap::value_parser!(i64).range(17..=21))]
    opset: i64,
    /// Replace a bundle that is there; a folder that holds anything else is refused
    #[arg(long)]
    overwrite: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum WeightsArgument {
    /// In each graph as well as in model.safetensors
    Inline,
    /// In model.safetensors alone, to which both graphs refer
    Shared,
}

#[derive(Clone, Copy, ValueEnum)]
enum PrecisionArgument {
    Float32,
    /// For graphics processors: off by some 1e-3 of what the denoiser changes, and no faster on a CPU. Graphs with
    /// inline weights take half the space
    Float16,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are not failures. If stderr is closed, nothing can be done.
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    ::gradresnet::silence_caught_panics();
    match run(&cli) {
        Ok(report) => {
            // The bundle is in its place, whether anybody reads this or not.
            let _ = print(&cli, &report);
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<Report> {
    let checkpoint = Checkpoint::read(&cli.checkpoint)?;
    let weights = match cli.weights {
        WeightsArgument::Inline => Weights::Inline,
        WeightsArgument::Shared => Weights::Shared,
    };
    let precision = match cli.precision {
        PrecisionArgument::Float32 => Precision::Float32,
        PrecisionArgument::Float16 => Precision::Float16,
    };
    let options = Options { weights, precision, opset: cli.opset, overwrite: cli.overwrite };
    export(&checkpoint, &cli.output, &options).map_err(|error| {
        let named = match error.kind() {
            ErrorKind::Models(error) => error.path().is_some(),
            ErrorKind::Engine(error) => error.path().is_some(),
            _ => false,
        };
        let error = anyhow::Error::from(error);
        if named { error } else { error.context(cli.checkpoint.display().to_string()) }
    })
}

fn print(cli: &Cli, report: &Report) -> std::io::Result<()> {
    let out = &mut std::io::stdout();
    writeln!(out, "{}: {} parameters", cli.output.display(), report.parameters)?;
    for (graph, before, after) in &report.operations {
        writeln!(out, "{}: {after} operations ({before} before lowering)", graph.file_name())?;
    }
    writeln!(out, "golden values: {}", report.golden_source)?;
    for verified in &report.verified {
        let worst = verified.deviations.first();
        let figure = worst.map(|d| format!("{:.1e} ({}, {} graph)", d.error, d.output, d.graph.name()));
        writeln!(out, "{}: worst error {}", verified.engine, figure.unwrap_or_default())?;
    }
    for reason in &report.absent {
        writeln!(out, "not verified on: {reason}")?;
    }
    Ok(())
}

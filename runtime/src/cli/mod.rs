//! Arguments become a plan, the library carries it out, and a report says what happened.
//!
//! - [`inputs`]: which files the arguments name, and where their outputs go.
//! - [`model`]: the arguments that choose a model and an engine.
//! - [`console`]: progress, messages and the exit status.
//! - A file for each command, or for commands of one shape.

mod add_noise;
mod bench;
mod classify;
mod compare;
mod completions;
mod console;
mod denoise;
mod inputs;
mod model;
mod models;
mod psnr;
mod scores;
mod verify;
mod workers;

use clap::{Parser, Subcommand};
use console::Outcome;
use std::process::ExitCode;

/// Denoises, classifies and scores images with GradResNet models.
#[derive(Parser)]
#[command(
    version,
    max_term_width = 100,
    after_help = "\
Exit status: 0 all done; 2 at least one input failed and the others were done; 1 nothing
was done (bad arguments, no model, no engine, every input failed); 130 interrupted; 141 the
reader of the output went away.

Noise levels (sigma) are in 8-bit units: 25 means a standard deviation of 25/255.
Models are found by name in GRADRESNET_MODELS, beside the program, in the user's data folder
and in the source tree's models/zoo (`gradresnet models`). ORT_DYLIB_PATH names the library of
ONNX Runtime for `--engine ort`."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Denoise(denoise::Args),
    Classify(classify::Args),
    Energy(scores::EnergyArgs),
    Noise(scores::NoiseArgs),
    Psnr(psnr::Args),
    AddNoise(add_noise::Args),
    Verify(verify::Args),
    Compare(compare::Args),
    Bench(bench::Args),
    Models(models::ModelsArgs),
    Info(models::InfoArgs),
    Completions(completions::CompletionsArgs),
    Man(completions::ManArgs),
}

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are not failures. If the terminal is gone, nothing can be done.
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    gradresnet::silence_caught_panics();
    let result = match cli.command {
        Command::Denoise(args) => denoise::run(&args),
        Command::Classify(args) => classify::run(&args),
        Command::Energy(args) => scores::energy(&args),
        Command::Noise(args) => scores::noise(&args),
        Command::Psnr(args) => psnr::run(&args),
        Command::AddNoise(args) => add_noise::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Models(args) => models::list(&args),
        Command::Info(args) => models::info(&args),
        Command::Completions(args) => completions::completions(&args),
        Command::Man(args) => completions::man(&args),
    };
    match result {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::SomeFailed) => ExitCode::from(2),
        Ok(Outcome::AllFailed) => ExitCode::from(1),
        Ok(Outcome::Interrupted) => ExitCode::from(workers::INTERRUPTED_STATUS),
        Err(error) => {
            console::error(&error);
            ExitCode::from(1)
        }
    }
}

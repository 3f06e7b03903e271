//! The arguments that choose a model and an engine, and those that bound the work.

use anyhow::{Context, Result};
use gradresnet::engine::{self, Device, EngineKind};
use gradresnet::{Session, zoo};

/// Which model, and what runs it.
#[derive(clap::Args)]
pub struct ModelArgs {
    /// A model's name (`gradresnet models`) or its folder [default: photo; for classify: cifar10]
    #[arg(long, value_name = "NAME|DIR")]
    pub model: Option<String>,
    #[command(flatten)]
    pub engine: EngineArgs,
    #[command(flatten)]
    pub jobs: JobsArgs,
}

/// How much is done at a time.
#[derive(clap::Args)]
pub struct JobsArgs {
    /// Threads, each with an image or a tile of its own while there are enough [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
}

/// What runs a model.
#[derive(clap::Args)]
pub struct EngineArgs {
    /// tract (built in) or ort (ONNX Runtime, from ORT_DYLIB_PATH)
    #[arg(long, default_value = "tract", value_name = "tract|ort")]
    pub engine: EngineKind,
    /// cpu, or cuda[:N] with --engine ort
    #[arg(long, default_value = "cpu", value_name = "cpu|cuda[:N]")]
    pub device: Device,
}

impl ModelArgs {
    /// Opens the model on an engine with `threads` threads in a run, and starts those that all other work
    /// runs on.
    ///
    /// # Errors
    /// If there is no such model, engine or device.
    pub fn open(&self, default: &str, threads: usize) -> Result<Session> {
        let bundle = zoo::find(self.model.as_deref().unwrap_or(default))?;
        // Once, and not for each image.
        bundle.verify_digests()?;
        let engine = engine::open(self.engine.engine, self.engine.device, threads)?;
        self.jobs.start()?;
        Ok(Session::new(bundle, engine))
    }
}

impl JobsArgs {
    /// Starts the threads that everything runs on.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn start(&self) -> Result<()> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(self.threads());
        pool.build_global().context("the threads cannot be started")
    }

    /// Threads within an image: all for a single one; several do best with one each.
    pub fn within(&self, images: usize) -> usize {
        if images == 1 { self.threads() } else { 1 }
    }

    fn threads(&self) -> usize {
        self.jobs.map_or_else(cores, usize::from)
    }
}

/// Processors that this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Reads a noise level in 8-bit units.
pub fn sigma(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(sigma) if (0.0..=1000.0).contains(&sigma) => Ok(sigma),
        _ => Err("a noise level is a number from 0 to 1000, in 8-bit units (25 means 25/255)".into()),
    }
}

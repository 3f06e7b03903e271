//! `gradresnet bench`

use super::console::{Outcome, line, note, verbatim};
use super::model::cores;
use anyhow::{Result, ensure};
use gradresnet::engine::{self, Device, EngineKind, Graph, Shape};
use gradresnet::{Session, bench, zoo};

/// Measure how long a model takes here
///
/// Times the model's graphs at one size, after a warm-up: the median, tenth and ninetieth percentile of a run.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  gradresnet bench
  gradresnet bench cifar10 --size 32 --batch 64 --engine ort --threads 1 --json")]
pub struct Args {
    /// A model's name or its folder
    #[arg(value_name = "BUNDLE", default_value = "photo")]
    bundle: String,
    /// tract or ort [default: every engine found here]
    #[arg(long, value_name = "tract|ort")]
    engine: Option<EngineKind>,
    /// cpu, or cuda[:N] with --engine ort
    #[arg(long, default_value = "cpu", value_name = "cpu|cuda[:N]")]
    device: Device,
    /// Side of the image in pixels, rounded up to the network's stride
    #[arg(long, value_name = "N", default_value = "256", value_parser = clap::value_parser!(u16).range(1..=8192))]
    size: u16,
    /// Images in a run
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=4096))]
    batch: u16,
    /// Threads within a run [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// One JSON object per measurement
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<Outcome> {
    let threads = args.threads.map_or_else(cores, usize::from);
    let bundle = zoo::find(&args.bundle)?;
    let side = usize::from(args.size).next_multiple_of(bundle.spec().architecture.stride());
    let shape = Shape { batch: args.batch.into(), height: side, width: side };
    let kinds = args.engine.map_or_else(|| EngineKind::ALL.to_vec(), |kind| vec![kind]);
    let mut measured = 0;
    for kind in kinds {
        let engine = match engine::open(kind, args.device, threads) {
            Ok(engine) => engine,
            Err(error) if args.engine.is_none() => {
                note(format_args!("not measured: {error}"));
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let session = Session::new(bundle.clone(), engine);
        for graph in Graph::ALL.into_iter().filter(|graph| graph.is_of(bundle.spec())) {
            let m = bench::measure(&session, graph, shape, threads)?;
            measured += 1;
            if args.json {
                verbatim(serde_json::to_string(&m)?);
            } else {
                line(format_args!(
                    "{} {:8} {:5} {} threads, {shape}: {:.1} ms a run ({:.1} to {:.1}, {} runs)",
                    m.bundle, m.graph, m.engine, m.threads, m.median_ms, m.p10_ms, m.p90_ms, m.runs
                ));
            }
        }
    }
    ensure!(measured > 0, "no engine runs on {}", args.device);
    Ok(Outcome::Done)
}

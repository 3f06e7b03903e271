//! How long one run of a graph takes here.

use crate::engine::{Graph, Inputs, Shape};
use crate::error::Result;
use crate::session::Session;
use gradresnet_models::Port;
use ndarray::{Array2, Array4};
use serde::Serialize;
use std::time::{Duration, Instant};

/// Runs that are not counted: caches fill, clocks rise, the engine allocates.
const WARM_UP: usize = 2;
/// The fewest and the most runs that are counted.
const RUNS: std::ops::RangeInclusive<usize> = 5..=50;
/// After this time, and the fewest runs, no further run is started.
const ENOUGH: Duration = Duration::from_secs(3);

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    /// Name of the bundle.
    pub bundle: String,
    /// `forward` or `denoiser`.
    pub graph: &'static str,
    /// `tract` or `ort`.
    pub engine: &'static str,
    /// Threads within a run.
    pub threads: usize,
    /// Images in a run.
    pub batch: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Runs counted.
    pub runs: usize,
    /// Median time of a run, in milliseconds.
    pub median_ms: f64,
    /// The tenth percentile.
    pub p10_ms: f64,
    /// The ninetieth percentile.
    pub p90_ms: f64,
    /// Processor time of a run over all threads, in milliseconds, which other processes disturb less;
    /// `None` where the system does not say.
    pub cpu_ms: Option<f64>,
    /// Peak memory of the process, in MiB; `None` where the system does not say.
    pub peak_rss_mib: Option<f64>,
}

/// Times one graph at one shape. `threads` is what the session's engine was opened with.
///
/// # Errors
/// Those of [`crate::engine::Engine::compile`] and [`crate::engine::Plan::run`].
pub fn measure(session: &Session, graph: Graph, shape: Shape, threads: usize) -> Result<Measurement> {
    let Shape { batch, height, width } = shape;
    let spec = session.spec();
    // Varied, so that branches do not all go the same way; what it shows does not matter.
    let image = Array4::from_shape_fn((batch, 3, height, width), |(n, c, y, x)| {
        ((n + 7 * c + 3 * y + 5 * x) % 11) as f32 / 10.0
    });
    let sigma = vec![spec.sigma.max as f32; batch];
    let weights = Array2::zeros((batch, spec.classes.len()));
    let takes = |port| graph.inputs(spec).contains(&port);
    let inputs = Inputs {
        image: image.view(),
        sigma: if takes(Port::Sigma) { &sigma } else { &[] },
        class_weights: takes(Port::ClassWeights).then(|| weights.view()),
    };
    let plan = session.plan(graph, shape)?;
    for _ in 0..WARM_UP {
        plan.run(&inputs)?;
    }
    let cpu = processor_ms();
    let start = Instant::now();
    let mut times = Vec::new();
    while times.len() < *RUNS.start() || times.len() < *RUNS.end() && start.elapsed() < ENOUGH {
        let start = Instant::now();
        plan.run(&inputs)?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let cpu = processor_ms().zip(cpu).map(|(end, start)| (end - start) / times.len() as f64);
    times.sort_by(f64::total_cmp);
    Ok(Measurement {
        bundle: spec.name.clone(),
        graph: graph.name(),
        engine: session.engine().kind().name(),
        threads,
        batch,
        height,
        width,
        runs: times.len(),
        median_ms: percentile(&times, 0.5),
        p10_ms: percentile(&times, 0.1),
        p90_ms: percentile(&times, 0.9),
        cpu_ms: cpu,
        peak_rss_mib: peak_rss_mib(),
    })
}

/// `sorted` must not be empty; interpolates linearly.
fn percentile(sorted: &[f64], p: f64) -> f64 {
    let place = p * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

/// Linux reports it in a process's status; elsewhere it takes a system call, which is not worth unsafe
/// code here.
fn peak_rss_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

/// User and system time since the process started. Linux counts hundredths of a second.
fn processor_ms() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // Fields are counted from the end of the name, which may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) * 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_interpolate() {
        let values = [1.0, 2.0, 4.0];
        assert_eq!(percentile(&values, 0.5), 2.0);
        assert!((percentile(&values, 0.9) - 3.6).abs() < 1e-12);
        assert_eq!(percentile(&[5.0], 0.1), 5.0);
    }
}

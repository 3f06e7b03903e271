//! Engines run a bundle's graphs. Everything above this module is the same for all of them.
//!
//! An [`Engine`] compiles a [`Graph`] for one [`Shape`] into a [`Plan`]; a plan turns [`Inputs`] into
//! [`Outputs`] and may be used from any number of threads at once. Before a graph reaches an engine it
//! has been decoded, bounded and checked against the graph contract.

mod contract;
mod ort;
mod tract;

use crate::error::{Error, ErrorKind, Result};
use gradresnet_models::Bundle;
pub use gradresnet_models::Graph;
use ndarray::{Array2, Array4, ArrayView2, ArrayView4};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The engines that this crate knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EngineKind {
    /// tract, linked in.
    Tract,
    /// ONNX Runtime, a shared library found when it is first needed.
    Ort,
}

impl EngineKind {
    /// All of them.
    pub const ALL: [EngineKind; 2] = [EngineKind::Tract, EngineKind::Ort];

    /// About how much memory a run takes for each of [`gradresnet_models::Architecture::features_per_pixel`].
    ///
    /// Denoising: the peak of `gradresnet bench BUNDLE --size 400 --engine ENGINE --json`, over its 160,000 pixels, gives
    /// 18 to 19 bytes for the shipped models on tract and 55 to 75 on ONNX Runtime, which trades memory for time: without
    /// its arena it takes a third of this, and a third longer. Forward: what `gradresnet energy --jobs 1` takes more for
    /// an image of 1448×1448 pixels than for one of 1024×1024 gives 5.1 to 8.4 and 4.0 to 11.
    pub(crate) fn bytes_per_feature(self, graph: Graph) -> f64 {
        match (self, graph) {
            (EngineKind::Tract, Graph::Denoiser) => 19.0,
            (EngineKind::Ort, Graph::Denoiser) => 75.0,
            (EngineKind::Tract, Graph::Forward) => 9.0,
            (EngineKind::Ort, Graph::Forward) => 11.0,
        }
    }

    /// Whether the environment names this engine's library (`ORT_DYLIB_PATH`): one that is not usable then is an error,
    /// and otherwise just absent.
    pub fn is_named(self) -> bool {
        match self {
            EngineKind::Tract => false,
            EngineKind::Ort => ort::named().is_some(),
        }
    }

    /// As written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            EngineKind::Tract => "tract",
            EngineKind::Ort => "ort",
        }
    }
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EngineKind::Tract => "tract",
            EngineKind::Ort => "ONNX Runtime",
        })
    }
}

impl FromStr for EngineKind {
    type Err = String;

    fn from_str(s: &str) -> std::result::Result<Self, String> {
        EngineKind::ALL
            .into_iter()
            .find(|kind| kind.name() == s)
            .ok_or_else(|| "the engines are `tract` and `ort`".into())
    }
}

/// Where an engine computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// An NVIDIA GPU, by its number.
    Cuda(usize),
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(n) => write!(f, "cuda:{n}"),
        }
    }
}

impl FromStr for Device {
    type Err = String;

    fn from_str(s: &str) -> std::result::Result<Self, String> {
        match s.split_once(':') {
            None if s == "cpu" => Some(Device::Cpu),
            None if s == "cuda" => Some(Device::Cuda(0)),
            Some(("cuda", n)) => n.parse().ok().map(Device::Cuda),
            _ => None,
        }
        .ok_or_else(|| "the devices are `cpu`, `cuda` and `cuda:N`".into())
    }
}

/// The sizes that a plan is made for. Plans with fixed sizes run up to twelve times faster in tract
/// than plans with symbolic ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Images in a batch, at least 1.
    pub batch: usize,
    /// Rows, a multiple of the network's stride.
    pub height: usize,
    /// Columns, a multiple of the network's stride.
    pub width: usize,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}×{}×{}", self.batch, self.height, self.width)
    }
}

/// What a plan takes.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// `image` or `noisy`: `[N,3,H,W]`, in image units ([0, 1], not clipped).
    pub image: ArrayView4<'a, f32>,
    /// `[N]`, in image units; for a denoiser that takes it, and empty otherwise.
    pub sigma: &'a [f32],
    /// `[N,C]`; for the denoiser of a model with classes and an energy, and `None` otherwise.
    pub class_weights: Option<ArrayView2<'a, f32>>,
}

/// What a plan returns. Every number in it is finite.
#[derive(Clone, Debug, PartialEq)]
pub struct Outputs {
    /// `[N,3,H,W]`, in image units; from the denoiser.
    pub denoised: Option<Array4<f32>>,
    /// `[N,C]`; for a model with classes.
    pub logits: Option<Array2<f32>>,
    /// `[N]`: −log p(y) in nats, without its constant (eq. 11); for a model with an energy.
    pub energy: Option<Vec<f32>>,
}

/// Compiles graphs.
pub trait Engine: Send + Sync {
    /// Which one it is.
    fn kind(&self) -> EngineKind;

    /// Its name, version, device and threads, for people.
    fn description(&self) -> String;

    /// Reads a graph of `bundle`, checks it and makes a plan for one shape.
    ///
    /// # Errors
    /// [`ErrorKind::NoGraph`], [`ErrorKind::Bundle`], [`ErrorKind::Graph`], [`ErrorKind::Input`] (the shape is not a
    /// multiple of the stride), [`ErrorKind::Engine`], [`ErrorKind::Device`].
    fn compile(&self, bundle: &Bundle, graph: Graph, shape: Shape) -> Result<Box<dyn Plan>>;
}

/// Runs one graph at one shape.
pub trait Plan: Send + Sync {
    /// Runs it.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] if an input is missing, not wanted or of another shape than the plan's;
    /// [`ErrorKind::NotFinite`]; [`ErrorKind::Engine`].
    fn run(&self, inputs: &Inputs) -> Result<Outputs>;
}

/// Opens an engine that uses `threads` threads (at least 1) within one run of a plan. On a thread of a rayon
/// pool tract uses only that one, since the others have work of their own.
///
/// # Errors
/// [`ErrorKind::EngineAbsent`] and [`ErrorKind::Device`], with cause and cure. There is no fallback to
/// another engine or device.
pub fn open(kind: EngineKind, device: Device, threads: usize) -> Result<Arc<dyn Engine>> {
    let threads = threads.max(1);
    match kind {
        EngineKind::Tract => tract::open(device, threads),
        EngineKind::Ort => ort::open(device, threads),
    }
}

/// Opens every engine on the processor; one that is not usable here comes with the reason.
pub fn available(threads: usize) -> Vec<(EngineKind, Result<Arc<dyn Engine>>)> {
    EngineKind::ALL.into_iter().map(|kind| (kind, open(kind, Device::Cpu, threads))).collect()
}

/// Checks a graph of `bundle` as is done for every engine, without opening one. An engine may still refuse
/// it.
///
/// # Errors
/// Those of [`Engine::compile`] but the engine's own.
pub fn check(bundle: &Bundle, graph: Graph, shape: Shape) -> Result<()> {
    contract::load(bundle, graph, shape).map(drop)
}

fn engine_error(engine: EngineKind, action: &'static str, graph: Graph, reason: String) -> Error {
    ErrorKind::Engine { engine, action, graph: graph.name(), reason: one_line(&reason) }.into()
}

/// Engines report a chain of causes over several lines; an error here is one line.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_and_devices_are_parsed_from_what_they_print() {
        for kind in EngineKind::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
        }
        for device in [Device::Cpu, Device::Cuda(0), Device::Cuda(3)] {
            assert_eq!(device.to_string().parse(), Ok(device));
        }
        assert_eq!("cuda".parse(), Ok(Device::Cuda(0)));
        for wrong in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0"] {
            assert!(wrong.parse::<Device>().is_err(), "{wrong}");
        }
    }
}

//! The runtime's engines, tract and ONNX Runtime, on the bundle's graphs.

use super::{Engine, Values, change};
use crate::cases::{Inputs, Model};
use crate::resources;
use anyhow::{Context, Result};
use gradresnet::engine::{self, Device, EngineKind, Graph, Shape};
use ndarray::{ArrayView2, ArrayView4};
use std::sync::Arc;

/// An engine of the runtime, on one thread.
pub struct Runtime {
    engine: Arc<dyn engine::Engine>,
}

/// tract, and ONNX Runtime where `ORT_DYLIB_PATH` says where it is.
///
/// # Errors
/// If one does not start.
pub fn all() -> Result<Vec<Box<dyn Engine>>> {
    let mut engines: Vec<Box<dyn Engine>> = vec![Box::new(Runtime::open(EngineKind::Tract)?)];
    if resources::path("ORT_DYLIB_PATH", "equivalence on ONNX Runtime").is_some() {
        engines.push(Box::new(Runtime::open(EngineKind::Ort)?));
    }
    Ok(engines)
}

impl Runtime {
    /// Opens one.
    ///
    /// # Errors
    /// If it is not usable here.
    pub fn open(kind: EngineKind) -> Result<Runtime> {
        Ok(Runtime { engine: engine::open(kind, Device::Cpu, 1)? })
    }
}

impl Engine for Runtime {
    fn name(&self) -> String {
        self.engine.kind().to_string()
    }

    fn run(&self, model: &Model, inputs: &Inputs) -> Result<Values> {
        let [batch, height, width] = inputs.size;
        let shape = Shape { batch, height, width };
        let classes = model.variant.classes;
        let image = ArrayView4::from_shape([batch, 3, height, width], &inputs.noisy)?;
        let class_weights = ArrayView2::from_shape([batch, classes], &inputs.class_weights)?;
        let run = |graph, inputs: engine::Inputs| -> Result<engine::Outputs> {
            Ok(self.engine.compile(&model.bundle, graph, shape)?.run(&inputs)?)
        };
        let denoiser = run(
            Graph::Denoiser,
            engine::Inputs {
                image,
                sigma: &inputs.sigma,
                class_weights: (classes > 0).then_some(class_weights),
            },
        )?;
        let forward = run(Graph::Forward, engine::Inputs { image, sigma: &[], class_weights: None })?;
        let denoised = denoiser.denoised.context("the denoiser returned no image")?;
        let double = |v: Vec<f32>| v.into_iter().map(f64::from).collect();
        let logits = |v: Option<ndarray::Array2<f32>>| v.into_iter().flatten().map(f64::from).collect();
        Ok(Values {
            change: change(denoised.into_iter().map(f64::from), inputs),
            energy: [double(denoiser.energy), double(forward.energy)],
            logits: [logits(denoiser.logits), logits(forward.logits)],
        })
    }
}

//! The runtime's engines, tract and ONNX Runtime, on the bundle's graphs.

use super::{Engine, Values, change};
use crate::cases::{Inputs, Model};
use crate::resources;
use anyhow::Result;
use gradresnet::engine::{self, Device, EngineKind, Graph, Shape};
use gradresnet_models::Port;
use ndarray::{ArrayView2, ArrayView4};
use std::sync::Arc;

/// An engine of the runtime, on one thread.
pub struct Runtime {
    engine: Arc<dyn engine::Engine>,
}

/// tract, and ONNX Runtime if `ORT_DYLIB_PATH` says where it is.
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
        let spec = model.bundle.spec();
        let run = |graph: Graph| -> Result<engine::Outputs> {
            if !graph.is_of(spec) {
                return Ok(engine::Outputs { denoised: None, logits: None, energy: None });
            }
            let takes = |port| graph.inputs(spec).contains(&port);
            let inputs = engine::Inputs {
                image,
                sigma: if takes(Port::Sigma) { &inputs.sigma } else { &[] },
                class_weights: takes(Port::ClassWeights).then_some(class_weights),
            };
            Ok(self.engine.compile(&model.bundle, graph, shape)?.run(&inputs)?)
        };
        let (denoiser, forward) = (run(Graph::Denoiser)?, run(Graph::Forward)?);
        let energy = |v: Option<Vec<f32>>| v.into_iter().flatten().map(f64::from).collect();
        let logits = |v: Option<ndarray::Array2<f32>>| v.into_iter().flatten().map(f64::from).collect();
        Ok(Values {
            change: change(denoiser.denoised.into_iter().flatten().map(f64::from), inputs),
            energy: [energy(denoiser.energy), energy(forward.energy)],
            logits: [logits(denoiser.logits), logits(forward.logits)],
        })
    }
}

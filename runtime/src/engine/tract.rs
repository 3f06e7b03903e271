//! tract: pure Rust, linked in, always there. Operators of our own do what takes the time:
//!
//! - [`convolution`]: convolutions and their transposes; [`winograd`]: those of 3×3 and stride 1, with fewer products;
//!   [`product`]: where both spend their time; [`strip`]: how their output is cut.
//! - [`pointwise`]: chains of element-wise operations, and sums over planes.
//! - [`fuse`]: puts them into a model; [`pool`]: the memory between them.

mod convolution;
mod fuse;
mod pointwise;
mod pool;
mod product;
mod strip;
mod winograd;

use super::contract::{self, Signature};
use super::{Device, Engine, EngineKind, Graph, Inputs, Outputs, Plan, Shape, engine_error};
use crate::error::{ErrorKind, Result, catch_panic};
use gradresnet_models::Bundle;
use pool::Pool;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tract_linalg::multithread::{Executor, multithread_tract_scope};
use tract_onnx::prelude::*;

/// The version in this crate's manifest: tract does not tell its own.
const VERSION: &str = "0.23.9";

struct Tract {
    threads: usize,
    executor: Executor,
    pool: Pool,
    plans: AtomicUsize,
}

struct TractPlan {
    signature: Signature,
    plan: Arc<TypedRunnableModel>,
    executor: Executor,
    pool: Pool,
    number: usize,
}

pub(super) fn open(device: Device, threads: usize) -> Result<Arc<dyn Engine>> {
    if device != Device::Cpu {
        return Err(ErrorKind::Device {
            device: device.to_string(),
            reason: "tract computes on the processor only; use --engine ort for a GPU".into(),
        }
        .into());
    }
    let executor = match threads {
        1 => Executor::SingleThread,
        n => catch_panic(|| Executor::multithread(n)).map_err(|reason| ErrorKind::EngineAbsent {
            engine: EngineKind::Tract,
            reason: format!("{n} threads cannot be started ({reason})"),
        })?,
    };
    Ok(Arc::new(Tract { threads, executor, pool: Pool::default(), plans: AtomicUsize::new(0) }))
}

impl Engine for Tract {
    fn kind(&self) -> EngineKind {
        EngineKind::Tract
    }

    fn description(&self) -> String {
        format!("tract {VERSION}, cpu, {}", threads(self.threads))
    }

    fn compile(&self, bundle: &Bundle, graph: Graph, shape: Shape) -> Result<Box<dyn Plan>> {
        let checked = contract::load(bundle, graph, shape)?;
        // An unsupported or absurd graph may hit an assertion instead of an error.
        let plan = catch_panic(|| prepare(&checked.model, &self.pool).map_err(|e| format!("{e:#}")))
            .and_then(|plan| plan)
            .map_err(|reason| engine_error(EngineKind::Tract, "load", graph, reason))?;
        let number = self.plans.fetch_add(1, Ordering::Relaxed) + 1;
        let (executor, pool) = (self.executor.clone(), self.pool.clone());
        Ok(Box::new(TractPlan { signature: checked.signature, plan, executor, pool, number }))
    }
}

fn prepare(model: &tract_onnx::pb::ModelProto, pool: &Pool) -> TractResult<Arc<TypedRunnableModel>> {
    let mut model = tract_onnx::onnx().model_for_proto_model(model)?.into_typed()?;
    fuse::convolutions(&mut model, pool)?;
    fuse::chains(&model.into_decluttered()?, pool)?.into_optimized()?.into_runnable()
}

impl Plan for TractPlan {
    fn run(&self, inputs: &Inputs) -> Result<Outputs> {
        let fail = |reason| engine_error(EngineKind::Tract, "run", self.signature.graph, reason);
        let values = self
            .signature
            .values(inputs)?
            .into_iter()
            .map(|input| Ok(Tensor::from_shape(&input.extents, &input.values)?.into_tvalue()))
            .collect::<TractResult<TVec<TValue>>>()
            .map_err(|e| fail(format!("{e:#}")))?;
        self.pool.enter(self.number);
        // On a thread of a pool, as for a tile, there are none to spare.
        let executor = match rayon::current_thread_index() {
            Some(_) => Executor::SingleThread,
            None => self.executor.clone(),
        };
        let run = || -> TractResult<Vec<(Vec<usize>, Vec<f32>)>> {
            multithread_tract_scope(executor, || self.plan.run(values))?
                .iter()
                .map(|value| {
                    let view = value.to_plain_array_view::<f32>()?;
                    Ok((view.shape().to_vec(), view.iter().copied().collect()))
                })
                .collect()
        };
        let outputs = catch_panic(|| run().map_err(|e| format!("{e:#}")));
        self.pool.leave(self.number);
        outputs.and_then(|outputs| outputs).and_then(|outputs| self.signature.outputs(outputs)).map_err(fail)
    }
}

pub(super) fn threads(n: usize) -> String {
    if n == 1 { "1 thread".into() } else { format!("{n} threads") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// Whatever works on whole images is an operator of this module, in both graphs of every model.
    #[test]
    fn shipped_models_leave_no_image_to_other_operators() {
        for name in ["photo", "photo-fast", "cifar10", "dncnn-photo", "resnet18-cifar10"] {
            let zoo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/zoo");
            let bundle = Bundle::open(&zoo.join(name)).unwrap();
            for graph in Graph::ALL.into_iter().filter(|graph| graph.is_of(bundle.spec())) {
                let shape = Shape { batch: 2, height: 32, width: 48 };
                let checked = contract::load(&bundle, graph, shape).unwrap();
                let plan = prepare(&checked.model, &Pool::default()).unwrap();
                for node in plan.model().nodes() {
                    let shape = node.outputs[0].fact.shape.as_concrete();
                    let image = matches!(shape, Some([2, _, h, w]) if h * w > 1);
                    let ours = ["Source", "Convolution", "Winograd", "Pointwise"].contains(&&*node.op.name());
                    assert!(ours || !image, "{name}: {node}");
                }
                let fast = plan.model().nodes().iter().any(|node| node.op.name() == "Winograd");
                assert!(fast, "{name}: no convolution by Winograd's filtering");
            }
        }
    }
}

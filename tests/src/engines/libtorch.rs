//! libtorch, with autograd: in float64 the reference, in float32 the engine that training uses.

use super::{Engine, Values, change};
use crate::cases::{Inputs, Model};
use anyhow::{Context, Result};
use gradresnet_models::Graph;
use gradresnet_train::convert::to_array;
use gradresnet_train::nets::{Network, Phase};
use tch::{Device, Kind, Tensor};

/// libtorch in float32.
#[derive(Debug)]
pub struct Float32;

impl Engine for Float32 {
    fn name(&self) -> String {
        "libtorch float32".into()
    }

    fn run(&self, model: &Model, inputs: &Inputs) -> Result<Values> {
        run(model, inputs, Kind::Float)
    }
}

/// The inputs as tensors: noisy, sigma and, with classes, class weights.
pub fn tensors(inputs: &Inputs, kind: Kind) -> (Tensor, Tensor, Option<Tensor>) {
    let [n, h, w] = inputs.size.map(|d| d as i64);
    let tensor = |values: &[f32]| Tensor::from_slice(values).to_kind(kind);
    let weights = (!inputs.class_weights.is_empty()).then(|| tensor(&inputs.class_weights).reshape([n, -1]));
    (tensor(&inputs.noisy).reshape([n, 3, h, w]), tensor(&inputs.sigma), weights)
}

/// A model's network.
///
/// # Errors
/// If the checkpoint lacks a parameter.
pub fn net(model: &Model, kind: Kind) -> Result<Network> {
    let (a, classes) = (&model.variant.architecture, model.variant.classes);
    Network::from_tensors(a, classes, &model.checkpoint.parameters, kind, Device::Cpu)
        .context("a parameter is missing")
}

pub(super) fn run(model: &Model, inputs: &Inputs, kind: Kind) -> Result<Values> {
    let net = net(model, kind)?;
    let (noisy, sigma, weights) = tensors(inputs, kind);
    let mut outputs = net.outputs(&noisy, &sigma, weights.as_ref());
    if !Graph::Denoiser.is_of(model.bundle.spec()) {
        outputs.logits = None;
    }
    let forward = tch::no_grad(|| net.density(&noisy, Phase::Evaluation));
    let values = |t: &Option<Tensor>| t.as_ref().map(|t| to_array(t).to_f64()).unwrap_or_default();
    Ok(Values {
        change: change(values(&outputs.denoised), inputs),
        energy: [values(&outputs.energy), values(&forward.log_p.map(|log_p| -log_p))],
        logits: [values(&outputs.logits), values(&forward.logits)],
    })
}

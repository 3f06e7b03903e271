//! Softmax and its logarithm over the classes.

use crate::error::Result;
use crate::ir::{Backward, Dim, NodeId, Operator, Shape, Tensor};
use crate::onnx::{Attribute, Emitter};
use crate::ops::reduce::Reduce;

/// Over the second axis of `[N,C]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Softmax {
    /// e^{x_c} / Σ e^{x_c'}
    Probability,
    /// x_c − log Σ e^{x_c'}
    Logarithm,
}

impl Operator for Softmax {
    fn name(&self) -> &'static str {
        match self {
            Softmax::Probability => "Softmax",
            Softmax::Logarithm => "LogSoftmax",
        }
    }

    fn shape(&self, inputs: &[&[Dim]]) -> std::result::Result<Shape, String> {
        match inputs {
            [[n, c]] => Ok(vec![*n, *c]),
            _ => Err(format!("{inputs:?}, and [N,C] is required")),
        }
    }

    fn evaluate(&self, inputs: &[&Tensor]) -> Tensor {
        let x = inputs[0];
        let classes = x.shape()[1].max(1);
        let log_sums: Vec<f64> = x
            .values()
            .chunks(classes)
            .map(|row| {
                let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                max + row.iter().map(|v| (v - max).exp()).sum::<f64>().ln()
            })
            .collect();
        Tensor::from_fn(x.shape(), |at| {
            let logarithm = x.at(at) - log_sums[at[0]];
            match self {
                Softmax::Probability => logarithm.exp(),
                Softmax::Logarithm => logarithm,
            }
        })
    }

    fn vjp(&self, b: &mut Backward) -> Result<Vec<Option<NodeId>>> {
        let (g, y) = (b.full_gradient()?, b.output);
        let gradient = match self {
            Softmax::Probability => {
                let product = b.graph.mul(g, y)?;
                let sum = b.graph.add(Reduce::sum(&[1]), &[product])?;
                let centred = b.graph.sub(g, sum)?;
                b.graph.mul(y, centred)?
            }
            Softmax::Logarithm => {
                let probability = b.graph.add(Softmax::Probability, b.inputs)?;
                let sum = b.graph.add(Reduce::sum(&[1]), &[g])?;
                let product = b.graph.mul(probability, sum)?;
                b.graph.sub(g, product)?
            }
        };
        Ok(vec![Some(gradient)])
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], output: &str) {
        emitter.node(self.name(), inputs, output, &[("axis", Attribute::Int(1))]);
    }
}

//! Changes of the element type.

use crate::error::Result;
use crate::ir::{Backward, Dim, NodeId, Operator, Shape, Tensor};
use crate::onnx::{Attribute, Emitter};
use half::f16;

/// To float16, or back from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cast {
    /// From float32, to the nearest; what is beyond 65,504 becomes infinite.
    Float16,
    /// From float16.
    Float32,
}

impl Operator for Cast {
    fn name(&self) -> &'static str {
        "Cast"
    }

    fn shape(&self, inputs: &[&[Dim]]) -> std::result::Result<Shape, String> {
        match inputs {
            [x] => Ok(x.to_vec()),
            _ => Err(format!("{} inputs, and it takes 1", inputs.len())),
        }
    }

    /// Rounded in either direction: what is widened was computed in float16.
    fn evaluate(&self, inputs: &[&Tensor]) -> Tensor {
        inputs[0].map(|x| f16::from_f64(x).to_f64())
    }

    fn vjp(&self, b: &mut Backward) -> Result<Vec<Option<NodeId>>> {
        Ok(vec![Some(b.gradient)])
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], output: &str) {
        match self {
            Cast::Float16 if emitter.narrow_initialiser(&inputs[0], output) => {}
            Cast::Float16 => emitter.node("Cast", inputs, output, &[("to", Attribute::FLOAT16)]),
            Cast::Float32 => emitter.node("Cast", inputs, output, &[("to", Attribute::FLOAT)]),
        }
    }
}

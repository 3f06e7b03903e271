//! Max pooling.

use crate::error::{ErrorKind, Result};
use crate::ir::{Backward, Dim, NodeId, Operator, Shape, Tensor};
use crate::onnx::{Attribute, Emitter};
use crate::ops::elementwise::larger;

/// The largest of each 3×3 neighbourhood, with stride 2: `[N,C,H,W]` to `[N,C,H/2,W/2]`. It has no gradient
/// here: networks with an energy do without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxPool;

impl Operator for MaxPool {
    fn name(&self) -> &'static str {
        "MaxPool"
    }

    fn shape(&self, inputs: &[&[Dim]]) -> std::result::Result<Shape, String> {
        if let [[n, c, h, w]] = inputs
            && let (Some(h), Some(w)) = (h.divided(2), w.divided(2))
        {
            return Ok(vec![*n, *c, h, w]);
        }
        Err(format!("{inputs:?}"))
    }

    fn evaluate(&self, inputs: &[&Tensor]) -> Tensor {
        let x = inputs[0];
        let &[n, c, height, width] = x.shape() else { return x.clone() };
        Tensor::from_fn(&[n, c, height / 2, width / 2], |at| {
            let around =
                |centre: usize, extent: usize| (2 * centre).saturating_sub(1)..(2 * centre + 2).min(extent);
            around(at[2], height)
                .flat_map(|row| around(at[3], width).map(move |column| (row, column)))
                .map(|(row, column)| x.at(&[at[0], at[1], row, column]))
                .fold(f64::NEG_INFINITY, larger)
        })
    }

    fn vjp(&self, _: &mut Backward) -> Result<Vec<Option<NodeId>>> {
        Err(ErrorKind::Operator { name: self.name(), reason: "it has no gradient rule".into() }.into())
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], output: &str) {
        let attributes = [
            ("kernel_shape", Attribute::ints(&[3; 2])),
            ("strides", Attribute::ints(&[2; 2])),
            ("pads", Attribute::ints(&[1; 4])),
        ];
        emitter.node("MaxPool", inputs, output, &attributes);
    }
}

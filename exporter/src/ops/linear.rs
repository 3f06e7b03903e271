//! Products with a matrix.

use crate::error::Result;
use crate::ir::{Backward, Dim, NodeId, Operator, Shape, Tensor};
use crate::onnx::{Attribute, Emitter};

/// `[N,I]` and a matrix `[O,I]` to `[N,O]`; transposed, `[N,O]` to `[N,I]`. The matrix has no gradient here: it is
/// a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Linear {
    /// Whether it is the transpose of the matrix that multiplies.
    pub transposed: bool,
}

impl Operator for Linear {
    fn name(&self) -> &'static str {
        "Linear"
    }

    fn shape(&self, inputs: &[&[Dim]]) -> std::result::Result<Shape, String> {
        if let [[n, x], [o, i]] = inputs {
            let (from, to) = if self.transposed { (o, i) } else { (i, o) };
            if x == from {
                return Ok(vec![*n, *to]);
            }
        }
        Err(format!("{inputs:?}, {self:?}"))
    }

    fn evaluate(&self, inputs: &[&Tensor]) -> Tensor {
        let (x, w) = (inputs[0], inputs[1]);
        let (&[n, from], &[o, i]) = (x.shape(), w.shape()) else { return x.clone() };
        let to = if self.transposed { i } else { o };
        Tensor::from_fn(&[n, to], |at| {
            let entry = |j| if self.transposed { w.at(&[j, at[1]]) } else { w.at(&[at[1], j]) };
            (0..from).map(|j| x.at(&[at[0], j]) * entry(j)).sum()
        })
    }

    fn vjp(&self, b: &mut Backward) -> Result<Vec<Option<NodeId>>> {
        let gradient = b.full_gradient()?;
        let matrix = b.inputs[1];
        Ok(vec![Some(b.graph.add(Linear { transposed: !self.transposed }, &[gradient, matrix])?), None])
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], output: &str) {
        let transposed = i64::from(!self.transposed);
        emitter.node("Gemm", inputs, output, &[("transB", Attribute::Int(transposed))]);
    }
}

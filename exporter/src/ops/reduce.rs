//! Sums and means over axes, and the number of elements along them.

use crate::error::Result;
use crate::ir::{Backward, Dim, NodeId, Operator, Shape, Tensor};
use crate::onnx::{Attribute, Emitter};
use crate::ops::elementwise::Unary;

/// A sum or a mean over some axes, which are kept with extent 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reduce {
    kind: ReduceKind,
    axes: Vec<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReduceKind {
    Sum,
    Mean,
}

impl Reduce {
    /// The sum over `axes`.
    pub fn sum(axes: &[usize]) -> Reduce {
        Reduce { kind: ReduceKind::Sum, axes: axes.to_vec() }
    }

    /// The mean over `axes`.
    pub fn mean(axes: &[usize]) -> Reduce {
        Reduce { kind: ReduceKind::Mean, axes: axes.to_vec() }
    }
}

impl Operator for Reduce {
    fn name(&self) -> &'static str {
        match self.kind {
            ReduceKind::Sum => "ReduceSum",
            ReduceKind::Mean => "ReduceMean",
        }
    }

    fn shape(&self, inputs: &[&[Dim]]) -> std::result::Result<Shape, String> {
        let [x] = inputs else { return Err(format!("{} inputs, and it takes 1", inputs.len())) };
        let mut shape = x.to_vec();
        for &axis in &self.axes {
            *shape.get_mut(axis).ok_or(format!("axis {axis} of {x:?}"))? = Dim::Fixed(1);
        }
        Ok(shape)
    }

    fn evaluate(&self, inputs: &[&Tensor]) -> Tensor {
        let x = inputs[0];
        let mut shape = x.shape().to_vec();
        self.axes.iter().for_each(|&axis| shape[axis] = 1);
        let mut sums = vec![0.0; shape.iter().product()];
        let mut values = x.values().iter();
        Tensor::from_fn(x.shape(), |index| {
            let at = shape.iter().zip(index).fold(0, |at, (&d, &i)| at * d + if d == 1 { 0 } else { i });
            let value = values.next().copied().unwrap_or_default();
            sums[at] += value;
            value
        });
        let count = match self.kind {
            ReduceKind::Sum => 1.0,
            ReduceKind::Mean => self.axes.iter().map(|&axis| x.shape()[axis] as f64).product(),
        };
        let mut sums = sums.into_iter();
        Tensor::from_fn(&shape, |_| sums.next().unwrap_or_default() / count)
    }

    fn vjp(&self, b: &mut Backward) -> Result<Vec<Option<NodeId>>> {
        // The same for every element that was summed: it broadcasts.
        let gradient = match self.kind {
            ReduceKind::Sum => b.gradient,
            ReduceKind::Mean => {
                let count = b.graph.add(Extent { axes: self.axes.clone() }, &[b.inputs[0]])?;
                let share = b.graph.add(Unary::Reciprocal, &[count])?;
                b.graph.mul(b.gradient, share)?
            }
        };
        Ok(vec![Some(gradient)])
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], output: &str) {
        // ReduceMean's axes became an input in opset 18, ReduceSum's in 13.
        if self.kind == ReduceKind::Mean && emitter.opset() < 18 {
            let axes = Attribute::ints(&self.axes);
            emitter.node(self.name(), inputs, output, &[("axes", axes), ("keepdims", Attribute::Int(1))]);
        } else {
            let axes = emitter.integers(&self.axes);
            let inputs = [inputs[0].clone(), axes];
            emitter.node(self.name(), &inputs, output, &[("keepdims", Attribute::Int(1))]);
        }
    }
}

/// The number of elements along some axes of its input, as a float of rank 0. It has no gradient: it
/// depends on the size of the image alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The axes.
    pub axes: Vec<usize>,
}

impl Operator for Extent {
    fn name(&self) -> &'static str {
        "Extent"
    }

    fn shape(&self, inputs: &[&[Dim]]) -> std::result::Result<Shape, String> {
        match inputs {
            [x] if self.axes.iter().all(|&axis| axis < x.len()) => Ok(Vec::new()),
            _ => Err(format!("axes {:?} of {inputs:?}", self.axes)),
        }
    }

    fn evaluate(&self, inputs: &[&Tensor]) -> Tensor {
        Tensor::scalar(self.axes.iter().map(|&axis| inputs[0].shape()[axis] as f64).product())
    }

    fn vjp(&self, _: &mut Backward) -> Result<Vec<Option<NodeId>>> {
        Ok(vec![None])
    }

    fn is_differentiable(&self) -> bool {
        false
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], output: &str) {
        let [shape, extents, count] =
            ["shape", "extents", "count"].map(|part| emitter.temporary(output, part));
        let axes = emitter.integers(&self.axes);
        emitter.node("Shape", inputs, &shape, &[]);
        emitter.node("Gather", &[shape, axes], &extents, &[("axis", Attribute::Int(0))]);
        emitter.node("Cast", &[extents], &count, &[("to", Attribute::FLOAT)]);
        emitter.node("ReduceProd", &[count], output, &[("keepdims", Attribute::Int(0))]);
    }
}

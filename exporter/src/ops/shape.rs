//! Operators that move values without changing them.

use crate::error::Result;
use crate::ir::shape::broadcast;
use crate::ir::{Backward, Dim, NodeId, Operator, Shape, Tensor};
use crate::onnx::{Attribute, Emitter};

/// The same values in another shape. Only the first axis may be symbolic: the batch, which stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reshape {
    /// The new shape.
    pub shape: Shape,
}

impl Reshape {
    /// N, then fixed extents.
    pub fn batch(tail: &[usize]) -> Reshape {
        Reshape { shape: std::iter::once(Dim::Batch).chain(tail.iter().map(|&d| Dim::Fixed(d))).collect() }
    }

    /// Fixed extents.
    pub fn fixed(shape: &[usize]) -> Reshape {
        Reshape { shape: shape.iter().map(|&d| Dim::Fixed(d)).collect() }
    }
}

impl Operator for Reshape {
    fn name(&self) -> &'static str {
        "Reshape"
    }

    fn shape(&self, inputs: &[&[Dim]]) -> std::result::Result<Shape, String> {
        let [x] = inputs else { return Err(format!("{} inputs, and it takes 1", inputs.len())) };
        let split = |s: &[Dim]| {
            let batch = s.first() == Some(&Dim::Batch);
            let count: Option<usize> = s[usize::from(batch)..].iter().map(|d| d.fixed()).product();
            Some((batch, count?))
        };
        match (split(x), split(&self.shape)) {
            (Some(a), Some(b)) if a == b => Ok(self.shape.clone()),
            _ => Err(format!("{x:?} cannot become {:?}", self.shape)),
        }
    }

    fn evaluate(&self, inputs: &[&Tensor]) -> Tensor {
        let x = inputs[0];
        let shape = self.shape.iter().map(|d| d.fixed().unwrap_or(x.shape()[0])).collect();
        // The shape rule ensures as many elements on both sides.
        x.reshaped(shape).unwrap_or_else(|| x.clone())
    }

    fn vjp(&self, b: &mut Backward) -> Result<Vec<Option<NodeId>>> {
        let gradient = b.full_gradient()?;
        let shape = b.graph.shape(b.inputs[0]).to_vec();
        Ok(vec![Some(b.graph.add(Reshape { shape }, &[gradient])?)])
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], output: &str) {
        // 0 keeps the extent.
        let shape: Vec<usize> = self.shape.iter().map(|d| d.fixed().unwrap_or(0)).collect();
        let shape = emitter.integers(&shape);
        emitter.node("Reshape", &[inputs[0].clone(), shape], output, &[]);
    }
}

/// The first input, stretched to the shape of the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BroadcastTo;

impl Operator for BroadcastTo {
    fn name(&self) -> &'static str {
        "BroadcastTo"
    }

    fn shape(&self, inputs: &[&[Dim]]) -> std::result::Result<Shape, String> {
        match inputs {
            [x, like] if broadcast(x, like)? == *like => Ok(like.to_vec()),
            _ => Err(format!("{inputs:?}")),
        }
    }

    fn evaluate(&self, inputs: &[&Tensor]) -> Tensor {
        Tensor::from_fn(inputs[1].shape(), |index| inputs[0].at(index))
    }

    fn vjp(&self, b: &mut Backward) -> Result<Vec<Option<NodeId>>> {
        Ok(vec![Some(b.unstretched(b.gradient, 0)?), None])
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], output: &str) {
        let shape = emitter.temporary(output, "shape");
        emitter.node("Shape", &[inputs[1].clone()], &shape, &[]);
        emitter.node("Expand", &[inputs[0].clone(), shape], output, &[]);
    }
}

/// Inputs joined along an axis on which their extents are fixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Concat {
    /// The axis.
    pub axis: usize,
}

impl Operator for Concat {
    fn name(&self) -> &'static str {
        "Concat"
    }

    fn shape(&self, inputs: &[&[Dim]]) -> std::result::Result<Shape, String> {
        let extent = |s: &[Dim]| s.get(self.axis).and_then(|d| d.fixed());
        let total: Option<usize> = inputs.iter().map(|s| extent(s)).sum();
        let with = |s: &[Dim], extent| {
            let mut s = s.to_vec();
            s[self.axis] = Dim::Fixed(extent);
            s
        };
        match (inputs.first(), total) {
            (Some(first), Some(total)) if inputs.iter().all(|s| with(s, 0) == with(first, 0)) => {
                Ok(with(first, total))
            }
            _ => Err(format!("{inputs:?} along axis {}", self.axis)),
        }
    }

    fn evaluate(&self, inputs: &[&Tensor]) -> Tensor {
        let mut shape = inputs[0].shape().to_vec();
        shape[self.axis] = inputs.iter().map(|x| x.shape()[self.axis]).sum();
        Tensor::from_fn(&shape, |index| {
            let mut index = index.to_vec();
            let mut part = 0;
            while index[self.axis] >= inputs[part].shape()[self.axis] {
                index[self.axis] -= inputs[part].shape()[self.axis];
                part += 1;
            }
            inputs[part].at(&index)
        })
    }

    fn vjp(&self, b: &mut Backward) -> Result<Vec<Option<NodeId>>> {
        let gradient = b.full_gradient()?;
        let mut start = 0;
        let mut gradients = Vec::new();
        for (&input, &wanted) in b.inputs.iter().zip(&b.wanted) {
            // The shape rule ensures a fixed extent.
            let end = start + b.graph.shape(input)[self.axis].fixed().unwrap_or_default();
            let slice = Slice { axis: self.axis, start, end };
            gradients.push(if wanted { Some(b.graph.add(slice, &[gradient])?) } else { None });
            start = end;
        }
        Ok(gradients)
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], output: &str) {
        emitter.node("Concat", inputs, output, &[("axis", Attribute::Int(self.axis as i64))]);
    }
}

/// A part of an axis of fixed extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The axis.
    pub axis: usize,
    /// First index.
    pub start: usize,
    /// One past the last.
    pub end: usize,
}

impl Operator for Slice {
    fn name(&self) -> &'static str {
        "Slice"
    }

    fn shape(&self, inputs: &[&[Dim]]) -> std::result::Result<Shape, String> {
        match inputs {
            [x] => match x.get(self.axis) {
                Some(Dim::Fixed(extent)) if self.start < self.end && self.end <= *extent => {
                    let mut shape = x.to_vec();
                    shape[self.axis] = Dim::Fixed(self.end - self.start);
                    Ok(shape)
                }
                _ => Err(format!("{self:?} of {x:?}")),
            },
            _ => Err(format!("{} inputs, and it takes 1", inputs.len())),
        }
    }

    fn evaluate(&self, inputs: &[&Tensor]) -> Tensor {
        let mut shape = inputs[0].shape().to_vec();
        shape[self.axis] = self.end - self.start;
        Tensor::from_fn(&shape, |index| {
            let mut index = index.to_vec();
            index[self.axis] += self.start;
            inputs[0].at(&index)
        })
    }

    fn vjp(&self, b: &mut Backward) -> Result<Vec<Option<NodeId>>> {
        let gradient = b.full_gradient()?;
        // The shape rule ensures a fixed extent.
        let extent = b.graph.shape(b.inputs[0])[self.axis].fixed().unwrap_or_default();
        let pad = ZeroPad { axis: self.axis, before: self.start, after: extent - self.end };
        Ok(vec![Some(b.graph.add(pad, &[gradient])?)])
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], output: &str) {
        let [start, end, axis] = [self.start, self.end, self.axis].map(|i| emitter.integers(&[i]));
        emitter.node("Slice", &[inputs[0].clone(), start, end, axis], output, &[]);
    }
}

/// Zeros before and after, along an axis of fixed extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZeroPad {
    /// The axis.
    pub axis: usize,
    /// Zeros before.
    pub before: usize,
    /// Zeros after.
    pub after: usize,
}

impl Operator for ZeroPad {
    fn name(&self) -> &'static str {
        "Pad"
    }

    fn shape(&self, inputs: &[&[Dim]]) -> std::result::Result<Shape, String> {
        match inputs {
            [x] => match x.get(self.axis) {
                Some(Dim::Fixed(extent)) => {
                    let mut shape = x.to_vec();
                    shape[self.axis] = Dim::Fixed(self.before + extent + self.after);
                    Ok(shape)
                }
                _ => Err(format!("{self:?} of {x:?}")),
            },
            _ => Err(format!("{} inputs, and it takes 1", inputs.len())),
        }
    }

    fn evaluate(&self, inputs: &[&Tensor]) -> Tensor {
        let extent = inputs[0].shape()[self.axis];
        let mut shape = inputs[0].shape().to_vec();
        shape[self.axis] += self.before + self.after;
        Tensor::from_fn(&shape, |index| match index[self.axis].checked_sub(self.before) {
            Some(i) if i < extent => {
                let mut index = index.to_vec();
                index[self.axis] = i;
                inputs[0].at(&index)
            }
            _ => 0.0,
        })
    }

    fn vjp(&self, b: &mut Backward) -> Result<Vec<Option<NodeId>>> {
        let gradient = b.full_gradient()?;
        // The shape rule ensures a fixed extent.
        let extent = b.graph.shape(b.inputs[0])[self.axis].fixed().unwrap_or_default();
        let slice = Slice { axis: self.axis, start: self.before, end: self.before + extent };
        Ok(vec![Some(b.graph.add(slice, &[gradient])?)])
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], output: &str) {
        let rank = emitter.rank_of(&inputs[0]);
        let mut pads = vec![0; 2 * rank];
        (pads[self.axis], pads[rank + self.axis]) = (self.before, self.after);
        let pads = emitter.integers(&pads);
        emitter.node("Pad", &[inputs[0].clone(), pads], output, &[]);
    }
}

//! What an operator says of itself: its shape rule, its value, its reverse-mode rule, its ONNX nodes.

use super::graph::{Graph, NodeId};
use super::shape::{Dim, Shape};
use super::tensor::Tensor;
use crate::error::{ErrorKind, Result};
use crate::onnx::Emitter;
use crate::ops::reduce::{Extent, Reduce};
use crate::ops::shape::BroadcastTo;
use std::fmt::Debug;

/// One kind of node. To add one, see `docs/adding-an-operator.md`.
pub trait Operator: Debug + Send + Sync {
    /// Its name in node names and in messages.
    fn name(&self) -> &'static str;

    /// The shape of the output, or what is wrong with the inputs.
    fn shape(&self, inputs: &[&[Dim]]) -> std::result::Result<Shape, String>;

    /// The output, for inputs that agree with [`Operator::shape`].
    fn evaluate(&self, inputs: &[&Tensor]) -> Tensor;

    /// Reverse mode: adds the nodes of the gradients with respect to the inputs that are wanted, given
    /// that with respect to the output. `None` means zero.
    ///
    /// # Errors
    /// If a node cannot be added, which is a fault of the rule.
    fn vjp(&self, backward: &mut Backward) -> Result<Vec<Option<NodeId>>>;

    /// Whether its output changes smoothly with its inputs: reverse mode stops at one whose output does
    /// not.
    fn is_differentiable(&self) -> bool {
        true
    }

    /// Adds its ONNX nodes.
    fn emit(&self, emitter: &mut Emitter, inputs: &[String], output: &str);

    /// What distinguishes it from others: operators with equal keys and inputs are one node.
    fn key(&self) -> String {
        format!("{self:?}")
    }

    /// The value, if it is a constant.
    fn constant(&self) -> Option<&Tensor> {
        None
    }

    /// The name, if it is an input of the graph.
    fn input_name(&self) -> Option<&str> {
        None
    }

    /// The name in `model.safetensors`, if it is a parameter.
    fn parameter_name(&self) -> Option<&str> {
        None
    }

    /// The same thing in terms of simpler operators, for operators that exist for the sake of their
    /// gradient and have no ONNX node of their own.
    ///
    /// # Errors
    /// As for [`Operator::vjp`].
    fn expand(&self, graph: &mut Graph, inputs: &[NodeId]) -> Result<Option<NodeId>> {
        let _ = (graph, inputs);
        Ok(None)
    }
}

/// What a reverse-mode rule works with.
#[derive(Debug)]
pub struct Backward<'a> {
    /// Where its nodes go.
    pub graph: &'a mut Graph,
    /// Inputs of the node.
    pub inputs: &'a [NodeId],
    /// The node itself.
    pub output: NodeId,
    /// Gradient with respect to the output. Its shape is that of the output, or broadcasts to it: the
    /// gradient of a mean is the same everywhere and is not written out.
    pub gradient: NodeId,
    /// Which inputs' gradients are needed.
    pub wanted: Vec<bool>,
}

impl Backward<'_> {
    /// The gradient in the full shape of the output.
    ///
    /// # Errors
    /// As for [`Graph::add`].
    pub fn full_gradient(&mut self) -> Result<NodeId> {
        if self.graph.shape(self.gradient) == self.graph.shape(self.output) {
            return Ok(self.gradient);
        }
        self.graph.add(BroadcastTo, &[self.gradient, self.output])
    }

    /// `gradient`, of the output's shape or one that broadcasts to it, summed over the axes along which
    /// input `i` was stretched.
    ///
    /// # Errors
    /// If the input has another rank than the output.
    pub fn unstretched(&mut self, gradient: NodeId, i: usize) -> Result<NodeId> {
        let input = self.graph.shape(self.inputs[i]).to_vec();
        let output = self.graph.shape(self.output).to_vec();
        let given = self.graph.shape(gradient).to_vec();
        if input.len() != output.len() || given.len() != output.len() {
            let reason =
                format!("no gradient for an input of shape {input:?} and an output of shape {output:?}");
            return Err(ErrorKind::Operator { name: "broadcast", reason }.into());
        }
        let stretched = |axis: &usize| input[*axis] != output[*axis];
        let axes: Vec<usize> = (0..input.len()).filter(stretched).collect();
        let (constant, varying): (Vec<usize>, Vec<usize>) =
            axes.into_iter().partition(|&axis| given[axis] != output[axis]);
        let mut gradient = gradient;
        if !varying.is_empty() {
            gradient = self.graph.add(Reduce::sum(&varying), &[gradient])?;
        }
        if !constant.is_empty() {
            // Constant along these axes, so its sum is itself times their extent.
            let count = self.graph.add(Extent { axes: constant }, &[self.output])?;
            gradient = self.graph.mul(gradient, count)?;
        }
        Ok(gradient)
    }
}

//! Reverse mode: the gradient of a graph's value as more nodes of the same graph.

use crate::error::{ErrorKind, Result};
use crate::ir::{Backward, Graph, NodeId, Tensor};
use crate::ops::leaf::Constant;
use crate::ops::shape::BroadcastTo;
use std::collections::HashMap;

/// Adds the nodes of ∂(Σ objective)/∂`input` and returns the last. Where each element of `objective` is
/// a function of one image of a batch, that is the gradient for each image.
///
/// # Errors
/// If the objective does not depend on the input, or an operator's rule is at fault.
pub fn gradient(graph: &mut Graph, objective: NodeId, input: NodeId) -> Result<NodeId> {
    let mut depends: HashMap<NodeId, bool> = HashMap::new();
    let nodes: Vec<NodeId> = graph.nodes().map(|(id, _)| id).take_while(|id| *id <= objective).collect();
    for &id in &nodes {
        let node = graph.node(id);
        let on_input =
            id == input || node.operator.is_differentiable() && node.inputs.iter().any(|i| depends[i]);
        depends.insert(id, on_input);
    }

    // One, in a shape that broadcasts to the objective's.
    let rank = graph.shape(objective).len();
    let one = Tensor::from_fn(&vec![1; rank], |_| 1.0);
    let seed = graph.add(Constant::new(one), &[])?;
    let mut gradients: HashMap<NodeId, NodeId> = HashMap::from([(objective, seed)]);
    for &id in nodes.iter().rev().filter(|id| **id != input) {
        let Some(&gradient) = gradients.get(&id) else { continue };
        let node = graph.node(id).clone();
        if !depends[&id] {
            continue;
        }
        graph.set_scope(format!("gradient.{}", node.scope));
        let wanted: Vec<bool> = node.inputs.iter().map(|i| depends[i]).collect();
        let mut backward =
            Backward { graph, inputs: &node.inputs, output: id, gradient, wanted: wanted.clone() };
        let found = node.operator.vjp(&mut backward)?;
        for ((&to, gradient), wanted) in node.inputs.iter().zip(found).zip(wanted) {
            let Some(gradient) = gradient.filter(|_| wanted) else { continue };
            let total = match gradients.get(&to) {
                Some(&before) => graph.sum(before, gradient)?,
                None => gradient,
            };
            gradients.insert(to, total);
        }
    }
    let Some(&gradient) = gradients.get(&input) else {
        let reason = "the objective does not depend on the input".to_string();
        return Err(ErrorKind::Operator { name: "gradient", reason }.into());
    };
    if graph.shape(gradient) == graph.shape(input) {
        return Ok(gradient);
    }
    graph.add(BroadcastTo, &[gradient, input])
}

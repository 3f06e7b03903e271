//! Turns operators into those that engines have and run fast.

use crate::error::Result;
use crate::ir::{Graph, Node, NodeId, Operator};
use crate::ops::conv::{Conv, ConvTranspose, TransposedKernel};

/// Lowers every node.
///
/// # Errors
/// If a rule is at fault.
pub fn lower(graph: &Graph) -> Result<Graph> {
    graph.rewrite(|graph, node, inputs| match node.operator.expand(graph, inputs)? {
        Some(expanded) => Ok(Some(expanded)),
        None => transposed_convolution(graph, node, inputs),
    })
}

/// The transpose of a convolution of stride 1 is a convolution with another kernel, which engines run
/// faster than a transpose. A kernel that the graph holds is flipped when the graph is simplified, one that it
/// only refers to when an engine folds constants.
fn transposed_convolution(graph: &mut Graph, node: &Node, inputs: &[NodeId]) -> Result<Option<NodeId>> {
    if node.operator.key() != (ConvTranspose { stride: 1 }).key() {
        return Ok(None);
    }
    let kernel = graph.add(TransposedKernel, &[inputs[1]])?;
    Ok(Some(graph.add(Conv { stride: 1 }, &[inputs[0], kernel])?))
}

//! Makes a graph smaller without changing what it computes: constants folded, neutral operations
//! dropped, constant factors merged. Rebuilding the graph also drops what nothing depends on and shares
//! what occurs twice.

use crate::error::Result;
use crate::ir::{Dim, Graph, Node, NodeId, Operator, Tensor};
use crate::ops::elementwise::Binary;
use crate::ops::leaf::Constant;
use crate::ops::reduce::Reduce;
use crate::ops::shape::BroadcastTo;

/// Simplifies until the number of operations stays the same.
///
/// # Errors
/// If a rule is at fault.
pub fn simplify(graph: &Graph) -> Result<Graph> {
    let mut before = graph.rewrite(rule)?;
    loop {
        let after = before.rewrite(rule)?;
        if after.operations() == before.operations() {
            return Ok(after);
        }
        before = after;
    }
}

fn rule(graph: &mut Graph, node: &Node, inputs: &[NodeId]) -> Result<Option<NodeId>> {
    for rule in [fold, neutral, merge_factors, sum_of_scaled] {
        if let Some(replacement) = rule(graph, node, inputs)? {
            return Ok(Some(replacement));
        }
    }
    Ok(None)
}

fn constant(graph: &Graph, id: NodeId) -> Option<&Tensor> {
    graph.node(id).operator.constant()
}

/// An operation on constants is a constant.
fn fold(graph: &mut Graph, node: &Node, inputs: &[NodeId]) -> Result<Option<NodeId>> {
    let values: Option<Vec<&Tensor>> = inputs.iter().map(|&i| constant(graph, i)).collect();
    match values {
        Some(values) if !values.is_empty() => {
            let value = node.operator.evaluate(&values);
            Ok(Some(graph.add(Constant::new(value), &[])?))
        }
        _ => Ok(None),
    }
}

/// The binary operator of a node.
fn binary(node: &Node) -> Option<Binary> {
    Binary::ALL.into_iter().find(|b| node.operator.key() == b.key())
}

/// x + 0, x − 0 and x · 1 are x, if x keeps its shape; an operand need not be stretched beforehand if
/// the operation stretches it too.
fn neutral(graph: &mut Graph, node: &Node, inputs: &[NodeId]) -> Result<Option<NodeId>> {
    let Some(operator) = binary(node) else { return Ok(None) };
    let all =
        |id: NodeId, value: f64| constant(graph, id).is_some_and(|t| t.values().iter().all(|v| *v == value));
    let (a, b) = (inputs[0], inputs[1]);
    let kept = match operator {
        Binary::Add if all(b, 0.0) => Some(a),
        Binary::Add if all(a, 0.0) => Some(b),
        Binary::Sub if all(b, 0.0) => Some(a),
        Binary::Mul if all(b, 1.0) => Some(a),
        Binary::Mul if all(a, 1.0) => Some(b),
        _ => None,
    };
    if let Some(kept) = kept.filter(|k| graph.shape(*k) == node.shape) {
        return Ok(Some(kept));
    }
    let source = |id: NodeId| match graph.node(id) {
        n if n.operator.name() == BroadcastTo.name() => n.inputs[0],
        _ => id,
    };
    let short = [source(a), source(b)];
    if short == [a, b]
        || crate::ir::shape::broadcast(graph.shape(short[0]), graph.shape(short[1])) != Ok(node.shape.clone())
    {
        return Ok(None);
    }
    Ok(Some(graph.add_shared(node.operator.clone(), &short)?))
}

/// (x · c) · d is x · (c · d) for constants c and d.
fn merge_factors(graph: &mut Graph, node: &Node, inputs: &[NodeId]) -> Result<Option<NodeId>> {
    if binary(node) != Some(Binary::Mul) {
        return Ok(None);
    }
    let factor = |graph: &Graph, id: NodeId, other: NodeId| constant(graph, other).map(|_| (id, other));
    let Some((product, outer)) = factor(graph, inputs[0], inputs[1]).or(factor(graph, inputs[1], inputs[0]))
    else {
        return Ok(None);
    };
    let node_of = graph.node(product).clone();
    if binary(&node_of) != Some(Binary::Mul) {
        return Ok(None);
    }
    let (a, b) = (node_of.inputs[0], node_of.inputs[1]);
    let Some((x, inner)) = factor(graph, a, b).or(factor(graph, b, a)) else { return Ok(None) };
    let (Some(c), Some(d)) = (constant(graph, inner), constant(graph, outer)) else { return Ok(None) };
    let value = c.zip(d, |c, d| c * d);
    let merged = graph.add(Constant::new(value), &[])?;
    Ok(Some(graph.mul(x, merged)?))
}

/// The sum or mean of x·s is s times that of x, if s is the same along the axes that are summed: one
/// product with a small tensor instead of one with a large one.
fn sum_of_scaled(graph: &mut Graph, node: &Node, inputs: &[NodeId]) -> Result<Option<NodeId>> {
    let planes = [Reduce::sum(&[2, 3]), Reduce::mean(&[2, 3])];
    let Some(reduce) = planes.into_iter().find(|r| r.key() == node.operator.key()) else { return Ok(None) };
    let product = graph.node(inputs[0]).clone();
    if binary(&product) != Some(Binary::Mul) {
        return Ok(None);
    }
    let is_plain = |id: NodeId| graph.shape(id).iter().rev().take(2).all(|d| *d == Dim::Fixed(1));
    let (x, s) = match (product.inputs[0], product.inputs[1]) {
        (x, s) if is_plain(s) && graph.shape(x) == product.shape => (x, s),
        (s, x) if is_plain(s) && graph.shape(x) == product.shape => (x, s),
        _ => return Ok(None),
    };
    let sum = graph.add(reduce, &[x])?;
    Ok(Some(graph.mul(sum, s)?))
}

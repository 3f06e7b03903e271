//! Evaluates a graph in float64: slow, plain, and the judge of everything faster.

use crate::error::{ErrorKind, Result};
use crate::ir::{Graph, Tensor};
use std::collections::BTreeMap;

/// Tensors by name.
pub type Values = BTreeMap<String, Tensor>;

/// The graph's outputs for these inputs.
///
/// # Errors
/// If an input is missing.
pub fn evaluate(graph: &Graph, inputs: &Values) -> Result<Values> {
    let mut values: Vec<Tensor> = Vec::new();
    let mut position = BTreeMap::new();
    for (id, node) in graph.nodes() {
        let value = match graph.input_name(id) {
            Some(name) => inputs.get(name).cloned().ok_or_else(|| ErrorKind::Operator {
                name: "evaluate",
                reason: format!("input `{name}` is not given"),
            })?,
            None => {
                let arguments: Vec<&Tensor> = node.inputs.iter().map(|i| &values[position[i]]).collect();
                node.operator.evaluate(&arguments)
            }
        };
        position.insert(id, values.len());
        values.push(value);
    }
    Ok(graph.outputs().iter().map(|(name, id)| (name.clone(), values[position[id]].clone())).collect())
}

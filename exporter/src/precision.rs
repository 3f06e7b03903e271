//! Lets convolutions compute in float16, which graphics processors do several times as fast.

use crate::error::Result;
use crate::ir::{Graph, Operator};
use crate::ops::cast::Cast;
use crate::ops::conv::{Conv, ConvTranspose};

/// The graph with convolutions and their transposes in float16, on rounded images and kernels. Everything between
/// them stays float32: sums over planes would overflow.
///
/// The last pass: simplifying would fold a rounded kernel into a float32 constant.
///
/// # Errors
/// If a rule is at fault.
pub fn convolve_in_float16(graph: &Graph) -> Result<Graph> {
    let convolutions = [Conv { stride: 1 }.name(), ConvTranspose { stride: 1 }.name()];
    graph.rewrite(|graph, node, inputs| {
        if !convolutions.contains(&node.operator.name()) {
            return Ok(None);
        }
        let mut narrow = Vec::new();
        for &input in inputs {
            narrow.push(graph.add(Cast::Float16, &[input])?);
        }
        let product = graph.add_shared(node.operator.clone(), &narrow)?;
        Ok(Some(graph.add(Cast::Float32, &[product])?))
    })
}

//! ResNet as a graph. For the meaning of each field see [`gradresnet_models::architecture::ResNet`].

use crate::error::Result;
use crate::ir::NodeId;
use crate::network::{Heads, Network};
use crate::ops::pool::MaxPool;
use crate::ops::reduce::Reduce;
use crate::ops::softmax::Softmax;
use gradresnet_models::architecture::{Energy, ResNet, has_shortcut};

/// The network up to the logits and, if it has one, the energy.
pub(crate) fn heads(net: &mut Network, a: &ResNet, image: NodeId) -> Result<Heads> {
    let z = net.scaled(image, a.centre, a.scale)?;
    let x = layer(net, a, "stem", z, a.stem.stride())?;
    let mut x = net.activation(a.activation, x)?;
    if a.max_pool {
        x = net.graph.add(MaxPool, &[x])?;
    }
    for (stage, &blocks) in a.blocks.iter().enumerate() {
        for block in 0..blocks {
            let path = format!("stages.{stage}.{block}");
            let changes = has_shortcut(stage, block);
            let stride = if changes { 2 } else { 1 };
            let h = layer(net, a, &format!("{path}.1"), x, stride)?;
            let h = net.activation(a.activation, h)?;
            let h = layer(net, a, &format!("{path}.2"), h, 1)?;
            let shortcut = if changes { layer(net, a, &format!("{path}.shortcut"), x, stride)? } else { x };
            let sum = net.graph.sum(h, shortcut)?;
            x = net.activation(a.activation, sum)?;
        }
    }
    let features = net.pool(x)?;
    let logits = net.head("head", features)?;
    let energy = match (a.energy, logits) {
        (Energy::LogSumExp, Some(logits)) => {
            // Every log-probability less its logit is −LogSumExp of the logits.
            net.graph.set_scope("energy");
            let log_probabilities = net.graph.add(Softmax::Logarithm, &[logits])?;
            let differences = net.graph.sub(log_probabilities, logits)?;
            Some(net.graph.add(Reduce::mean(&[1]), &[differences])?)
        }
        _ => None,
    };
    Ok(Heads { energy, logits })
}

/// A convolution and its norm.
fn layer(net: &mut Network, a: &ResNet, path: &str, x: NodeId, stride: usize) -> Result<NodeId> {
    let y = net.convolution(&format!("{path}.conv"), x, stride)?;
    net.norm(&format!("{path}.norm"), a.norm, a.group_size, y)
}

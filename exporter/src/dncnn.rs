//! DnCNN as a graph. For the meaning of each field see [`gradresnet_models::architecture::DnCnn`].

use crate::error::Result;
use crate::ir::NodeId;
use crate::network::Network;
use gradresnet_models::Activation;
use gradresnet_models::architecture::DnCnn;

/// The denoised images.
pub(crate) fn denoised(net: &mut Network, a: &DnCnn, noisy: NodeId) -> Result<NodeId> {
    let mut x = noisy;
    for layer in 0..a.depth {
        let path = format!("layers.{layer}");
        x = net.convolution(&format!("{path}.conv"), x, 1)?;
        if layer + 1 < a.depth {
            if layer > 0 {
                x = net.norm(&format!("{path}.norm"), a.norm, a.width, x)?;
            }
            x = net.activation(Activation::Relu, x)?;
        }
    }
    net.graph.sub(noisy, x)
}

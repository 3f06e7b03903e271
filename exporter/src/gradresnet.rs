//! GradResNet (section 3.2) as a graph. For the meaning of each field see
//! [`gradresnet_models::architecture::GradResNet`].

use crate::error::Result;
use crate::ir::NodeId;
use crate::network::{Heads, Network};
use crate::ops::elementwise::Unary;
use crate::ops::linear::Linear;
use crate::ops::reduce::Extent;
use crate::ops::shape::{Concat, Reshape};
use gradresnet_models::architecture::{BlockForm, GradResNet, SideConnections, has_shortcut};

/// The network up to energy and logits (eqs. 10 and 11).
pub(crate) fn heads(net: &mut Network, a: &GradResNet, image: NodeId) -> Result<Heads> {
    let z = net.scaled(image, a.centre, a.scale)?;
    let x = net.convolution("stem.conv", z, a.stem.stride())?;
    let mut x = net.activation(a.activation, x)?;

    // The stem and all stages but the last, pooled, in the order of the forward pass.
    let mut pooled = Vec::new();
    if a.side_connections == SideConnections::Stem {
        pooled.push(net.pool(x)?);
    }
    for (stage, &blocks) in a.blocks.iter().enumerate() {
        for index in 0..blocks {
            x = block(net, a, stage, index, x)?;
        }
        if a.side_connections != SideConnections::None && stage + 1 < a.blocks.len() {
            pooled.push(net.pool(x)?);
        }
    }
    let mut features = vec![net.pool(x)?];
    for ((name, _), pooled) in a.sides().iter().zip(pooled.into_iter().rev()) {
        features.extend(net.head(name.trim_end_matches(".weight"), pooled)?);
    }
    net.graph.set_scope("features");
    let features = match *features {
        [only] => only,
        _ => net.graph.add(Concat { axis: 1 }, &features)?,
    };

    net.graph.set_scope("energy");
    let vector = net.parameter("energy.weight")?;
    let g = &mut net.graph;
    let vector = g.add(Reshape::fixed(&[1, a.features()]), &[vector])?;
    let projection = g.add(Linear { transposed: false }, &[features, vector])?;
    let square = g.add(Unary::Square, &[projection])?;
    let pixels = g.add(Extent { axes: vec![2, 3] }, &[image])?;
    let half = g.scaled(pixels, 0.5)?;
    let energy = g.mul(square, half)?;
    Ok(Heads { energy: Some(energy), logits: net.head("head", features)? })
}

fn block(net: &mut Network, a: &GradResNet, stage: usize, block: usize, x: NodeId) -> Result<NodeId> {
    let path = format!("stages.{stage}.{block}");
    let changes = has_shortcut(stage, block);
    let stride = if changes { 2 } else { 1 };
    let h = net.convolution(&format!("{path}.conv1"), x, stride)?;
    let h = net.activation(a.activation, h)?;
    let h = net.convolution(&format!("{path}.conv2"), h, 1)?;
    let shortcut = if changes {
        let r = net.convolution(&format!("{path}.shortcut.conv"), x, 2)?;
        net.norm(&format!("{path}.shortcut.norm"), a.norm, a.group_size, r)?
    } else {
        x
    };
    let norm = format!("{path}.norm");
    match a.block {
        BlockForm::Residual => {
            let h = net.norm(&norm, a.norm, a.group_size, h)?;
            net.graph.sum(shortcut, h)
        }
        BlockForm::Postact => {
            let h = net.norm(&norm, a.norm, a.group_size, h)?;
            let sum = net.graph.sum(shortcut, h)?;
            net.activation(a.activation, sum)
        }
        BlockForm::End => {
            let sum = net.graph.sum(shortcut, h)?;
            let active = net.activation(a.activation, sum)?;
            net.norm(&norm, a.norm, a.group_size, active)
        }
    }
}

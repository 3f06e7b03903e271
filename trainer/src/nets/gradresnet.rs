//! GradResNet (section 3.2): one network for log p(y, c), with the logits of log p(c|y) from its forward
//! pass and the score ∇log p(y) from its backward pass.
//!
//! [`GradResNet`] says what each field means; this file computes it with libtorch.

use super::layers::{Layers, mean};
use super::{Output, Phase, activation};
use gradresnet_models::Stem;
use gradresnet_models::architecture::{BlockForm, GradResNet, SideConnections, has_shortcut};
use tch::Tensor;

pub(super) fn forward(a: &GradResNet, layers: &Layers, image: &Tensor, phase: Phase) -> Output {
    let z = (image - a.centre) * a.scale;
    let (stride, padding) = stem(a.stem);
    let mut x = activation(a.activation, &layers.convolution("stem.conv", &z, stride, padding));

    // Pooled outputs of the stem and of all stages but the last, in the order of the forward pass.
    let mut pooled = Vec::new();
    if a.side_connections == SideConnections::Stem {
        pooled.push(mean(&x));
    }
    for (stage, &blocks) in a.blocks.iter().enumerate() {
        for index in 0..blocks {
            x = block(a, layers, stage, index, &x, phase);
        }
        if a.side_connections != SideConnections::None && stage + 1 < a.blocks.len() {
            pooled.push(mean(&x));
        }
    }
    let mut features = vec![mean(&x)];
    for ((name, _), pooled) in a.sides().iter().zip(pooled.iter().rev()) {
        features.extend(layers.get(name).map(|matrix| pooled.linear(matrix, None::<&Tensor>)));
    }
    let features = Tensor::cat(&features, 1);

    let (height, width) = (image.size()[2], image.size()[3]);
    let log_p = |vector| features.mv(vector).square() * (-0.5 * (height * width) as f64);
    Output { log_p: layers.get("energy.weight").map(log_p), logits: layers.linear("head", &features) }
}

fn block(a: &GradResNet, layers: &Layers, stage: usize, block: usize, x: &Tensor, phase: Phase) -> Tensor {
    let path = format!("stages.{stage}.{block}");
    let changes = has_shortcut(stage, block);
    let stride = if changes { 2 } else { 1 };
    let activation = |x: &Tensor| activation(a.activation, x);
    let norm = |path: &str, x: &Tensor| layers.norm(path, a.norm, a.group_size, x, phase);

    let h = activation(&layers.convolution_unwidened(&format!("{path}.conv1"), x, stride, 1));
    let h = layers.convolution(&format!("{path}.conv2"), &h, 1, 1);
    let shortcut = if changes {
        let r = layers.convolution(&format!("{path}.shortcut.conv"), x, stride, 0);
        norm(&format!("{path}.shortcut.norm"), &r)
    } else {
        x.shallow_clone()
    };
    let path = format!("{path}.norm");
    match a.block {
        BlockForm::Residual => shortcut + norm(&path, &h),
        BlockForm::Postact => activation(&(shortcut + norm(&path, &h))),
        BlockForm::End => norm(&path, &activation(&(shortcut + h))),
    }
}

/// Stride and padding of the first convolution.
pub(super) fn stem(stem: Stem) -> (i64, i64) {
    (stem.stride() as i64, (stem.kernel() / 2) as i64)
}

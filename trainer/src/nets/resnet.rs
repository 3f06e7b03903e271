//! ResNet of basic blocks (He et al. 2016): the classifier that the paper compares with; with
//! log p(y) = LogSumExp of its logits, JEM (Grathwohl et al. 2019).

use super::gradresnet::stem;
use super::layers::{Layers, mean};
use super::{Output, Phase, activation};
use gradresnet_models::architecture::{Energy, ResNet, has_shortcut};
use tch::Tensor;

pub(super) fn forward(a: &ResNet, layers: &Layers, image: &Tensor, phase: Phase) -> Output {
    let activation = |x: &Tensor| activation(a.activation, x);
    let layer = |path: &str, x: &Tensor, stride, padding| {
        let y = layers.convolution(&format!("{path}.conv"), x, stride, padding);
        layers.norm(&format!("{path}.norm"), a.norm, a.group_size, &y, phase)
    };

    let z = (image - a.centre) * a.scale;
    let (stride, padding) = stem(a.stem);
    let mut x = activation(&layer("stem", &z, stride, padding));
    if a.max_pool {
        x = x.max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false);
    }
    for (stage, &blocks) in a.blocks.iter().enumerate() {
        for block in 0..blocks {
            let path = format!("stages.{stage}.{block}");
            let changes = has_shortcut(stage, block);
            let stride = if changes { 2 } else { 1 };
            let h = activation(&layer(&format!("{path}.1"), &x, stride, 1));
            let h = layer(&format!("{path}.2"), &h, 1, 1);
            let shortcut =
                if changes { layer(&format!("{path}.shortcut"), &x, stride, 0) } else { x.shallow_clone() };
            x = activation(&(h + shortcut));
        }
    }
    let logits = layers.linear("head", &mean(&x));
    let log_p = match a.energy {
        Energy::None => None,
        Energy::LogSumExp => logits.as_ref().map(|logits| logits.logsumexp([1], false)),
    };
    Output { log_p, logits }
}

//! DnCNN (Zhang et al. 2017): predicts the noise and subtracts it.

use super::Phase;
use super::layers::Layers;
use gradresnet_models::Norm;
use gradresnet_models::architecture::DnCnn;
use tch::Tensor;

/// The denoised images.
pub(super) fn denoise(a: &DnCnn, layers: &Layers, noisy: &Tensor, phase: Phase) -> Tensor {
    let mut x = noisy.shallow_clone();
    for layer in 0..a.depth - 1 {
        let path = format!("layers.{layer}");
        let (conv, norm) = (format!("{path}.conv"), format!("{path}.norm"));
        x = match a.norm {
            Norm::None => layers.convolution_unwidened(&conv, &x, 1, 1),
            kind => layers.norm(&norm, kind, a.width, &layers.convolution(&conv, &x, 1, 1), phase),
        }
        .relu();
    }
    noisy - layers.convolution(&format!("layers.{}.conv", a.depth - 1), &x, 1, 1)
}

//! DnCNN (Zhang et al. 2017): predicts the noise and subtracts it.

use super::Phase;
use super::layers::Layers;
use gradresnet_models::architecture::DnCnn;
use tch::Tensor;

/// The denoised images.
pub(super) fn denoise(a: &DnCnn, layers: &Layers, noisy: &Tensor, phase: Phase) -> Tensor {
    let mut x = noisy.shallow_clone();
    for layer in 0..a.depth {
        let path = format!("layers.{layer}");
        x = layers.convolution(&format!("{path}.conv"), &x, 1, 1);
        if layer + 1 < a.depth {
            x = layers.norm(&format!("{path}.norm"), a.norm, a.width, &x, phase).relu();
        }
    }
    noisy - x
}

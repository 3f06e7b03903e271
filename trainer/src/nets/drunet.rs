//! DRUNet (Zhang et al. 2021): a U-Net of residual blocks.

use super::layers::Layers;
use gradresnet_models::architecture::DruNet;
use tch::Tensor;

/// The denoised images; `sigma` `[N]` in image units.
pub(super) fn denoise(a: &DruNet, layers: &Layers, noisy: &Tensor, sigma: &Tensor) -> Tensor {
    let blocks = |path: &str, mut x: Tensor| {
        for block in 0..a.blocks {
            let h = layers.convolution_unwidened(&format!("{path}.{block}.conv1"), &x, 1, 1).relu();
            x = layers.convolution(&format!("{path}.{block}.conv2"), &h, 1, 1) + x;
        }
        x
    };
    let input = if a.noise_map {
        let (n, _, h, w) = noisy.size4().unwrap_or_default();
        let map = sigma.to_kind(noisy.kind()).view([-1, 1, 1, 1]).expand([n, 1, h, w], false);
        Tensor::cat(&[noisy, &map], 1)
    } else {
        noisy.shallow_clone()
    };
    // What each scale hands across, the full resolution first.
    let mut across = vec![layers.convolution("head", &input, 1, 1)];
    for scale in 0..DruNet::SCALES - 1 {
        let x = blocks(&format!("down.{scale}"), across[scale].shallow_clone());
        across.push(layers.convolution(&format!("down.{scale}.stride"), &x, 2, 0));
    }
    let mut x = blocks("body", across[DruNet::SCALES - 1].shallow_clone());
    for scale in (0..DruNet::SCALES - 1).rev() {
        x = layers.upsample(&format!("up.{scale}.stride"), &(x + &across[scale + 1]));
        x = blocks(&format!("up.{scale}"), x);
    }
    layers.convolution("tail", &(x + &across[0]), 1, 1)
}

//! DRUNet (Zhang et al. 2021, "Plug-and-play image restoration with deep denoiser prior").

use super::{check_width, field};
use crate::error::Result;
use crate::parameters::{List, ParameterKind};
use serde::{Deserialize, Serialize};

/// A U-Net of residual blocks, without biases and norms, that outputs the denoised image.
///
/// ```text
/// x₁ = head(y, or y and a plane of σ)
/// x₂ = down₁(x₁),  x₃ = down₂(x₂),  x₄ = down₃(x₃)        down: blocks, then a 2×2 convolution of stride 2
/// u  = body(x₄);   u = up₃(u + x₄), up₂(u + x₃), up₁(u + x₂)    up: a 2×2 transposed convolution, then blocks
/// D  = tail(u + x₁)
/// block(x) = x + conv(ReLU(conv(x)))                       3×3
/// ```
///
/// The widths are 1, 2, 4 and 8 times `width`. Published: width 64, 4 blocks a scale, with the map of σ.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DruNet {
    /// Channels at full resolution.
    pub width: usize,
    /// Residual blocks at each scale, on the way down, at the bottom, and on the way up.
    pub blocks: usize,
    /// Whether the network is told σ, as a fourth channel of its input. If not, it is blind, as DnCNN is.
    pub noise_map: bool,
}

impl DruNet {
    /// Total stride.
    pub const STRIDE: usize = 8;
    /// Scales, including full resolution.
    pub const SCALES: usize = 4;

    /// Channels of the input.
    pub fn input_channels(&self) -> usize {
        if self.noise_map { 4 } else { 3 }
    }

    /// Channels at a scale, counted from 0 at full resolution.
    pub fn scale_width(&self, scale: usize) -> usize {
        self.width << scale
    }

    pub(super) fn multiply_adds_per_pixel(&self) -> f64 {
        let mut total = 9.0 * ((self.input_channels() + 3) * self.width) as f64;
        for scale in 0..DruNet::SCALES {
            let width = self.scale_width(scale) as f64;
            let area = 0.25f64.powi(scale as i32);
            let passes = if scale + 1 < DruNet::SCALES { 2.0 } else { 1.0 };
            total += passes * self.blocks as f64 * 18.0 * width * width * area;
            if scale + 1 < DruNet::SCALES {
                // Down and up: four taps per pixel of the smaller image are one per pixel of the larger.
                total += 2.0 * 2.0 * width * width * area;
            }
        }
        total
    }

    pub(super) fn list(&self, list: &mut List) {
        list.convolution("head", self.input_channels(), self.width, 3, false);
        let blocks = |list: &mut List, path: &str, width| {
            for block in 0..self.blocks {
                list.convolution(&format!("{path}.{block}.conv1"), width, width, 3, false);
                list.convolution(&format!("{path}.{block}.conv2"), width, width, 3, false);
            }
        };
        let last = DruNet::SCALES - 1;
        for scale in 0..last {
            let width = self.scale_width(scale);
            blocks(list, &format!("down.{scale}"), width);
            list.convolution(&format!("down.{scale}.stride"), width, 2 * width, 2, false);
        }
        blocks(list, "body", self.scale_width(last));
        for scale in (0..last).rev() {
            let width = self.scale_width(scale);
            // Transposed: input channels come first.
            let shape = vec![2 * width, width, 2, 2];
            list.add(format!("up.{scale}.stride.weight"), shape, ParameterKind::TransposedConvolution);
            blocks(list, &format!("up.{scale}"), width);
        }
        list.convolution("tail", self.width, 3, 3, false);
    }

    pub(super) fn validate(&self) -> Result<()> {
        check_width(self.width)?;
        if !(1..=64).contains(&self.blocks) {
            return field("architecture.blocks", format!("must be 1 to 64, and is {}", self.blocks));
        }
        Ok(())
    }
}

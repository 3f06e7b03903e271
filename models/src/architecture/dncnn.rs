//! DnCNN (Zhang et al. 2017, "Beyond a Gaussian denoiser").

use super::{Norm, check_width, field};
use crate::error::Result;
use crate::parameters::List;
use serde::{Deserialize, Serialize};

/// A blind denoiser that predicts the noise.
///
/// ```text
/// x₁ = ReLU(conv₁(y)),   xᵢ = ReLU(norm(convᵢ(xᵢ₋₁)))  for i = 2 … depth − 1
/// D(y) = y − conv_depth(x_{depth−1})
/// ```
///
/// 3×3 convolutions of `width` channels. Published: width 64, batch norm and biases (of convolutions only where
/// no norm follows), depth 17 for one noise level and 20 for many and for colour.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DnCnn {
    /// Number of convolutions, 3 to 64.
    pub depth: usize,
    /// Channels between them.
    pub width: usize,
    /// `batch`, as published, or `none`.
    pub norm: Norm,
    /// Whether convolutions and norms have biases. With neither biases nor norms, D is homogeneous (Mohan et
    /// al. 2020).
    pub biases: bool,
}

impl DnCnn {
    pub(super) fn multiply_adds_per_pixel(&self) -> f64 {
        let width = self.width as f64;
        9.0 * (6.0 * width + (self.depth - 2) as f64 * width * width)
    }

    pub(super) fn list(&self, list: &mut List) {
        let inner = self.biases && self.norm == Norm::None;
        for layer in 0..self.depth {
            let path = format!("layers.{layer}");
            let (first, last) = (layer == 0, layer + 1 == self.depth);
            let input = if first { 3 } else { self.width };
            let output = if last { 3 } else { self.width };
            let biases = if first || last { self.biases } else { inner };
            list.convolution(&format!("{path}.conv"), input, output, 3, biases);
            if !first && !last {
                list.norm(&format!("{path}.norm"), output, self.norm, self.biases);
            }
        }
    }

    pub(super) fn validate(&self) -> Result<()> {
        check_width(self.width)?;
        if !(3..=64).contains(&self.depth) {
            return field("architecture.depth", format!("must be 3 to 64, and is {}", self.depth));
        }
        match self.norm {
            Norm::Batch | Norm::None => Ok(()),
            _ => field("architecture.norm", "must be `batch` or `none` in a DnCNN"),
        }
    }
}

//! ResNet of basic blocks (He et al. 2016, "Deep residual learning for image recognition").

use super::gradresnet::has_shortcut;
use super::{Activation, Norm, Stem, check_groups, check_scaling, check_stages, check_width, field};
use crate::error::Result;
use crate::parameters::{List, ParameterKind};
use serde::{Deserialize, Serialize};

/// A classifier.
///
/// ```text
/// z       = scale · (y − centre)
/// x₀      = [max pool] activation(norm(conv(z)))
/// xₛ      = blocks of stage s, the first with stride 1 (s = 1) or 2
///           a block: activation(r + norm(conv₂(activation(norm(conv₁(x))))))
///           r = x, or norm(conv₁ₓ₁(x)) where the shape changes
/// logits  = head mean(x_S) + bias
/// ```
///
/// Convolutions have biases only where no norm follows that has one. Stage s has `width · 2^(s−1)`
/// channels; ResNet-18 is width 64 and blocks `[2, 2, 2, 2]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResNet {
    /// First convolution.
    pub stem: Stem,
    /// Whether a 3×3 max pooling of stride 2 follows the stem, as in He et al.'s network for ImageNet.
    #[serde(default)]
    pub max_pool: bool,
    /// Channels of the stem and of the first stage; each further stage doubles them.
    pub width: usize,
    /// Number of basic blocks in each stage.
    pub blocks: Vec<usize>,
    /// Kind of normalisation, after each convolution.
    pub norm: Norm,
    /// Channels per group, for the norms that have groups.
    #[serde(default = "super::default_group_size")]
    pub group_size: usize,
    /// Pointwise nonlinearity.
    pub activation: Activation,
    /// What −log p(y) is, if anything.
    #[serde(default)]
    pub energy: Energy,
    /// Subtracted from the image, in image units.
    pub centre: f64,
    /// Multiplies the centred image.
    pub scale: f64,
}

/// The energy −log p(y) of a classifier, without its constant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Energy {
    /// The network models p(c|y) alone.
    #[default]
    None,
    /// −LogSumExp of the logits: p(y, c) ∝ exp(logit_c) (JEM, Grathwohl et al. 2019, eq. 5).
    LogSumExp,
}

impl ResNet {
    pub(super) fn stride(&self) -> usize {
        let pool = if self.max_pool { 2 } else { 1 };
        (self.stem.stride() * pool) << (self.blocks.len().max(1) - 1)
    }

    /// Channels of stage `stage`, counted from 0.
    pub fn stage_width(&self, stage: usize) -> usize {
        self.width << stage
    }

    /// Length of the pooled feature vector.
    pub fn features(&self) -> usize {
        self.stage_width(self.blocks.len() - 1)
    }

    pub(super) fn multiply_adds_per_pixel(&self) -> f64 {
        let (kernel, stride) = (self.stem.kernel() as f64, self.stem.stride() as f64);
        let area = 1.0 / (stride * stride);
        let pooled = if self.max_pool { area / 4.0 } else { area };
        let stem = 3.0 * self.width as f64 * kernel * kernel * area;
        stem + super::stages_multiply_adds(self.width, &self.blocks, pooled)
    }

    pub(super) fn list(&self, classes: usize, list: &mut List) {
        let biases = self.norm == Norm::None;
        let mut layer = |path: &str, input, output, kernel| {
            list.convolution(&format!("{path}.conv"), input, output, kernel, biases);
            list.norm(&format!("{path}.norm"), output, self.norm, true);
        };
        layer("stem", 3, self.width, self.stem.kernel());
        let mut channels = self.width;
        for (stage, &blocks) in self.blocks.iter().enumerate() {
            let out = self.stage_width(stage);
            for block in 0..blocks {
                let path = format!("stages.{stage}.{block}");
                layer(&format!("{path}.1"), channels, out, 3);
                layer(&format!("{path}.2"), out, out, 3);
                if has_shortcut(stage, block) {
                    layer(&format!("{path}.shortcut"), channels, out, 1);
                }
                channels = out;
            }
        }
        list.add("head.weight".into(), vec![classes, self.features()], ParameterKind::Head);
        list.add("head.bias".into(), vec![classes], ParameterKind::Bias);
    }

    pub(super) fn validate(&self) -> Result<()> {
        check_width(self.width)?;
        check_stages(&self.blocks)?;
        check_groups(self.norm, self.group_size, self.width)?;
        if self.max_pool && self.energy != Energy::None {
            return field("architecture.max_pool", "an energy needs a smooth network, without max pooling");
        }
        check_scaling(self.centre, self.scale)
    }
}

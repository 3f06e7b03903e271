//! GradResNet (section 3.2).

use super::{Activation, Norm, Stem, check_groups, check_scaling, check_stages, check_width, field};
use crate::error::Result;
use crate::parameters::{List, ParameterKind};
use serde::{Deserialize, Serialize};

/// The network f̄ and the two heads on it: `energy` (eq. 11) and `logits` (eq. 10).
///
/// ```text
/// z       = scale · (y − centre)
/// x₀      = activation(conv(z))                        the stem: no norm
/// xₛ      = blocks of stage s, the first with stride 1 (s = 1) or 2
/// f̄       = mean(x_S) ‖ side_{S−1} mean(x_{S−1}) ‖ … ‖ side_1 mean(x₁) ‖ side_stem mean(x₀)
/// logits  = head f̄
/// energy  = ½ · H·W · (energyᵀ f̄)²                     −log p(y), without its constant
/// ```
///
/// `mean` is over the image plane, `‖` concatenates, and the `side` maps halve the width. H and W are
/// those of the input image. Stage s has `width · 2^(s−1)` channels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GradResNet {
    /// First convolution.
    pub stem: Stem,
    /// Channels of the stem and of the first stage; each further stage doubles them.
    pub width: usize,
    /// Number of basic blocks in each stage; ResNet-18 has `[2, 2, 2, 2]`.
    pub blocks: Vec<usize>,
    /// Order of norm, sum and activation in a block.
    pub block: BlockForm,
    /// Kind of normalisation.
    pub norm: Norm,
    /// Channels per group, for the norms that have groups.
    #[serde(default = "super::default_group_size")]
    pub group_size: usize,
    /// Whether earlier stages reach f̄ directly.
    pub side_connections: SideConnections,
    /// Pointwise nonlinearity.
    pub activation: Activation,
    /// Whether convolutions and norms have biases (the paper removes them; the heads and side maps
    /// never have any).
    pub biases: bool,
    /// Subtracted from the image, in image units.
    pub centre: f64,
    /// Multiplies the centred image.
    pub scale: f64,
}

/// A basic block, with h = conv₂(activation(conv₁(x))) and r the shortcut: x itself, or
/// norm(conv₁ₓ₁(x)) where the shape changes. (`norm` is the identity for [`Norm::None`].)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlockForm {
    /// r + norm(h): the skip path carries the scale of the signal.
    Residual,
    /// activation(r + norm(h)).
    Postact,
    /// norm(activation(r + h)): the authors' later public code.
    End,
}

/// Side connections (section 3.2, "Mimicking skip connections").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SideConnections {
    /// None: f̄ is the pooled last stage.
    None,
    /// From every stage but the last, pooled.
    Stages,
    /// From the stem too.
    Stem,
}

impl GradResNet {
    /// Total stride: H and W of the graphs' images are multiples of it.
    pub fn stride(&self) -> usize {
        self.stem.stride() << (self.blocks.len().max(1) - 1)
    }

    /// Channels of stage `stage`, counted from 0.
    pub fn stage_width(&self, stage: usize) -> usize {
        self.width << stage
    }

    /// Length K of the feature vector f̄.
    pub fn features(&self) -> usize {
        let last = self.blocks.len() - 1;
        let stages: usize = match self.side_connections {
            SideConnections::None => 0,
            _ => (0..last).map(|s| self.stage_width(s) / 2).sum(),
        };
        let stem = if self.side_connections == SideConnections::Stem { self.width / 2 } else { 0 };
        self.stage_width(last) + stages + stem
    }

    /// Name and input width of each side connection's matrix, in the order in which f̄ holds them: from
    /// the last stage but one to the first, then the stem.
    pub fn sides(&self) -> Vec<(String, usize)> {
        let mut sides = Vec::new();
        if self.side_connections != SideConnections::None {
            for stage in (0..self.blocks.len() - 1).rev() {
                sides.push((format!("side.stage{stage}.weight"), self.stage_width(stage)));
            }
        }
        if self.side_connections == SideConnections::Stem {
            sides.push(("side.stem.weight".into(), self.width));
        }
        sides
    }

    pub(super) fn multiply_adds_per_pixel(&self) -> f64 {
        let (kernel, stride) = (self.stem.kernel() as f64, self.stem.stride() as f64);
        let area = 1.0 / (stride * stride);
        let stem = 3.0 * self.width as f64 * kernel * kernel * area;
        stem + super::stages_multiply_adds(self.width, &self.blocks, area)
    }

    pub(super) fn list(&self, classes: usize, list: &mut List) {
        list.convolution("stem.conv", 3, self.width, self.stem.kernel(), self.biases);
        let mut channels = self.width;
        for (stage, &blocks) in self.blocks.iter().enumerate() {
            let out = self.stage_width(stage);
            for block in 0..blocks {
                let path = format!("stages.{stage}.{block}");
                list.convolution(&format!("{path}.conv1"), channels, out, 3, self.biases);
                list.convolution(&format!("{path}.conv2"), out, out, 3, self.biases);
                list.norm(&format!("{path}.norm"), out, self.norm, self.biases);
                if has_shortcut(stage, block) {
                    list.convolution(&format!("{path}.shortcut.conv"), channels, out, 1, self.biases);
                    list.norm(&format!("{path}.shortcut.norm"), out, self.norm, self.biases);
                }
                channels = out;
            }
        }
        for (name, width) in self.sides() {
            list.add(name, vec![width / 2, width], ParameterKind::Linear);
        }
        if classes > 0 {
            list.add("head.weight".into(), vec![classes, self.features()], ParameterKind::Head);
        }
        list.add("energy.weight".into(), vec![self.features()], ParameterKind::Energy);
    }

    pub(super) fn validate(&self) -> Result<()> {
        check_width(self.width)?;
        check_stages(&self.blocks)?;
        check_groups(self.norm, self.group_size, self.width)?;
        if self.side_connections != SideConnections::None && !self.width.is_multiple_of(2) {
            return field(
                "architecture.width",
                format!("side connections halve it, and {} is odd", self.width),
            );
        }
        check_scaling(self.centre, self.scale)
    }
}

/// Whether a block changes the shape and so has a 1×1 convolution on its shortcut.
pub fn has_shortcut(stage: usize, block: usize) -> bool {
    stage > 0 && block == 0
}

impl Default for GradResNet {
    /// The form that trains best at this width: `docs/training-history.md`, "What was tried".
    fn default() -> Self {
        GradResNet {
            stem: Stem::Cifar,
            width: 24,
            blocks: vec![1, 1, 1],
            block: BlockForm::Residual,
            norm: Norm::Group,
            group_size: super::default_group_size(),
            side_connections: SideConnections::Stem,
            activation: Activation::Gelu,
            biases: false,
            centre: 0.5,
            scale: 4.0,
        }
    }
}

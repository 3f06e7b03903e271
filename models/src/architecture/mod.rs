//! Networks: a family, and the fields of that family. Each family's file says what its fields mean, what
//! they may be, and which parameters they imply.
//!
//! All take images `[N,3,H,W]` in image units. What they yield differs: see [`Architecture::has_energy`] and
//! [`Architecture::takes_sigma`].

mod dncnn;
mod drunet;
mod gradresnet;
mod resnet;

pub use dncnn::DnCnn;
pub use drunet::DruNet;
pub use gradresnet::{BlockForm, GradResNet, SideConnections, has_shortcut};
pub use resnet::{Energy, ResNet};

use crate::error::{Error, ErrorKind, Result};
use crate::parameters::{List, Parameter};
use serde::{Deserialize, Serialize};

/// A network. In JSON and TOML the family is the only key, `{"resnet": {…}}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// The paper's: a classifier whose gradient denoises.
    GradResNet(GradResNet),
    /// He et al. 2016: a classifier; with an energy, that of Grathwohl et al. 2019.
    ResNet(ResNet),
    /// Zhang et al. 2017: a denoiser.
    DnCnn(DnCnn),
    /// Zhang et al. 2021: a denoiser.
    DruNet(DruNet),
}

/// The first convolution: its kernel and its stride.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stem {
    /// 3×3, stride 1.
    Cifar,
    /// 7×7, stride 2, no pooling.
    Imagenet,
}

impl Stem {
    /// Side of the kernel.
    pub fn kernel(self) -> usize {
        match self {
            Stem::Cifar => 3,
            Stem::Imagenet => 7,
        }
    }

    /// Stride.
    pub fn stride(self) -> usize {
        match self {
            Stem::Cifar => 1,
            Stem::Imagenet => 2,
        }
    }
}

/// Normalisation; ε = 1e-5 and a gain per channel throughout, a bias if the spec says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Norm {
    /// (x − μ_g) / √(var_g + ε) over each group of channels and the image plane (Wu & He 2018).
    Group,
    /// (x − μ_g) · √(mean over groups of var ÷ (var_g + ε) + ε): equalises the groups, keeps the
    /// overall scale.
    Homogeneous,
    /// Batch normalisation; outside training a fixed affine map by the running statistics.
    Batch,
    /// None.
    None,
}

/// ε of every norm.
pub const NORM_EPSILON: f64 = 1e-5;

/// Pointwise nonlinearity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// x·Φ(x), with the exact Φ by the error function.
    Gelu,
    /// max(x, 0).
    Relu,
    /// x / (1 + e^−x).
    Silu,
}

impl Architecture {
    /// The family, as written in a spec.
    pub fn family(&self) -> &'static str {
        match self {
            Architecture::GradResNet(_) => "gradresnet",
            Architecture::ResNet(_) => "resnet",
            Architecture::DnCnn(_) => "dncnn",
            Architecture::DruNet(_) => "drunet",
        }
    }

    /// Whether the network models log p(y), so that it denoises by its gradient (eq. 7).
    pub fn has_energy(&self) -> bool {
        match self {
            Architecture::GradResNet(_) => true,
            Architecture::ResNet(a) => a.energy != Energy::None,
            Architecture::DnCnn(_) | Architecture::DruNet(_) => false,
        }
    }

    /// Whether the network's output is the denoised image itself. Such a network has no classes.
    pub fn is_direct(&self) -> bool {
        matches!(self, Architecture::DnCnn(_) | Architecture::DruNet(_))
    }

    /// Whether it denoises, by its gradient or directly.
    pub fn denoises(&self) -> bool {
        self.has_energy() || self.is_direct()
    }

    /// Whether denoising takes the noise level: for the step along the gradient, or as an input of the
    /// network.
    pub fn takes_sigma(&self) -> bool {
        match self {
            Architecture::DnCnn(_) => false,
            Architecture::DruNet(a) => a.noise_map,
            _ => self.has_energy(),
        }
    }

    /// Whether, in training too, its output for an image depends on that image alone. With batch norm it depends on
    /// the whole batch.
    pub fn treats_images_apart(&self) -> bool {
        let norm = match self {
            Architecture::GradResNet(a) => a.norm,
            Architecture::ResNet(a) => a.norm,
            Architecture::DnCnn(a) => a.norm,
            Architecture::DruNet(_) => Norm::None,
        };
        norm != Norm::Batch
    }

    /// Total stride: H and W of the network's images are multiples of it.
    pub fn stride(&self) -> usize {
        match self {
            Architecture::GradResNet(a) => a.stride(),
            Architecture::ResNet(a) => a.stride(),
            Architecture::DnCnn(_) => 1,
            Architecture::DruNet(_) => DruNet::STRIDE,
        }
    }

    /// Channels of the first layer.
    pub fn width(&self) -> usize {
        match self {
            Architecture::GradResNet(a) => a.width,
            Architecture::ResNet(a) => a.width,
            Architecture::DnCnn(a) => a.width,
            Architecture::DruNet(a) => a.width,
        }
    }

    /// Whether convolutions or norms have biases. (A head's would not count: it does not act on the
    /// image.)
    pub fn biases(&self) -> bool {
        match self {
            Architecture::GradResNet(a) => a.biases,
            Architecture::ResNet(_) => true,
            Architecture::DnCnn(a) => a.biases,
            Architecture::DruNet(_) => false,
        }
    }

    /// Subtracted from the image, in image units.
    pub fn centre(&self) -> f64 {
        match self {
            Architecture::GradResNet(a) => a.centre,
            Architecture::ResNet(a) => a.centre,
            Architecture::DnCnn(_) | Architecture::DruNet(_) => 0.0,
        }
    }

    /// Multiply-adds of the convolutions per input pixel, for the forward pass alone; denoising by
    /// gradient takes twice as many.
    pub fn multiply_adds_per_pixel(&self) -> f64 {
        match self {
            Architecture::GradResNet(a) => a.multiply_adds_per_pixel(),
            Architecture::ResNet(a) => a.multiply_adds_per_pixel(),
            Architecture::DnCnn(a) => a.multiply_adds_per_pixel(),
            Architecture::DruNet(a) => a.multiply_adds_per_pixel(),
        }
    }

    /// Channels that the first layer and all blocks output, per pixel of the image: what a gradient must keep. For a
    /// network that needs no gradient, those that one layer takes and outputs.
    pub fn features_per_pixel(&self) -> f64 {
        match self {
            Architecture::GradResNet(a) => stages_features(a.stem, a.width, &a.blocks),
            Architecture::ResNet(a) => stages_features(a.stem, a.width, &a.blocks),
            Architecture::DnCnn(_) | Architecture::DruNet(_) => 2.0 * self.width() as f64,
        }
    }

    /// Every parameter with `classes` classes, in the order of the forward pass.
    pub(crate) fn list(&self, classes: usize) -> Vec<Parameter> {
        let mut list = List::default();
        match self {
            Architecture::GradResNet(a) => a.list(classes, &mut list),
            Architecture::ResNet(a) => a.list(classes, &mut list),
            Architecture::DnCnn(a) => a.list(&mut list),
            Architecture::DruNet(a) => a.list(&mut list),
        }
        list.parameters
    }

    pub(crate) fn validate(&self) -> Result<()> {
        match self {
            Architecture::GradResNet(a) => a.validate(),
            Architecture::ResNet(a) => a.validate(),
            Architecture::DnCnn(a) => a.validate(),
            Architecture::DruNet(a) => a.validate(),
        }
    }
}

impl From<GradResNet> for Architecture {
    fn from(a: GradResNet) -> Architecture {
        Architecture::GradResNet(a)
    }
}

impl From<ResNet> for Architecture {
    fn from(a: ResNet) -> Architecture {
        Architecture::ResNet(a)
    }
}

impl From<DnCnn> for Architecture {
    fn from(a: DnCnn) -> Architecture {
        Architecture::DnCnn(a)
    }
}

impl From<DruNet> for Architecture {
    fn from(a: DruNet) -> Architecture {
        Architecture::DruNet(a)
    }
}

fn default_group_size() -> usize {
    8
}

/// [`Architecture::features_per_pixel`] of stages, each with twice the channels and a quarter of the pixels of the
/// previous one.
fn stages_features(stem: Stem, width: usize, blocks: &[usize]) -> f64 {
    let blocks = blocks.iter().zip(0..).map(|(&blocks, stage)| blocks as f64 / 2f64.powi(stage));
    width as f64 / stem.stride().pow(2) as f64 * (1.0 + blocks.sum::<f64>())
}

/// Multiply-adds per image pixel of stages of basic blocks, the first with `width` channels at `area` pixels
/// per image pixel: what [`GradResNet`] and [`ResNet`] share.
fn stages_multiply_adds(width: usize, blocks: &[usize], mut area: f64) -> f64 {
    let mut total = 0.0;
    for (stage, &blocks) in blocks.iter().enumerate() {
        let out = (width << stage) as f64;
        if stage > 0 {
            area /= 4.0;
            total += (out / 2.0) * out * area; // the 1×1 shortcut
        }
        for block in 0..blocks {
            let input = if stage > 0 && block == 0 { out / 2.0 } else { out };
            total += 9.0 * (input * out + out * out) * area;
        }
    }
    total
}

fn check_width(width: usize) -> Result<()> {
    if (1..=1024).contains(&width) {
        return Ok(());
    }
    field("architecture.width", format!("must be 1 to 1024, and is {width}"))
}

fn check_stages(blocks: &[usize]) -> Result<()> {
    if !(1..=6).contains(&blocks.len()) {
        let reason = format!("must list 1 to 6 stages, and lists {}", blocks.len());
        return field("architecture.blocks", reason);
    }
    if let Some(bad) = blocks.iter().find(|b| !(1..=64).contains(*b)) {
        return field("architecture.blocks", format!("a stage must have 1 to 64 blocks, and one has {bad}"));
    }
    Ok(())
}

fn check_groups(norm: Norm, group_size: usize, width: usize) -> Result<()> {
    if !(1..=1024).contains(&group_size) {
        return field("architecture.group_size", format!("must be 1 to 1024, and is {group_size}"));
    }
    if matches!(norm, Norm::Group | Norm::Homogeneous) && !width.is_multiple_of(group_size) {
        return field(
            "architecture.group_size",
            format!("must divide the width, and {group_size} does not divide {width}"),
        );
    }
    Ok(())
}

fn check_scaling(centre: f64, scale: f64) -> Result<()> {
    if !centre.is_finite() || centre.abs() > 1e3 {
        return field("architecture.centre", format!("must be finite and at most 1000, and is {centre}"));
    }
    if !(scale.is_finite() && scale > 0.0 && scale <= 1e3) {
        return field("architecture.scale", format!("must be above 0 and at most 1000, and is {scale}"));
    }
    Ok(())
}

pub(crate) fn field<T>(field: &'static str, reason: impl Into<String>) -> Result<T> {
    Err(Error::from(ErrorKind::Field { field, reason: reason.into() }))
}

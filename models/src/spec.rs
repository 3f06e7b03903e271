//! `spec.json`: the architecture, what it was trained for, on what, and what it scores.
//!
//! The mathematics is the paper's (arXiv "Classification-Denoising Networks"), section 3.2 and
//! appendix A; where the paper leaves a choice open, the choice is a field here. `docs/mathematics.md`
//! derives the formulas; this file fixes what each field means.

use crate::error::{At, Error, ErrorKind, Result};
use crate::parameters::parameters;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// The version of `spec.json` that this crate reads and writes.
pub const FORMAT: u32 = 1;

/// Largest `spec.json` that is read, in bytes.
pub const MAX_SPEC_BYTES: u64 = 1 << 20;

/// Largest number of parameters of an architecture: 2²⁸, one GiB in float32.
pub const MAX_PARAMETERS: u64 = 1 << 28;

const MAX_CLASSES: usize = 1 << 16;

/// Everything that `spec.json` says about a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Version of this format, [`FORMAT`].
    pub format: u32,
    /// A short name: letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// The network.
    pub architecture: Architecture,
    /// What the network was trained for.
    pub task: Task,
    /// Names of the classes, in the order of the logits. Empty for a network without a class head.
    #[serde(default)]
    pub classes: Vec<String>,
    /// The square size in pixels that `classify` resizes to; absent if any size will do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_size: Option<usize>,
    /// Standard deviations of the noise that the denoiser was trained on.
    pub sigma: SigmaRange,
    /// How the parameters came about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Provenance>,
    /// What the model scores.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<Measurement>,
    /// SHA-256, in lower-case hexadecimal, of every other file of a bundle, by file name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
}

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
pub struct Architecture {
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
    #[serde(default = "default_group_size")]
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

fn default_group_size() -> usize {
    8
}

/// The first convolution and its total effect on size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stem {
    /// 3×3, stride 1.
    Cifar,
    /// 7×7, stride 2, no pooling.
    Imagenet,
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

/// What a network was trained for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// log p(y) alone.
    Denoising,
    /// log p(c|y) alone.
    Classification,
    /// Both (eq. 13).
    Joint,
}

/// A range of noise levels, as standard deviations in image units ([0, 1]).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SigmaRange {
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
}

/// How the parameters came about.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// The training images, in words.
    pub data: String,
    /// Optimisation steps.
    pub steps: u64,
    /// Seed of everything random.
    pub seed: u64,
    /// CPU time spent in training, in hours.
    #[serde(default)]
    pub cpu_hours: f64,
    /// The command that trained it.
    #[serde(default)]
    pub command: String,
    /// Versions of the programs involved, by name.
    #[serde(default)]
    pub versions: BTreeMap<String, String>,
}

/// One figure that the model reaches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measurement {
    /// The images measured on, in words.
    pub data: String,
    /// What was measured, for instance `psnr` (dB) or `accuracy` (fraction).
    pub metric: String,
    /// Noise level in 8-bit units, where the metric has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sigma: Option<f64>,
    /// The figure.
    pub value: f64,
    /// The command that reproduces it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub command: String,
}

impl Spec {
    /// Reads and validates a `spec.json`.
    pub fn read(path: &Path) -> Result<Spec> {
        let bytes = crate::staged::read_bounded(path, MAX_SPEC_BYTES)?;
        Spec::parse(&bytes).at(path)
    }

    /// Parses and validates the text of a `spec.json`.
    pub fn parse(json: &[u8]) -> Result<Spec> {
        // The version comes first: a newer format may have fields that this crate does not know.
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let version: Version = serde_json::from_slice(json)?;
        if version.format != FORMAT {
            return Err(ErrorKind::Format { found: version.format, known: FORMAT }.into());
        }
        let spec: Spec = serde_json::from_slice(json)?;
        spec.validate()?;
        Ok(spec)
    }

    /// The text of `spec.json`, pretty-printed.
    pub fn to_json(&self) -> String {
        // A spec holds strings, numbers and maps with string keys, which always serialise; a NaN
        // (rejected by `validate`) would become `null`.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Checks every field, and the fields against one another.
    ///
    /// # Errors
    /// [`ErrorKind::Field`], naming the first offending field.
    pub fn validate(&self) -> Result<()> {
        let name_ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if self.name.is_empty()
            || self.name.len() > 64
            || !self.name.chars().all(name_ok)
            || self.name.starts_with('.')
        {
            return field(
                "name",
                "must be 1 to 64 letters, digits, `-`, `_` or `.`, and not start with a dot",
            );
        }
        self.architecture.validate()?;
        if self.classes.len() > MAX_CLASSES {
            return field(
                "classes",
                format!("{} classes, and at most {MAX_CLASSES} are accepted", self.classes.len()),
            );
        }
        // Names are printed: an escape sequence in one would reach the terminal.
        if self.classes.iter().any(|c| c.is_empty() || c.chars().any(char::is_control)) {
            return field("classes", "a name is empty or holds a control character");
        }
        let provenance = self.provenance.iter().flat_map(|p| [&p.data, &p.command]);
        let metrics = self.metrics.iter().flat_map(|m| [&m.data, &m.metric, &m.command]);
        if provenance.chain(metrics).any(|text| text.chars().any(char::is_control)) {
            return field("provenance, metrics", "a text holds a control character");
        }
        let mut seen = std::collections::BTreeSet::new();
        if let Some(twice) = self.classes.iter().find(|c| !seen.insert(*c)) {
            return field("classes", format!("`{twice}` stands there twice"));
        }
        if self.task != Task::Denoising && self.classes.len() < 2 {
            return field("classes", "classification needs at least two classes");
        }
        let stride = self.architecture.stride();
        if self.image_size.is_some_and(|s| s == 0 || s > 1 << 10 || s % stride != 0) {
            return field(
                "image_size",
                format!("must be a multiple of the network's stride, {stride}, up to 1024"),
            );
        }
        let SigmaRange { min, max } = self.sigma;
        if !(min.is_finite() && max.is_finite() && 0.0 <= min && min <= max && max <= 1e3) {
            return field("sigma", format!("must satisfy 0 ≤ min ≤ max ≤ 1000, and is {min} to {max}"));
        }
        for m in &self.metrics {
            if !m.value.is_finite() || m.sigma.is_some_and(|s| !s.is_finite()) {
                return field("metrics", format!("`{}` on {} is not a finite number", m.metric, m.data));
            }
        }
        let count: u64 =
            parameters(&self.architecture, self.classes.len()).iter().map(|p| p.len() as u64).sum();
        if count > MAX_PARAMETERS {
            return field(
                "architecture",
                format!("{count} parameters, and at most {MAX_PARAMETERS} are accepted"),
            );
        }
        Ok(())
    }

    /// The position of a class among the logits.
    pub fn class_index(&self, name: &str) -> Option<usize> {
        self.classes.iter().position(|c| c == name)
    }
}

impl Architecture {
    /// Total stride: H and W of what the graphs take are multiples of it.
    pub fn stride(&self) -> usize {
        let stem = match self.stem {
            Stem::Cifar => 1,
            Stem::Imagenet => 2,
        };
        stem << (self.blocks.len().max(1) - 1)
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

    /// Multiply-adds of the convolutions per input pixel, of the forward pass alone; the denoiser
    /// takes twice as many.
    pub fn multiply_adds_per_pixel(&self) -> f64 {
        let (kernel, stride) = match self.stem {
            Stem::Cifar => (3.0, 1.0),
            Stem::Imagenet => (7.0, 2.0),
        };
        let mut area = 1.0 / (stride * stride);
        let mut total = 3.0 * self.width as f64 * kernel * kernel * area;
        for (stage, &blocks) in self.blocks.iter().enumerate() {
            let out = self.stage_width(stage) as f64;
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

    fn validate(&self) -> Result<()> {
        if !(1..=1024).contains(&self.width) {
            return field("architecture.width", format!("must be 1 to 1024, and is {}", self.width));
        }
        if !(1..=6).contains(&self.blocks.len()) {
            return field(
                "architecture.blocks",
                format!("must list 1 to 6 stages, and lists {}", self.blocks.len()),
            );
        }
        if let Some(bad) = self.blocks.iter().find(|b| !(1..=64).contains(*b)) {
            return field(
                "architecture.blocks",
                format!("a stage must have 1 to 64 blocks, and one has {bad}"),
            );
        }
        if !(1..=1024).contains(&self.group_size) {
            return field(
                "architecture.group_size",
                format!("must be 1 to 1024, and is {}", self.group_size),
            );
        }
        if matches!(self.norm, Norm::Group | Norm::Homogeneous) && !self.width.is_multiple_of(self.group_size)
        {
            return field(
                "architecture.group_size",
                format!("must divide the width, and {} does not divide {}", self.group_size, self.width),
            );
        }
        if self.side_connections != SideConnections::None && !self.width.is_multiple_of(2) {
            return field(
                "architecture.width",
                format!("side connections halve it, and {} is odd", self.width),
            );
        }
        if !self.centre.is_finite() || self.centre.abs() > 1e3 {
            return field(
                "architecture.centre",
                format!("must be finite and at most 1000, and is {}", self.centre),
            );
        }
        if !(self.scale.is_finite() && self.scale > 0.0 && self.scale <= 1e3) {
            return field(
                "architecture.scale",
                format!("must be above 0 and at most 1000, and is {}", self.scale),
            );
        }
        Ok(())
    }
}

impl Default for Architecture {
    /// What trains best among the forms measured: the table in `docs/training.md`.
    fn default() -> Self {
        Architecture {
            stem: Stem::Cifar,
            width: 24,
            blocks: vec![1, 1, 1],
            block: BlockForm::Residual,
            norm: Norm::Group,
            group_size: default_group_size(),
            side_connections: SideConnections::Stem,
            activation: Activation::Gelu,
            biases: false,
            centre: 0.5,
            scale: 4.0,
        }
    }
}

fn field<T>(field: &'static str, reason: impl Into<String>) -> Result<T> {
    Err(Error::from(ErrorKind::Field { field, reason: reason.into() }))
}

//! `spec.json`: the architecture, what it was trained for, on what, and what it scores.
//!
//! The mathematics is the paper's (arXiv "Classification-Denoising Networks"), section 3.2 and
//! appendix A; where the paper leaves a choice open, the choice is a field of the
//! architecture (`crate::architecture`). `docs/mathematics.md` derives the formulas.

use crate::architecture::{Architecture, field};
use crate::error::{At, ErrorKind, Result};
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
    /// Side in pixels of the square that `classify` resizes to; absent if any size will do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_size: Option<usize>,
    /// The precision of the convolutions in a bundle's graphs.
    #[serde(default, skip_serializing_if = "Precision::is_default")]
    pub precision: Precision,
    /// Standard deviations of the noise that the denoiser was trained on.
    pub sigma: SigmaRange,
    /// How the parameters came about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Provenance>,
    /// What the model scores, with its parameters in float32, whatever its graphs compute in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<Measurement>,
    /// SHA-256, in lower-case hexadecimal, of every other file of a bundle, by file name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
}

/// What a network was trained for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// log p(y), or the denoised image, alone.
    Denoising,
    /// log p(c|y) alone.
    Classification,
    /// log p(y, c) (eq. 13, or maximum likelihood).
    Joint,
}

/// Element type of the convolutions of a bundle's graphs. Everything else, and all parameters in
/// `model.safetensors`, is float32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 24 bits of precision.
    #[default]
    Float32,
    /// 11 bits of precision, up to 65,504.
    Float16,
}

impl Precision {
    fn is_default(&self) -> bool {
        *self == Precision::default()
    }

    /// Largest accepted relative error ‖out − ref‖/‖ref‖ of an engine against reference values. In float16,
    /// engines accumulate in different precisions; a wrong graph errs by more than either tolerance.
    pub fn tolerance(self) -> f64 {
        match self {
            Precision::Float32 => 1e-4,
            Precision::Float16 => 5e-2,
        }
    }
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
    /// The command that trained it; of several, one after the other, joined by `; then `.
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
        // The version is read first: a newer format may have fields that this crate does not know.
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

    /// What decides how a graph is to be called and what its outputs mean, as text by name; `None` where the spec leaves
    /// it open. Graphs repeat it in their `metadata_props`, so that a change of `spec.json`, which has no digest, is found.
    pub fn essentials(&self) -> [(&'static str, Option<String>); 7] {
        // The words of an enum, as in spec.json.
        let word = |value: serde_json::Result<serde_json::Value>| Some(value.ok()?.as_str()?.to_string());
        [
            ("gradresnet.task", word(serde_json::to_value(self.task))),
            ("gradresnet.classes", Some(serde_json::Value::from(self.classes.clone()).to_string())),
            ("gradresnet.precision", word(serde_json::to_value(self.precision))),
            ("gradresnet.stride", Some(self.architecture.stride().to_string())),
            ("gradresnet.sigma_min", Some(self.sigma.min.to_string())),
            ("gradresnet.sigma_max", Some(self.sigma.max.to_string())),
            ("gradresnet.image_size", self.image_size.map(|size| size.to_string())),
        ]
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
        if self.provenance.as_ref().is_some_and(|p| !(0.0..=1e9).contains(&p.cpu_hours)) {
            return field("provenance.cpu_hours", "must be 0 to 1e9");
        }
        let provenance = self.provenance.iter().flat_map(|p| [&p.data, &p.command]);
        let metrics = self.metrics.iter().flat_map(|m| [&m.data, &m.metric, &m.command]);
        if provenance.chain(metrics).any(|text| text.chars().any(char::is_control)) {
            return field("provenance, metrics", "a text holds a control character");
        }
        let mut seen = std::collections::BTreeSet::new();
        if let Some(twice) = self.classes.iter().find(|c| !seen.insert(*c)) {
            return field("classes", format!("`{twice}` is listed twice"));
        }
        if self.task != Task::Denoising && self.classes.len() < 2 {
            return field("classes", "classification needs at least two classes");
        }
        let family = self.architecture.family();
        if self.architecture.is_direct() && !self.classes.is_empty() {
            return field("classes", format!("a `{family}` denoises and has none"));
        }
        if matches!(self.architecture, Architecture::ResNet(_)) && self.classes.is_empty() {
            return field("classes", format!("a `{family}` classifies and needs at least two"));
        }
        if self.task != Task::Classification && !self.architecture.denoises() {
            return field("task", format!("a `{family}` without an energy can only be for `classification`"));
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

    /// Whether its log p(y) was trained, and not its classes alone.
    pub fn has_energy(&self) -> bool {
        self.architecture.has_energy() && self.task != Task::Classification
    }

    /// The position of a class among the logits.
    pub fn class_index(&self, name: &str) -> Option<usize> {
        self.classes.iter().position(|c| c == name)
    }
}

//! The TOML file that describes a training run; `trainer/configs/` holds those that we use.

use crate::data::augment::Augment;
use crate::noise::NoiseLevel;
use crate::optim::OptimizerConfig;
pub use crate::refusal::Invalid;
use crate::refusal::{Refusal, require};
use anyhow::{Context, Result, anyhow};
use gradresnet_models::spec::FORMAT;
use gradresnet_models::{Architecture, SigmaRange, Spec, Task};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use tch::Kind;

/// Most values in the buffer of [`Jem`].
const MAX_BUFFER: usize = 1 << 28;
/// Largest batch, in float32 values: 1 GiB.
const MAX_BATCH_VALUES: usize = 1 << 28;

/// A training run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name of the model.
    pub name: String,
    /// The training images, in words, for the model's provenance.
    pub data: String,
    /// Optimisation steps.
    pub steps: u64,
    /// Seed of everything random.
    #[serde(default)]
    pub seed: u64,
    /// What convolutions compute in, where the processor has it.
    #[serde(default)]
    pub precision: Precision,
    /// Fraction of the training images that is held out to validate on.
    #[serde(default = "held_out")]
    pub held_out: f64,
    /// Steps between validations on the held-out images.
    #[serde(default = "validate_every")]
    pub validate_every: u64,
    /// The network.
    pub architecture: Architecture,
    /// The denoising objective, if it is trained for that.
    #[serde(default)]
    pub denoising: Option<Denoising>,
    /// The classification objective, if it is trained for that.
    #[serde(default)]
    pub classification: Option<Classification>,
    /// Maximum likelihood in place of denoising, if it is trained for that.
    #[serde(default)]
    pub jem: Option<Jem>,
    /// How the parameters move.
    pub optimizer: OptimizerConfig,
}

/// Element type of the convolutions of a training step, and of an activation between two of them. All else, and all
/// that is saved, is float32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 24 bits of precision.
    #[default]
    Float32,
    /// 8 bits of precision and the same range; fast where the processor has it.
    BFloat16,
}

impl Precision {
    /// libtorch's name for it.
    pub fn kind(self) -> Kind {
        match self {
            Precision::Float32 => Kind::Float,
            Precision::BFloat16 => Kind::BFloat16,
        }
    }
}

/// Second term of eq. 13.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Denoising {
    /// Which score is trained.
    #[serde(default)]
    pub target: Target,
    /// Images in a batch.
    pub batch: usize,
    /// Side of the crops, in pixels.
    pub size: usize,
    /// Later batches and sizes.
    #[serde(default)]
    pub schedule: Vec<Change>,
    /// Noise levels in 8-bit units, `[min, max]`.
    pub sigma: NoiseLevel,
    /// Factor of this term in the loss; 1 is eq. 13.
    #[serde(default = "unit")]
    pub weight: f64,
    /// The loss of an image is weighted by σ^p/E[σ^p] with this p. 0 is eq. 13; 2 is the squared error
    /// of the denoised image.
    #[serde(default)]
    pub weight_power: f64,
    /// How images are varied.
    #[serde(default)]
    pub augment: Augment,
}

/// Which score the denoising term is about (section 3.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// ‖σ ∇ log p(y) + ε‖².
    #[default]
    Unconditional,
    /// ‖σ ∇ log p(y|c) + ε‖², with the image's class.
    Conditional,
    /// The sum of both.
    Both,
}

/// Another shape of the batches, from some step on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// Steps after which it applies.
    pub from_step: u64,
    /// Images in a batch.
    pub batch: usize,
    /// Side of the crops, in pixels.
    pub size: usize,
}

/// First term of eq. 13.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Classification {
    /// Images in a batch.
    pub batch: usize,
    /// Side of the crops, in pixels.
    pub size: usize,
    /// Noise levels in 8-bit units, `[min, max]`.
    pub sigma: NoiseLevel,
    /// How images are varied.
    #[serde(default)]
    pub augment: Augment,
    /// Probability that a batch goes through MixUp or CutMix, either of which is chosen at random.
    #[serde(default)]
    pub mix: f64,
}

/// log p(y) by maximum likelihood with Langevin samples (Grathwohl et al. 2019), which JEM has in place of the
/// second term of eq. 13. The defaults are the published constants, for images in [−1, 1].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jem {
    /// Factor of this term in the loss.
    #[serde(default = "unit")]
    pub weight: f64,
    /// Images in a batch, and samples of the model.
    pub batch: usize,
    /// Side of the crops, in pixels.
    pub size: usize,
    /// Levels of the noise on the images in 8-bit units, `[min, max]`; published: 0.03 of [−1, 1], which is
    /// `[3.825, 3.825]`.
    pub sigma: NoiseLevel,
    /// How images are varied.
    #[serde(default)]
    pub augment: Augment,
    /// Samples that are kept from step to step.
    #[serde(default = "buffer")]
    pub buffer: usize,
    /// Langevin steps of a sample each time it is used.
    #[serde(default = "langevin_steps")]
    pub steps: usize,
    /// Factor of the gradient in a Langevin step.
    #[serde(default = "step_size")]
    pub step_size: f64,
    /// Deviation of the noise in a Langevin step.
    #[serde(default = "langevin_noise")]
    pub noise: f64,
    /// Probability that a sample starts again from uniform noise when it is used.
    #[serde(default = "reinit")]
    pub reinit: f64,
}

fn unit() -> f64 {
    1.0
}

fn buffer() -> usize {
    10_000
}

fn langevin_steps() -> usize {
    20
}

fn step_size() -> f64 {
    1.0
}

fn langevin_noise() -> f64 {
    0.01
}

fn reinit() -> f64 {
    0.05
}

fn held_out() -> f64 {
    0.05
}

fn validate_every() -> u64 {
    500
}

impl Config {
    /// Reads and validates a config.
    ///
    /// # Errors
    /// Names the file, the line, and what may stand there.
    pub fn read(path: &Path) -> Result<Config> {
        Ok(Config::read_with_text(path)?.0)
    }

    /// As [`Config::read`], with the text that was read.
    ///
    /// # Errors
    /// Those of [`Config::read`].
    pub fn read_with_text(path: &Path) -> Result<(Config, String)> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("{}: cannot be read", path.display()))?;
        let config = Config::parse(&text).map_err(|invalid| anyhow!("{}:{invalid}", path.display()))?;
        Ok((config, text))
    }

    /// Parses and validates the text of a config.
    ///
    /// # Errors
    /// Names the line, and what may stand there.
    pub fn parse(text: &str) -> Result<Config, Invalid> {
        let config: Config = toml::from_str(text).map_err(|error| Invalid::unreadable(text, &error))?;
        config.validate().map_err(|refusal| Invalid::refused(text, refusal))?;
        Ok(config)
    }

    fn validate(&self) -> Result<(), Refusal> {
        require(self.steps > 0, "steps", "must be above 0")?;
        require((0.0..=0.5).contains(&self.held_out), "held_out", "must be 0 to 0.5")?;
        require(self.validate_every > 0, "validate_every", "must be above 0")?;
        require(
            self.denoising.is_some() || self.classification.is_some() || self.jem.is_some(),
            "",
            "nothing to train: expected [denoising], [classification] or [jem]",
        )?;
        let family = self.architecture.family();
        let (energy, direct) = (self.architecture.has_energy(), self.architecture.is_direct());
        let target = self.denoising.as_ref().map(|d| d.target);
        for (holds, field, reason) in [
            (target.is_none() || energy || direct, "denoising", "without an energy does not denoise"),
            (
                matches!(target, None | Some(Target::Unconditional)) || !direct,
                "denoising.target",
                "has no classes: must be \"unconditional\"",
            ),
            (self.classification.is_none() || !direct, "classification", "has no classes"),
            (self.jem.is_none() || energy, "jem", "has no density"),
        ] {
            require(holds, field, format!("a `{family}` {reason}"))?;
        }
        // The spec's rules for name and architecture, with stand-ins for what is checked below.
        let stand_in = Spec {
            image_size: None,
            sigma: SigmaRange { min: 0.0, max: 0.0 },
            ..self.spec(["a", "b"].map(String::from).to_vec())
        };
        stand_in.validate()?;
        require(!self.data.chars().any(char::is_control), "data", "must be one line of text")?;

        let denoising = self.denoising.as_ref().map(|d| ("denoising", d.batch, d.size, d.sigma, d.augment));
        let classification =
            self.classification.as_ref().map(|c| ("classification", c.batch, c.size, c.sigma, c.augment));
        let jem = self.jem.as_ref().map(|j| ("jem", j.batch, j.size, j.sigma, j.augment));
        for (name, batch, size, sigma, augment) in denoising.into_iter().chain(classification).chain(jem) {
            self.validate_shape(name, batch, size)?;
            require(
                0.0 <= sigma.min && sigma.min <= sigma.max && sigma.max <= 1e4,
                format!("{name}.sigma"),
                "must be [min, max] with 0 ≤ min ≤ max ≤ 10000",
            )?;
            require(
                augment.padding <= 1 << 10 && (augment.padding == 0 || !augment.resized_crop),
                format!("{name}.augment.padding"),
                "must be 0 to 1024, and 0 with resized_crop, which crops otherwise",
            )?;
        }
        let factors = [
            ("denoising.weight", self.denoising.as_ref().map(|d| d.weight)),
            ("jem.weight", self.jem.as_ref().map(|j| j.weight)),
        ];
        for (field, factor) in factors {
            let valid = factor.is_none_or(|w| w > 0.0 && w <= 1e4);
            require(valid, field, "must be above 0 and at most 10000")?;
        }
        if let Some(d) = &self.denoising {
            require(
                d.sigma.max > 0.0,
                "denoising.sigma",
                "there is no noise to remove: max must be above 0",
            )?;
            require(
                d.sigma.min > 0.0 || !direct,
                "denoising.sigma",
                format!("the loss of a `{family}` is relative to σ: min must be above 0"),
            )?;
            require((0.0..=4.0).contains(&d.weight_power), "denoising.weight_power", "must be 0 to 4")?;
            let mut after = 0;
            for (i, change) in d.schedule.iter().enumerate() {
                let name = format!("denoising.schedule.{i}");
                // One that `steps` ends before is not reached: a config is tried out with few of them.
                require(
                    change.from_step > after,
                    format!("{name}.from_step"),
                    format!("must be above {after}"),
                )?;
                after = change.from_step;
                self.validate_shape(&name, change.batch, change.size)?;
            }
        }
        let mix = self.classification.as_ref().map_or(0.0, |c| c.mix);
        require((0.0..=1.0).contains(&mix), "classification.mix", "must be 0 to 1")?;
        if let Some(j) = &self.jem {
            require(
                self.classification.is_some(),
                "jem",
                "needs [classification] beside it, its log p(c|y)",
            )?;
            let most = MAX_BUFFER / (3 * j.size * j.size);
            require(
                (1..=most).contains(&j.buffer),
                "jem.buffer",
                format!("must be 1 to {most} at this size, which is 1 GiB"),
            )?;
            require((1..=10_000).contains(&j.steps), "jem.steps", "must be 1 to 10000")?;
            let positive = |x: f64| x > 0.0 && x <= 1e3;
            require(positive(j.step_size), "jem.step_size", "must be above 0 and at most 1000")?;
            require((0.0..=1.0).contains(&j.noise), "jem.noise", "must be 0 to 1")?;
            require((0.0..=1.0).contains(&j.reinit), "jem.reinit", "must be 0 to 1")?;
        }
        require(
            self.optimizer.cooldown.is_none_or(|c| (1..=self.steps).contains(&c)),
            "optimizer.cooldown",
            format!("must be 1 to steps, which is {}", self.steps),
        )?;
        self.optimizer.validate()
    }

    fn validate_shape(&self, name: &str, batch: usize, size: usize) -> Result<(), Refusal> {
        let (stride, most) = (self.architecture.stride(), if name == "classification" { 1024 } else { 8192 });
        require((1..=1 << 16).contains(&batch), format!("{name}.batch"), "must be 1 to 65536")?;
        require(
            (1..=most).contains(&size) && size.is_multiple_of(stride),
            format!("{name}.size"),
            format!("must be a multiple of the network's stride, {stride}, up to {most}"),
        )?;
        require(
            batch * 3 * size * size <= MAX_BATCH_VALUES,
            format!("{name}.size"),
            format!("batch · 3 · size² must be at most {MAX_BATCH_VALUES}, which is 1 GiB"),
        )
    }

    /// The part of this config that needs images with classes, if any.
    pub fn needs_classes(&self) -> Option<&'static str> {
        let target = self.denoising.as_ref().map(|d| d.target);
        match (&self.classification, target, &self.architecture) {
            (Some(_), ..) => Some("[classification]"),
            (_, Some(Target::Conditional | Target::Both), _) => Some("denoising.target"),
            (.., Architecture::ResNet(_)) => Some("[architecture.resnet]"),
            _ => None,
        }
    }

    /// The spec of the model that this run trains, on data with these classes.
    pub fn spec(&self, classes: Vec<String>) -> Spec {
        // Of the term that makes it a denoiser, if there is one.
        let range = match (&self.denoising, &self.jem, &self.classification) {
            (Some(d), ..) => d.sigma,
            (_, Some(j), _) => j.sigma,
            (.., Some(c)) => c.sigma,
            (None, None, None) => NoiseLevel { min: 0.0, max: 0.0 },
        };
        Spec {
            format: FORMAT,
            name: self.name.clone(),
            architecture: self.architecture.clone(),
            task: match (self.denoising.is_some() || self.jem.is_some(), &self.classification) {
                (true, Some(_)) => Task::Joint,
                (false, Some(_)) => Task::Classification,
                _ => Task::Denoising,
            },
            classes: if self.needs_classes().is_some() { classes } else { Vec::new() },
            image_size: self.classification.as_ref().map(|c| c.size),
            precision: gradresnet_models::Precision::Float32,
            sigma: SigmaRange { min: range.min / 255.0, max: range.max / 255.0 },
            provenance: None,
            metrics: Vec::new(),
            files: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
name = "tiny"
data = "stripes"
steps = 4
seed = 1
precision = "bfloat16"
held_out = 0.25
validate_every = 2
[architecture.gradresnet]
stem = "cifar"
width = 8
blocks = [1, 1]
block = "residual"
norm = "group"
group_size = 8
side_connections = "stem"
activation = "gelu"
biases = false
centre = 0.5
scale = 4.0
[denoising]
batch = 2
size = 8
sigma = [1, 70]
weight = 2.0
weight_power = 1.0
target = "both"
augment = { flip = true, turn = true, padding = 0 }
schedule = [
  { from_step = 1, batch = 2, size = 4 },
  { from_step = 2, batch = 1, size = 8 },
]
[classification]
batch = 2
size = 8
sigma = [0, 20]
augment = { resized_crop = true }
mix = 0.5
[jem]
batch = 2
size = 8
sigma = [3.825, 3.825]
weight = 0.1
buffer = 100
steps = 20
step_size = 1.0
noise = 0.01
reinit = 0.05
[optimizer]
clip = 1.0
average = 0.9
warmup = 1
cooldown = 2
[optimizer.muon]
learning_rate = 0.02
momentum = 0.95
weight_decay = 0.0
[optimizer.adamw]
learning_rate = 4e-3
betas = [0.9, 0.999]
epsilon = 1e-8
weight_decay = 0.0
"#;

    /// A line of [`GOOD`], what it is changed to, and what the refusal must say beside its number.
    const WRONG: &[(&str, &str, &str)] = &[
        ("steps = 4", "steps = 0", "steps: must be above 0"),
        ("steps = 4", "steps = -4", "expected a whole number, 0 or above"),
        ("steps = 4", "steps = 4.5", "expected a whole number, 0 or above"),
        ("seed = 1", "sead = 1", "unknown field `sead`, expected one of `name`, `data`, `steps`, `seed`"),
        ("precision = \"bfloat16\"", "precision = \"half\"", "expected `float32` or `bfloat16`"),
        ("held_out = 0.25", "held_out = 0.75", "must be 0 to 0.5"),
        ("held_out = 0.25", "held_out = \"some\"", "expected a number"),
        ("validate_every = 2", "validate_every = 0", "must be above 0"),
        ("cooldown = 2", "cooldown = 0", "optimizer.cooldown: must be 1 to steps, which is 4"),
        ("cooldown = 2", "cooldown = 5", "optimizer.cooldown: must be 1 to steps, which is 4"),
        ("name = \"tiny\"", "name = \"a b\"", "letters, digits"),
        (
            "[architecture.gradresnet]",
            "[architecture.gradresnte]",
            "unknown variant `gradresnte`, expected one of `gradresnet`, `resnet`, `dncnn`, `drunet`",
        ),
        ("stem = \"cifar\"", "stem = \"cifer\"", "unknown variant `cifer`, expected `cifar` or `imagenet`"),
        ("width = 8", "width = 0", "must be 1 to 1024"),
        ("width = 8", "widht = 8", "unknown field `widht`, expected one of `stem`, `width`"),
        ("blocks = [1, 1]", "blocks = []", "must list 1 to 6 stages"),
        ("blocks = [1, 1]", "blocks = [1, 65]", "must have 1 to 64 blocks"),
        ("block = \"residual\"", "block = \"plain\"", "expected one of `residual`, `postact`, `end`"),
        ("norm = \"group\"", "norm = \"layer\"", "expected one of `group`, `homogeneous`, `batch`, `none`"),
        ("group_size = 8", "group_size = 3", "must divide the width"),
        ("side_connections = \"stem\"", "side_connections = true", "expected a name in quotes"),
        ("activation = \"gelu\"", "activation = \"elu\"", "expected one of `gelu`, `relu`, `silu`"),
        ("biases = false", "biases = 0", "expected a boolean"),
        ("centre = 0.5", "centre = nan", "at most 1000"),
        ("scale = 4.0", "scale = 0.0", "above 0 and at most 1000"),
        ("batch = 2", "batch = 0", "denoising.batch: must be 1 to 65536"),
        ("size = 8", "size = 8192", "denoising.size: batch · 3 · size² must be at most 268435456"),
        ("size = 8", "size = 7", "a multiple of the network's stride, 2, up to 8192"),
        ("data = \"stripes\"", "data = \"a\\tb\"", "must be one line of text"),
        ("sigma = [1, 70]", "sigma = [70, 1]", "0 ≤ min ≤ max ≤ 10000"),
        ("sigma = [1, 70]", "sigma = [0, 0]", "max must be above 0"),
        ("sigma = [1, 70]", "sigma = [1, 70, 100]", "must be [min, max]"),
        ("weight = 2.0", "weight = 0.0", "denoising.weight: must be above 0 and at most 10000"),
        ("weight_power = 1.0", "weight_power = 9.0", "must be 0 to 4"),
        (
            "augment = { flip = true, turn = true, padding = 0 }",
            "augment = { flop = true }",
            "expected one of",
        ),
        ("target = \"both\"", "target = \"all\"", "expected one of `unconditional`, `conditional`, `both`"),
        (
            "augment = { resized_crop = true }",
            "augment = { resized_crop = true, padding = 4 }",
            "0 with resized_crop",
        ),
        ("mix = 0.5", "mix = true", "expected a number"),
        ("mix = 0.5", "mix = 1.5", "must be 0 to 1"),
        (
            "  { from_step = 2, batch = 1, size = 8 },",
            "  { from_step = 1, batch = 1, size = 8 },",
            "must be above 1",
        ),
        (
            "  { from_step = 2, batch = 1, size = 8 },",
            "  { from_step = 2, batch = 0, size = 8 },",
            "1 to 65536",
        ),
        (
            "  { from_step = 1, batch = 2, size = 4 },",
            "  { from_epoch = 1 },",
            "expected one of `from_step`, `batch`, `size`",
        ),
        ("sigma = [0, 20]", "sigma = [0, inf]", "0 ≤ min ≤ max ≤ 10000"),
        ("weight = 0.1", "weight = inf", "jem.weight: must be above 0 and at most 10000"),
        ("buffer = 100", "buffer = 2000000", "must be 1 to 1398101 at this size"),
        ("steps = 20", "steps = 0", "must be 1 to 10000"),
        ("step_size = 1.0", "step_size = -1.0", "above 0 and at most 1000"),
        ("noise = 0.01", "noise = 2.0", "must be 0 to 1"),
        ("reinit = 0.05", "reinit = 1.05", "must be 0 to 1"),
        ("reinit = 0.05", "rate = 0.05", "expected one of `weight`, `batch`, `size`, `sigma`, `augment`"),
        ("clip = 1.0", "clip = 0.0", "must be above 0"),
        ("average = 0.9", "average = 1.0", "at least 0 and below 1"),
        ("[optimizer.muon]", "[optimizer.moun]", "unknown field `moun`, expected one of `muon`, `adamw`"),
        ("learning_rate = 0.02", "learning_rate = 0.0", "optimizer.muon.learning_rate: must be above 0"),
        ("momentum = 0.95", "momentum = 1.0", "at least 0 and below 1"),
        ("learning_rate = 4e-3", "learning_rate = nan", "optimizer.adamw.learning_rate: must be above 0"),
        ("betas = [0.9, 0.999]", "betas = [0.9]", "must be two numbers"),
        ("betas = [0.9, 0.999]", "betas = [0.9, 1.0]", "at least 0 and below 1"),
        ("epsilon = 1e-8", "epsilon = 0.0", "must be above 0"),
        ("epsilon = 1e-8", "epsilon = small", "string values must be quoted"),
    ];

    #[test]
    fn what_is_wrong_is_refused_with_its_line_and_what_may_stand_there() {
        Config::parse(GOOD).unwrap();
        // A shape that a short run does not reach is not wrong.
        Config::parse(&GOOD.replace("from_step = 2,", "from_step = 4,")).unwrap();
        let mut missed = Vec::new();
        for (from, to, expected) in WRONG {
            let line = 1 + GOOD.lines().position(|line| line == *from).expect(from);
            let text = GOOD.replacen(&format!("\n{from}\n"), &format!("\n{to}\n"), 1);
            match Config::parse(&text) {
                Err(e) if e.line == line && e.reason.contains(expected) && !e.reason.contains('\n') => {}
                found => missed.push(format!("{to}, line {line}: {found:?}")),
            }
        }
        assert!(missed.is_empty(), "{}", missed.join("\n"));
    }

    /// The noise levels of a model are those that it denoises.
    #[test]
    fn the_levels_of_a_spec_are_those_of_the_term_that_denoises() {
        let config = Config::parse(GOOD).unwrap();
        let max = |config: &Config| (255.0 * config.spec(vec!["a".into(), "b".into()]).sigma.max).round();
        assert_eq!(max(&config), 70.0);
        assert_eq!(max(&Config { denoising: None, ..config.clone() }), 4.0);
        assert_eq!(max(&Config { denoising: None, jem: None, ..config }), 20.0);
    }

    #[test]
    fn what_is_missing_is_refused_with_the_line_of_its_table() {
        for (gone, table, expected) in [
            ("batch = 2\n", "[denoising]", "missing field `batch`"),
            ("stem = \"cifar\"\n", "[architecture.gradresnet]", "missing field `stem`"),
            ("learning_rate = 4e-3\n", "[optimizer.adamw]", "missing field `learning_rate`"),
            ("steps = 4\n", "", "missing field `steps`"),
        ] {
            let text = GOOD.replacen(gone, "", 1);
            let line = 1 + text.lines().position(|line| line == table).unwrap();
            let error = Config::parse(&text).unwrap_err();
            assert!(error.line == line && error.reason.contains(expected), "{gone}: {error}");
        }
        // Objectives that the family cannot have.
        let dncnn = "[architecture.dncnn]\ndepth = 17\nwidth = 8\nnorm = \"batch\"\nbiases = true\n";
        let (from, to) = (GOOD.find("[architecture").unwrap(), GOOD.find("[denoising]").unwrap());
        let text = format!("{}{dncnn}{}", &GOOD[..from], &GOOD[to..]);
        let error = Config::parse(&text).unwrap_err();
        let line = 1 + text.lines().position(|line| line == "target = \"both\"").unwrap();
        assert!(error.line == line && error.reason.contains("must be \"unconditional\""), "{error}");
        let text =
            text.replace("target = \"both\"", "target = \"unconditional\"").replace("[1, 70]", "[0, 70]");
        let (classification, optimizer) =
            (text.find("[classification]").unwrap(), text.find("[optimizer]").unwrap());
        let error = Config::parse(&format!("{}{}", &text[..classification], &text[optimizer..])).unwrap_err();
        assert!(error.reason.contains("min must be above 0"), "{error}");
        let (top, optimizer) = (GOOD.find("[denoising]").unwrap(), GOOD.find("[optimizer]").unwrap());
        let error = Config::parse(&format!("{}{}", &GOOD[..top], &GOOD[optimizer..])).unwrap_err();
        assert!(
            error.line == 1 && error.reason.contains("expected [denoising], [classification] or [jem]"),
            "{error}"
        );
    }
}

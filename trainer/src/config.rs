//! The TOML file that describes a training run; `trainer/configs/` holds those that we use.

use crate::data::augment::Augment;
use crate::noise::NoiseLevel;
use crate::optim::OptimizerConfig;
use anyhow::{Context, Result, ensure};
use gradresnet_models::spec::FORMAT;
use gradresnet_models::{Architecture, SigmaRange, Spec, Task};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

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
    /// Fraction of the training images that is held out to choose by.
    #[serde(default = "held_out")]
    pub held_out: f64,
    /// Steps between two looks at the held-out images.
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
    /// How the parameters move.
    pub optimizer: OptimizerConfig,
}

/// Second term of eq. 13.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Denoising {
    /// Images in a batch.
    pub batch: usize,
    /// Side of the crops, in pixels.
    pub size: usize,
    /// Noise levels in 8-bit units, `[min, max]`.
    pub sigma: NoiseLevel,
    /// The loss of an image is weighted by σ^p/E[σ^p] with this p. 0 is eq. 13; 2 is the squared error
    /// of the denoised image.
    #[serde(default)]
    pub weight_power: f64,
    /// How images are varied.
    #[serde(default)]
    pub augment: Augment,
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
    /// Names the file and the field.
    pub fn read(path: &Path) -> Result<Config> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("{}: cannot be read", path.display()))?;
        Config::parse(&text).with_context(|| format!("{}: not a valid config", path.display()))
    }

    /// Parses and validates the text of a config.
    pub fn parse(text: &str) -> Result<Config> {
        let config: Config = toml::from_str(text)?;
        config.validate()?;
        Ok(config)
    }

    fn validate(&self) -> Result<()> {
        ensure!(self.steps > 0, "steps: must be above 0");
        ensure!((0.0..=0.5).contains(&self.held_out), "held_out: must be 0 to 0.5");
        ensure!(self.validate_every > 0, "validate_every: must be above 0");
        ensure!(
            self.denoising.is_some() || self.classification.is_some(),
            "neither [denoising] nor [classification] is there: nothing to train"
        );
        let denoising = self.denoising.as_ref().map(|d| ("denoising", d.batch, d.size, d.sigma));
        let classification =
            self.classification.as_ref().map(|c| ("classification", c.batch, c.size, c.sigma));
        let stride = self.architecture.stride();
        for (name, batch, size, sigma) in denoising.into_iter().chain(classification) {
            ensure!((1..=1 << 16).contains(&batch), "{name}.batch: must be 1 to 65536");
            ensure!(
                (1..=1 << 13).contains(&size) && size % stride == 0,
                "{name}.size: must be a multiple of the network's stride, {stride}, up to 8192"
            );
            ensure!(
                0.0 <= sigma.min && sigma.min <= sigma.max && sigma.max <= 1e4,
                "{name}.sigma: must satisfy 0 ≤ min ≤ max ≤ 10000"
            );
        }
        if let Some(d) = &self.denoising {
            ensure!(d.sigma.max > 0.0, "denoising.sigma: there is no noise to remove");
            ensure!((0.0..=4.0).contains(&d.weight_power), "denoising.weight_power: must be 0 to 4");
        }
        self.optimizer.validate()?;
        // The rest of the spec's rules, with classes that stand for those of the data.
        let classes = self.classification.iter().flat_map(|_| ["a".to_string(), "b".to_string()]).collect();
        self.spec(classes).validate()?;
        Ok(())
    }

    /// The spec of the model that this run trains, on data with these classes.
    pub fn spec(&self, classes: Vec<String>) -> Spec {
        let range = match (&self.denoising, &self.classification) {
            (Some(d), _) => d.sigma,
            (None, Some(c)) => c.sigma,
            (None, None) => NoiseLevel { min: 0.0, max: 0.0 },
        };
        Spec {
            format: FORMAT,
            name: self.name.clone(),
            architecture: self.architecture.clone(),
            task: match (&self.denoising, &self.classification) {
                (Some(_), Some(_)) => Task::Joint,
                (None, Some(_)) => Task::Classification,
                _ => Task::Denoising,
            },
            classes: if self.classification.is_some() { classes } else { Vec::new() },
            image_size: self.classification.as_ref().map(|c| c.size),
            sigma: SigmaRange { min: range.min / 255.0, max: range.max / 255.0 },
            provenance: None,
            metrics: Vec::new(),
            files: BTreeMap::new(),
        }
    }
}

//! AdamW: Adam with decoupled weight decay (Loshchilov & Hutter 2019).

use crate::refusal::{Refusal, require};
use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// The rule's constants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdamW {
    /// Step size.
    pub learning_rate: f64,
    /// Decay of the running mean and of the running square of the gradient.
    #[serde(default = "betas", deserialize_with = "pair")]
    pub betas: [f64; 2],
    /// Added to the root of the running square.
    #[serde(default = "epsilon")]
    pub epsilon: f64,
    /// Decay of the weights, per unit of learning rate.
    #[serde(default)]
    pub weight_decay: f64,
}

fn betas() -> [f64; 2] {
    [0.9, 0.999]
}

/// Two numbers; of a longer list, TOML would take the first two.
fn pair<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[f64; 2], D::Error> {
    let list = Vec::deserialize(deserializer)?;
    list.try_into().map_err(|_| D::Error::custom("must be two numbers"))
}

fn epsilon() -> f64 {
    1e-8
}

impl AdamW {
    pub(super) fn validate(&self) -> Result<(), Refusal> {
        require(
            self.learning_rate > 0.0 && self.learning_rate <= 10.0,
            "optimizer.adamw.learning_rate",
            "must be above 0 and at most 10",
        )?;
        require(
            self.betas.iter().all(|b| (0.0..1.0).contains(b)),
            "optimizer.adamw.betas",
            "must be two numbers of at least 0 and below 1",
        )?;
        require(
            self.epsilon > 0.0 && self.epsilon <= 1.0,
            "optimizer.adamw.epsilon",
            "must be above 0 and at most 1",
        )?;
        require((0.0..=1.0).contains(&self.weight_decay), "optimizer.adamw.weight_decay", "must be 0 to 1")
    }

    pub(super) fn step(
        &self,
        parameter: &mut Tensor,
        gradient: &Tensor,
        state: &mut [Tensor],
        rate: f64,
        step: u64,
        decays: bool,
    ) {
        let [beta1, beta2] = self.betas;
        let [mean, square] = state else { return };
        let _ = mean.lerp_(gradient, 1.0 - beta1);
        let _ = square.lerp_(&gradient.square(), 1.0 - beta2);
        let correction = |beta: f64| 1.0 - beta.powi(i32::try_from(step + 1).unwrap_or(i32::MAX));
        let deviation = (&*square / correction(beta2)).sqrt() + self.epsilon;
        let rate = rate * self.learning_rate;
        if decays && self.weight_decay > 0.0 {
            *parameter *= 1.0 - rate * self.weight_decay;
        }
        *parameter -= &*mean / deviation * (rate / correction(beta1));
    }
}

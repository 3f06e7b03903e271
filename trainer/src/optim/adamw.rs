//! AdamW: Adam with decoupled weight decay (Loshchilov & Hutter 2019).

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// The rule's constants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdamW {
    /// Step size.
    pub learning_rate: f64,
    /// Decay of the running mean and of the running square of the gradient.
    #[serde(default = "betas")]
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

fn epsilon() -> f64 {
    1e-8
}

impl AdamW {
    pub(super) fn validate(&self) -> Result<()> {
        ensure!(self.learning_rate > 0.0, "optimizer.adamw.learning_rate: must be above 0");
        ensure!(
            self.betas.iter().all(|b| (0.0..1.0).contains(b)),
            "optimizer.adamw.betas: must be at least 0 and below 1"
        );
        ensure!(self.epsilon > 0.0, "optimizer.adamw.epsilon: must be above 0");
        ensure!(self.weight_decay >= 0.0, "optimizer.adamw.weight_decay: must not be negative");
        Ok(())
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

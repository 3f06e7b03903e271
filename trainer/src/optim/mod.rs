//! Optimisation: AdamW and Muon, the learning-rate schedule, gradient clipping, weight averaging.
//!
//! Written out in tensor operations, because an exact resume needs the optimiser's state, which tch's
//! own optimisers do not expose.

mod adamw;
mod muon;
mod schedule;

pub use adamw::AdamW;
pub use muon::Muon;

use crate::convert::{saved, to_array};
use crate::refusal::{Refusal, require};
use anyhow::Result;
use gradresnet_models::{Parameter, ParameterKind, Tensors};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// Which rule moves which parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// Rule of the convolutions; absent: AdamW moves them too.
    #[serde(default)]
    pub muon: Option<Muon>,
    /// Rule of everything else.
    pub adamw: AdamW,
    /// Largest norm of the whole gradient; absent: unlimited.
    #[serde(default)]
    pub clip: Option<f64>,
    /// Steps over which the learning rate rises from 0.
    #[serde(default)]
    pub warmup: u64,
    /// Last steps, over which the learning rate falls to 0 by a half cosine; absent: all after the warm-up.
    #[serde(default)]
    pub cooldown: Option<u64>,
    /// Decay of the exponential moving average of the weights; absent: none is kept.
    #[serde(default)]
    pub average: Option<f64>,
}

impl OptimizerConfig {
    /// Factor of the learning rates at `step` (from 0) of `steps`, in a run whose optimiser was new at `first_step`.
    pub fn rate(&self, step: u64, first_step: u64, steps: u64) -> f64 {
        let fall = self.cooldown.map_or(self.warmup, |length| steps.saturating_sub(length));
        schedule::rise(step - first_step, self.warmup) * schedule::cosine(step, steps, fall)
    }

    pub(crate) fn validate(&self) -> Result<(), Refusal> {
        self.adamw.validate()?;
        if let Some(muon) = &self.muon {
            muon.validate()?;
        }
        require(self.clip.is_none_or(|c| c > 0.0), "optimizer.clip", "must be above 0")?;
        require(
            self.average.is_none_or(|a| (0.0..1.0).contains(&a)),
            "optimizer.average",
            "must be at least 0 and below 1",
        )
    }
}

/// The state of the optimiser: one slot for each trained parameter.
#[derive(Debug)]
pub struct Optimizer {
    config: OptimizerConfig,
    slots: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    name: String,
    rule: Rule,
    /// Whether weight decay applies: to matrices, not to gains, biases and the energy's vector.
    decays: bool,
    /// Tensors of the rule, shaped like the parameter; see [`Rule::state`].
    state: Vec<Tensor>,
}

#[derive(Debug)]
enum Rule {
    AdamW(AdamW),
    Muon(Muon),
}

impl Rule {
    /// Names of the tensors that the rule keeps.
    fn state(&self) -> &'static [&'static str] {
        match self {
            Rule::AdamW(_) => &["mean", "variance"],
            Rule::Muon(_) => &["momentum"],
        }
    }
}

impl Optimizer {
    /// A fresh optimiser for those `parameters` that are trained.
    pub fn new(config: OptimizerConfig, parameters: &[Parameter], device: Device) -> Optimizer {
        let slots = parameters
            .iter()
            .filter(|p| p.is_trained())
            .map(|p| {
                let rule = match (&config.muon, p.kind) {
                    (Some(muon), ParameterKind::Convolution) => Rule::Muon(muon.clone()),
                    _ => Rule::AdamW(config.adamw.clone()),
                };
                let shape: Vec<i64> = p.shape.iter().map(|&d| d as i64).collect();
                let zeros = |_| Tensor::zeros(&shape, (Kind::Float, device));
                let state = rule.state().iter().map(zeros).collect();
                let decays = matches!(
                    p.kind,
                    ParameterKind::Convolution
                        | ParameterKind::TransposedConvolution
                        | ParameterKind::Linear
                        | ParameterKind::Head
                );
                Slot { name: p.name.clone(), rule, decays, state }
            })
            .collect();
        Optimizer { config, slots }
    }

    /// Names of the parameters that it moves, in the order of [`Optimizer::step`]'s arguments.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.slots.iter().map(|slot| slot.name.as_str())
    }

    /// Moves `parameters` in place. `rate` multiplies every learning rate; `step` counts from 0.
    /// Returns the norm of the gradient before clipping; if that is not finite, nothing has moved. A parameter that the
    /// loss does not depend on has an undefined gradient and stays.
    pub fn step(&mut self, parameters: &[&Tensor], gradients: &[Tensor], rate: f64, step: u64) -> f64 {
        let _no_grad = tch::no_grad_guard();
        let squares: Vec<Tensor> =
            gradients.iter().filter(|g| g.defined()).map(|g| g.square().sum(Kind::Float)).collect();
        let norm = Tensor::stack(&squares, 0).sum(Kind::Float).sqrt().double_value(&[]);
        if !norm.is_finite() {
            return norm;
        }
        let shrink = self.config.clip.map_or(1.0, |clip| (clip / (norm + 1e-6)).min(1.0));
        for ((slot, parameter), gradient) in self.slots.iter_mut().zip(parameters).zip(gradients) {
            if !gradient.defined() {
                continue;
            }
            let gradient = gradient * shrink;
            let mut parameter = parameter.shallow_clone();
            match &slot.rule {
                Rule::AdamW(adamw) => {
                    adamw.step(&mut parameter, &gradient, &mut slot.state, rate, step, slot.decays);
                }
                Rule::Muon(muon) => muon.step(&mut parameter, &gradient, &mut slot.state[0], rate),
            }
        }
        norm
    }

    /// The state, by `RULE_TENSOR.PARAMETER`.
    pub fn to_tensors(&self) -> Tensors {
        let mut tensors = Tensors::new();
        for slot in &self.slots {
            for (name, tensor) in slot.rule.state().iter().zip(&slot.state) {
                tensors.insert(format!("{name}.{}", slot.name), to_array(tensor));
            }
        }
        tensors
    }

    /// Takes the state of [`Optimizer::to_tensors`].
    ///
    /// # Errors
    /// Those of [`saved`].
    pub fn load(&mut self, tensors: &Tensors) -> Result<()> {
        for slot in &mut self.slots {
            for (name, tensor) in slot.rule.state().iter().zip(&mut slot.state) {
                *tensor = saved(tensors, &format!("{name}.{}", slot.name), tensor)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(muon: bool) -> OptimizerConfig {
        OptimizerConfig {
            muon: muon.then_some(Muon { learning_rate: 0.05, momentum: 0.9, weight_decay: 0.0 }),
            adamw: AdamW { learning_rate: 0.05, betas: [0.9, 0.99], epsilon: 1e-8, weight_decay: 0.0 },
            clip: Some(1.0),
            warmup: 0,
            cooldown: None,
            average: None,
        }
    }

    fn parameter() -> Parameter {
        Parameter { name: "c".into(), shape: vec![4, 3, 1, 1], kind: ParameterKind::Convolution }
    }

    /// ‖x − target‖² after `steps` steps from zero.
    fn distance_after(muon: bool, steps: u64) -> f64 {
        let target = Tensor::linspace(-1.0, 1.0, 12, (Kind::Float, Device::Cpu)).view([4, 3, 1, 1]);
        let mut x = target.zeros_like();
        let mut optimizer = Optimizer::new(config(muon), &[parameter()], Device::Cpu);
        for step in 0..steps {
            let gradient = 2.0 * (&x - &target);
            optimizer.step(&[&x], &[gradient], 1.0, step);
        }
        let _ = x.requires_grad_(false);
        (x - target).square().sum(Kind::Double).double_value(&[])
    }

    #[test]
    fn the_rate_falls_over_the_cooldown_alone() {
        let cooled = OptimizerConfig { warmup: 10, cooldown: Some(20), ..config(false) };
        assert!((cooled.rate(0, 0, 100) - 1.0 / 11.0).abs() < 1e-12);
        for (step, rate) in [(10, 1.0), (80, 1.0), (90, 0.5), (100, 0.0)] {
            assert!((cooled.rate(step, 0, 100) - rate).abs() < 1e-12, "step {step}");
        }
        // A new optimiser in the middle of the run warms up; a longer run stays at 1 for longer.
        assert!((cooled.rate(50, 50, 100) - 1.0 / 11.0).abs() < 1e-12);
        assert_eq!(cooled.rate(100, 0, 200), 1.0);
        let whole = OptimizerConfig { cooldown: None, ..cooled };
        assert!((whole.rate(55, 0, 100) - 0.5).abs() < 1e-12);
    }

    #[test]
    fn both_rules_descend_a_quadratic() {
        for muon in [false, true] {
            let (start, end) = (distance_after(muon, 0), distance_after(muon, 60));
            assert!(end < 0.05 * start, "muon {muon}: {start} to {end}");
        }
    }

    /// The parameter of one step from ones, and the optimiser.
    fn one_step(config: OptimizerConfig, kind: ParameterKind, gradient: f64) -> (Tensor, Optimizer) {
        let parameter = Parameter { kind, ..parameter() };
        let x = Tensor::ones([4, 3, 1, 1], (Kind::Float, Device::Cpu));
        let gradient = Tensor::full([4, 3, 1, 1], gradient, (Kind::Float, Device::Cpu));
        let mut optimizer = Optimizer::new(config, &[parameter], Device::Cpu);
        optimizer.step(&[&x], &[gradient], 1.0, 0);
        (x, optimizer)
    }

    #[test]
    fn a_gradient_that_is_not_finite_moves_nothing() {
        for gradient in [f64::NAN, f64::INFINITY] {
            let (x, optimizer) = one_step(config(false), ParameterKind::Convolution, gradient);
            assert_eq!(x, x.ones_like());
            assert!(optimizer.slots[0].state.iter().all(|state| *state == state.zeros_like()));
        }
    }

    #[test]
    fn a_long_gradient_is_clipped_to_its_norm() {
        for (gradient, norm) in [(10.0, 1.0), (0.1, 0.1 * 12f64.sqrt())] {
            let (_, optimizer) = one_step(config(false), ParameterKind::Convolution, gradient);
            // The running mean of one gradient is a tenth of it.
            let mean = optimizer.slots[0].state[0].norm().double_value(&[]);
            assert!((10.0 * mean - norm).abs() < 1e-4, "{gradient}: {mean}");
        }
    }

    #[test]
    fn the_first_step_of_adamw_is_as_long_as_its_rate() {
        let adamw = AdamW { betas: [0.9, 0.999], ..config(false).adamw };
        let (x, _) = one_step(OptimizerConfig { adamw, ..config(false) }, ParameterKind::Convolution, 0.01);
        let moved = (-x + 1.0).max().double_value(&[]);
        assert!((moved - 0.05).abs() < 1e-5, "{moved}");
    }

    #[test]
    fn weights_decay_by_the_rate_and_gains_do_not() {
        let decaying = |muon| {
            let mut config = config(muon);
            config.adamw.weight_decay = 0.2;
            config.muon = config.muon.map(|muon| Muon { weight_decay: 0.2, ..muon });
            config
        };
        for muon in [false, true] {
            let (x, _) = one_step(decaying(muon), ParameterKind::Convolution, 0.0);
            let left = x.max().double_value(&[]);
            assert!((left - (1.0 - 0.05 * 0.2)).abs() < 1e-6, "muon {muon}: {left}");
            let (x, _) = one_step(decaying(muon), ParameterKind::Gain, 0.0);
            assert_eq!(x.min().double_value(&[]), 1.0);
        }
    }

    #[test]
    fn a_loaded_optimiser_goes_on_as_the_saved_one() {
        for muon in [false, true] {
            let gradients: Vec<Tensor> = (1..=4)
                .map(|i| {
                    Tensor::full([4, 3, 1, 1], 0.1 * f64::from(i), (Kind::Float, Device::Cpu))
                        .cumsum(0, Kind::Float)
                })
                .collect();
            let run = |split: Option<usize>| {
                let x = Tensor::zeros([4, 3, 1, 1], (Kind::Float, Device::Cpu));
                let mut optimizer = Optimizer::new(config(muon), &[parameter()], Device::Cpu);
                for (step, gradient) in gradients.iter().enumerate() {
                    if split == Some(step) {
                        let saved = optimizer.to_tensors();
                        optimizer = Optimizer::new(config(muon), &[parameter()], Device::Cpu);
                        optimizer.load(&saved).unwrap();
                    }
                    optimizer.step(&[&x], &[gradient.shallow_clone()], 1.0, step as u64);
                }
                x
            };
            assert!(run(Some(2)).equal(&run(None)));
        }
    }
}

//! Maximum likelihood of log p(y) by sampling, as JEM trains it (Grathwohl et al. 2019): its gradient is that
//! of log p at the images, less that at samples of the model. The samples are Langevin chains that go on
//! from step to step.
//!
//! Images lie in [−1, 1] in here, as the published constants have it, and in [0, 1] everywhere else.

use crate::config::Jem;
use crate::convert::{saved, to_array};
use anyhow::Result;
use gradresnet_models::Tensors;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use tch::{Device, Kind, Tensor};

/// Name of the samples in the optimiser's file.
const SAMPLES: &str = "jem.samples";

/// The chains. What is drawn at a step is a function of the seed, the step and the chains before it.
#[derive(Debug)]
pub struct Replay {
    config: Jem,
    seed: u64,
    /// `[buffer,3,S,S]` in [−1, 1].
    samples: Tensor,
}

impl Replay {
    /// Chains that start from uniform noise.
    pub fn new(config: Jem, seed: u64, device: Device) -> Replay {
        let side = config.size as i64;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let samples = uniform(&[config.buffer as i64, 3, side, side], &mut rng).to_device(device);
        Replay { config, seed, samples }
    }

    /// Moves a batch of the chains by Langevin steps on `log_p`, which maps images in [0, 1] to `[N]`, and
    /// returns where they are then, as images in [0, 1].
    ///
    /// # Errors
    /// Those of `log_p`.
    pub fn sample(&mut self, step: u64, log_p: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        let Jem { batch, steps, step_size, noise, reinit, .. } = self.config;
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        // Stream 0 drew the first samples.
        rng.set_stream(step + 1);
        let chains: Vec<i64> = (0..batch).map(|_| rng.random_range(0..self.config.buffer) as i64).collect();
        let device = self.samples.device();
        let start = self.samples.index_select(0, &Tensor::from_slice(&chains).to_device(device));
        for i in 0..batch as i64 {
            if rng.random_bool(reinit) {
                let noise = uniform(&start.size()[1..], &mut rng);
                start.get(i).copy_(&noise.to_device(device));
            }
        }
        let images = |x: &Tensor| (x + 1.0) / 2.0;
        let end = langevin(start, steps, step_size, noise, &mut rng, |x| log_p(&images(x)))?;
        // A chain that was drawn twice keeps its second end, on every device.
        for (i, &chain) in chains.iter().enumerate() {
            self.samples.get(chain).copy_(&end.get(i as i64));
        }
        Ok(images(&end))
    }

    /// The chains, for a checkpoint.
    pub fn to_tensors(&self) -> Tensors {
        Tensors::from([(SAMPLES.to_string(), to_array(&self.samples))])
    }

    /// Takes the chains of [`Replay::to_tensors`].
    ///
    /// # Errors
    /// Those of [`saved`].
    pub fn load(&mut self, tensors: &Tensors) -> Result<()> {
        self.samples = saved(tensors, SAMPLES, &self.samples)?;
        Ok(())
    }
}

/// Stochastic gradient Langevin dynamics: x ← x + `step_size` ∇log p(x) + `noise` ε, `steps` times, ε standard
/// normal. `log_p` maps `[N,…]` to `[N]`.
///
/// # Errors
/// Those of `log_p`.
pub fn langevin(
    start: Tensor,
    steps: usize,
    step_size: f64,
    noise: f64,
    rng: &mut impl Rng,
    log_p: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let mut x = start;
    for _ in 0..steps {
        let at = x.detach().set_requires_grad(true);
        let total = log_p(&at)?.sum(None::<Kind>);
        let gradient = Tensor::run_backward(&[total], &[&at], false, false).remove(0);
        let values: Vec<f32> = StandardNormal.sample_iter(&mut *rng).take(x.numel()).collect();
        let normal = Tensor::from_slice(&values).view(x.size().as_slice()).to_device(x.device());
        x = x.detach() + gradient * step_size + normal * noise;
    }
    Ok(x)
}

/// Uniform in [−1, 1].
fn uniform(shape: &[i64], rng: &mut impl Rng) -> Tensor {
    let count = shape.iter().product::<i64>();
    let values: Vec<f32> = (0..count).map(|_| rng.random_range(-1.0..=1.0)).collect();
    Tensor::from_slice(&values).view(shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Jem {
        Jem {
            weight: 1.0,
            batch: 3,
            size: 2,
            sigma: [3.0, 3.0].into(),
            augment: Default::default(),
            buffer: 5,
            steps: 2,
            step_size: 0.5,
            noise: 0.1,
            reinit: 0.05,
        }
    }

    /// With log p = −k/2 (x − μ)² a step is an autoregression, x − μ ← (1 − αk)(x − μ) + s ε, whose stationary
    /// law is normal with mean μ and variance s²/(1 − (1 − αk)²).
    #[test]
    fn a_quadratic_energy_is_sampled_with_its_stationary_law() {
        let (mean, k, step_size, noise) = (0.3, 4.0, 0.1, 0.2f64);
        let chains = 40_000;
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let start = Tensor::zeros([chains, 1], (Kind::Float, Device::Cpu));
        let log_p = |x: &Tensor| Ok((x - mean).square().squeeze_dim(1) * (-0.5 * k));
        // 0.6 to the power of 40 is 1e-9: the start is forgotten.
        let x = langevin(start, 40, step_size, noise, &mut rng, log_p).unwrap().to_kind(Kind::Double);
        let variance = noise * noise / (1.0 - (1.0 - step_size * k).powi(2));
        let found = (&x - mean).square().mean(None::<Kind>).double_value(&[]);
        // Five standard errors: of a mean, √(v/n); of a normal variable's variance, v √(2/n).
        let error = 5.0 / (chains as f64).sqrt();
        let centre = x.mean(None::<Kind>).double_value(&[]);
        assert!((centre - mean).abs() < error * variance.sqrt(), "{centre} for {mean}");
        assert!((found / variance - 1.0).abs() < error * 2f64.sqrt(), "{found} for {variance}");
    }

    /// Each step of the chains is published for images in [−1, 1], while the density sees [0, 1].
    #[test]
    fn chains_move_in_their_own_unit() {
        let mut config = config();
        (config.steps, config.noise, config.reinit) = (1, 0.0, 0.0);
        let mut replay = Replay::new(config, 3, Device::Cpu);
        let before = replay.samples.copy();
        // The gradient is 2 in [0, 1] and 1 in [−1, 1].
        let linear =
            |image: &Tensor| Ok((image * 2.0).sum_dim_intlist([1i64, 2, 3].as_slice(), false, None::<Kind>));
        let images = replay.sample(0, linear).unwrap();
        let moved = (&replay.samples - before).reshape([5, -1]).abs().amax([1i64], false);
        let moved: Vec<f32> = moved.try_into().unwrap();
        assert!(moved.iter().all(|m| *m == 0.0 || (m - 0.5).abs() < 1e-6), "{moved:?}");
        let count = moved.iter().filter(|m| **m > 0.0).count();
        assert!((1..=3).contains(&count), "{moved:?}");
        // What is returned is in the buffer, in the images' unit.
        let first = images.get(0) * 2.0 - 1.0;
        assert!((0..5).any(|i| (replay.samples.get(i) - &first).abs().max().double_value(&[]) < 1e-6));
    }

    #[test]
    fn saved_chains_go_on_as_if_they_had_not_been() {
        let quadratic = |image: &Tensor| {
            Ok(-image.square().sum_dim_intlist([1i64, 2, 3].as_slice(), false, None::<Kind>))
        };
        let mut whole = Replay::new(config(), 3, Device::Cpu);
        let mut ends = Vec::new();
        for step in 0..4 {
            ends.push(whole.sample(step, quadratic).unwrap());
        }
        let mut parts = Replay::new(config(), 3, Device::Cpu);
        let _ = parts.sample(0, quadratic).unwrap();
        let _ = parts.sample(1, quadratic).unwrap();
        let saved = parts.to_tensors();
        let mut parts = Replay::new(config(), 3, Device::Cpu);
        assert!(parts.load(&Tensors::new()).is_err());
        parts.load(&saved).unwrap();
        for step in 2..4 {
            assert!(parts.sample(step, quadratic).unwrap().equal(&ends[step as usize]));
        }
        assert!(!ends[2].equal(&ends[3]));
    }

    #[test]
    fn a_share_of_the_chains_starts_again() {
        let mut config = config();
        (config.buffer, config.batch, config.steps, config.reinit) = (4, 1000, 0, 0.2);
        let mut replay = Replay::new(config, 3, Device::Cpu);
        replay.samples = replay.samples.zeros_like();
        let images = replay.sample(0, |_| anyhow::bail!("no step is taken")).unwrap();
        let still = images.eq(0.5).all_dims([1i64, 2, 3].as_slice(), false).to_kind(Kind::Float);
        let share = 1.0 - still.mean(None::<Kind>).double_value(&[]);
        assert!((share - 0.2).abs() < 5.0 * (0.2 * 0.8 / 1000.0f64).sqrt(), "{share}");
    }
}

//! The loss of a step and its gradients, by threads that each have a part of the batches.
//!
//! libtorch spreads one operation at a time over its threads, which wait for one another after each; parts of a
//! batch meet once a step. The network must treat every image separately, which batch norm does not.

use crate::config::Config;
use crate::data::{Batch, equal_part};
use crate::nets::Network;
use crate::objective;
use anyhow::{Context, Result};
use gradresnet_models::Architecture;
use rayon::ThreadPool;
use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};
use tch::{Device, Tensor};

/// What a step trains on: a batch for each objective that the config has.
#[derive(Debug)]
pub struct Batches {
    /// Of the denoising term.
    pub denoising: Option<Batch>,
    /// Of the cross-entropy.
    pub classification: Option<Batch>,
    /// Images, and as many samples of the model to set against them.
    pub jem: Option<(Batch, Tensor)>,
}

impl Batches {
    /// The number of images, over all terms.
    pub fn images(&self) -> usize {
        let jem = self.jem.as_ref().map(|(batch, _)| batch);
        let batches = [self.denoising.as_ref(), self.classification.as_ref(), jem];
        batches.into_iter().flatten().map(Batch::images).sum()
    }

    /// The terms of the loss, each a mean over images: name, factor, value.
    fn terms(&self, net: &Network, config: &Config) -> Result<Vec<(&'static str, f64, Tensor)>> {
        let mut terms = Vec::new();
        if let (Some(batch), Some(config)) = (&self.denoising, &config.denoising) {
            terms.push(("denoising", config.weight, objective::denoising(net, batch, config)?));
        }
        if let Some(batch) = &self.classification {
            terms.push(("classification", 1.0, objective::classification(net, batch)?));
        }
        if let (Some((batch, samples)), Some(config)) = (&self.jem, &config.jem) {
            terms.push(("jem", config.weight, objective::likelihood(net, batch, samples)?));
        }
        Ok(terms)
    }

    /// Part `index` of `count` equal ones.
    fn part(&self, index: usize, count: usize) -> Batches {
        let of = |batch: &Batch| batch.part(index, count);
        Batches {
            denoising: self.denoising.as_ref().map(of),
            classification: self.classification.as_ref().map(of),
            jem: self.jem.as_ref().map(|(batch, samples)| (of(batch), equal_part(samples, index, count))),
        }
    }
}

/// The loss of a step and its gradients.
#[derive(Debug)]
pub struct Loss {
    /// The sum of the terms, each with its factor.
    pub value: f64,
    /// The terms by name, without their factors.
    pub terms: Vec<(&'static str, f64)>,
    /// By each parameter asked for; undefined where the loss does not depend on it.
    pub gradients: Vec<Tensor>,
}

impl Loss {
    fn of(batches: &Batches, net: &Network, config: &Config, parameters: &[&str]) -> Result<Loss> {
        let terms = batches.terms(net, config)?;
        let loss: Tensor = terms.iter().map(|(_, factor, term)| term * *factor).sum();
        let parameters: Vec<&Tensor> = parameters.iter().filter_map(|name| net.parameter(name)).collect();
        let gradients = Tensor::run_backward(&[&loss], &parameters, false, false);
        let terms = terms.iter().map(|(name, _, term)| (*name, term.double_value(&[]))).collect();
        Ok(Loss { value: loss.double_value(&[]), terms, gradients })
    }

    /// The loss of a whole from those of its equal parts. They are added in order, so that it does not depend on
    /// which was ready first.
    fn mean(parts: Vec<Loss>) -> Option<Loss> {
        let share = 1.0 / parts.len() as f64;
        let mut mean = parts.into_iter().reduce(Loss::plus)?;
        mean.value *= share;
        mean.terms.iter_mut().for_each(|(_, term)| *term *= share);
        let defined = mean.gradients.iter_mut().filter(|gradient| gradient.defined());
        defined.for_each(|gradient| *gradient = &*gradient * share);
        Some(mean)
    }

    fn plus(mut self, other: Loss) -> Loss {
        self.value += other.value;
        for ((_, sum), (_, term)) in self.terms.iter_mut().zip(other.terms) {
            *sum += term;
        }
        for (sum, gradient) in self.gradients.iter_mut().zip(other.gradients) {
            match (sum.defined(), gradient.defined()) {
                (true, true) => *sum = &*sum + gradient,
                (false, _) => *sum = gradient,
                (true, false) => {}
            }
        }
        self
    }
}

/// The threads, each with a part of the batches.
#[derive(Debug)]
pub struct Workers {
    /// `None` if batches stay whole.
    pool: Option<ThreadPool>,
}

impl Workers {
    /// Shares libtorch's threads out to parts of the config's batches, where the device is a CPU and the network allows
    /// it.
    ///
    /// # Errors
    /// If threads cannot be started.
    pub fn new(architecture: &Architecture, config: &Config, device: Device) -> Result<Workers> {
        let threads = usize::try_from(tch::get_num_threads())?;
        let apart = device == Device::Cpu && architecture.treats_images_apart();
        let parts = if apart { parts(&batches(config), threads) } else { 1 };
        if parts == 1 {
            return Ok(Workers { pool: None });
        }
        let pool = rayon::ThreadPoolBuilder::new().num_threads(parts).build();
        let pool = pool.context("threads cannot be started")?;
        pool.broadcast(|_| {
            // When a thread first asks for its own number, it takes the one set last in the process.
            tch::get_num_threads();
            tch::set_num_threads((threads / parts) as i32);
        });
        tch::set_num_threads(threads as i32);
        Ok(Workers { pool: Some(pool) })
    }

    /// The loss on `batches`, and its gradients by these `parameters` of `net`.
    ///
    /// # Errors
    /// If the network or the images lack what an objective takes.
    pub fn loss(
        &self,
        batches: Batches,
        net: &Network,
        config: &Config,
        parameters: &[&str],
    ) -> Result<Loss> {
        let Some(pool) = &self.pool else { return Loss::of(&batches, net, config, parameters) };
        let count = pool.current_num_threads();
        let parts: Vec<_> = (0..count).map(|i| (batches.part(i, count), net.shared())).collect();
        let losses: Result<Vec<Loss>> = pool.install(|| {
            let parts = parts.into_par_iter().with_max_len(1);
            parts.map(|(part, net)| Loss::of(&part, &net, config, parameters)).collect()
        });
        Loss::mean(losses?).context("a pool has threads")
    }
}

/// The sizes of a run's batches.
fn batches(config: &Config) -> Vec<usize> {
    let denoising = config.denoising.iter().flat_map(|d| {
        let later = d.schedule.iter().map(|change| change.batch);
        std::iter::once(d.batch).chain(later)
    });
    let others = [config.classification.as_ref().map(|c| c.batch), config.jem.as_ref().map(|j| j.batch)];
    denoising.chain(others.into_iter().flatten()).collect()
}

/// How many equal parts to cut each of `batches` into: the largest of the numbers that leave the fewest threads idle.
fn parts(batches: &[usize], threads: usize) -> usize {
    let fitting = (1..=threads).filter(|parts| batches.iter().all(|batch| batch % parts == 0));
    fitting.max_by_key(|parts| (threads / parts * parts, *parts)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_parts_as_batches_and_threads_allow() {
        for (batches, threads, expected) in [
            (&[8][..], 1, 1),
            (&[8], 2, 2),
            (&[8], 16, 8),
            // Two threads in each of four parts; three in each of two, where four parts would leave two idle.
            (&[16, 64, 4], 8, 4),
            (&[8], 6, 2),
            (&[16, 6], 8, 2),
            (&[3, 64], 4, 1),
        ] {
            assert_eq!(parts(batches, threads), expected, "{batches:?}, {threads} threads");
        }
    }

    #[test]
    fn undefined_gradients_are_passed_over() {
        let of = |value: f64, gradients| Loss { value, terms: vec![("t", value)], gradients };
        let (some, none) = (|x: f64| Tensor::from(x), Tensor::new);
        let parts =
            vec![of(1.0, vec![some(2.0), none(), none()]), of(2.0, vec![some(4.0), some(4.0), none()])];
        let mean = Loss::mean(parts).unwrap();
        assert_eq!((mean.value, mean.terms), (1.5, vec![("t", 1.5)]));
        assert_eq!(mean.gradients[0].double_value(&[]), 3.0);
        assert_eq!(mean.gradients[1].double_value(&[]), 2.0);
        assert!(!mean.gradients[2].defined());
    }
}

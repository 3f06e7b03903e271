//! The gradient of a step's loss, by threads that each have a part of the batch.
//!
//! libtorch spreads one operation at a time over its threads, which wait for one another after each; parts of a
//! batch meet once a step. It takes a network that treats every image apart, which batch norm does not.

use crate::config::Config;
use crate::data::{Batch, part};
use crate::nets::Network;
use crate::objective;
use anyhow::{Context, Result};
use rayon::ThreadPool;
use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};
use tch::{Device, Tensor};

/// What a step trains on: a batch for each objective that the config has.
#[derive(Debug)]
pub struct Material {
    /// Of the denoising term.
    pub denoising: Option<Batch>,
    /// Of the cross-entropy.
    pub classification: Option<Batch>,
    /// Images, and as many samples of the model to set against them.
    pub jem: Option<(Batch, Tensor)>,
}

impl Material {
    /// The number of images, over all terms.
    pub fn images(&self) -> usize {
        let jem = self.jem.as_ref().map(|(batch, _)| batch);
        let batches = [self.denoising.as_ref(), self.classification.as_ref(), jem];
        batches.into_iter().flatten().map(Batch::images).sum()
    }

    /// The terms of the loss.
    fn terms(&self, net: &Network, config: &Config) -> Result<Vec<Term<Tensor>>> {
        let mut terms = Vec::new();
        if let (Some(batch), Some(config)) = (&self.denoising, &config.denoising) {
            let value = objective::denoising(net, batch, config)?;
            terms.push(Term { name: "denoising", factor: config.weight, value });
        }
        if let Some(batch) = &self.classification {
            let value = objective::classification(net, batch)?;
            terms.push(Term { name: "classification", factor: 1.0, value });
        }
        if let (Some((batch, samples)), Some(config)) = (&self.jem, &config.jem) {
            let value = objective::likelihood(net, batch, samples)?;
            terms.push(Term { name: "jem", factor: config.weight, value });
        }
        Ok(terms)
    }

    /// Part `index` of `count` equal ones.
    fn part(&self, index: usize, count: usize) -> Material {
        let of = |batch: &Option<Batch>| batch.as_ref().map(|batch| batch.part(index, count));
        Material {
            denoising: of(&self.denoising),
            classification: of(&self.classification),
            jem: self
                .jem
                .as_ref()
                .map(|(batch, samples)| (batch.part(index, count), part(samples, index, count))),
        }
    }
}

/// A term of the loss: a mean over images.
#[derive(Clone, Debug, PartialEq)]
pub struct Term<T> {
    /// Name of the objective.
    pub name: &'static str,
    /// What multiplies it in the loss.
    pub factor: f64,
    /// Its value without the factor.
    pub value: T,
}

/// The loss of a step, and its gradient.
#[derive(Debug)]
pub struct Slope {
    /// Terms of the loss.
    pub terms: Vec<Term<f64>>,
    /// By each parameter asked for; undefined where the loss does not depend on it.
    pub gradients: Vec<Tensor>,
}

impl Slope {
    fn of(material: &Material, net: &Network, config: &Config, parameters: &[&str]) -> Result<Slope> {
        let terms = material.terms(net, config)?;
        let loss: Tensor = terms.iter().map(|term| &term.value * term.factor).sum();
        let parameters: Vec<&Tensor> = parameters.iter().filter_map(|name| net.parameter(name)).collect();
        let gradients = Tensor::run_backward(&[loss], &parameters, false, false);
        let value = |Term { name, factor, value }: Term<Tensor>| {
            let value = value.double_value(&[]);
            Term { name, factor, value }
        };
        Ok(Slope { terms: terms.into_iter().map(value).collect(), gradients })
    }

    /// That of a whole, of those of its equal parts. They are added in their order, so that it is the same whichever
    /// was there first.
    fn mean(parts: Vec<Slope>) -> Option<Slope> {
        let share = 1.0 / parts.len() as f64;
        let scaled = parts.into_iter().map(|mut part| {
            part.terms.iter_mut().for_each(|term| term.value *= share);
            let defined = part.gradients.iter_mut().filter(|gradient| gradient.defined());
            defined.for_each(|gradient| *gradient = &*gradient * share);
            part
        });
        scaled.reduce(|mut sum, part| {
            for (sum, term) in sum.terms.iter_mut().zip(part.terms) {
                sum.value += term.value;
            }
            for (sum, gradient) in sum.gradients.iter_mut().zip(part.gradients) {
                if gradient.defined() {
                    *sum = &*sum + gradient;
                }
            }
            sum
        })
    }
}

/// The threads that have a part of the batch each.
#[derive(Debug)]
pub struct Workers {
    /// None if batches stay whole.
    pool: Option<ThreadPool>,
}

impl Workers {
    /// Shares libtorch's threads out to as many parts as they and the config's batches allow, of a network on `device`.
    ///
    /// # Errors
    /// If threads cannot be started.
    pub fn new(net: &Network, config: &Config, device: Device) -> Result<Workers> {
        let threads = tch::get_num_threads();
        let apart = device == Device::Cpu && net.architecture().treats_images_apart();
        let parts = if apart { parts(config, threads) } else { 1 };
        let pool = || {
            let each = threads / parts;
            let pool = rayon::ThreadPoolBuilder::new().num_threads(parts as usize);
            let pool = pool.start_handler(move |_| tch::set_num_threads(each)).build();
            pool.context("threads cannot be started")
        };
        Ok(Workers { pool: (parts > 1).then(pool).transpose()? })
    }

    /// The loss on `material`, and its gradient by those of `net`'s parameters.
    ///
    /// # Errors
    /// If the network or the images lack what an objective takes.
    pub fn slope(
        &self,
        material: Material,
        net: &Network,
        config: &Config,
        parameters: &[&str],
    ) -> Result<Slope> {
        let Some(pool) = &self.pool else { return Slope::of(&material, net, config, parameters) };
        let count = pool.current_num_threads();
        let parts: Vec<_> = (0..count).map(|i| (material.part(i, count), net.shared())).collect();
        let slopes: Result<Vec<Slope>> = pool.install(|| {
            let parts = parts.into_par_iter().with_max_len(1);
            parts.map(|(part, net)| Slope::of(&part, &net, config, parameters)).collect()
        });
        Slope::mean(slopes?).context("a pool has threads")
    }
}

/// The most equal parts, for at most as many threads, that every batch of a run can be cut into.
fn parts(config: &Config, threads: i32) -> i32 {
    let denoising = config.denoising.iter().flat_map(|d| {
        let later = d.schedule.iter().map(|change| change.batch);
        std::iter::once(d.batch).chain(later)
    });
    let others = [config.classification.as_ref().map(|c| c.batch), config.jem.as_ref().map(|j| j.batch)];
    let batches: Vec<usize> = denoising.chain(others.into_iter().flatten()).collect();
    let fits = |&parts: &i32| batches.iter().all(|batch| batch % parts as usize == 0);
    (2..=threads).rev().find(fits).unwrap_or(1)
}

//! The batches of each objective. Each draws images and noise of its own, so each has its own seed.

use crate::config::Config;
use crate::data::{BatchPlan, Shape, Shapes};

/// Sets the seeds of JEM's images and samples apart from those of the other objectives, 2·seed and 2·seed + 1.
const JEM_SEED: u64 = 1 << 63;

pub(super) fn denoising(config: &Config) -> Option<BatchPlan> {
    let d = config.denoising.as_ref()?;
    let changes = d.schedule.iter().map(|s| (s.from_step, Shape { batch: s.batch, size: s.size }));
    Some(BatchPlan {
        shapes: Shapes { first: Shape { batch: d.batch, size: d.size }, changes: changes.collect() },
        augment: d.augment,
        mix: 0.0,
        sigma: d.sigma,
        seed: config.seed.wrapping_mul(2),
    })
}

pub(super) fn classification(config: &Config) -> Option<BatchPlan> {
    let c = config.classification.as_ref()?;
    Some(BatchPlan {
        shapes: Shapes { first: Shape { batch: c.batch, size: c.size }, changes: Vec::new() },
        augment: c.augment,
        mix: c.mix,
        sigma: c.sigma,
        seed: config.seed.wrapping_mul(2).wrapping_add(1),
    })
}

pub(super) fn jem(config: &Config) -> Option<BatchPlan> {
    let j = config.jem.as_ref()?;
    Some(BatchPlan {
        shapes: Shapes { first: Shape { batch: j.batch, size: j.size }, changes: Vec::new() },
        augment: j.augment,
        mix: 0.0,
        sigma: j.sigma,
        seed: config.seed.wrapping_mul(2) ^ JEM_SEED,
    })
}

/// Of the samples that JEM's images are compared with.
pub(super) fn replay_seed(config: &Config) -> u64 {
    config.seed.wrapping_mul(2).wrapping_add(1) ^ JEM_SEED
}

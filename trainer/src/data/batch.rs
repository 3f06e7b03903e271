//! Batches, each a pure function of the seed and the step, so that a resumed run sees what an
//! uninterrupted one would have seen; and threads that make them before they are needed.

use super::augment::Augment;
use super::images::Images;
use super::mix::Mixture;
use crate::noise::NoiseLevel;
use anyhow::{Result, anyhow};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use tch::{Kind, Tensor};

/// Batches that each thread makes ahead.
const AHEAD: usize = 2;

/// What one step trains on, for one objective.
#[derive(Debug)]
pub struct Batch {
    /// Clean images in [0, 1], `[N,3,S,S]`.
    pub clean: Tensor,
    /// Standard normal noise of the same shape.
    pub noise: Tensor,
    /// Noise levels in image units, `[N]`.
    pub sigma: Tensor,
    /// Probabilities of the classes, `[N,C]`; `None` for images without.
    pub labels: Option<Tensor>,
}

impl Batch {
    /// clean + σ·noise.
    pub fn noisy(&self) -> Tensor {
        &self.clean + self.sigma.view([-1, 1, 1, 1]) * &self.noise
    }

    /// The number of images, N.
    pub fn images(&self) -> usize {
        self.sigma.numel()
    }

    /// Part `index` of `count` equal ones; `count` must divide N.
    pub fn part(&self, index: usize, count: usize) -> Batch {
        let of = |tensor: &Tensor| equal_part(tensor, index, count);
        Batch {
            clean: of(&self.clean),
            noise: of(&self.noise),
            sigma: of(&self.sigma),
            labels: self.labels.as_ref().map(of),
        }
    }

    /// The batch on another device.
    pub fn to_device(&self, device: tch::Device) -> Batch {
        Batch {
            clean: self.clean.to_device(device),
            noise: self.noise.to_device(device),
            sigma: self.sigma.to_device(device),
            labels: self.labels.as_ref().map(|l| l.to_device(device)),
        }
    }
}

/// Part `index` of `count` equal ones of a tensor's first axis, whose length must be a multiple of `count`.
pub fn equal_part(tensor: &Tensor, index: usize, count: usize) -> Tensor {
    let length = tensor.size()[0] / count as i64;
    debug_assert_eq!(length * count as i64, tensor.size()[0]);
    tensor.narrow(0, index as i64 * length, length)
}

/// How to make the batches of one objective.
#[derive(Clone, Debug)]
pub struct BatchPlan {
    /// How many images, of which size.
    pub shapes: Shapes,
    /// How they are varied.
    pub augment: Augment,
    /// Probability that the images of a batch are mixed with one another, before the noise.
    pub mix: f64,
    /// Their noise levels.
    pub sigma: NoiseLevel,
    /// Seed, different for each objective.
    pub seed: u64,
}

/// The shape of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Images in a batch.
    pub batch: usize,
    /// Side of the square crops, in pixels.
    pub size: usize,
}

/// The shapes of the batches over time.
#[derive(Clone, Debug)]
pub struct Shapes {
    /// That of the first step.
    pub first: Shape,
    /// Steps at which the shape changes, in rising order.
    pub changes: Vec<(u64, Shape)>,
}

impl Shapes {
    /// The shape of a step's batch, and the number of images shown before it.
    fn at(&self, step: u64) -> (Shape, u64) {
        let (mut shape, mut since, mut shown) = (self.first, 0, 0);
        for &(from, next) in self.changes.iter().take_while(|(from, _)| *from <= step) {
            shown += (from - since) * shape.batch as u64;
            (shape, since) = (next, from);
        }
        (shape, shown + (step - since) * shape.batch as u64)
    }
}

/// The images of a step: the data set in a new order each epoch, cut into batches.
#[derive(Debug)]
struct Sampler {
    images: Arc<Images>,
    plan: BatchPlan,
    /// The orders of the two epochs used last, the even and the odd one: threads are at the end of one and the beginning
    /// of the next at once. An order is a pure function of its epoch's number.
    orders: Mutex<[(u64, Vec<usize>); 2]>,
}

impl Sampler {
    fn new(images: Arc<Images>, plan: BatchPlan) -> Sampler {
        Sampler { images, plan, orders: Mutex::new([(u64::MAX, Vec::new()), (u64::MAX, Vec::new())]) }
    }

    fn batch(&self, step: u64) -> Result<Batch> {
        let BatchPlan { shapes, augment, mix, sigma, seed } = &self.plan;
        let (Shape { batch, size }, shown) = shapes.at(step);
        // Distinct streams of one generator: `2·step` for batches, `2·epoch + 1` for orders.
        let mut rng = ChaCha8Rng::seed_from_u64(*seed);
        rng.set_stream(2 * step);
        let mut clean = Vec::with_capacity(batch * 3 * size * size);
        let mut classes = Vec::with_capacity(batch);
        let mut levels = Vec::with_capacity(batch);
        for i in 0..batch as u64 {
            let index = self.index(shown + i);
            let pixels = self.images.pixels(index)?;
            augment.apply(&pixels, size, &mut rng, &mut clean);
            classes.extend(self.images.class(index).map(|c| c as i64));
            levels.push(sigma.sample(&mut rng) as f32);
        }
        let noise: Vec<f32> = StandardNormal.sample_iter(&mut rng).take(clean.len()).collect();
        let shape = [batch as i64, 3, size as i64, size as i64];
        let mut clean = Tensor::from_slice(&clean).reshape(shape);
        let mut labels = (classes.len() == batch).then(|| {
            let count = self.images.classes().len() as i64;
            Tensor::from_slice(&classes).one_hot(count).to_kind(Kind::Float)
        });
        if rng.random_bool(*mix) {
            let mixture = Mixture::sample(size, &mut rng);
            clean = mixture.images(&clean);
            labels = labels.map(|labels| mixture.labels(&labels, size));
        }
        let noise = Tensor::from_slice(&noise).reshape(shape);
        Ok(Batch { clean, noise, sigma: Tensor::from_slice(&levels), labels })
    }

    /// The image at `position` of the endless sequence of shuffled epochs.
    fn index(&self, position: u64) -> usize {
        let count = self.images.len() as u64;
        let epoch = position / count;
        let mut orders = self.orders.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let order = &mut orders[(epoch % 2) as usize];
        if order.0 != epoch {
            let mut rng = ChaCha8Rng::seed_from_u64(self.plan.seed);
            rng.set_stream(2 * epoch + 1);
            let mut indices: Vec<usize> = (0..self.images.len()).collect();
            indices.shuffle(&mut rng);
            *order = (epoch, indices);
        }
        order.1[(position % count) as usize]
    }
}

/// Threads that decode and augment ahead of the network, and hand out batches in order.
#[derive(Debug)]
pub struct Loader {
    queues: Vec<Receiver<Result<Batch>>>,
    next: u64,
}

impl Loader {
    /// Starts `threads` threads that make the batches of steps `first`, `first + 1`, …
    pub fn start(images: Arc<Images>, plan: BatchPlan, first: u64, threads: usize) -> Loader {
        let sampler = Arc::new(Sampler::new(images, plan));
        let threads = threads.max(1) as u64;
        let queues = (0..threads)
            .map(|t| {
                let (send, receive) = sync_channel(AHEAD);
                let sampler = sampler.clone();
                // The thread ends when the loader is dropped: its next `send` fails.
                thread::spawn(move || {
                    let steps = (first..).filter(|step| step % threads == t);
                    for step in steps {
                        if send.send(sampler.batch(step)).is_err() {
                            break;
                        }
                    }
                });
                receive
            })
            .collect();
        Loader { queues, next: first }
    }

    /// The batch of the next step.
    ///
    /// # Errors
    /// If one of its images cannot be read.
    pub fn next_batch(&mut self) -> Result<Batch> {
        let queue = (self.next % self.queues.len() as u64) as usize;
        self.next += 1;
        self.queues[queue].recv().map_err(|_| anyhow!("a thread that prepares images has died"))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Split;

    fn images() -> (tempfile::TempDir, Arc<Images>) {
        let dir = tempfile::tempdir().unwrap();
        for i in 0..5u8 {
            let path = dir.path().join(format!("{i}.png"));
            image::RgbImage::from_fn(9, 7, |x, y| image::Rgb([i * 40, x as u8 * 20, y as u8 * 30]))
                .save(path)
                .unwrap();
        }
        let images = Arc::new(Images::open(dir.path(), Split::Train).unwrap());
        (dir, images)
    }

    fn plan() -> BatchPlan {
        BatchPlan {
            shapes: Shapes {
                first: Shape { batch: 3, size: 4 },
                changes: vec![(4, Shape { batch: 2, size: 6 }), (7, Shape { batch: 5, size: 2 })],
            },
            augment: Augment { flip: true, turn: true, ..Augment::default() },
            mix: 1.0,
            sigma: [1.0, 70.0].into(),
            seed: 7,
        }
    }

    #[test]
    fn as_many_batches_are_mixed_as_is_asked_for() {
        let (_dir, images) = images();
        let batches = |mix| {
            let shapes = Shapes { first: Shape { batch: 3, size: 6 }, changes: Vec::new() };
            let mut loader = Loader::start(images.clone(), BatchPlan { mix, shapes, ..plan() }, 0, 1);
            (0..100).map(|_| loader.next_batch().unwrap()).collect::<Vec<_>>()
        };
        let plain = batches(0.0);
        let mixed = |mix| {
            let pairs = batches(mix).into_iter().zip(&plain);
            pairs
                .filter(|(batch, plain)| {
                    assert!(batch.noise.equal(&plain.noise) && batch.sigma.equal(&plain.sigma));
                    !batch.clean.equal(&plain.clean)
                })
                .count()
        };
        assert_eq!(mixed(0.0), 0);
        // At λ > 8/9 the hole is empty.
        let all = mixed(1.0);
        assert!(all > 70, "{all}");
        // Five standard deviations of 100 draws are 25.
        let half = mixed(0.5);
        assert!((all as f64 / 2.0 - half as f64).abs() < 25.0, "{half} of {all}");
    }

    #[test]
    fn batches_depend_on_the_step_alone() {
        let (_dir, images) = images();
        let mut one = Loader::start(images.clone(), plan(), 0, 1);
        let all: Vec<Batch> = (0..12).map(|_| one.next_batch().unwrap()).collect();
        assert!(!all[0].noise.equal(&all[1].noise));
        let shapes: Vec<_> = all.iter().map(|b| (b.clean.size()[0], b.clean.size()[3])).collect();
        assert_eq!(shapes, [[(3, 4); 4].as_slice(), &[(2, 6); 3], &[(5, 2); 5]].concat());
        let mut later = Loader::start(images, plan(), 5, 3);
        for expected in &all[5..] {
            let found = later.next_batch().unwrap();
            assert!(found.noise.equal(&expected.noise) && found.sigma.equal(&expected.sigma));
            assert!(found.clean.equal(&expected.clean));
        }
    }

    /// With batches of 3, 3, 3, 3, 2, 2, 2, 5, … no image is passed over or shown twice in an epoch.
    #[test]
    fn a_change_of_shape_goes_on_where_the_last_batch_ended() {
        let shapes = plan().shapes;
        let shown: Vec<u64> = (0..9).map(|step| shapes.at(step).1).collect();
        assert_eq!(shown, [0, 3, 6, 9, 12, 14, 16, 18, 23]);
    }

    #[test]
    fn an_epoch_shows_every_image_once_and_the_next_in_another_order() {
        let (_dir, images) = images();
        let sampler = Sampler::new(images, plan());
        let epochs: Vec<Vec<usize>> =
            (0..4).map(|e| (5 * e..5 * e + 5).map(|p| sampler.index(p)).collect()).collect();
        for epoch in &epochs {
            let mut sorted = epoch.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3, 4]);
        }
        assert!(epochs.iter().any(|e| *e != epochs[0]));
    }
}

//! Memory for images between one operator and the next, used again and again: fresh memory costs more than
//! writing to it, because the system clears it first.

use std::sync::{Arc, Mutex, PoisonError};
use tract_onnx::tract_core::internal::*;

/// Images, in use and free, of the plan that ran last; dropped when another plan runs.
#[derive(Clone, Default)]
pub(super) struct Pool(Arc<Mutex<Images>>);

#[derive(Default)]
struct Images {
    plan: usize,
    images: Vec<Arc<Tensor>>,
}

impl Pool {
    /// Says that a plan, known by a number, runs next.
    pub(super) fn enter(&self, plan: usize) {
        let mut pool = self.lock();
        if pool.plan != plan {
            *pool = Images { plan, images: Vec::new() };
        }
    }

    /// Says that a run of a plan has ended: if another plan runs by now, the ended one's images are not kept.
    pub(super) fn leave(&self, plan: usize) {
        let mut pool = self.lock();
        if pool.plan != plan {
            pool.images.retain(|image| Arc::strong_count(image) > 1);
        }
    }

    /// An unshared image, with arbitrary values.
    pub(super) fn take(&self, shape: &[usize]) -> TractResult<Arc<Tensor>> {
        let mut pool = self.lock();
        // A count of 1 is the pool's own reference, the only source of others.
        let free = pool.images.iter().position(|i| Arc::strong_count(i) == 1 && i.shape() == shape);
        match free {
            Some(i) => Ok(pool.images.swap_remove(i)),
            None => Ok(Arc::new(Tensor::zero::<f32>(shape)?)),
        }
    }

    /// Passes an image on; it is free again when all its readers have dropped it.
    pub(super) fn give(&self, image: Arc<Tensor>) -> TValue {
        self.lock().images.push(image.clone());
        TValue::from_const(image)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Images> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pool")
    }
}

/// Where an operator's memory comes from is no part of what it computes.
impl PartialEq for Pool {
    fn eq(&self, _: &Pool) -> bool {
        true
    }
}

impl Eq for Pool {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_of_a_plan_that_ends_after_another_began_are_not_kept() {
        let pool = Pool::default();
        let kept = || pool.lock().images.len();
        pool.enter(1);
        let image = pool.take(&[2, 3]).unwrap();
        pool.enter(2);
        drop(pool.give(image));
        assert_eq!(kept(), 1);
        pool.leave(1);
        assert_eq!(kept(), 0);
        // Those of the plan that runs stay, for its next run.
        drop(pool.give(pool.take(&[2, 3]).unwrap()));
        pool.leave(2);
        assert_eq!(kept(), 1);
    }
}

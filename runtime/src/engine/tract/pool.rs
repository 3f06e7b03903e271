//! Memory for images between one operator and the next, used again and again: fresh memory costs more than
//! writing to it, because the system clears it first.

use std::sync::{Arc, Mutex, PoisonError};
use tract_onnx::tract_core::internal::*;

/// Images in use and images that are free, of the plan that ran last: another plan's go when it runs.
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

    /// An image of one's own, with whatever values.
    pub(super) fn take(&self, shape: &[usize]) -> TractResult<Arc<Tensor>> {
        let mut pool = self.lock();
        // Who has the only reference decides, and others come from here alone.
        let free = pool.images.iter().position(|i| Arc::strong_count(i) == 1 && i.shape() == shape);
        match free {
            Some(i) => Ok(pool.images.swap_remove(i)),
            None => Ok(Arc::new(Tensor::zero::<f32>(shape)?)),
        }
    }

    /// Passes an image on; it is free again when all who read it have dropped it.
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

//! Plans that have been compiled: those used last, as many as there is memory for.

use crate::engine::{Graph, Plan, Shape};
use crate::error::Result;
use std::sync::{Arc, Mutex, PoisonError};

/// What a plan takes at least, in pixels: its weights and an engine's bookkeeping.
const LEAST_PIXELS: usize = 1 << 13;

/// Most recently used first.
#[derive(Default)]
pub(crate) struct Plans(Mutex<Vec<((Graph, Shape), Slot)>>);

/// A plan, or the place of one that is being compiled or could not be.
type Slot = Arc<Mutex<Option<Arc<dyn Plan>>>>;

impl Plans {
    /// The plan for a graph and a shape, compiled if there is none. The least recently used are dropped until
    /// the rest have at most `pixels`, for which engines hold memory.
    ///
    /// # Errors
    /// Those of `compile`.
    pub(crate) fn get(
        &self,
        key: (Graph, Shape),
        pixels: usize,
        compile: impl FnOnce() -> Result<Box<dyn Plan>>,
    ) -> Result<Arc<dyn Plan>> {
        let slot = self.slot(key, pixels);
        // Locked while compiling: threads that need the same plan wait for this one, others do not wait.
        let mut plan = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = &*plan {
            return Ok(plan.clone());
        }
        let compiled: Arc<dyn Plan> = compile()?.into();
        *plan = Some(compiled.clone());
        Ok(compiled)
    }

    fn slot(&self, key: (Graph, Shape), pixels: usize) -> Slot {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(i) = slots.iter().position(|(other, _)| *other == key) {
            slots[..=i].rotate_right(1);
        } else {
            slots.insert(0, (key, Slot::default()));
        }
        let mut sum = 0usize;
        let fits = slots.iter().take_while(|((_, shape), _)| {
            let size = shape.batch.saturating_mul(shape.height).saturating_mul(shape.width);
            sum = sum.saturating_add(size.max(LEAST_PIXELS));
            sum <= pixels
        });
        let fits = fits.count().max(1);
        slots.truncate(fits);
        slots[0].1.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Inputs, Outputs};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Barrier, mpsc};
    use std::time::Duration;

    struct Nothing;

    impl Plan for Nothing {
        fn run(&self, _: &Inputs) -> Result<Outputs> {
            Ok(Outputs { denoised: None, logits: None, energy: None })
        }
    }

    fn key(side: usize) -> (Graph, Shape) {
        (Graph::Denoiser, Shape { batch: 1, height: side, width: side })
    }

    /// How many plans are compiled for images of these sides, in turn.
    fn compiled(sides: &[usize], pixels: usize) -> usize {
        let (plans, count) = (Plans::default(), AtomicUsize::new(0));
        for &side in sides {
            let compile = || {
                count.fetch_add(1, Ordering::Relaxed);
                Ok(Box::new(Nothing) as Box<dyn Plan>)
            };
            plans.get(key(side), pixels, compile).unwrap();
        }
        count.into_inner()
    }

    #[test]
    fn plans_used_last_are_kept_within_the_pixels() {
        let two = 2 * 400 * 400;
        assert_eq!(compiled(&[400, 400, 396, 400, 396], two), 2);
        assert_eq!(compiled(&[400, 396, 392, 400], two), 4);
        assert_eq!(compiled(&[396, 392, 396, 388, 396], two), 3);
        // One that is too large is kept alone.
        assert_eq!(compiled(&[1000, 1000, 400, 1000], two), 3);
        // Small ones are not free.
        let small: Vec<usize> = (1..=30).chain(1..=30).collect();
        assert_eq!(compiled(&small, 30 * LEAST_PIXELS), 30);
        assert_eq!(compiled(&small, 29 * LEAST_PIXELS), 60);
    }

    #[test]
    fn who_needs_the_same_plan_waits_and_who_needs_another_does_not() {
        let (plans, count) = (Plans::default(), AtomicUsize::new(0));
        let get = |side, meanwhile: &dyn Fn()| {
            let compile = || {
                meanwhile();
                count.fetch_add(1, Ordering::Relaxed);
                Ok(Box::new(Nothing) as Box<dyn Plan>)
            };
            plans.get(key(side), usize::MAX, compile).unwrap();
        };
        let started = Barrier::new(2);
        let (done, other) = mpsc::channel();
        std::thread::scope(|scope| {
            let (get, started) = (&get, &started);
            scope.spawn(move || {
                get(8, &|| {
                    started.wait();
                    // Long enough for any machine: the other plan takes no time.
                    let other = other.recv_timeout(Duration::from_secs(10));
                    assert!(other.is_ok(), "who needs another plan waits for this one");
                });
            });
            started.wait();
            scope.spawn(move || get(8, &|| ()));
            get(16, &|| ());
            // Nobody listens if the assertion has failed.
            let _ = done.send(());
        });
        assert_eq!(count.load(Ordering::Relaxed), 2);
    }
}

//! Training images: where they come from and how they become batches.
//!
//! - [`images`]: folders and archives of images, decoded on first use.
//! - [`augment`]: crops, flips and turns.
//! - [`batch`]: batches as a pure function of the seed and the step, and the threads that make them
//!   ahead of time.

pub mod augment;
pub mod batch;
pub mod images;

pub use batch::{Batch, BatchPlan, Loader};
pub use images::{Images, Split};

//! Training images: where they come from and how they become batches.
//!
//! - [`images`]: folders and archives of images, decoded on first use.
//! - [`augment`]: crops, flips and turns; [`resized_crop`](mod@resized_crop): crops of random size.
//! - [`mix`]: images mixed with one another, and their labels.
//! - [`batch`]: batches as a pure function of the seed and the step, and the threads that make them
//!   ahead of time.

pub mod augment;
pub mod batch;
pub mod images;
pub mod mix;
pub mod resized_crop;

pub use batch::{Batch, BatchPlan, Loader, Shape, Shapes, equal_part};
pub use images::{Images, Listing, Split};

/// A rectangle of pixels inside an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First row.
    pub top: usize,
    /// First column.
    pub left: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

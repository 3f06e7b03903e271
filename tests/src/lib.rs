//! Cases × engines: does every engine compute what the trainer computes?
//!
//! - [`cases`]: networks with random weights, over every field of the architecture, and the inputs they
//!   are run on.
//! - [`engines`]: one small file per engine, with its own list of known failures.
//! - [`report`]: how far an engine is from the reference, and the table of the worst.
//!
//! The reference is libtorch's autograd in float64. A new engine is a file in `engines/` and a line in
//! its registry; a new case is run on all of them.

pub mod cases;
pub mod engines;
pub mod report;
pub mod resources;

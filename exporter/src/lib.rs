//! Turns a GradResNet checkpoint into a bundle: two ONNX graphs, of which the denoiser contains the
//! gradient of the other.
//!
//! ```text
//! checkpoint ─ gradresnet ─→ forward graph ─ reverse ─→ denoiser graph
//!                                  └─ simplify, lower, simplify ─┴─→ onnx ─→ verified bundle
//! ```
//!
//! - [`ir`]: graphs of operators with symbolic sizes; [`ops`]: the operators, a file a family.
//! - [`reverse`]: reverse mode. [`simplify`](mod@simplify) and [`lower`](mod@lower): smaller, then faster
//!   graphs. [`evaluate`](mod@evaluate): their values in float64. [`onnx`]: their serialisation.
//! - [`mod@gradresnet`]: the one module that knows the network.
//! - [`export`](mod@export): all of it in order, with the checks.
//!
//! Pure Rust: a machine without libtorch exports.

pub mod error;
pub mod evaluate;
pub mod export;
pub mod golden;
pub mod gradresnet;
pub mod ir;
pub mod lower;
pub mod onnx;
pub mod ops;
pub mod reverse;
pub mod simplify;

pub use error::{Error, ErrorKind, Result};
pub use export::{Options, Report, export};
pub use gradresnet::Weights;

#[cfg(test)]
mod test_networks;
#[cfg(test)]
mod tests;

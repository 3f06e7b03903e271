//! Turns a checkpoint into a bundle of ONNX graphs. Of a network with an energy they are two, of which the
//! denoiser contains the gradient of the other.
//!
//! ```text
//! checkpoint ─ network ─→ forward graph ─ reverse ─→ denoiser graph
//!                     └─ simplify, lower, simplify, precision ─┴─→ onnx ─→ verified bundle
//! ```
//!
//! - [`ir`]: graphs of operators with symbolic sizes; [`ops`]: the operators, a file a family.
//! - [`reverse`]: reverse mode. [`simplify`](mod@simplify) and [`lower`](mod@lower): smaller, then faster
//!   graphs. [`precision`]: what their convolutions compute in. [`evaluate`](mod@evaluate): their values in
//!   float64. [`onnx`]: their serialisation.
//! - [`network`]: draws a checkpoint's graphs; beside it a file for each family of networks, which alone knows it.
//! - [`export`](mod@export): all of it in order, with the checks.
//!
//! Pure Rust: a machine without libtorch exports.

mod dncnn;
pub mod error;
pub mod evaluate;
pub mod export;
pub mod golden;
mod gradresnet;
pub mod ir;
pub mod lower;
pub mod network;
pub mod onnx;
pub mod ops;
pub mod precision;
mod resnet;
pub mod reverse;
pub mod simplify;

pub use error::{Error, ErrorKind, Result};
pub use export::{Options, Report, export};
pub use network::Weights;

#[cfg(test)]
mod test_networks;
#[cfg(test)]
mod tests;

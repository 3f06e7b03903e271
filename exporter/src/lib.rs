//! Turns a checkpoint into a bundle of ONNX graphs. A network with an energy has two, of which the
//! denoiser contains the gradient of the other.
//!
//! ```text
//! checkpoint ─ network ─→ forward graph ─ reverse ─→ denoiser graph
//!                     └─ simplify, lower, simplify, precision ─┴─→ onnx ─→ verified bundle
//! ```
//!
//! - [`ir`]: graphs of operators with symbolic sizes; [`ops`]: the operators, one file per family.
//! - [`reverse`]: reverse mode. [`simplify`](mod@simplify) and [`lower`](mod@lower): smaller, then faster
//!   graphs. [`precision`]: what their convolutions compute in. [`evaluate`](mod@evaluate): their values in
//!   float64. [`onnx`]: their serialisation.
//! - [`network`]: draws a checkpoint's graphs; what is peculiar to a family of networks is in its own file.
//! - [`export`](mod@export): all of it in order, with the checks.
//!
//! Pure Rust: exporting needs no libtorch.

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

//! What a model is, on paper and on disk.
//!
//! - [`architecture`]: the families of networks, GradResNet and what it is compared with.
//! - [`spec`]: the architecture and everything else that `spec.json` says, with validation.
//! - [`parameters`]: the names and shapes of the parameters that an architecture implies. The trainer
//!   and the exporter both build from this list, so a checkpoint fits both or neither.
//! - [`port`]: the graphs that a model has, their inputs and their outputs.
//! - [`tensors`]: safetensors files, read with bounds and written atomically.
//! - [`golden`]: inputs and float64 outputs that every engine must reproduce.
//! - [`checkpoint`] and [`bundle`]: the two directory formats built from these.
//! - [`staged`]: files and directories that appear whole or not at all.
//!
//! There is no inference here and no native code. Everything this crate reads is untrusted.

pub mod architecture;
pub mod bundle;
pub mod checkpoint;
mod error;
pub mod golden;
pub mod parameters;
pub mod port;
pub mod spec;
pub mod staged;
pub mod tensors;

pub use architecture::{Activation, Architecture, Norm, Stem};
pub use bundle::Bundle;
pub use checkpoint::Checkpoint;
pub use error::{Error, ErrorKind, Result, write_printable};
pub use golden::{Golden, GoldenCase};
pub use parameters::{Parameter, ParameterKind};
pub use port::{Graph, Port};
pub use spec::{Measurement, Precision, Provenance, SigmaRange, Spec, Task};
pub use tensors::{Array, Tensors};

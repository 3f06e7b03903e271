//! What a GradResNet model is, on paper and on disk.
//!
//! - [`spec`]: the architecture and everything else that `spec.json` says, with validation.
//! - [`parameters`]: the names and shapes of the parameters that an architecture implies. The trainer
//!   and the exporter both build from this list, so a checkpoint fits both or neither.
//! - [`tensors`]: safetensors files, read with bounds and written atomically.
//! - [`golden`]: inputs and float64 outputs that every engine must reproduce.
//! - [`checkpoint`] and [`bundle`]: the two directory formats built from these.
//! - [`staged`]: files and directories that appear whole or not at all.
//!
//! There is no inference here and no native code. Everything this crate reads is untrusted.

pub mod bundle;
pub mod checkpoint;
mod error;
pub mod golden;
pub mod parameters;
pub mod spec;
pub mod staged;
pub mod tensors;

pub use bundle::Bundle;
pub use checkpoint::Checkpoint;
pub use error::{Error, ErrorKind, Result};
pub use golden::{Golden, GoldenCase};
pub use parameters::{Parameter, ParameterKind};
pub use spec::{
    Activation, Architecture, BlockForm, Measurement, Norm, Provenance, SideConnections, SigmaRange, Spec,
    Stem, Task,
};
pub use tensors::{Array, Tensors};

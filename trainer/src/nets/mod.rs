//! Networks, each built from a spec and written to read like the paper's figures.

mod gradresnet;
mod norm;

pub use gradresnet::{Denoised, GradResNet, Output, Phase};

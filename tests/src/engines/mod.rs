//! The engines that are compared with the reference.

pub mod libtorch;
pub mod python;
pub mod runtime;

use crate::cases::{Inputs, Model};
use anyhow::Result;
use tch::Kind;

/// What one run of the two graphs yields.
#[derive(Clone, Debug, PartialEq)]
pub struct Values {
    /// `denoised − noisy` of the denoiser, `[N,3,H,W]`; empty without a denoiser.
    pub change: Vec<f64>,
    /// `energy` of the denoiser and of the forward graph, `[N]` each; empty without an energy.
    pub energy: [Vec<f64>; 2],
    /// `logits` of the denoiser and of the forward graph, `[N,C]` each; empty without classes.
    pub logits: [Vec<f64>; 2],
}

/// Something that runs models.
pub trait Engine {
    /// Its name in reports.
    fn name(&self) -> String;

    /// Whether it runs this variant: a slow engine runs only a few.
    fn runs(&self, variant: &str) -> bool {
        let _ = variant;
        true
    }

    /// Variants that it is known to get wrong, with the reason. They must fail: a failure that has gone
    /// is to be taken off the list.
    fn known_failures(&self) -> &[(&str, &str)] {
        &[]
    }

    /// Runs the model's graphs.
    ///
    /// # Errors
    /// Those of the engine.
    fn run(&self, model: &Model, inputs: &Inputs) -> Result<Values>;
}

/// The reference: libtorch's autograd in float64.
///
/// # Errors
/// If the checkpoint lacks a parameter.
pub fn reference(model: &Model, inputs: &Inputs) -> Result<Values> {
    libtorch::run(model, inputs, Kind::Double)
}

/// Every engine available here. Missing ones are named on stderr.
///
/// # Errors
/// If an available engine does not start.
pub fn all() -> Result<Vec<Box<dyn Engine>>> {
    let mut engines: Vec<Box<dyn Engine>> = vec![Box::new(libtorch::Float32)];
    engines.extend(runtime::all()?);
    engines.extend(python::start("equivalence on Python's reference evaluator")?.map(|p| Box::new(p) as _));
    Ok(engines)
}

/// `denoised − noisy`, in float64.
fn change(denoised: impl IntoIterator<Item = f64>, inputs: &Inputs) -> Vec<f64> {
    denoised.into_iter().zip(&inputs.noisy).map(|(d, &y)| d - f64::from(y)).collect()
}

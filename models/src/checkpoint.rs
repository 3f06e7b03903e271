//! A checkpoint: what the trainer writes and the exporter reads.
//!
//! A directory with `spec.json`, `model.safetensors` (float32 parameters by their module path) and
//! `golden.safetensors`. During training it also holds the optimiser's state, which only the trainer
//! reads.

use crate::bundle::Bundle;
use crate::error::{At, ErrorKind, Result};
use crate::golden::Golden;
use crate::parameters::{ParameterKind, parameters};
use crate::spec::Spec;
use crate::staged::StagedDir;
use crate::tensors::{self, MAX_TENSOR_BYTES, Tensors};
use std::collections::BTreeMap;
use std::path::Path;

/// Name of the spec in a checkpoint and in a bundle.
pub const SPEC: &str = "spec.json";
/// Name of the parameters in a checkpoint and in a bundle.
pub const MODEL: &str = "model.safetensors";
/// Name of the golden values in a checkpoint and in a bundle.
pub const GOLDEN: &str = "golden.safetensors";

/// Folder of the checkpoint below the folder of a run.
pub const CHECKPOINT: &str = "checkpoint";

/// A model's parameters with its spec.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// What the parameters mean.
    pub spec: Spec,
    /// Every parameter of the architecture, and nothing else.
    pub parameters: Tensors,
    /// Reference outputs, where the trainer has computed them.
    pub golden: Option<Golden>,
}

impl Checkpoint {
    /// Reads a checkpoint, or a bundle as one, and checks its parameters against its spec.
    ///
    /// # Errors
    /// If something is missing, malformed, not finite or of another shape, naming the file; for a bundle, also if its
    /// parameters or golden values do not match its digests, and [`ErrorKind::NoParameters`] if it has no parameters.
    /// [`ErrorKind::Run`] if it is the folder of a run.
    pub fn read(dir: &Path) -> Result<Checkpoint> {
        if !dir.join(SPEC).exists() && dir.join(CHECKPOINT).join(SPEC).exists() {
            return Err(ErrorKind::Run(CHECKPOINT)).at(dir);
        }
        let spec = Spec::read(&dir.join(SPEC))?;
        let path = dir.join(MODEL);
        let (spec, (parameters, _), golden) = if spec.files.is_empty() {
            let golden = dir.join(GOLDEN);
            let golden = golden.exists().then(|| Golden::read(&golden, &spec)).transpose()?;
            (spec, tensors::read(&path)?, golden)
        } else {
            let bundle = Bundle::open(dir)?;
            if !bundle.spec().files.contains_key(MODEL) {
                return Err(ErrorKind::NoParameters).at(&path);
            }
            let parameters = tensors::parse(&bundle.read(MODEL, MAX_TENSOR_BYTES)?).at(&path)?;
            (bundle.spec().clone(), parameters, Some(bundle.golden()?))
        };
        check_parameters(&spec, &parameters).at(&path)?;
        Ok(Checkpoint { spec, parameters, golden })
    }

    /// Writes the files into a staged directory, to which the caller may add more before committing.
    pub fn stage(&self, target: &Path) -> Result<StagedDir> {
        self.spec.validate().at(&target.join(SPEC))?;
        check_parameters(&self.spec, &self.parameters).at(&target.join(MODEL))?;
        let staged = StagedDir::new(target)?;
        staged.write(SPEC, self.spec.to_json().as_bytes())?;
        staged.write(MODEL, &tensors::serialise(&self.parameters, &BTreeMap::new())?)?;
        if let Some(golden) = &self.golden {
            staged.write(GOLDEN, &golden.serialise()?)?;
        }
        Ok(staged)
    }

    /// Writes the checkpoint in one step, replacing what was there.
    pub fn write(&self, dir: &Path) -> Result<()> {
        self.stage(dir)?.commit(true)
    }
}

/// Checks that `tensors` holds exactly the parameters of `spec`, in float32 and finite, and that no
/// variance is negative.
pub fn check_parameters(spec: &Spec, tensors: &Tensors) -> Result<()> {
    let expected = parameters(&spec.architecture, spec.classes.len());
    for parameter in &expected {
        let name = &parameter.name;
        let Some(array) = tensors.get(name) else {
            return Err(ErrorKind::TensorMissing(name.clone()).into());
        };
        if array.shape() != parameter.shape {
            return Err(ErrorKind::TensorShape {
                name: name.clone(),
                found: array.shape().to_vec(),
                expected: parameter.shape.clone(),
            }
            .into());
        }
        let Some(values) = array.as_f32() else {
            let found = array.dtype().to_string();
            return Err(ErrorKind::TensorType { name: name.clone(), found, expected: "F32" }.into());
        };
        if !array.is_finite() {
            return Err(ErrorKind::NotFinite(name.clone()).into());
        }
        if parameter.kind == ParameterKind::RunningVariance && values.iter().any(|v| *v < 0.0) {
            return Err(ErrorKind::NegativeVariance(name.clone()).into());
        }
    }
    match tensors.keys().find(|name| expected.iter().all(|p| &p.name != *name)) {
        Some(name) => Err(ErrorKind::TensorUnknown(name.clone()).into()),
        None => Ok(()),
    }
}

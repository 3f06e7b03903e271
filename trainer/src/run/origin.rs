//! What a run begins with that was trained before.

use crate::config::Config;
use crate::nets::Network;
use anyhow::{Context, Result, bail, ensure};
use gradresnet_models::parameters::parameters;
use gradresnet_models::{Array, Checkpoint, Spec, Tensors};
use std::collections::btree_map::Entry;
use std::path::Path;
use tch::{Device, Kind};

/// A checkpoint that a new run goes on from.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// Where it was read, for messages.
    pub path: &'a Path,
    /// Its spec and its parameters.
    pub checkpoint: &'a Checkpoint,
}

impl Origin<'_> {
    /// Its network, if `config` can go on from it. One without classes gains those of `spec`. Their head is of zeros:
    /// all classes are as likely at first, and the first step moves the head alone.
    ///
    /// # Errors
    /// If it is not of the kind that `spec` describes, or has had all the steps of `config`.
    pub(super) fn network(self, config: &Config, spec: &Spec, device: Device) -> Result<Network> {
        let network = || {
            let had = self.checkpoint.spec.provenance.as_ref().map_or(0, |provenance| provenance.steps);
            ensure!(
                had < config.steps,
                "it is at step {had} already, and `steps` of the config is {}: raise that to train on",
                config.steps
            );
            if self.checkpoint.spec.classes.is_empty() {
                with_classes(self.checkpoint, spec, device)
            } else {
                trained(self.checkpoint, spec, device)
            }
        };
        network().with_context(|| format!("cannot go on from {}", self.path.display()))
    }
}

/// What was done to a checkpoint before, and what was done then, for its provenance. The same thing once more is named
/// once.
pub(crate) fn then(before: Option<&str>, now: &str) -> String {
    match before {
        None | Some("") => now.into(),
        Some(before) if before == now || before.ends_with(&format!("; then {now}")) => before.into(),
        Some(before) => format!("{before}; then {now}"),
    }
}

/// The network of a checkpoint, which must be of the kind that `spec` describes.
pub(super) fn trained(checkpoint: &Checkpoint, spec: &Spec, device: Device) -> Result<Network> {
    same_architecture(checkpoint, spec)?;
    same_classes(&checkpoint.spec.classes, &spec.classes)?;
    network(spec, &checkpoint.parameters, device)
}

fn with_classes(checkpoint: &Checkpoint, spec: &Spec, device: Device) -> Result<Network> {
    same_architecture(checkpoint, spec)?;
    let mut values = checkpoint.parameters.clone();
    for p in parameters(&spec.architecture, spec.classes.len()) {
        if let Entry::Vacant(missing) = values.entry(p.name) {
            let zeros = Array::f32(&p.shape, vec![0.0; p.shape.iter().product()]);
            missing.insert(zeros.context("a shape without its elements")?);
        }
    }
    network(spec, &values, device)
}

fn same_architecture(checkpoint: &Checkpoint, spec: &Spec) -> Result<()> {
    ensure!(
        checkpoint.spec.architecture == spec.architecture,
        "its architecture is not that of the config: {}, not {}",
        serde_json::to_string(&checkpoint.spec.architecture)?,
        serde_json::to_string(&spec.architecture)?
    );
    Ok(())
}

/// The classes of a checkpoint against those that the config trains on the data.
fn same_classes(trained: &[String], wanted: &[String]) -> Result<()> {
    match (trained.is_empty(), wanted.is_empty()) {
        (false, true) => {
            bail!("it has {} classes, and the config trains none: add [classification]", trained.len())
        }
        (true, false) => bail!(
            "it has no classes, and its config does: a new run from it gains them, by `gradresnet-train fit --from`"
        ),
        _ => {
            let difference = trained.iter().zip(wanted).find(|(a, b)| a != b);
            let first =
                difference.map(|(a, b)| format!(", `{a}` in place of `{b}` among them")).unwrap_or_default();
            ensure!(
                trained == wanted,
                "its {} classes are not the {} of the data{first}; only a denoiser without classes learns others",
                trained.len(),
                wanted.len()
            );
            Ok(())
        }
    }
}

pub(super) fn network(spec: &Spec, values: &Tensors, device: Device) -> Result<Network> {
    Network::from_tensors(&spec.architecture, spec.classes.len(), values, Kind::Float, device)
        .context("parameters are missing")
}

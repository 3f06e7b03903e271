//! The mean of states of one run, which is often better than each of them: Izmailov et al., "Averaging Weights Leads to
//! Wider Optima and Better Generalization" (arXiv:1803.05407).

use crate::golden::golden;
use crate::run::then;
use anyhow::{Context, Result, bail, ensure};
use gradresnet_models::parameters::{ParameterKind, parameters};
use gradresnet_models::{Array, Checkpoint, Precision, Spec};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Reads `checkpoints` (or bundles) and forms the network whose parameters are the mean of theirs, in float64, with
/// golden values of its own and without figures. `command` is what did so, for its provenance.
///
/// They should be states of one run, or of runs that went on from one another: between networks that were trained apart
/// there is nothing good. So the name, the steps, the CPU hours and the training images of the result are those of the
/// one with most steps (the first of them); of branches these hours are too few.
///
/// # Errors
/// If there are fewer than two, one cannot be read or is another kind of network, or they have batch norms.
pub fn average(checkpoints: &[PathBuf], command: &str) -> Result<Checkpoint> {
    let [first, others @ ..] = checkpoints else { bail!("no checkpoint to average") };
    ensure!(!others.is_empty(), "{}: one checkpoint has no mean; name another as well", first.display());
    let Checkpoint { mut spec, parameters: tensors, .. } = Checkpoint::read(first)?;
    ensure!(
        parameters(&spec.architecture, spec.classes.len())
            .iter()
            .all(|p| p.kind != ParameterKind::RunningVariance),
        "{}: has batch norms, whose statistics would have to be measured anew, so it cannot be averaged",
        first.display()
    );
    let mut sums: BTreeMap<String, (Vec<usize>, Vec<f64>)> =
        tensors.into_iter().map(|(name, array)| (name, (array.shape().to_vec(), array.to_f64()))).collect();
    for path in others {
        let other = Checkpoint::read(path)?;
        if let Some(what) = difference(&spec, &other.spec) {
            bail!(
                "{}: its {what} is not that of {}; only states of one run can be averaged",
                path.display(),
                first.display()
            );
        }
        for (name, array) in &other.parameters {
            // Networks of one architecture have the same parameters, as reading them has checked.
            if let Some((_, sum)) = sums.get_mut(name) {
                sum.iter_mut().zip(array.to_f64()).for_each(|(s, v)| *s += v);
            }
        }
        if steps(&other.spec) > steps(&spec) {
            spec = other.spec;
        }
    }
    let count = checkpoints.len() as f64;
    let mean = sums.into_iter().map(|(name, (shape, sum))| {
        let values = sum.into_iter().map(|s| (s / count) as f32).collect();
        Some((name, Array::f32(&shape, values)?))
    });
    let parameters = mean.collect::<Option<_>>().context("a parameter's shape changed")?;
    let mut provenance = spec.provenance.take().unwrap_or_default();
    provenance.command = then(Some(&provenance.command), command);
    provenance.versions.insert("gradresnet-train".into(), env!("CARGO_PKG_VERSION").into());
    spec.provenance = Some(provenance);
    // What was measured, digested and exported is a state and not the mean.
    spec.precision = Precision::default();
    spec.metrics.clear();
    spec.files.clear();
    let golden = golden(&spec, &parameters);
    Ok(Checkpoint { spec, parameters, golden })
}

fn steps(spec: &Spec) -> u64 {
    spec.provenance.as_ref().map_or(0, |p| p.steps)
}

/// The field in which two specs describe different networks.
fn difference(a: &Spec, b: &Spec) -> Option<&'static str> {
    let fields = [
        ("architecture", a.architecture == b.architecture),
        ("task", a.task == b.task),
        ("list of classes", a.classes == b.classes),
        ("image_size", a.image_size == b.image_size),
        ("range of sigma", a.sigma == b.sigma),
    ];
    fields.into_iter().find(|(_, same)| !same).map(|(name, _)| name)
}

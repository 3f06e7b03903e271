//! From a checkpoint to a bundle, verified before it is put in place.

use crate::error::{ErrorKind, Result};
use crate::evaluate::{Values, evaluate};
use crate::golden::{self, golden};
use crate::ir::{Graph, Tensor};
use crate::lower::lower;
use crate::network::{Weights, draw};
use crate::onnx::{self, External};
use crate::precision::convolve_in_float16;
use crate::simplify::simplify;
use gradresnet::engine::available;
use gradresnet::verify::{self, verify};
use gradresnet_models::checkpoint::{GOLDEN, MODEL};
use gradresnet_models::staged::{self, StagedDir};
use gradresnet_models::{Bundle, Checkpoint, Port, Precision, Spec, port, tensors};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use safetensors::SafeTensors;
use std::collections::BTreeMap;
use std::path::Path;

/// How to export.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the parameters go.
    pub weights: Weights,
    /// What convolutions compute in.
    pub precision: Precision,
    /// Version of the ONNX operators, one of [`onnx::OPSETS`].
    pub opset: i64,
    /// Whether an existing bundle is replaced.
    pub overwrite: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { weights: Weights::Inline, precision: Precision::Float32, opset: 17, overwrite: false }
    }
}

/// What an export found.
#[derive(Clone, Debug)]
pub struct Report {
    /// Number of parameters.
    pub parameters: usize,
    /// The graphs, with their number of operations as derived and as written.
    pub operations: Vec<(port::Graph, usize, usize)>,
    /// Who computed the golden values.
    pub golden_source: String,
    /// For each engine that is usable here, how far it is from the golden values.
    pub verified: Vec<verify::Report>,
    /// The engines that are not, with the reason.
    pub absent: Vec<String>,
}

/// Exports `checkpoint` to a bundle at `target`.
///
/// # Errors
/// If the checkpoint does not fit its spec, the target exists (or holds what no bundle does), an engine's output is
/// further from the golden values than accepted, or the denoiser is not the gradient of the forward graph. `target`
/// is then left as it was.
pub fn export(checkpoint: &Checkpoint, target: &Path, options: &Options) -> Result<Report> {
    let Checkpoint { spec, parameters, golden: given } = checkpoint;
    let spec = &Spec { precision: options.precision, ..spec.clone() };
    gradresnet_models::checkpoint::check_parameters(spec, parameters)?;
    if options.overwrite {
        Bundle::ensure_replaceable(target)?;
    } else {
        staged::ensure_absent(target)?;
    }
    let dir = StagedDir::new(target)?;

    let (mut operations, mut graphs) = (Vec::new(), Vec::new());
    for role in port::Graph::ALL.into_iter().filter(|role| role.is_of(spec)) {
        let drawn = draw(checkpoint, role, options.weights)?;
        let written = finish(&drawn)?;
        operations.push((role, drawn.operations(), written.operations()));
        graphs.push((role, written));
    }
    if let [(_, forward), (_, denoiser)] = &graphs[..] {
        check_gradient(spec, forward, denoiser)?;
    }

    // Written in any case, so that a bundle is a checkpoint too: the trainer takes either.
    let bytes = tensors::serialise(parameters, &BTreeMap::new())?;
    dir.write(MODEL, &bytes)?;
    let external = match options.weights {
        Weights::Inline => External::new(),
        Weights::Shared => offsets(&bytes)?,
    };
    for (role, graph) in &graphs {
        let entries = metadata(spec, *role);
        let narrow;
        let written = match options.precision {
            Precision::Float32 => graph,
            Precision::Float16 => {
                narrow = convolve_in_float16(graph)?;
                check_rounding(spec, *role, graph, &narrow)?;
                &narrow
            }
        };
        let bytes = onnx::serialise(written, role.name(), options.opset, &external, &entries)?;
        dir.write(role.file_name(), &bytes)?;
    }
    let golden = match given {
        Some(golden) => golden.clone(),
        None => golden(spec, &graphs)?,
    };
    dir.write(GOLDEN, &golden.serialise()?)?;
    let bundle = Bundle::seal(&dir, spec)?;

    let (mut verified, mut absent) = (Vec::new(), Vec::new());
    for (_, opened) in available(1) {
        match opened {
            Ok(engine) => verified.push(verify(&bundle, &*engine)?),
            Err(error) => absent.push(error.to_string()),
        }
    }
    dir.commit(options.overwrite)?;
    Ok(Report {
        parameters: parameters.values().map(|a| a.shape().iter().product::<usize>()).sum(),
        operations,
        golden_source: golden.source,
        verified,
        absent,
    })
}

/// Simplifies, lowers, and simplifies what lowering made.
///
/// # Errors
/// If a rule is at fault.
pub fn finish(graph: &Graph) -> Result<Graph> {
    simplify(&lower(&simplify(graph)?)?)
}

/// Offset and length of each tensor in the bytes of a safetensors file.
fn offsets(bytes: &[u8]) -> Result<External> {
    let (header, metadata) = SafeTensors::read_metadata(bytes)?;
    // The file is: length of the header in 8 bytes, header, data.
    let start = 8 + header;
    let entry = |(name, info): (String, &safetensors::tensor::TensorInfo)| {
        let (from, to) = info.data_offsets;
        (name, (start + from, to - from))
    };
    Ok(metadata.tensors().into_iter().map(entry).collect())
}

/// The essentials of the spec, so that a graph found alone explains itself.
fn metadata(spec: &Spec, role: port::Graph) -> Vec<(&'static str, String)> {
    let mut entries = vec![
        ("gradresnet.format", spec.format.to_string()),
        ("gradresnet.graph", role.name().to_string()),
        ("gradresnet.name", spec.name.clone()),
        ("gradresnet.image", "RGB, NCHW, [0, 1]; height and width multiples of the stride".to_string()),
    ];
    entries.extend(spec.essentials().into_iter().filter_map(|(key, value)| Some((key, value?))));
    entries
}

/// Compares a graph that rounds with the one that does not, at a size that can be evaluated in float64: engines on a
/// CPU may round less than a graphics processor does, and so miss overflows.
fn check_rounding(spec: &Spec, role: port::Graph, wide: &Graph, narrow: &Graph) -> Result<()> {
    let inputs = golden::inputs(spec, [1, 32, 32], 5);
    let (wide, narrow) = (evaluate(wide, &inputs)?, evaluate(narrow, &inputs)?);
    let norm = |t: &Tensor| t.values().iter().map(|v| v * v).sum::<f64>().sqrt();
    for (output, wide) in &wide {
        // What the denoiser changes, not the image that it passes on.
        let changed = output == Port::Denoised.name();
        let change = if changed { wide.zip(&inputs["noisy"], |d, y| d - y) } else { wide.clone() };
        let difference = norm(&wide.zip(&narrow[output], |a, b| a - b));
        // Logits may be 0, as in a head that was not trained yet.
        let error = if difference == 0.0 { 0.0 } else { difference / norm(&change) };
        // The energy is the square of a sum that may nearly cancel, as in untrained networks: it need only be finite.
        let tolerance = if output == Port::Energy.name() { f64::MAX } else { Precision::Float16.tolerance() };
        if error.is_nan() || error > tolerance {
            let (graph, output) = (role.name(), output.clone());
            return Err(ErrorKind::Rounding { graph, output, error, tolerance }.into());
        }
    }
    Ok(())
}

/// Compares (denoised − noisy)/σ² along a random direction with the slope of
/// log p(y) + Σ a_c log p(c|y) by central differences of the forward graph, at two sizes, in float64.
///
/// An exporter that wrote a constant where a gradient should be would agree with itself on golden values
/// of its own; it cannot agree with this.
fn check_gradient(spec: &Spec, forward: &Graph, denoiser: &Graph) -> Result<()> {
    // The second, shorter one is for piecewise linear activations, which may have a kink within the first:
    // one unit that switches changes the slope by a hundredth. A wrong gradient agrees with neither.
    const STEPS: [f64; 2] = [1e-6, 1e-8];
    // Rounding of float64 over the shorter step is below 1e-4.
    const TOLERANCE: f64 = 1e-3;
    for (seed, size) in [(3, [1, 16, 16]), (4, [1, 24, 32])] {
        let inputs = golden::inputs(spec, size, seed);
        let outputs = evaluate(denoiser, &inputs)?;
        let (noisy, sigma) = (&inputs["noisy"], inputs["sigma"].values()[0]);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let direction = Tensor::from_fn(noisy.shape(), |_| StandardNormal.sample(&mut rng));
        let change = outputs["denoised"].zip(noisy, |d, y| (d - y) / (sigma * sigma));
        let found: f64 = change.zip(&direction, |g, v| g * v).values().iter().sum();
        let density = |t: f64| -> Result<f64> {
            let image = noisy.zip(&direction, |y, v| y + t * v);
            let outputs = evaluate(forward, &Values::from([("image".to_string(), image)]))?;
            let mut density = -outputs["energy"].values()[0];
            if let (Some(logits), Some(weights)) = (outputs.get("logits"), inputs.get("class_weights")) {
                let largest = logits.values().iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = logits.values().iter().map(|l| (l - largest).exp()).sum();
                let log_sum = largest + sum.ln();
                density += logits.zip(weights, |l, a| a * (l - log_sum)).values().iter().sum::<f64>();
            }
            Ok(density)
        };
        // Along a random direction the slope may nearly vanish: the gradient's norm is its floor.
        let typical = change.values().iter().map(|g| g * g).sum::<f64>().sqrt();
        if typical == 0.0 {
            return Err(ErrorKind::NoGradient.into());
        }
        let mut slope = 0.0;
        let mut agrees = false;
        for step in STEPS {
            slope = (density(step)? - density(-step)?) / (2.0 * step);
            agrees = (found - slope).abs() <= TOLERANCE * slope.abs().max(typical);
            if agrees {
                break;
            }
        }
        if !agrees {
            let (height, width) = (noisy.shape()[2], noisy.shape()[3]);
            return Err(ErrorKind::Gradient { size: format!("{height}×{width}"), slope, found }.into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::draw;
    use crate::test_networks::{base, checkpoint};
    use gradresnet_models::Array;

    #[test]
    fn a_denoiser_that_is_not_the_gradient_of_its_forward_graph_is_refused() {
        let right = checkpoint(base(), 3);
        let mut wrong = right.clone();
        let vector = &right.parameters["energy.weight"];
        let values = vector.to_f64().iter().map(|v| (1.01 * v) as f32).collect();
        wrong.parameters.insert("energy.weight".into(), Array::f32(vector.shape(), values).unwrap());
        let graph = |checkpoint: &Checkpoint, role| {
            finish(&draw(checkpoint, role, crate::network::Weights::Inline).unwrap())
        };
        let forward = graph(&right, port::Graph::Forward).unwrap();
        let check = |denoiser: &Checkpoint| {
            check_gradient(&right.spec, &forward, &graph(denoiser, port::Graph::Denoiser).unwrap())
        };
        check(&right).unwrap();
        let error = check(&wrong).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Gradient { .. }), "{error}");
    }
}

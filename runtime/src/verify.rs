//! Golden values: does an engine, on this machine, compute what the trainer computed?

use crate::engine::{Engine, Graph, Inputs, Outputs, Shape};
use crate::error::{ErrorKind, Result};
use gradresnet_models::{Array, Bundle, GoldenCase, Port};
use ndarray::{ArrayView2, ArrayView4};

/// How far an engine is from the golden values.
#[derive(Clone, Debug)]
pub struct Report {
    /// The engine, as it describes itself.
    pub engine: String,
    /// One figure for each graph, case and output; the worst first.
    pub deviations: Vec<Deviation>,
}

/// One figure of a [`Report`].
#[derive(Clone, Debug)]
pub struct Deviation {
    /// Which graph.
    pub graph: Graph,
    /// Position of the case in `golden.safetensors`.
    pub case: usize,
    /// Its batch and size.
    pub shape: Shape,
    /// `logits`, `energy` or `denoised − noisy`.
    pub output: &'static str,
    /// ‖out − ref‖/‖ref‖, with ‖ref‖ replaced by the output's floor where it is smaller.
    pub error: f64,
}

/// An output that is compared, and the root mean square below which its reference is a difference of
/// larger numbers, whose float32 rounding (some 1e-7) would count as an error of the graph.
struct Compared {
    output: &'static str,
    floor: f64,
}

/// Image units: the two images that are subtracted are of order 1.
const CHANGE: Compared = Compared { output: "denoised − noisy", floor: 1e-3 };
const LOGITS: Compared = Compared { output: "logits", floor: 1e-2 };
/// Nats per pixel.
const ENERGY: Compared = Compared { output: "energy", floor: 1e-3 };

/// Runs both graphs on the golden inputs and compares their outputs with the golden ones. It does not
/// look at digests: see [`Bundle::verify_digests`].
///
/// # Errors
/// [`ErrorKind::Golden`] for the worst figure above [`gradresnet_models::Precision::tolerance`], and those of
/// [`Engine::compile`] and [`crate::engine::Plan::run`].
pub fn verify(bundle: &Bundle, engine: &dyn Engine) -> Result<Report> {
    let golden = bundle.golden()?;
    let mut deviations = Vec::new();
    for graph in Graph::ALL.into_iter().filter(|graph| graph.is_of(bundle.spec())) {
        for (number, case) in golden.cases.iter().enumerate() {
            let [batch, height, width] = case.size();
            let shape = Shape { batch, height, width };
            let outputs = engine.compile(bundle, graph, shape)?.run(&inputs(
                &graph.inputs(bundle.spec()),
                shape,
                case,
            )?)?;
            for (compared, error) in compare(&outputs, case) {
                // If the golden values' squares overflow, there is no distance, and none is good enough.
                let error = if error.is_nan() { f64::INFINITY } else { error };
                deviations.push(Deviation { graph, case: number, shape, output: compared.output, error });
            }
        }
    }
    deviations.sort_by(|a, b| b.error.total_cmp(&a.error));
    let tolerance = bundle.spec().precision.tolerance();
    match deviations.first() {
        Some(worst) if worst.error > tolerance => Err(ErrorKind::Golden {
            graph: worst.graph.name(),
            case: worst.case,
            size: worst.shape.to_string(),
            output: worst.output,
            error: worst.error,
            tolerance,
            engine: engine.description(),
        }
        .into()),
        _ => Ok(Report { engine: engine.description(), deviations }),
    }
}

fn inputs<'a>(ports: &[Port], shape: Shape, case: &'a GoldenCase) -> Result<Inputs<'a>> {
    // The golden file was checked when it was read: these shapes are its own.
    let wrong = || ErrorKind::Input("the golden inputs are not float32 of their shape".into());
    let image = case.noisy.as_f32().ok_or_else(wrong)?;
    let image = ArrayView4::from_shape((shape.batch, 3, shape.height, shape.width), image);
    let image = image.map_err(|_| wrong())?;
    let given = |port, array: &'a Option<Array>| array.as_ref().filter(|_| ports.contains(&port));
    let sigma = given(Port::Sigma, &case.sigma).map(|sigma| sigma.as_f32().ok_or_else(wrong)).transpose()?;
    let class_weights = given(Port::ClassWeights, &case.class_weights)
        .map(|weights| {
            let classes = weights.shape().last().copied().unwrap_or(0);
            let values = weights.as_f32().ok_or_else(wrong)?;
            ArrayView2::from_shape((shape.batch, classes), values).map_err(|_| wrong())
        })
        .transpose()?;
    Ok(Inputs { image, sigma: sigma.unwrap_or_default(), class_weights })
}

fn compare(outputs: &Outputs, case: &GoldenCase) -> Vec<(Compared, f64)> {
    let [_, height, width] = case.size();
    let energy = Compared { floor: ENERGY.floor * (height * width) as f64, ..ENERGY };
    let mut errors = vec![];
    let mut add = |compared: Compared, found: &mut dyn Iterator<Item = f64>, expected: Vec<f64>| {
        let error = relative_error(found, &expected, compared.floor);
        errors.push((compared, error));
    };
    if let (Some(found), Some(expected)) = (&outputs.energy, &case.energy) {
        add(energy, &mut found.iter().map(|&v| f64::from(v)), expected.to_f64());
    }
    if let (Some(found), Some(expected)) = (&outputs.logits, &case.logits) {
        add(LOGITS, &mut found.iter().map(|&v| f64::from(v)), expected.to_f64());
    }
    if let (Some(found), Some(expected)) = (&outputs.denoised, &case.denoised) {
        let noisy = case.noisy.to_f64();
        let mut found = found.iter().zip(&noisy).map(|(&a, b)| f64::from(a) - b);
        let expected = expected.to_f64().iter().zip(&noisy).map(|(a, b)| a - b).collect();
        add(CHANGE, &mut found, expected);
    }
    errors
}

fn relative_error(found: &mut dyn Iterator<Item = f64>, expected: &[f64], floor: f64) -> f64 {
    let distance: f64 = found.zip(expected).map(|(a, b)| (a - b).powi(2)).sum();
    let norm: f64 = expected.iter().map(|b| b * b).sum();
    distance.sqrt() / norm.sqrt().max(floor * (expected.len() as f64).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_relative_down_to_the_floor() {
        let error =
            |found: &[f64], expected: &[f64]| relative_error(&mut found.iter().copied(), expected, 1e-3);
        assert!((error(&[3.3, 4.4], &[3.0, 4.0]) - 0.1).abs() < 1e-12);
        assert!((error(&[1e-5, 1e-5], &[0.0, 0.0]) - 1e-2).abs() < 1e-12);
        assert_eq!(error(&[1.0], &[1.0]), 0.0);
    }
}

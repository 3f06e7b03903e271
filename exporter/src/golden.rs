//! Golden values for a checkpoint without any: computed by this crate's float64 evaluator.

use crate::error::{ErrorKind, Result};
use crate::evaluate::{Values, evaluate};
use crate::ir::{Graph, Tensor};
use gradresnet_models::{Array, Golden, GoldenCase, Port, Spec, port};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// The `source` of golden values computed here.
pub const SOURCE: &str = "gradresnet-export, float64 evaluator of its graph";

/// Smooth random images with noise, under both names that graphs have for them, and a denoiser's other inputs, at
/// `[N, H, W]` rounded up to the network's stride. Noise levels are within the spec's range, extended to 0.05 if it
/// ends below.
pub fn inputs(spec: &Spec, [batch, height, width]: [usize; 3], seed: u64) -> Values {
    let stride = spec.architecture.stride();
    let (height, width) = (height.next_multiple_of(stride), width.next_multiple_of(stride));
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    // Rounded to float32, which is what engines take.
    let mut uniform =
        |low: f64, high: f64| f64::from((low + (high - low) * rng.random_range(0.0..1.0)) as f32);
    let (min, max) = (spec.sigma.min, spec.sigma.max.max(0.05));
    // Away from 0, where the denoiser changes nothing and a relative error means nothing.
    let sigma =
        Tensor::from_fn(&[batch], |_| min + (max - min) * uniform(0.3, 0.9)).map(|s| f64::from(s as f32));
    let class_weights = Tensor::from_fn(&[batch, spec.classes.len()], |_| uniform(-1.0, 2.0));
    let waves = Tensor::from_fn(&[batch, 3, 3], |_| uniform(-0.5, 0.5));
    let mut noise = ChaCha8Rng::seed_from_u64(seed ^ 1);
    let noisy = Tensor::from_fn(&[batch, 3, height, width], |at| {
        let wave = |i| waves.at(&[at[0], at[1], i]);
        let phase = wave(0) * at[2] as f64 + wave(1) * at[3] as f64 + 6.0 * wave(2);
        let normal: f64 = StandardNormal.sample(&mut noise);
        f64::from((0.5 + 0.3 * phase.sin() + sigma.at(&[at[0]]) * normal) as f32)
    });
    let mut values = Values::from([("image".to_string(), noisy.clone()), ("noisy".to_string(), noisy)]);
    values.insert("sigma".into(), sigma);
    if !spec.classes.is_empty() {
        values.insert("class_weights".into(), class_weights);
    }
    values
}

/// Two cases, of different batch and size.
///
/// # Errors
/// If a graph lacks an output, which is a fault of this program.
pub fn golden(spec: &Spec, graphs: &[(port::Graph, Graph)]) -> Result<Golden> {
    let ports = Port::of(spec);
    let case = |seed: u64, size| -> Result<GoldenCase> {
        let inputs = inputs(spec, size, seed);
        let mut outputs = Values::new();
        for (_, graph) in graphs {
            outputs.extend(evaluate(graph, &inputs)?);
        }
        let missing = || ErrorKind::Operator { name: "golden", reason: "an output is missing".into() };
        let input = |port: Port| {
            let tensor = inputs.get(port.name()).filter(|_| ports.contains(&port))?;
            Array::f32(tensor.shape(), tensor.values().iter().map(|&v| v as f32).collect())
        };
        let output = |port: Port| {
            let tensor = outputs.get(port.name())?;
            Array::f64(tensor.shape(), tensor.values().to_vec())
        };
        Ok(GoldenCase {
            noisy: input(Port::Image).ok_or_else(missing)?,
            sigma: input(Port::Sigma),
            class_weights: input(Port::ClassWeights),
            denoised: output(Port::Denoised),
            energy: output(Port::Energy),
            logits: output(Port::Logits),
        })
    };
    Ok(Golden { source: SOURCE.into(), cases: vec![case(1, [2, 32, 32])?, case(2, [1, 40, 64])?] })
}

//! Golden values: what every engine must reproduce, computed in float64 by autograd.

use crate::convert::to_array;
use crate::nets::Network;
use gradresnet_models::{Golden, GoldenCase, Port, Spec, Tensors};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use tch::{Device, Kind, Tensor};

/// Two cases, of different batch and size, for a network with these parameters: synthetic images
/// (gradients, an edge, a sinusoid) with noise at levels from the spec's range.
///
/// Returns `None` if `parameters` are not those of the spec.
pub fn golden(spec: &Spec, parameters: &Tensors) -> Option<Golden> {
    let classes = spec.classes.len();
    let net = Network::from_tensors(&spec.architecture, classes, parameters, Kind::Double, Device::Cpu)?;
    let stride = spec.architecture.stride();
    let sizes = [(2, 32, 32), (1, 40, 64)];
    let ports = Port::of(spec);
    let of = |port: Port, value: Option<&Tensor>| value.filter(|_| ports.contains(&port)).map(to_array);
    let cases = sizes
        .iter()
        .enumerate()
        .map(|(seed, &(batch, height, width))| {
            let inputs = Inputs::new(spec, [batch, next(height, stride), next(width, stride)], seed as u64);
            let double = |t: &Tensor| t.to_kind(Kind::Double);
            let weights = inputs.class_weights.as_ref().filter(|_| ports.contains(&Port::ClassWeights));
            let weights = weights.map(double);
            let out = net.outputs(&double(&inputs.noisy), &double(&inputs.sigma), weights.as_ref());
            GoldenCase {
                noisy: to_array(&inputs.noisy),
                sigma: of(Port::Sigma, Some(&inputs.sigma)),
                class_weights: of(Port::ClassWeights, inputs.class_weights.as_ref()),
                denoised: of(Port::Denoised, out.denoised.as_ref()),
                energy: of(Port::Energy, out.energy.as_ref()),
                logits: of(Port::Logits, out.logits.as_ref()),
            }
        })
        .collect();
    Some(Golden { source: "libtorch float64 autograd".into(), cases })
}

fn next(size: usize, stride: usize) -> usize {
    size.next_multiple_of(stride)
}

/// Inputs of the denoiser graph, in float32.
struct Inputs {
    noisy: Tensor,
    sigma: Tensor,
    class_weights: Option<Tensor>,
}

impl Inputs {
    fn new(spec: &Spec, [batch, height, width]: [usize; 3], seed: u64) -> Inputs {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        // A classifier may be trained without noise.
        let (min, max) = (spec.sigma.min, spec.sigma.max.max(0.05));
        let mut noisy = Vec::with_capacity(batch * 3 * height * width);
        let mut sigmas = Vec::with_capacity(batch);
        for _ in 0..batch {
            // Away from 0, where D(y) − y vanishes and no relative error can be told.
            let sigma = min + (max - min) * rng.random_range(0.3..0.9);
            let (angle, frequency) = (rng.random_range(0.0..6.3f64), rng.random_range(0.1..0.8));
            let edge = rng.random_range(0.2..0.8) * width as f64;
            for channel in 0..3 {
                let phase = f64::from(channel) + rng.random_range(0.0..6.3);
                for y in 0..height {
                    for x in 0..width {
                        let along = x as f64 * angle.cos() + y as f64 * angle.sin();
                        let step = if (x as f64) < edge { 0.15 } else { -0.15 };
                        let clean = 0.5 + step + 0.2 * (frequency * along + phase).sin();
                        let noise: f64 = StandardNormal.sample(&mut rng);
                        noisy.push((clean + sigma * noise) as f32);
                    }
                }
            }
            sigmas.push(sigma as f32);
        }
        let classes = spec.classes.len();
        let weights: Vec<f32> = (0..batch * classes).map(|_| rng.random_range(-1.0..2.0)).collect();
        let dims = [batch as i64, 3, height as i64, width as i64];
        Inputs {
            noisy: Tensor::from_slice(&noisy).reshape(dims),
            sigma: Tensor::from_slice(&sigmas),
            class_weights: (classes > 0)
                .then(|| Tensor::from_slice(&weights).reshape([batch as i64, classes as i64])),
        }
    }
}

//! A small model to write, read and spoil.
#![allow(dead_code, reason = "each test binary uses its own part")]

use gradresnet_models::architecture::{GradResNet, SideConnections};
use gradresnet_models::{
    Array, Checkpoint, Golden, GoldenCase, Measurement, Norm, Port, Provenance, SigmaRange, Spec, Task,
    Tensors, parameters,
};
use std::collections::BTreeMap;

/// A spec with two classes and with every optional field filled.
pub fn spec() -> Spec {
    Spec {
        format: gradresnet_models::spec::FORMAT,
        name: "small".into(),
        architecture: GradResNet {
            width: 4,
            blocks: vec![1, 1],
            norm: Norm::Batch,
            group_size: 4,
            side_connections: SideConnections::Stem,
            biases: true,
            ..GradResNet::default()
        }
        .into(),
        task: Task::Joint,
        classes: vec!["cat".into(), "dog".into()],
        image_size: Some(32),
        precision: gradresnet_models::Precision::Float32,
        sigma: SigmaRange { min: 1.0 / 255.0, max: 0.1 + 0.2 },
        provenance: Some(Provenance {
            data: "none".into(),
            steps: 7,
            seed: u64::MAX,
            cpu_hours: 0.1,
            command: "gradresnet-train fit".into(),
            versions: BTreeMap::from([("libtorch".into(), "2.13.0".into())]),
        }),
        metrics: vec![Measurement {
            data: "none".into(),
            metric: "psnr".into(),
            sigma: Some(25.0),
            value: 29.1,
            command: "gradresnet psnr".into(),
        }],
        files: BTreeMap::new(),
    }
}

/// Parameters that fit a spec, no two alike.
pub fn tensors(spec: &Spec) -> Tensors {
    let mut next = 0.0;
    parameters::parameters(&spec.architecture, spec.classes.len())
        .into_iter()
        .map(|p| {
            let values = (0..p.len())
                .map(|_| {
                    next += 1.0 / 1024.0;
                    next
                })
                .collect();
            (p.name, Array::f32(&p.shape, values).unwrap())
        })
        .collect()
}

/// Golden values of two cases.
pub fn golden(spec: &Spec) -> Golden {
    let (ports, classes) = (Port::of(spec), spec.classes.len());
    let case = |n: usize, h: usize, w: usize| {
        let f32 = |shape: &[usize]| Array::f32(shape, vec![0.5; shape.iter().product()]).unwrap();
        let f64 = |shape: &[usize]| Array::f64(shape, vec![0.1; shape.iter().product()]).unwrap();
        let of = |port, array: Array| ports.contains(&port).then_some(array);
        GoldenCase {
            noisy: f32(&[n, 3, h, w]),
            sigma: of(Port::Sigma, f32(&[n])),
            class_weights: of(Port::ClassWeights, f32(&[n, classes])),
            denoised: of(Port::Denoised, f64(&[n, 3, h, w])),
            energy: of(Port::Energy, f64(&[n])),
            logits: of(Port::Logits, f64(&[n, classes])),
        }
    };
    Golden { source: "by hand".into(), cases: vec![case(1, 4, 4), case(2, 4, 6)] }
}

/// All of the above.
pub fn checkpoint() -> Checkpoint {
    let spec = spec();
    let (parameters, golden) = (tensors(&spec), golden(&spec));
    Checkpoint { spec, parameters, golden: Some(golden) }
}

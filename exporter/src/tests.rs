//! What must hold of whole graphs and of an export.

use crate::evaluate::{Values, evaluate};
use crate::export::finish;
use crate::golden::{SOURCE, inputs};
use crate::ir::{Graph, Tensor};
use crate::network::{Weights, draw};
use crate::precision::convolve_in_float16;
use crate::test_networks::{all, base, checkpoint, single};
use crate::{ErrorKind, Options, export};
use gradresnet_models::port::Graph::{Denoiser, Forward};
use gradresnet_models::{Array, Bundle, Checkpoint, Precision, port};

fn dot(a: &Tensor, b: &Tensor) -> f64 {
    a.zip(b, |x, y| x * y).values().iter().sum()
}

fn norm(a: &Tensor) -> f64 {
    dot(a, a).sqrt()
}

fn denoise(graph: &Graph, values: &Values) -> Tensor {
    evaluate(graph, values).unwrap()["denoised"].clone()
}

/// A direction unrelated to the networks and the inputs.
fn direction(like: &Tensor, seed: f64) -> Tensor {
    let mut n = 0.0;
    Tensor::from_fn(like.shape(), |_| {
        n += 1.0;
        (n * n * 0.37 + seed).sin()
    })
}

#[test]
fn simplification_and_lowering_keep_every_value() {
    for checkpoint in all().into_iter().chain(single()) {
        let values = inputs(&checkpoint.spec, [2, 8, 12], 1);
        let graphs = port::Graph::ALL.into_iter().filter(|graph| graph.is_of(&checkpoint.spec));
        for (role, weights) in graphs.flat_map(|g| [(g, Weights::Inline), (g, Weights::Shared)]) {
            let drawn = draw(&checkpoint, role, weights).unwrap();
            let written = finish(&drawn).unwrap();
            let (before, after) = (evaluate(&drawn, &values).unwrap(), evaluate(&written, &values).unwrap());
            assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
            for (name, before) in &before {
                let distance = norm(&before.zip(&after[name], |a, b| a - b));
                // float64 sums in another order.
                assert!(distance <= 1e-11 * norm(before), "{name}: {:?}", checkpoint.spec.architecture);
            }
        }
    }
}

/// The error of float16 itself: the evaluator rounds where an engine does.
#[test]
fn convolutions_in_float16_err_by_their_rounding_and_no_more() {
    let mut rounded = 0;
    for checkpoint in all().into_iter().chain(single()) {
        let values = inputs(&checkpoint.spec, [2, 8, 12], 1);
        for role in port::Graph::ALL.into_iter().filter(|graph| graph.is_of(&checkpoint.spec)) {
            let wide = finish(&draw(&checkpoint, role, Weights::Inline).unwrap()).unwrap();
            let narrow = convolve_in_float16(&wide).unwrap();
            let (wide, narrow) = (evaluate(&wide, &values).unwrap(), evaluate(&narrow, &values).unwrap());
            for (name, wide) in &wide {
                // What the denoiser changes, not the image that it passes on.
                let base = if name == "denoised" { values["noisy"].clone() } else { wide.map(|_| 0.0) };
                let change = wide.zip(&base, |a, b| a - b);
                let error = norm(&wide.zip(&narrow[name], |a, b| a - b)) / norm(&change);
                // 2e-2 with ReLU, whose gradient jumps where rounding moves its input past 0; below 1e-2 otherwise.
                assert!(
                    error < Precision::Float16.tolerance(),
                    "{name}: {error:.1e}, {:?}",
                    checkpoint.spec.architecture
                );
                rounded += usize::from(error > 1e-6);
            }
        }
    }
    assert!(rounded > 10, "nothing was rounded");
}

#[test]
fn a_bundle_in_float16_says_so_verifies_and_is_smaller() {
    let dir = tempfile::tempdir().unwrap();
    let of = |precision, weights| {
        let target = dir.path().join(format!("{precision:?} {weights:?}"));
        let options = Options { precision, weights, ..Options::default() };
        let report = export(&checkpoint(base(), 3), &target, &options).unwrap();
        assert!(!report.verified.is_empty());
        let bundle = Bundle::open(&target).unwrap();
        assert_eq!(bundle.spec().precision, precision);
        // The parameters themselves are not rounded.
        assert_eq!(Checkpoint::read(&target).unwrap().parameters, checkpoint(base(), 3).parameters);
        std::fs::metadata(bundle.path("denoiser.onnx")).unwrap().len()
    };
    assert!(of(Precision::Float16, Weights::Inline) < of(Precision::Float32, Weights::Inline));
    of(Precision::Float16, Weights::Shared);

    // A head of zeros, as a denoiser has that is about to learn classes.
    let mut untrained = checkpoint(base(), 3);
    let shape = untrained.parameters["head.weight"].shape().to_vec();
    let zeros = Array::f32(&shape, vec![0.0; shape.iter().product()]).unwrap();
    untrained.parameters.insert("head.weight".into(), zeros);
    let options = Options { precision: Precision::Float16, ..Options::default() };
    export(&untrained, &dir.path().join("untrained"), &options).unwrap();

    // Beyond 65,504 float16 overflows, even if an engine on a CPU does not.
    let mut large = checkpoint(base(), 3);
    let kernel = &large.parameters["stages.0.0.conv1.weight"];
    let values = kernel.to_f64().iter().map(|v| (v * 1e6) as f32).collect();
    let kernel = Array::f32(kernel.shape(), values).unwrap();
    large.parameters.insert("stages.0.0.conv1.weight".into(), kernel);
    let error = export(&large, &dir.path().join("large"), &options).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Rounding { .. }), "{error}");
}

/// Eq. 14.
#[test]
fn the_jacobian_of_the_denoiser_is_symmetric() {
    const STEP: f64 = 1e-5;
    for checkpoint in all() {
        let graph = finish(&draw(&checkpoint, Denoiser, Weights::Inline).unwrap()).unwrap();
        let values = inputs(&checkpoint.spec, [1, 8, 12], 2);
        let noisy = values["noisy"].clone();
        let (u, v) = (direction(&noisy, 0.0), direction(&noisy, 1.0));
        let jacobian_times = |d: &Tensor| {
            let at = |t: f64| {
                let mut values = values.clone();
                values.insert("noisy".into(), noisy.zip(d, |y, d| y + t * d));
                denoise(&graph, &values)
            };
            at(STEP).zip(&at(-STEP), |a, b| (a - b) / (2.0 * STEP))
        };
        let (ju, jv) = (jacobian_times(&u), jacobian_times(&v));
        let defect = (dot(&u, &jv) - dot(&v, &ju)).abs();
        // Central differences err by about 1e-9 of ‖Ju‖‖v‖; the slope of a piecewise linear activation
        // may jump within the step.
        assert!(defect < 1e-6 * norm(&ju) * norm(&v), "{defect}: {:?}", checkpoint.spec.architecture);
    }
}

/// Eq. 9, with the right side by central differences of the forward graph's logits.
#[test]
fn the_difference_of_two_denoisers_is_the_gradient_of_the_classifier() {
    const STEP: f64 = 1e-5;
    let checkpoint = checkpoint(base(), 3);
    let forward = draw(&checkpoint, Forward, Weights::Inline).unwrap();
    let denoiser = draw(&checkpoint, Denoiser, Weights::Inline).unwrap();
    let mut values = inputs(&checkpoint.spec, [1, 8, 12], 3);
    let sigma = values["sigma"].values()[0];
    let mut with = |weights: [f64; 3]| {
        values.insert("class_weights".into(), Tensor::new(vec![1, 3], weights.to_vec()).unwrap());
        denoise(&denoiser, &values)
    };
    let difference = with([0.0, 1.0, 0.0]).zip(&with([0.0; 3]), |c, u| (c - u) / (sigma * sigma));
    let noisy = values["noisy"].clone();
    let v = direction(&noisy, 2.0);
    let log_p = |t: f64| {
        let image = noisy.zip(&v, |y, v| y + t * v);
        let logits =
            evaluate(&forward, &Values::from([("image".to_string(), image)])).unwrap()["logits"].clone();
        logits.values()[1] - logits.values().iter().map(|l| l.exp()).sum::<f64>().ln()
    };
    let slope = (log_p(STEP) - log_p(-STEP)) / (2.0 * STEP);
    assert!((dot(&difference, &v) - slope).abs() < 1e-7 * norm(&difference) * norm(&v));
}

#[test]
fn a_checkpoint_without_golden_values_gets_the_evaluators() {
    let dir = tempfile::tempdir().unwrap();
    for weights in [Weights::Inline, Weights::Shared] {
        let target = dir.path().join(format!("{weights:?}"));
        let options = Options { weights, ..Options::default() };
        let checkpoint = checkpoint(base(), 3);
        let report = export(&checkpoint, &target, &options).unwrap();
        assert_eq!(report.golden_source, SOURCE);
        assert!(!report.verified.is_empty());
        let bundle = Bundle::open(&target).unwrap();
        assert_eq!(bundle.golden().unwrap().cases.len(), 2);
        // A bundle is a checkpoint.
        assert_eq!(Checkpoint::read(&target).unwrap().parameters, checkpoint.parameters);
    }
}

#[test]
fn networks_with_one_graph_are_exported_with_that_one() {
    let dir = tempfile::tempdir().unwrap();
    for (i, checkpoint) in single().into_iter().enumerate() {
        let target = dir.path().join(i.to_string());
        let report = export(&checkpoint, &target, &Options::default()).unwrap();
        let graphs: Vec<port::Graph> = report.operations.iter().map(|(graph, ..)| *graph).collect();
        let expected = if checkpoint.spec.classes.is_empty() { Denoiser } else { Forward };
        assert_eq!(graphs, [expected]);
        assert!(!report.verified.is_empty() && Bundle::open(&target).is_ok());
    }
}

#[test]
fn what_cannot_be_drawn_is_refused_by_name() {
    use gradresnet_models::architecture::DruNet;
    let dir = tempfile::tempdir().unwrap();
    let drunet = checkpoint(DruNet { width: 2, blocks: 1, noise_map: true }, 0);
    let error = export(&drunet, &dir.path().join("bundle"), &Options::default()).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Family { family: "drunet", .. }), "{error}");
}

#[test]
fn what_does_not_verify_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("bundle");
    let good = checkpoint(base(), 3);
    let wrong = |change: &dyn Fn(&mut Checkpoint)| {
        let mut checkpoint = good.clone();
        change(&mut checkpoint);
        let error = export(&checkpoint, &target, &Options::default()).unwrap_err().to_string();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "{error}");
        error
    };
    let error = wrong(&|c| {
        c.parameters.remove("stages.0.0.conv1.weight");
    });
    assert!(error.contains("stages.0.0.conv1.weight"), "{error}");
    let error = wrong(&|c| {
        c.parameters.insert("energy.weight".into(), Array::f32(&[2], vec![1.0; 2]).unwrap());
    });
    assert!(error.contains("energy.weight"), "{error}");

    // Golden values that are not this network's.
    let graph = finish(&draw(&good, Denoiser, Weights::Inline).unwrap()).unwrap();
    let mut golden = crate::golden::golden(&good.spec, &[(Denoiser, graph)]).unwrap();
    golden.cases[1].energy = Array::f64(&[1], vec![1.0]);
    let error = wrong(&|c| c.golden = Some(golden.clone()));
    assert!(error.contains("energy") && error.contains("forward graph"), "{error}");
    // Its square overflows, and the relative error is NaN.
    golden.cases[1].energy = Array::f64(&[1], vec![1e200]);
    let error = wrong(&|c| c.golden = Some(golden.clone()));
    assert!(error.contains("energy"), "{error}");

    // A network that denoises nothing.
    let mut dead = checkpoint(base(), 0);
    let shape = dead.parameters["energy.weight"].shape().to_vec();
    let zeros = Array::f32(&shape, vec![0.0; shape.iter().product()]).unwrap();
    dead.parameters.insert("energy.weight".into(), zeros);
    let error = export(&dead, &target, &Options::default()).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::NoGradient) && !target.exists(), "{error}");

    let options = Options { opset: 16, ..Options::default() };
    let error = export(&good, &target, &options).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Opset(16)) && !target.exists());
}

#[test]
fn an_existing_bundle_is_replaced_only_on_request() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("bundle");
    let (one, other) = (checkpoint(base(), 0), checkpoint(base(), 3));
    let overwrite = Options { overwrite: true, ..Options::default() };
    export(&one, &target, &Options::default()).unwrap();
    let error = export(&other, &target, &Options::default()).unwrap_err().to_string();
    assert!(error.contains("bundle: exists already"), "{error}");
    assert_eq!(Checkpoint::read(&target).unwrap().parameters, one.parameters);
    export(&other, &target, &overwrite).unwrap();
    assert_eq!(Checkpoint::read(&target).unwrap().parameters, other.parameters);

    // Whatever else a folder holds would be lost.
    std::fs::write(target.join("mine"), "1").unwrap();
    let error = export(&one, &target, &overwrite).unwrap_err().to_string();
    assert!(error.contains("`mine`") && target.join("mine").exists(), "{error}");
    let file = dir.path().join("file");
    std::fs::write(&file, "1").unwrap();
    assert!(export(&one, &file, &overwrite).is_err() && file.is_file());
}

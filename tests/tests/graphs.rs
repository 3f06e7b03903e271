//! What must hold of the graphs themselves, on every engine.

use gradresnet::engine::{self, Device, EngineKind, Graph};
use gradresnet::{ErrorKind, Session, Tiling};
use gradresnet_export::{Options, Weights};
use gradresnet_models::Precision;
use gradresnet_tests::cases::{ClassWeights, Inputs, Model, Variant, variants};
use gradresnet_tests::engines::runtime::{self, Runtime};
use gradresnet_tests::engines::{Engine, libtorch, python};
use gradresnet_tests::report;
use ndarray::{Array2, Array4, ArrayView3, Axis, s};
use prost::Message;
use tch::{Kind, Tensor};
use tract_onnx::pb::{ModelProto, NodeProto};

fn variant(name: &str) -> Variant {
    variants().into_iter().find(|v| v.name == name).expect("a variant of that name")
}

fn model(name: &str) -> Model {
    Model::new(variant(name), &Options::default()).unwrap()
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|v| v * v).sum::<f64>().sqrt()
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    norm(&a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>())
}

#[test]
fn the_checker_of_the_standard_accepts_every_graph_in_every_opset() {
    let Some(python) = python::start("onnx.checker on every graph").unwrap() else { return };
    for variant in variants() {
        let name = variant.name.clone();
        let opsets = if name == "base" { 17..=21 } else { 17..=17 };
        for opset in opsets {
            for weights in [Weights::Inline, Weights::Shared] {
                let options = Options { weights, opset, ..Options::default() };
                let model = Model::new(variant.clone(), &options).unwrap();
                for graph in Graph::ALL.into_iter().filter(|graph| graph.is_of(model.bundle.spec())) {
                    let path = model.bundle.path(graph.file_name());
                    python.check(&path).unwrap_or_else(|e| panic!("{name}, {graph:?}, opset {opset}: {e}"));
                }
            }
        }
    }
}

#[test]
fn every_opset_computes_the_same() {
    let engines = runtime::all().unwrap();
    let variant = variant("all different");
    let inputs = Inputs::new(&variant, [2, 32, 32], ClassWeights::Scaled);
    for engine in engines {
        let run = |opset| {
            let model = Model::new(variant.clone(), &Options { opset, ..Options::default() }).unwrap();
            engine.run(&model, &inputs).unwrap()
        };
        let expected = run(17);
        for opset in 18..=21 {
            assert_eq!(run(opset), expected, "opset {opset} on {}", engine.name());
        }
    }
}

/// With shared weights, engines compute at load what inline weights hold: float32 may round differently.
#[test]
fn inline_and_shared_weights_compute_the_same() {
    for name in ["base", "biases Batch", "no classes", "all different"] {
        let variant = variant(name);
        let inputs = Inputs::new(&variant, [2, 40, 64], ClassWeights::Scaled);
        let model =
            |weights| Model::new(variant.clone(), &Options { weights, ..Options::default() }).unwrap();
        let (inline, shared) = (model(Weights::Inline), model(Weights::Shared));
        let size = |m: &Model, file| std::fs::metadata(m.bundle.path(file)).unwrap().len();
        assert!(size(&shared, "denoiser.onnx") < size(&inline, "denoiser.onnx"), "{name}");
        // A transpose of stride 1 would be slower than a convolution.
        let bytes = std::fs::read(shared.bundle.path("denoiser.onnx")).unwrap();
        let nodes = ModelProto::decode(&*bytes).unwrap().graph.unwrap().node;
        let strides = |node: &NodeProto| {
            let strides = node.attribute.iter().find(|a| a.name == "strides");
            strides.map(|a| a.ints.clone()).unwrap_or_default()
        };
        let transposes: Vec<_> = nodes.iter().filter(|n| n.op_type == "ConvTranspose").map(strides).collect();
        assert!(!transposes.is_empty() && transposes.iter().all(|s| s == &[2, 2]), "{name}: {transposes:?}");
        for engine in runtime::all().unwrap() {
            let reference = engine.run(&inline, &inputs).unwrap();
            let found = engine.run(&shared, &inputs).unwrap();
            for error in report::errors(&found, &reference).into_iter().flatten() {
                assert!(error < 1e-5, "{name} on {}: {error:.1e}", engine.name());
            }
        }
    }
}

/// The error of float16, on every engine; those on a CPU may round less often than a graphics processor.
#[test]
fn convolutions_in_float16_are_as_near_as_float16_is() {
    for name in ["base", "biases Batch", "no classes", "all different"] {
        let variant = variant(name);
        let inputs = Inputs::new(&variant, [2, 40, 64], ClassWeights::Scaled);
        for weights in [Weights::Inline, Weights::Shared] {
            let model = |precision| {
                Model::new(variant.clone(), &Options { precision, weights, ..Options::default() }).unwrap()
            };
            let (wide, narrow) = (model(Precision::Float32), model(Precision::Float16));
            for engine in runtime::all().unwrap() {
                let reference = engine.run(&wide, &inputs).unwrap();
                let found = engine.run(&narrow, &inputs).unwrap();
                let errors: Vec<f64> = report::errors(&found, &reference).into_iter().flatten().collect();
                let worst = errors.iter().copied().fold(0.0, f64::max);
                assert!(worst > 1e-6, "{name} on {}: float16 was not used", engine.name());
                assert!(worst < Precision::Float16.tolerance(), "{name} on {}: {errors:?}", engine.name());
            }
        }
    }
}

/// An exporter can go wrong by writing a constant where the gradient should be.
#[test]
fn what_the_denoiser_changes_moves_with_its_input_at_two_sizes() {
    let model = model("base");
    for engine in runtime::all().unwrap() {
        for size in [[1, 32, 32], [1, 40, 64]] {
            let first = Inputs::new(&model.variant, size, ClassWeights::OneHot);
            let mut second = first.clone();
            second.noisy.reverse();
            let mut louder = first.clone();
            louder.sigma.iter_mut().for_each(|s| *s *= 2.0);
            let run = |inputs| engine.run(&model, inputs).unwrap().change;
            let (a, b, c) = (run(&first), run(&second), run(&louder));
            assert!(distance(&a, &b) > 0.1 * norm(&a), "{} at {size:?}: does not move", engine.name());
            // D(y) − y is proportional to σ².
            let four: Vec<f64> = a.iter().map(|v| 4.0 * v).collect();
            assert!(distance(&four, &c) < 1e-4 * norm(&c), "{} at {size:?}: σ", engine.name());
        }
    }
}

/// Eq. 9: (D_c − D_u)/σ² = ∇ log p(c|y), where the right side is autograd in float64 on the logits alone.
#[test]
fn the_difference_of_two_denoisers_is_the_gradient_of_the_classifier() {
    let model = model("base");
    let mut inputs = Inputs::new(&model.variant, [2, 32, 32], ClassWeights::OneHot);
    // A difference of float32 images of order 1, divided by σ²: a larger σ loses fewer digits.
    inputs.sigma = vec![1.0, 2.0];
    let mut unconditional = inputs.clone();
    unconditional.class_weights.iter_mut().for_each(|a| *a = 0.0);

    let (noisy, _, weights) = libtorch::tensors(&inputs, Kind::Double);
    let noisy = noisy.set_requires_grad(true);
    let net = libtorch::net(&model, Kind::Double).unwrap();
    let logits = net.density(&noisy, gradresnet_train::nets::Phase::Evaluation).logits.unwrap();
    let log_p = (weights.unwrap() * logits.log_softmax(1, None::<Kind>)).sum(None::<Kind>);
    let gradient = Tensor::run_backward(&[log_p], &[noisy], false, false).remove(0);
    let expected = gradresnet_train::convert::to_array(&gradient).to_f64();

    for engine in runtime::all().unwrap() {
        let (c, u) = (engine.run(&model, &inputs).unwrap(), engine.run(&model, &unconditional).unwrap());
        let each = c.change.len() / inputs.sigma.len();
        let found: Vec<f64> = c
            .change
            .iter()
            .zip(&u.change)
            .enumerate()
            .map(|(i, (c, u))| (c - u) / f64::from(inputs.sigma[i / each]).powi(2))
            .collect();
        let error = distance(&found, &expected) / norm(&expected);
        // ∇ log p(y), which cancels, is much larger: float32 leaves 2.5e-4. A missing term errs by order 1.
        assert!(error < 1e-3, "{}: {error:.1e}", engine.name());
    }
}

/// A batch is many images, and none of them affects the others.
#[test]
fn images_of_a_batch_do_not_mix() {
    let model = model("base");
    let batch = Inputs::new(&model.variant, [3, 32, 32], ClassWeights::Scaled);
    let engine = Runtime::open(EngineKind::Tract).unwrap();
    let all = engine.run(&model, &batch).unwrap();
    let (each, classes) = (batch.noisy.len() / 3, model.variant.classes);
    for i in 0..3 {
        let one = Inputs {
            size: [1, batch.size[1], batch.size[2]],
            noisy: batch.noisy[i * each..(i + 1) * each].to_vec(),
            sigma: vec![batch.sigma[i]],
            class_weights: batch.class_weights[i * classes..(i + 1) * classes].to_vec(),
        };
        let found = engine.run(&model, &one).unwrap().change;
        let expected = &all.change[i * each..(i + 1) * each];
        assert!(distance(&found, expected) < 1e-5 * norm(expected), "image {i}");
    }
}

/// Each image has its own σ and class weights, in a batch and in tiles.
#[test]
fn a_session_denoises_a_batch_as_its_images_alone() {
    let model = model("base");
    let engine = engine::open(EngineKind::Tract, Device::Cpu, 1).unwrap();
    let session = Session::new(model.bundle.clone(), engine);
    let images = Array4::from_shape_fn((2, 3, 40, 24), |(n, c, y, x)| {
        ((7 * n + 5 * c + 3 * y * y + 2 * x) % 11) as f32 / 11.0
    });
    let sigma = [0.1, 0.3];
    let mut weights = Array2::zeros((2, model.variant.classes));
    (weights[[0, 1]], weights[[1, 0]], weights[[1, 2]]) = (30.0, 90.0, -15.0);
    for tiling in [Tiling::default(), Tiling::new(16, None).unwrap()] {
        let all = session.denoise(images.view(), &sigma, Some(weights.view()), &tiling).unwrap();
        let free = session.denoise(images.view(), &sigma, None, &tiling).unwrap();
        for n in 0..2 {
            let own = weights.slice(s![n..n + 1, ..]);
            let one = images.slice(s![n..n + 1, .., .., ..]);
            let alone = session.denoise(one, &sigma[n..n + 1], Some(own), &tiling).unwrap();
            let most = |a: ArrayView3<f32>, b: ArrayView3<f32>| {
                a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
            };
            let of = |all: &Array4<f32>, n: usize| all.index_axis(Axis(0), n).to_owned();
            let (found, alone, free) = (of(&all, n), of(&alone, 0), of(&free, n));
            // Sums in another order.
            assert!(most(found.view(), alone.view()) < 1e-5, "image {n}, {tiling:?}");
            assert!(most(found.view(), free.view()) > 1e-3, "image {n}, {tiling:?}: the classes do nothing");
        }
    }
}

/// A classifier does not denoise, a direct denoiser has no energy, and a blind one needs no σ.
#[test]
fn what_a_model_does_not_do_is_refused_by_name() {
    let image = Array4::from_shape_fn((1, 3, 33, 21), |(_, c, y, x)| ((c + 3 * y + 5 * x) % 7) as f32 / 7.0);
    let session = |name: &str| {
        let model = model(name);
        let engine = engine::open(EngineKind::Tract, Device::Cpu, 1).unwrap();
        (Session::new(model.bundle.clone(), engine), model)
    };
    let tiling = Tiling::default();

    let (resnet, _folder) = session("ResNet");
    assert_eq!(resnet.classify(image.view()).unwrap().dim(), (1, 5));
    let error = resnet.denoise(image.view(), &[0.1], None, &tiling).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::NoGraph { graph: "denoiser", .. }), "{error}");
    let error = resnet.energy(image.view()).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::NoEnergy(_)), "{error}");

    let (dncnn, _folder) = session("DnCNN");
    let denoised = dncnn.denoise(image.view(), &[0.1], None, &tiling).unwrap();
    assert_eq!(denoised.dim(), image.dim());
    assert_eq!(denoised, dncnn.denoise(image.view(), &[0.2], None, &tiling).unwrap());
    let error = dncnn.energy(image.view()).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::NoGraph { graph: "forward", .. }), "{error}");
}

//! The derivatives that training and denoising rest on, against central differences in float64, for
//! every variant of the network.

use gradresnet_models::architecture::{
    BlockForm, DnCnn, DruNet, Energy, GradResNet, ResNet, SideConnections,
};
use gradresnet_models::{Activation, Architecture, Norm, Stem};
use gradresnet_train::config::{Denoising, Target};
use gradresnet_train::data::Batch;
use gradresnet_train::data::augment::Augment;
use gradresnet_train::nets::{Network, Phase};
use gradresnet_train::objective;
use tch::{Device, Kind, Tensor};

const STEP: f64 = 1e-4;
/// For piecewise linear networks: so short that no unit switches.
const SHORT_STEP: f64 = 1e-7;
/// Differences of fourth order with step h err by h⁴ and, in float64, by 1e-16/h relative to smooth
/// values of order 1; both are far below this.
const TOLERANCE: f64 = 1e-6;

fn variants() -> Vec<(String, Architecture)> {
    let base = GradResNet {
        stem: Stem::Cifar,
        width: 8,
        blocks: vec![1, 1],
        block: BlockForm::Residual,
        norm: Norm::Group,
        group_size: 8,
        side_connections: SideConnections::Stem,
        activation: Activation::Gelu,
        biases: false,
        centre: 0.5,
        scale: 4.0,
    };
    let mut all = vec![("base".to_string(), base.clone().into())];
    let mut add = |name: &str, change: &dyn Fn(&mut GradResNet)| {
        let mut a = base.clone();
        change(&mut a);
        all.push((name.to_string(), a.into()));
    };
    add("postact", &|a| a.block = BlockForm::Postact);
    add("end", &|a| a.block = BlockForm::End);
    add("homogeneous", &|a| a.norm = Norm::Homogeneous);
    add("batch", &|a| a.norm = Norm::Batch);
    add("none", &|a| a.norm = Norm::None);
    add("silu, biases", &|a| (a.activation, a.biases) = (Activation::Silu, true));
    add("imagenet stem", &|a| a.stem = Stem::Imagenet);
    add("no side connections", &|a| a.side_connections = SideConnections::None);
    let resnet = |norm, stem| ResNet {
        stem,
        max_pool: false,
        width: 8,
        blocks: vec![1, 1],
        norm,
        group_size: 4,
        activation: Activation::Silu,
        energy: Energy::LogSumExp,
        centre: 0.5,
        scale: 2.0,
    };
    for (norm, stem) in [(Norm::Batch, Stem::Cifar), (Norm::Group, Stem::Imagenet), (Norm::None, Stem::Cifar)]
    {
        all.push((format!("JEM, {norm:?}"), resnet(norm, stem).into()));
    }
    all
}

/// Networks that output the denoised image.
fn direct() -> Vec<(String, Architecture)> {
    let dncnn = |norm, biases| DnCnn { depth: 4, width: 4, norm, biases }.into();
    let drunet = |noise_map| DruNet { width: 2, blocks: 1, noise_map }.into();
    vec![
        ("DnCNN, batch".into(), dncnn(Norm::Batch, true)),
        ("DnCNN, no norm, no biases".into(), dncnn(Norm::None, false)),
        ("DRUNet".into(), drunet(true)),
        ("DRUNet, blind".into(), drunet(false)),
    ]
}

fn batch() -> Batch {
    tch::manual_seed(5);
    let options = (Kind::Double, Device::Cpu);
    Batch {
        clean: Tensor::rand([2, 3, 8, 8], options),
        noise: Tensor::randn([2, 3, 8, 8], options),
        sigma: Tensor::from_slice(&[0.1, 0.3]),
        // The second image is of two classes, as after MixUp.
        labels: Some(Tensor::from_slice(&[1.0, 0.0, 0.0, 0.0, 0.3, 0.7]).view([2, 3])),
    }
}

fn close(found: f64, expected: f64, what: &str) {
    let error = (found - expected).abs() / expected.abs().max(1e-3);
    assert!(error < TOLERANCE, "{what}: {found} for {expected}");
}

/// d/dt f(t) at 0.
fn slope(step: f64, f: impl Fn(f64) -> f64) -> f64 {
    (8.0 * (f(step) - f(-step)) - (f(2.0 * step) - f(-2.0 * step))) / (12.0 * step)
}

#[test]
fn the_denoiser_moves_along_the_gradient_of_its_log_density() {
    let batch = batch();
    let weights = Tensor::from_slice(&[0.0, 1.0, 0.0, 2.0, -0.5, 0.25]).view([2, 3]);
    let direction = Tensor::randn([2, 3, 8, 8], (Kind::Double, Device::Cpu));
    for (name, architecture) in variants() {
        let net = Network::random(&architecture, 3, 1, Kind::Double, Device::Cpu);
        let noisy = batch.noisy();
        let out = net.outputs(&noisy, &batch.sigma, Some(&weights));
        let score = (out.denoised.unwrap() - &noisy) / batch.sigma.square().view([-1, 1, 1, 1]);
        let along = (score * &direction).sum(Kind::Double).double_value(&[]);
        let density = |t: f64| {
            let out = net.density(&(&noisy + &direction * t), Phase::Evaluation);
            let conditional = &weights * out.logits.unwrap().log_softmax(1, Kind::Double);
            (out.log_p.unwrap().sum(Kind::Double) + conditional.sum(Kind::Double)).double_value(&[])
        };
        close(along, slope(STEP, density), &name);
    }
}

#[test]
fn the_loss_has_the_right_gradient_through_the_double_backward_pass() {
    let batch = batch();
    for (name, architecture) in variants().into_iter().chain(direct()) {
        let (classes, target) =
            if architecture.is_direct() { (0, Target::Unconditional) } else { (3, Target::Both) };
        let config = config(target);
        let net = Network::random(&architecture, classes, 2, Kind::Double, Device::Cpu);
        objective::initialise_gain(&net, &batch, 0.5).unwrap();
        let loss = |net: &Network| {
            let denoising = objective::denoising(net, &batch, &config).unwrap();
            if classes == 0 { denoising } else { denoising + objective::classification(net, &batch).unwrap() }
        };
        let trained: Vec<&Tensor> =
            net.list().iter().filter(|p| p.is_trained()).filter_map(|p| net.parameter(&p.name)).collect();
        let directions: Vec<Tensor> = trained.iter().map(|t| t.randn_like()).collect();
        let gradients = Tensor::run_backward(&[loss(&net)], &trained, false, false);
        let along: f64 =
            gradients.iter().zip(&directions).map(|(g, d)| (g * d).sum(Kind::Double).double_value(&[])).sum();
        let at = |t: f64| {
            let moved = net.copy();
            {
                let _no_grad = tch::no_grad_guard();
                for (p, d) in net.list().iter().filter(|p| p.is_trained()).zip(&directions) {
                    let mut parameter = moved.parameter(&p.name).unwrap().shallow_clone();
                    parameter += d * t;
                }
            }
            loss(&moved).double_value(&[])
        };
        let step = if classes == 0 { SHORT_STEP } else { STEP };
        close(along, slope(step, at), &name);
    }
}

fn config(target: Target) -> Denoising {
    Denoising {
        target,
        batch: 2,
        size: 8,
        schedule: Vec::new(),
        sigma: [10.0, 80.0].into(),
        weight: 1.0,
        weight_power: 1.0,
        augment: Augment::default(),
    }
}

/// The denoiser, which the first test ties to the density, gives the score back: (D(y) − y)/σ².
#[test]
fn each_target_is_the_residual_of_its_denoiser() {
    let batch = batch();
    let sigma = batch.sigma.view([-1, 1, 1, 1]);
    for (name, architecture) in variants() {
        if name.contains("atch") {
            continue; // A batch norm: in training it normalises by the batch.
        }
        let net = Network::random(&architecture, 3, 6, Kind::Double, Device::Cpu);
        let expected = |weights: Option<&Tensor>| {
            let noisy = batch.noisy();
            let denoised = net.outputs(&noisy, &batch.sigma, weights).denoised.unwrap();
            let residual = (denoised - noisy) / &sigma + &batch.noise;
            let errors = residual.square().mean_dim([1i64, 2, 3].as_slice(), false, None::<Kind>);
            // E σ, for σ = s² with s uniform in [a, b], is (a² + ab + b²)/3; in 8-bit units.
            let moment = (10.0 + (10.0f64 * 80.0).sqrt() + 80.0) / 3.0 / 255.0;
            (errors * &batch.sigma / moment).mean(None::<Kind>).double_value(&[])
        };
        let (free, given) = (expected(None), expected(batch.labels.as_ref()));
        assert!((free - given).abs() > 1e-6, "{name}: the classes do nothing");
        for (target, expected) in
            [(Target::Unconditional, free), (Target::Conditional, given), (Target::Both, free + given)]
        {
            let found = objective::denoising(&net, &batch, &config(target)).unwrap().double_value(&[]);
            close(found, expected, &format!("{name}, {target:?}"));
        }
    }
}

/// From what the network computes, by other means: with the wrong sign, training would undo what it should learn.
#[test]
fn the_cross_entropy_falls_with_the_right_class_and_the_likelihood_with_the_density_of_the_data() {
    let batch = batch();
    let labels = batch.labels.as_ref().unwrap();
    for (name, architecture) in variants() {
        if name.contains("atch") {
            continue; // A batch norm: in training it normalises by the batch.
        }
        let net = Network::random(&architecture, 3, 6, Kind::Double, Device::Cpu);
        let p = net.density(&batch.noisy(), Phase::Evaluation).logits.unwrap().softmax(1, Kind::Double);
        let of = |t: &Tensor, i: i64| t.double_value(&[i / 3, i % 3]);
        let expected: f64 = (0..6).map(|i| -of(labels, i) * of(&p, i).ln() / 2.0).sum();
        let found = objective::classification(&net, &batch).unwrap().double_value(&[]);
        close(found, expected, &name);

        let log_p = |images: &Tensor| {
            let log_p = net.density(images, Phase::Evaluation).log_p.unwrap();
            log_p.mean(Kind::Double).double_value(&[])
        };
        let (samples, data) = (log_p(&batch.clean), log_p(&batch.noisy()));
        let found = objective::likelihood(&net, &batch, &batch.clean).unwrap().double_value(&[]);
        // Of the two, whose difference may be small.
        assert!((found - (samples - data)).abs() < 1e-9 * (samples.abs() + data.abs()), "{name}: {found}");
    }
}

/// A convolution in bfloat16 rounds its inputs by 2⁻⁹; a few of them in a row move the loss by less than 2 %
/// and the gradient, through its double backward pass, by less than 10 % of its length.
#[test]
fn convolutions_in_bfloat16_change_little_and_leave_the_rest_in_float32() {
    let double = batch();
    let float = |t: &Tensor| t.to_kind(Kind::Float);
    let batch = Batch {
        clean: float(&double.clean),
        noise: float(&double.noise),
        sigma: float(&double.sigma),
        labels: double.labels.as_ref().map(float),
    };
    for (name, architecture) in variants() {
        let gradient = |kind: Kind| {
            let net = Network::random(&architecture, 3, 2, Kind::Float, Device::Cpu).convolve_in(kind);
            let config = config(Target::Unconditional);
            let loss = objective::denoising(&net, &batch, &config).unwrap()
                + objective::classification(&net, &batch).unwrap();
            assert_eq!(loss.kind(), Kind::Float);
            let kernel = net.parameter("stem.conv.weight").unwrap();
            let gradient = Tensor::run_backward(&[&loss], &[kernel], false, false).remove(0);
            assert_eq!((kernel.kind(), gradient.kind()), (Kind::Float, Kind::Float));
            (loss.double_value(&[]), gradient)
        };
        let ((loss, slope), (rounded, rounded_slope)) = (gradient(Kind::Float), gradient(Kind::BFloat16));
        assert!(rounded != loss && (rounded / loss - 1.0).abs() < 0.02, "{name}: {rounded} for {loss}");
        let length = |t: &Tensor| t.square().sum(Kind::Double).sqrt().double_value(&[]);
        let error = length(&(rounded_slope - &slope)) / length(&slope);
        assert!(error < 0.1, "{name}: {error}");
    }
}

#[test]
fn the_start_is_scaled_to_the_score_asked_for() {
    let batch = batch();
    let (_, architecture) = &variants()[0];
    let net = Network::random(architecture, 0, 3, Kind::Double, Device::Cpu);
    objective::initialise_gain(&net, &batch, 0.1).unwrap();
    let score = net.score(&batch.noisy(), &batch.sigma, None, Phase::Evaluation).unwrap();
    let scaled = batch.sigma.view([-1, 1, 1, 1]) * score;
    let rms = scaled.square().mean(Kind::Double).sqrt().double_value(&[]);
    assert!((rms - 0.1).abs() < 1e-9, "{rms}");
}

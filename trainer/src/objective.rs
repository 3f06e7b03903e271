//! The two terms of the training objective (eq. 13).

use crate::config::{Denoising, Target};
use crate::data::Batch;
use crate::nets::{Network, Phase};
use anyhow::{Context, Result};
use tch::{Kind, Tensor};

/// Denoising score matching: the mean over pixels of ‖σ ∇_y log p + ε‖², each image weighted by σ^p/E[σ^p],
/// for the density of y, that of y given its class, or the sum of both (section 3.3). At 1 (2 for the
/// sum) nothing is learnt yet. For a direct denoiser D it is ‖(D(y) − x)/σ‖².
///
/// # Errors
/// If the network does not denoise, or a class is asked for and the images have none.
pub fn denoising(net: &Network, batch: &Batch, config: &Denoising) -> Result<Tensor> {
    let term = |labels: Option<&Tensor>| {
        let residual = batch.sigma.view([-1, 1, 1, 1]) * score(net, batch, labels)? + &batch.noise;
        let errors = residual.square().mean_dim([1i64, 2, 3].as_slice(), false, None::<Kind>);
        let power = config.weight_power;
        if power == 0.0 {
            return Ok(errors.mean(None::<Kind>));
        }
        let weights = batch.sigma.pow_tensor_scalar(power) / config.sigma.moment(power);
        anyhow::Ok((errors * weights).mean(None::<Kind>))
    };
    // log p(y|c) = log p(y) + log p(c|y) − log p(c), and the last has no gradient.
    let conditional = || term(Some(labels(batch)?));
    match config.target {
        Target::Unconditional => term(None),
        Target::Conditional => conditional(),
        Target::Both => Ok(term(None)? + conditional()?),
    }
}

/// Mean cross-entropy of the labels, in nats.
///
/// # Errors
/// If the images have no classes or the network no class head.
pub fn classification(net: &Network, batch: &Batch) -> Result<Tensor> {
    let logits = net.density(&batch.noisy(), Phase::Training).logits;
    let logits = logits.context("the network has no class head")?;
    let cross_entropy = labels(batch)? * logits.log_softmax(1, None::<Kind>);
    Ok(-cross_entropy.sum_dim_intlist(1i64, false, None::<Kind>).mean(None::<Kind>))
}

/// Mean log p of samples of the model less that of the noisy images: its gradient is that of −log p(y) (Grathwohl
/// et al. 2019). `samples` `[N,3,S,S]` in image units are taken as constant.
///
/// # Errors
/// If the network has no density.
pub fn likelihood(net: &Network, batch: &Batch, samples: &Tensor) -> Result<Tensor> {
    let mean = |images: &Tensor| Ok(log_p(net, images, Phase::Training)?.mean(None::<Kind>));
    let (model, data): (Result<Tensor>, Result<Tensor>) = (mean(samples), mean(&batch.noisy()));
    Ok(model? - data?)
}

/// log p(y) of images, `[N]`.
///
/// # Errors
/// If the network has no density.
pub fn log_p(net: &Network, images: &Tensor, phase: Phase) -> Result<Tensor> {
    net.density(images, phase).log_p.context("the network has no density")
}

fn labels(batch: &Batch) -> Result<&Tensor> {
    batch.labels.as_ref().context("the images are not in class folders")
}

/// The energy's vector, on which the size of the score depends at the start; a GradResNet has it.
pub const GAIN: &str = "energy.weight";

/// Scales [`GAIN`], where the network has it, so that the root mean square of σ·∇log p over a
/// batch is `target`: the score is quadratic in that vector, and from an unscaled start training may never
/// leave the plateau at a loss of 1.
///
/// # Errors
/// If the network does not denoise.
pub fn initialise_gain(net: &Network, batch: &Batch, target: f64) -> Result<()> {
    let Some(vector) = net.parameter(GAIN) else { return Ok(()) };
    let scaled = batch.sigma.view([-1, 1, 1, 1]) * score(net, batch, None)?;
    let rms = scaled.square().mean(Kind::Double).sqrt().double_value(&[]);
    if rms > 0.0 && rms.is_finite() {
        let _no_grad = tch::no_grad_guard();
        let mut vector = vector.shallow_clone();
        vector *= (target / rms).sqrt();
    }
    Ok(())
}

/// ∇_y log p at the noisy images, with the graph that training differentiates a second time.
fn score(net: &Network, batch: &Batch, labels: Option<&Tensor>) -> Result<Tensor> {
    let score = net.score(&batch.noisy(), &batch.sigma, labels, Phase::Training);
    score.context("the network does not denoise")
}

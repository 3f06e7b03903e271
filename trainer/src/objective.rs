//! The two terms of the training objective (eq. 13).

use crate::config::{Denoising, Target};
use crate::data::Batch;
use crate::nets::{Network, Phase};
use anyhow::{Context, Result};
use tch::{Kind, Tensor};

const NO_LABELS: &str = "the images are not in class folders";

/// Denoising score matching: the mean over pixels of ‖σ ∇_y log p + ε‖², each image weighted by σ^p/E[σ^p],
/// for the density of y, that of y given its class, or the sum of both (section 3.3). At 1 (2 for the
/// sum), nothing is learnt yet. Of a direct denoiser D it is ‖(D(y) − x)/σ‖².
///
/// # Errors
/// If the network does not denoise, or a class is asked for and the images or the network have none.
pub fn denoising(net: &Network, batch: &Batch, config: &Denoising) -> Result<Tensor> {
    let term = |class_weights: Option<&Tensor>| {
        let score = score(net, batch, class_weights)?;
        let residual = batch.sigma.view([-1, 1, 1, 1]) * score + &batch.noise;
        let errors = residual.square().mean_dim([1i64, 2, 3].as_slice(), false, None::<Kind>);
        let power = config.weight_power;
        if power == 0.0 {
            return Ok(errors.mean(None::<Kind>));
        }
        let weights = batch.sigma.pow_tensor_scalar(power) / config.sigma.moment(power);
        Ok((errors * weights).mean(None::<Kind>))
    };
    // log p(y|c) = log p(y) + log p(c|y) − log p(c), and the last has no gradient.
    let conditional = || term(Some(batch.labels.as_ref().context(NO_LABELS)?));
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
    Ok(-log_probability(logits.as_ref(), batch)?.mean(None::<Kind>))
}

/// Mean log p of samples of the model less that of the noisy images: its gradient is that of −log p(y) (Grathwohl
/// et al. 2019). `samples` `[N,3,S,S]` in image units, which it does not differentiate.
///
/// # Errors
/// If the network has no density.
pub fn likelihood(net: &Network, batch: &Batch, samples: &Tensor) -> Result<Tensor> {
    let log_p = |images: &Tensor| -> Result<Tensor> {
        let log_p = net.density(images, Phase::Training).log_p.context("the network has no energy")?;
        Ok(log_p.mean(None::<Kind>))
    };
    Ok(log_p(samples)? - log_p(&batch.noisy())?)
}

/// log p(c|y) of each image, the mean over the classes of its label.
fn log_probability(logits: Option<&Tensor>, batch: &Batch) -> Result<Tensor> {
    let labels = batch.labels.as_ref().context(NO_LABELS)?;
    let logits = logits.context("the network has no class head")?;
    Ok((labels * logits.log_softmax(1, None::<Kind>)).sum_dim_intlist(1i64, false, None::<Kind>))
}

/// Scales the energy's vector, where the network has one, so that the root mean square of σ·∇log p over a
/// batch is `target`: the score is quadratic in that vector, and from an unscaled start training may never
/// leave the plateau at a loss of 1.
///
/// # Errors
/// If the network does not denoise.
pub fn initialise_gain(net: &Network, batch: &Batch, target: f64) -> Result<()> {
    let Some(vector) = net.parameter("energy.weight") else { return Ok(()) };
    let scaled = batch.sigma.view([-1, 1, 1, 1]) * score(net, batch, None)?;
    let rms = scaled.square().mean(Kind::Double).sqrt().double_value(&[]);
    if rms > 0.0 && rms.is_finite() {
        let _no_grad = tch::no_grad_guard();
        let mut vector = vector.shallow_clone();
        vector *= (target / rms).sqrt();
    }
    Ok(())
}

/// The score at the noisy images, with the graph that training differentiates a second time.
fn score(net: &Network, batch: &Batch, class_weights: Option<&Tensor>) -> Result<Tensor> {
    let score = net.score(&batch.noisy(), &batch.sigma, class_weights, Phase::Training);
    score.context("the network does not denoise")
}

//! The two terms of the training objective (eq. 13).

use crate::config::Denoising;
use crate::data::Batch;
use crate::nets::{Network, Phase};
use anyhow::{Context, Result};
use tch::{Kind, Tensor};

/// Denoising score matching: the mean over pixels of ‖σ ∇_y log p(y) + ε‖², each image weighted by
/// σ^p/E[σ^p]. At 1, nothing is learnt yet.
///
/// # Errors
/// If the network does not denoise.
pub fn denoising(net: &Network, batch: &Batch, config: &Denoising) -> Result<Tensor> {
    let score = score(net, batch)?;
    let residual = batch.sigma.view([-1, 1, 1, 1]) * score + &batch.noise;
    let errors = residual.square().mean_dim([1i64, 2, 3].as_slice(), false, None::<Kind>);
    let power = config.weight_power;
    if power == 0.0 {
        return Ok(errors.mean(None::<Kind>));
    }
    let weights = batch.sigma.pow_tensor_scalar(power) / config.sigma.moment(power);
    Ok((errors * weights).mean(None::<Kind>))
}

/// Mean cross-entropy of the true classes, in nats.
///
/// # Errors
/// If the images have no classes or the network no class head.
pub fn classification(net: &Network, batch: &Batch) -> Result<Tensor> {
    let classes = batch.classes.as_ref().context("the images are not in class folders")?;
    let logits = net.density(&batch.noisy(), Phase::Training).logits;
    let logits = logits.context("the network has no class head")?;
    // tch's own `cross_entropy_for_logits` computes in float32 whatever it is given.
    Ok(logits.log_softmax(1, None::<Kind>).nll_loss(classes))
}

/// Scales the energy's vector, where the network has one, so that the root mean square of σ·∇log p over a
/// batch is `target`: the score is quadratic in that vector, and from an unscaled start training may never
/// leave the plateau at a loss of 1.
///
/// # Errors
/// If the network does not denoise.
pub fn initialise_gain(net: &Network, batch: &Batch, target: f64) -> Result<()> {
    let Some(vector) = net.parameter("energy.weight") else { return Ok(()) };
    let scaled = batch.sigma.view([-1, 1, 1, 1]) * score(net, batch)?;
    let rms = scaled.square().mean(Kind::Double).sqrt().double_value(&[]);
    if rms > 0.0 && rms.is_finite() {
        let _no_grad = tch::no_grad_guard();
        let mut vector = vector.shallow_clone();
        vector *= (target / rms).sqrt();
    }
    Ok(())
}

/// ∇_y log p(y) at the noisy images, with the graph that training differentiates a second time.
fn score(net: &Network, batch: &Batch) -> Result<Tensor> {
    net.score(&batch.noisy(), &batch.sigma, None, Phase::Training).context("the network does not denoise")
}

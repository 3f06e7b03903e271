//! The normalisations of [`gradresnet_models::Norm`], on `[N,C,H,W]` tensors.

use tch::{Kind, Tensor};

/// Group normalisation (Wu & He 2018) with a gain and, if given, a bias per channel.
pub(super) fn group(x: &Tensor, groups: i64, gain: &Tensor, bias: Option<&Tensor>, epsilon: f64) -> Tensor {
    x.group_norm(groups, Some(gain), bias, epsilon, false)
}

/// The scale-preserving norm: (x − μ_g) · √(mean over groups of var ÷ (var_g + ε) + ε).
pub(super) fn homogeneous(
    x: &Tensor,
    groups: i64,
    gain: &Tensor,
    bias: Option<&Tensor>,
    epsilon: f64,
) -> Tensor {
    let (n, c, h, w) = x.size4().unwrap_or_default();
    let x = x.reshape([n, groups, -1]);
    let centred = &x - x.mean_dim(2i64, true, None::<Kind>);
    let variance = centred.square().mean_dim(2i64, true, None::<Kind>);
    let factor = (variance.mean_dim(1i64, true, None::<Kind>) / (&variance + epsilon) + epsilon).sqrt();
    per_channel(&(centred * factor).reshape([n, c, h, w]), gain, bias)
}

fn per_channel(x: &Tensor, gain: &Tensor, bias: Option<&Tensor>) -> Tensor {
    let x = x * gain.view([1, -1, 1, 1]);
    match bias {
        Some(bias) => x + bias.view([1, -1, 1, 1]),
        None => x,
    }
}

//! Peak signal-to-noise ratio.

use crate::error::{ErrorKind, Result};
use ndarray::ArrayView3;

/// PSNR in dB of two images `[C,H,W]` in image units, with peak 1, over all samples of all channels.
/// Neither is clipped. Equal images have infinity.
///
/// # Errors
/// [`ErrorKind::Input`] if the shapes differ.
pub fn psnr(image: ArrayView3<f32>, reference: ArrayView3<f32>) -> Result<f64> {
    if image.dim() != reference.dim() {
        let ((_, h, w), (_, rh, rw)) = (image.dim(), reference.dim());
        let reason = format!("{w}×{h} pixels, and the reference has {rw}×{rh}");
        return Err(ErrorKind::Input(reason).into());
    }
    let sum: f64 = image.iter().zip(reference).map(|(&a, &b)| f64::from(a - b).powi(2)).sum();
    Ok(10.0 * (image.len() as f64 / sum).log10())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array3;

    #[test]
    fn psnr_is_that_of_the_mean_square() {
        let a = Array3::from_elem((3, 4, 5), 0.25);
        let b = Array3::from_elem((3, 4, 5), 0.35);
        assert!((psnr(a.view(), b.view()).unwrap() - 20.0).abs() < 1e-5);
        assert_eq!(psnr(a.view(), a.view()).unwrap(), f64::INFINITY);
        assert!(psnr(a.view(), Array3::zeros((3, 5, 4)).view()).is_err());
    }
}

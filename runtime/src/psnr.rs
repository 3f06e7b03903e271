//! Peak signal-to-noise ratio.

use crate::error::{ErrorKind, Result};
use crate::picture::Picture;
use ndarray::ArrayView3;

/// PSNR in dB of two images `[C,H,W]` in image units, with peak 1, over all samples of all channels.
/// Neither is clipped. Infinite for equal images.
///
/// # Errors
/// [`ErrorKind::Input`] if the shapes differ.
pub fn psnr(image: ArrayView3<f32>, reference: ArrayView3<f32>) -> Result<f64> {
    let ((_, height, width), (_, other_height, other_width)) = (image.dim(), reference.dim());
    of_one_size((height, width), (other_height, other_width))?;
    if image.dim().0 != reference.dim().0 {
        let reason = format!("{} channels, and the reference has {}", image.dim().0, reference.dim().0);
        return Err(ErrorKind::Input(reason).into());
    }
    let sum = image.iter().zip(reference).map(|(&a, &b)| f64::from(a - b).powi(2)).sum();
    Ok(decibels(sum, image.len()))
}

/// [`psnr`] of the RGB pixels of two pictures. The first is clipped to [0, 1], as the literature does with outputs; its
/// reference is taken as it is. No memory is needed beyond the two.
///
/// # Errors
/// [`ErrorKind::Input`] if the sizes differ.
pub fn of_pictures(picture: &Picture, reference: &Picture) -> Result<f64> {
    of_one_size(picture.size(), reference.size())?;
    let (height, width) = picture.size();
    let error = |c, y, x| f64::from(picture.pixel(c, y, x).clamp(0.0, 1.0) - reference.pixel(c, y, x));
    let row = |c, y| (0..width).map(move |x| error(c, y, x).powi(2));
    let sum = (0..3).flat_map(|c| (0..height).flat_map(move |y| row(c, y))).sum();
    Ok(decibels(sum, 3 * height * width))
}

fn of_one_size((height, width): (usize, usize), (h, w): (usize, usize)) -> Result<()> {
    if (height, width) != (h, w) {
        let reason = format!("{width}×{height} pixels, and the reference has {w}×{h}");
        return Err(ErrorKind::Input(reason).into());
    }
    Ok(())
}

/// From the sum of `count` squared errors.
fn decibels(sum: f64, count: usize) -> f64 {
    10.0 * (count as f64 / sum).log10()
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
        assert!(psnr(a.view(), Array3::zeros((1, 4, 5)).view()).is_err());
    }

    #[test]
    fn a_picture_is_clipped_and_its_reference_is_not() {
        let image = Array3::from_shape_fn((3, 4, 5), |(c, y, x)| 1.3 - 0.1 * (c + y + x) as f32);
        let reference = Array3::from_shape_fn((3, 4, 5), |(c, y, x)| 1.1 - 0.1 * (c + 2 * y + x) as f32);
        let [found, reversed] = [(&image, &reference), (&reference, &image)].map(|(a, b)| {
            of_pictures(&Picture::from_pixels(a.view()), &Picture::from_pixels(b.view())).unwrap()
        });
        assert_eq!(found, psnr(image.mapv(|v| v.clamp(0.0, 1.0)).view(), reference.view()).unwrap());
        assert_ne!(found, reversed);
        let other = Picture::from_pixels(Array3::zeros((3, 5, 4)).view());
        assert!(of_pictures(&Picture::from_pixels(image.view()), &other).is_err());
    }
}

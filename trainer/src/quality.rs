//! How close an image is to what it should be.

use tch::{Kind, Tensor};

/// Side and deviation of SSIM's window, in pixels.
const WINDOW: i64 = 11;
const DEVIATION: f64 = 1.5;

/// PSNR of each image in dB, `[N]`: peak 1, the output clipped to [0, 1].
pub fn psnr(output: &Tensor, clean: &Tensor) -> Tensor {
    let mse =
        (output.clamp(0.0, 1.0) - clean).square().mean_dim([1i64, 2, 3].as_slice(), false, Kind::Double);
    // A perfect image would be infinitely good; 1e-10 is 100 dB.
    mse.clamp_min(1e-10).log10() * -10.0
}

/// Structural similarity of each image, `[N]`, up to 1 (Wang et al. 2004): a Gaussian window of 11×11 pixels that
/// stays inside the image, K₁ = 0.01, K₂ = 0.03, range 1, the output clipped to [0, 1], mean over positions and
/// the three channels. `None` for images smaller than the window.
pub fn ssim(output: &Tensor, clean: &Tensor) -> Option<Tensor> {
    let (_, channels, height, width) = clean.size4().ok()?;
    if height.min(width) < WINDOW {
        return None;
    }
    let middle = (WINDOW - 1) as f64 / 2.0;
    let offsets = Tensor::linspace(-middle, middle, WINDOW, (clean.kind(), clean.device()));
    let window = (offsets.square() * (-0.5 / (DEVIATION * DEVIATION))).exp();
    let window = &window / window.sum(None::<Kind>);
    let mean = |image: &Tensor| {
        let along = |image: &Tensor, shape: [i64; 4]| {
            let window = window.view(shape).expand([channels, -1, -1, -1], false);
            image.conv2d(&window, None::<&Tensor>, [1, 1], [0, 0], [1, 1], channels)
        };
        along(&along(image, [1, 1, WINDOW, 1]), [1, 1, 1, WINDOW])
    };
    let (a, b) = (&output.clamp(0.0, 1.0), clean);
    let (mean_a, mean_b) = (mean(a), mean(b));
    let (square_a, square_b, product) = (mean_a.square(), mean_b.square(), &mean_a * &mean_b);
    let variances = mean(&a.square()) + mean(&b.square()) - &square_a - &square_b;
    let covariance = mean(&(a * b)) - &product;
    let (c1, c2) = (0.01f64.powi(2), 0.03f64.powi(2));
    let similarity =
        (product * 2.0 + c1) * (covariance * 2.0 + c2) / ((square_a + square_b + c1) * (variances + c2));
    Some(similarity.mean_dim([1i64, 2, 3].as_slice(), false, Kind::Double))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    fn image(seed: i64, height: i64, width: i64) -> Tensor {
        tch::manual_seed(seed);
        Tensor::rand([2, 3, height, width], (Kind::Double, Device::Cpu))
    }

    /// By the definition, a position at a time.
    fn plain(a: &Tensor, b: &Tensor, image: i64) -> f64 {
        let [height, width] = [a.size()[2], a.size()[3]];
        let weight = |i: i64, j: i64| {
            let r = ((i - 5).pow(2) + (j - 5).pow(2)) as f64;
            (-r / (2.0 * DEVIATION * DEVIATION)).exp()
        };
        let mut sum = 0.0;
        let mut positions = 0.0;
        for channel in 0..3 {
            for top in 0..=height - WINDOW {
                for left in 0..=width - WINDOW {
                    let mut s = [0.0; 6];
                    for (i, j) in (0..WINDOW).flat_map(|i| (0..WINDOW).map(move |j| (i, j))) {
                        let at = [image, channel, top + i, left + j];
                        let (x, y, w) = (a.double_value(&at), b.double_value(&at), weight(i, j));
                        for (s, v) in s.iter_mut().zip([1.0, x, y, x * x, y * y, x * y]) {
                            *s += w * v;
                        }
                    }
                    let [mx, my, xx, yy, xy] = [1, 2, 3, 4, 5].map(|k| s[k] / s[0]);
                    let (c1, c2) = (1e-4, 9e-4);
                    sum += (2.0 * mx * my + c1) * (2.0 * (xy - mx * my) + c2)
                        / ((mx * mx + my * my + c1) * (xx - mx * mx + yy - my * my + c2));
                    positions += 1.0;
                }
            }
        }
        sum / positions
    }

    #[test]
    fn ssim_is_its_definition() {
        let (a, b) = (image(1, 12, 14), image(2, 12, 14));
        let b = &a * 0.7 + b * 0.3;
        let found = ssim(&a, &b).unwrap();
        for i in 0..2 {
            assert!((found.double_value(&[i]) - plain(&a, &b, i)).abs() < 1e-12);
        }
        let same = ssim(&a, &a).unwrap();
        assert!((same.double_value(&[0]) - 1.0).abs() < 1e-12);
        // What is clipped makes no difference.
        assert_eq!(ssim(&(&b.clamp_min(0.5) + 1.0), &b), ssim(&b.ones_like(), &b));
        assert!(ssim(&image(1, 10, 30), &image(1, 10, 30)).is_none());
    }
}

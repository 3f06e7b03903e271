//! What clipping leaves of white Gaussian noise.

use crate::picture::Picture;
use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// Clean values that are looked up, spread evenly over [0, 1].
const VALUES: usize = 1024;
/// Side of the squares whose mean tells the clean value in them; what varies within is neglected.
const SIDE: usize = 8;

/// Root mean square of what is left of noise of standard deviation `sigma` (image units, finite and at least 0) in
/// this picture, whose samples were clipped to [0, 1] after it was added; `sigma` itself if they are
/// floats.
///
/// The clean values follow from local means of the noisy ones, by the formulas of [`Left`].
pub fn after_clipping(picture: &Picture, sigma: f32) -> f32 {
    if !picture.is_clipped() || sigma <= 0.0 {
        return sigma;
    }
    let last = (VALUES - 1) as f64;
    let table: Vec<Left> = (0..VALUES).map(|i| Left::of(i as f64 / last, f64::from(sigma))).collect();
    let (height, width) = picture.size();
    let channels = if picture.is_grey() { 1 } else { 3 };
    let (mut squares, mut count) = (0.0, 0);
    for top in (0..height).step_by(SIDE) {
        for left in (0..width).step_by(SIDE) {
            let rows = top..height.min(top + SIDE);
            let seen: Vec<(usize, usize)> = rows
                .flat_map(|y| (left..width.min(left + SIDE)).map(move |x| (y, x)))
                .filter(|&(y, x)| !picture.is_hidden(y, x))
                .collect();
            for channel in (0..channels).filter(|_| !seen.is_empty()) {
                let sum: f32 = seen.iter().map(|&(y, x)| picture.pixel(channel, y, x)).sum();
                let mean = f64::from(sum) / seen.len() as f64;
                // The mean rises with the clean value.
                let value = table.partition_point(|left| left.mean < mean).min(VALUES - 1);
                squares += table[value].square * seen.len() as f64;
                count += seen.len();
            }
        }
    }
    if count == 0 { sigma } else { (squares / count as f64).sqrt() as f32 }
}

/// Moments of y = clip(x + σε) for one clean value x.
struct Left {
    /// E y
    mean: f64,
    /// E (y − x)²
    square: f64,
}

impl Left {
    /// With a = −x/σ, b = (1 − x)/σ, the normal distribution Φ and its density φ: E y = x(Φ(b) − Φ(a)) +
    /// σ(φ(a) − φ(b)) + 1 − Φ(b), and E (y − x)² = σ²(Φ(b) − Φ(a) + aφ(a) − bφ(b)) + x²Φ(a) + (1 − x)²(1 − Φ(b)).
    fn of(x: f64, sigma: f64) -> Left {
        let below = |t: f64| 0.5 * libm::erfc(-t * FRAC_1_SQRT_2);
        let density = |t: f64| (-0.5 * t * t).exp() / (2.0 * PI).sqrt();
        let (a, b) = (-x / sigma, (1.0 - x) / sigma);
        let (low, high) = (below(a), below(-b));
        let inside = 1.0 - low - high;
        Left {
            mean: x * inside + sigma * (density(a) - density(b)) + high,
            square: sigma * sigma * (inside + a * density(a) - b * density(b))
                + x * x * low
                + (1.0 - x).powi(2) * high,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::add;
    use crate::picture::Encoding;
    use ndarray::Array3;

    /// Dark and bright places, and all between.
    fn clean() -> Picture {
        let value = |(c, y, x): (usize, usize, usize)| {
            ((x + 20 * c) as f32 / 300.0 - (y / 100) as f32 * 0.3).clamp(0.0, 1.0)
        };
        Picture::from_pixels(Array3::from_shape_fn((3, 200, 304), value).view())
    }

    #[test]
    fn the_level_is_what_clipping_left() {
        let dir = tempfile::tempdir().unwrap();
        for sigma in [2.0, 25.0, 70.0, 200.0] {
            let mut noisy = clean();
            add(&mut noisy, sigma / 255.0, 5, "a");
            assert_eq!(after_clipping(&noisy, sigma / 255.0), sigma / 255.0, "floats are not clipped");
            let path = dir.path().join("a.png");
            noisy.write(&path, &Encoding::default()).unwrap();
            let noisy = Picture::read(&path).unwrap();
            let left = (noisy.pixels() - clean().pixels()).pow2().mean().unwrap().sqrt();
            let found = after_clipping(&noisy, sigma / 255.0);
            // 180,000 samples tell it to 0.2 %; the rest is for squares in which the clean value varies.
            assert!((found / left - 1.0).abs() < 0.02, "{found} and {left} of {sigma}");
            assert!(sigma < 20.0 || found < 0.95 * sigma / 255.0);
        }
        assert_eq!(after_clipping(&Picture::read(&dir.path().join("a.png")).unwrap(), 0.0), 0.0);
    }

    /// By the trapezoidal rule over ±8 standard deviations.
    #[test]
    fn the_moments_are_those_of_the_definition() {
        for (x, sigma) in [(0.0, 0.2), (0.05, 0.1), (0.5, 0.3), (0.97, 0.02), (1.0, 2.0)] {
            let steps = 200_000;
            let (mut mean, mut square) = (0.0, 0.0);
            for i in 0..=steps {
                let t = 16.0 * f64::from(i) / f64::from(steps) - 8.0;
                let weight = (-0.5 * t * t).exp() / (2.0 * PI).sqrt() * 16.0 / f64::from(steps);
                let y = (x + sigma * t).clamp(0.0, 1.0);
                mean += weight * y;
                square += weight * (y - x).powi(2);
            }
            let left = Left::of(x, sigma);
            assert!((left.mean - mean).abs() < 1e-6 && (left.square - square).abs() < 1e-6, "{x}, {sigma}");
        }
    }
}

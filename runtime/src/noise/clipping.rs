//! What clipping leaves of white Gaussian noise.

use super::{LUMINANCE, Spread};
use crate::picture::Picture;
use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// Clean values that are looked up, spread evenly over [0, 1].
const VALUES: usize = 1024;
/// Side of the squares whose mean tells the clean value in them; what varies within is neglected.
const SIDE: usize = 8;
/// Noise beyond this, in image units, leaves 0 or 1 of every sample by the toss of a coin, as this does within 0.1 %.
const LARGEST: f64 = 1e3;

/// What clipping to [0, 1] leaves of noise of standard deviation `sigma` (image units, finite and at least 0) in this
/// picture: its root mean square about the clean picture. `sigma` itself if a sample that can be seen lies
/// beyond [0, 1], which only those of float files do.
///
/// The clean values follow from local means of the noisy ones; the formulas are in `docs/mathematics.md`. Where dark and
/// bright pixels alternate within a few pixels, as in text, too much is thought to be left.
pub fn after_clipping(picture: &Picture, spread: Spread, sigma: f32) -> f32 {
    let (height, width) = picture.size();
    let channels = if picture.is_grey() { 1 } else { 3 };
    let seen = |y, x| !picture.is_hidden(y, x);
    let within = |y, x| (0..channels).all(|c| (0.0..=1.0).contains(&picture.pixel(c, y, x)));
    let clipped = (0..height).all(|y| (0..width).all(|x| within(y, x) || !seen(y, x)));
    if !clipped || sigma <= 0.0 {
        return sigma;
    }
    let table = Table::new(f64::from(sigma).min(LARGEST));
    let (mut squares, mut count) = ([0.0; 3], 0);
    for top in (0..height).step_by(SIDE) {
        for left in (0..width).step_by(SIDE) {
            let rows = top..height.min(top + SIDE);
            let places: Vec<(usize, usize)> = rows
                .flat_map(|y| (left..width.min(left + SIDE)).map(move |x| (y, x)))
                .filter(|&(y, x)| seen(y, x))
                .collect();
            if places.is_empty() {
                continue;
            }
            count += places.len();
            for (channel, squares) in squares.iter_mut().enumerate() {
                let sum: f32 = places.iter().map(|&(y, x)| picture.pixel(channel, y, x)).sum();
                *squares += table.square(f64::from(sum) / places.len() as f64) * places.len() as f64;
            }
        }
    }
    if count == 0 {
        return sigma;
    }
    // Of luminance, the noise is the sum of the channels' by their weights.
    let weights = match spread {
        Spread::Luminance => LUMINANCE.map(|w| f64::from(w * w)),
        Spread::Independent | Spread::Grey => [1.0; 3],
    };
    let sum: f64 = squares.iter().zip(weights).map(|(square, weight)| weight * square).sum();
    (sum / (count as f64 * weights.iter().sum::<f64>())).sqrt() as f32
}

/// Moments over all clean values, which follow from the mean.
struct Table(Vec<Moments>);

impl Table {
    fn new(sigma: f64) -> Table {
        let last = (VALUES - 1) as f64;
        Table((0..VALUES).map(|i| Moments::of(i as f64 / last, sigma)).collect())
    }

    /// E (y − x)² at the clean value x whose E y this is, or at the nearest that there is.
    fn square(&self, mean: f64) -> f64 {
        let Table(moments) = self;
        // The mean rises with the clean value.
        let above = moments.partition_point(|m| m.mean < mean);
        match (moments.get(above.wrapping_sub(1)), moments.get(above)) {
            (Some(low), Some(high)) => {
                let part = (mean - low.mean) / (high.mean - low.mean);
                low.square + part * (high.square - low.square)
            }
            (Some(end), None) | (None, Some(end)) => end.square,
            (None, None) => 0.0,
        }
    }
}

/// Moments of y = clip(x + σε) for one clean value x.
struct Moments {
    /// E y
    mean: f64,
    /// E (y − x)²
    square: f64,
}

impl Moments {
    fn of(x: f64, sigma: f64) -> Moments {
        let below = |t: f64| 0.5 * libm::erfc(-t * FRAC_1_SQRT_2);
        let density = |t: f64| (-0.5 * t * t).exp() / (2.0 * PI).sqrt();
        let (a, b) = (-x / sigma, (1.0 - x) / sigma);
        let (low, high) = (below(a), below(-b));
        let inside = 1.0 - low - high;
        Moments {
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
    use ndarray::{Array3, Axis, concatenate};

    /// Dark and bright places, and all between.
    fn clean() -> Picture {
        let value = |(c, y, x): (usize, usize, usize)| {
            ((x + 20 * c) as f32 / 300.0 - (y / 100) as f32 * 0.3).clamp(0.0, 1.0)
        };
        Picture::from_pixels(Array3::from_shape_fn((3, 200, 304), value).view())
    }

    fn flat(value: f32, height: usize, width: usize) -> Picture {
        Picture::from_pixels(Array3::from_elem((3, height, width), value).view())
    }

    const INDEPENDENT: Spread = Spread::Independent;

    #[test]
    fn the_level_is_what_clipping_left() {
        let dir = tempfile::tempdir().unwrap();
        for sigma in [2.0, 25.0, 70.0, 200.0] {
            let mut noisy = clean();
            add(&mut noisy, sigma / 255.0, 5, "a");
            assert_eq!(
                after_clipping(&noisy, INDEPENDENT, sigma / 255.0),
                sigma / 255.0,
                "it is not clipped"
            );
            let path = dir.path().join("a.png");
            noisy.write(&path, &Encoding::default()).unwrap();
            let noisy = Picture::read(&path).unwrap();
            let left = (noisy.pixels() - clean().pixels()).pow2().mean().unwrap().sqrt();
            let found = after_clipping(&noisy, INDEPENDENT, sigma / 255.0);
            // 180,000 samples tell it to 0.2 %; the rest is for squares in which the clean value varies.
            assert!((found / left - 1.0).abs() < 0.02, "{found} and {left} of {sigma}");
            // The same file as floats.
            let floats = Picture::from_pixels(noisy.pixels().view());
            assert!((after_clipping(&floats, INDEPENDENT, sigma / 255.0) / found - 1.0).abs() < 1e-5);
        }
    }

    /// Of black and of white half of the noise is left, so 1/√2 of the level; of 0.5, all of a little, and 0.5 of very
    /// much, as everywhere.
    #[test]
    fn flat_pictures_of_any_size_have_the_level_of_their_value() {
        let half = f32::sqrt(0.5);
        for (height, width) in [(1, 1), (3, 50), (17, 9)] {
            for (value, sigma, expected) in [
                (0.0, 0.1, 0.1 * half),
                (1.0, 0.1, 0.1 * half),
                (0.5, 0.1, 0.1),
                (0.5, 1e5, 0.5),
                (0.5, f32::MAX, 0.5),
                (0.5, 1e-9, 1e-9),
                (0.5, 0.0, 0.0),
            ] {
                // A mean of 0 cannot be told from one that is as low as the noise lets it be.
                let found = after_clipping(&flat(value, height, width), INDEPENDENT, sigma);
                assert!((found - expected).abs() <= 2e-3 * expected, "{found} of {sigma} at {value}");
            }
        }
    }

    #[test]
    fn channels_count_by_their_part_in_the_luminance() {
        let pixels = [0.5, 0.5, 0.0].map(|value| flat(value, 8, 8).pixels().index_axis_move(Axis(0), 0));
        let views: Vec<_> = pixels.iter().map(|plane| plane.view().insert_axis(Axis(0))).collect();
        let picture = Picture::from_pixels(concatenate(Axis(0), &views).unwrap().view());
        // Blue has lost half of its square: of a third, and of 0.114² of the 0.447 that the weights' squares sum to.
        for (spread, lost) in [(Spread::Independent, 0.5 / 3.0), (Spread::Luminance, 0.5 * 0.0130 / 0.4470)] {
            let square = (after_clipping(&picture, spread, 0.1) / 0.1).powi(2);
            assert!((square - (1.0 - lost)).abs() < 1e-3, "{square} of {spread:?}");
        }
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
            let moments = Moments::of(x, sigma);
            assert!(
                (moments.mean - mean).abs() < 1e-6 && (moments.square - square).abs() < 1e-6,
                "{x}, {sigma}"
            );
        }
    }
}

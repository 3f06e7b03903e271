//! What clipping takes from white Gaussian noise, and how it is put back.
//!
//! Samples in a file end at black and at white, which cuts the noise off: in dark and bright places less of it is left,
//! and on one side. Networks are trained on uncut noise. So a sample at an end gets one of the values that it may have
//! had beyond: a draw from the noise about the clean value there, which follows from the mean of the samples around.
//! With that, noise in an 8-bit file is removed nearly as well as if it had not been clipped (`docs/denoising.md`).

use super::patches::tail_mean;
use super::{LUMINANCE, LUMINANCE_SIGMA, Noise, Spread, draw};
use crate::picture::Picture;
use ndarray::Array3;
use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// Side of the squares whose mean tells the clean value in them.
const SIDE: usize = 8;
/// Squares that an estimate looks at, spread evenly over a large picture.
const SQUARES: usize = 16384;
/// Clean values tabulated about black, between, and about white, each.
const VALUES: usize = 256;
/// Standard deviations that "about" means: this far beyond black or white no noise shows, and this far inside nothing
/// is clipped.
const ABOUT: f64 = 3.0;
/// Most rounds in which a level is corrected: what is left grows about as the square root of a high level, so each
/// halves the error.
const ROUNDS: usize = 12;
/// A relative change below this ends them.
const SETTLED: f32 = 1e-4;
/// Largest factor by which a level is corrected. In black, 1.71; more, in pictures nearly all black or white, is not
/// believed.
const MOST: f32 = 1.75;
/// Least level, in image units: no network is told less, no sample of a file is so near an end.
const LEAST: f32 = 1e-6;

/// The level before clipping, given the deviation `sigma` of what was left of it, in image units.
pub(super) fn before_clipping(picture: &Picture, spread: Spread, sigma: f32) -> f32 {
    if sigma < LEAST || !within(picture) {
        return sigma;
    }
    let squares = Squares::of_seen(picture);
    let mut before = sigma;
    for _ in 0..ROUNDS {
        let last = before;
        before = (before * sigma / squares.left(spread, before)).clamp(sigma, MOST * sigma);
        if (before / last - 1.0).abs() < SETTLED {
            break;
        }
    }
    before
}

/// Whether all samples that can be seen lie in [0, 1], as integers do.
fn within(picture: &Picture) -> bool {
    let (height, width) = picture.size();
    let inside = |c, y, x| (0.0..=1.0).contains(&picture.pixel(c, y, x));
    let pixel = |y, x| (0..3).all(|c| inside(c, y, x)) || picture.is_hidden(y, x);
    picture.is_of_integers() || (0..height).all(|y| (0..width).all(|x| pixel(y, x)))
}

/// One channel of a square of a picture.
#[derive(Clone, Copy)]
struct Square {
    mean: f64,
    /// Whether a sample is at an end, so that there was something to clip.
    clipped: bool,
}

impl Square {
    /// The channels of the square from row `top` and column `left` on, of the pixels that are `seen`, if there are any.
    fn channels(
        picture: &Picture,
        (top, left): (usize, usize),
        seen: impl Fn(usize, usize) -> bool,
    ) -> Option<[Square; 3]> {
        let (height, width) = picture.size();
        let mut channels = [Square { mean: 0.0, clipped: false }; 3];
        let mut count = 0;
        for y in top..height.min(top + SIDE) {
            for x in (left..width.min(left + SIDE)).filter(|&x| seen(y, x)) {
                for (c, channel) in channels.iter_mut().enumerate() {
                    let value = picture.pixel(c, y, x);
                    channel.mean += f64::from(value);
                    channel.clipped |= value <= 0.0 || value >= 1.0;
                }
                count += 1;
            }
        }
        channels.iter_mut().for_each(|channel| channel.mean /= f64::from(count.max(1)));
        (count > 0).then_some(channels)
    }

    /// Variance that clipping leaves of the table's noise.
    fn left(self, table: &Table) -> f64 {
        match self.mean {
            _ if !self.clipped => table.sigma * table.sigma,
            // Black or white throughout, and so beyond the end, where no noise shows.
            mean if mean <= 0.0 || mean >= 1.0 => 0.0,
            mean => table.at(mean, |moments| moments.variance),
        }
    }
}

/// Squares of a picture, spread evenly over it.
struct Squares(Vec<[Square; 3]>);

impl Squares {
    fn of_seen(picture: &Picture) -> Squares {
        let (height, width) = picture.size();
        let count = height.div_ceil(SIDE) * width.div_ceil(SIDE);
        let step = SIDE * (count as f64 / SQUARES as f64).sqrt().ceil().max(1.0) as usize;
        let places = (0..height).step_by(step).flat_map(|y| (0..width).step_by(step).map(move |x| (y, x)));
        let seen = |y, x| !picture.is_hidden(y, x);
        Squares(places.filter_map(|place| Square::channels(picture, place, seen)).collect())
    }

    /// Deviation that an estimate finds when `sigma` has been clipped.
    fn left(&self, spread: Spread, sigma: f32) -> f32 {
        let shared = matches!(spread, Spread::Luminance);
        let table = Table::new(f64::from(if shared { LUMINANCE_SIGMA * sigma } else { sigma }));
        let of =
            |c: usize| self.0.iter().map(|square| square[c].left(&table)).sum::<f64>() / self.0.len() as f64;
        let mut variances = [of(0), of(1), of(2)];
        let left = match spread {
            Spread::Independent | Spread::Grey => {
                // As for eigenvalues, here the channels' variances.
                variances.sort_by(f64::total_cmp);
                tail_mean(&variances).sqrt()
            }
            // The same noise in each channel adds up.
            Spread::Luminance => {
                let sum: f64 =
                    variances.iter().zip(LUMINANCE).map(|(v, weight)| f64::from(weight) * v.sqrt()).sum();
                sum / f64::from(LUMINANCE_SIGMA)
            }
        };
        // In a picture that is black or white throughout nothing is left, and nothing is found.
        if left > 0.0 { left as f32 } else { sigma }
    }
}

/// A picture whose noise was clipped.
pub(crate) struct Clipped {
    /// Clean values of the squares, `[3,⌈H/8⌉,⌈W/8⌉]`.
    clean: Array3<f32>,
    /// Noise level of a channel, in image units.
    sigma: f32,
    /// Whether the channels share it.
    shared: bool,
}

impl Clipped {
    /// `None` if the picture has no noise, or none to be removed, or a sample beyond [0, 1].
    pub(crate) fn new(picture: &Picture, noise: Noise) -> Option<Clipped> {
        let shared = noise.shared_sigma();
        let sigma = shared.unwrap_or(noise.sigma);
        if sigma < LEAST || noise.strength <= 0.0 || !within(picture) {
            return None;
        }
        let table = Table::new(f64::from(sigma));
        let (height, width) = picture.size();
        let mut clean = Array3::zeros((3, height.div_ceil(SIDE), width.div_ceil(SIDE)));
        for row in 0..height.div_ceil(SIDE) {
            for column in 0..width.div_ceil(SIDE) {
                let place = (SIDE * row, SIDE * column);
                let channels = Square::channels(picture, place, |_, _| true);
                for (c, square) in channels.into_iter().flatten().enumerate() {
                    let value = table.at(square.mean, |moments| moments.clean);
                    clean[[c, row, column]] = value.clamp(0.0, 1.0) as f32;
                }
            }
        }
        Some(Clipped { clean, sigma, shared: shared.is_some() })
    }

    /// Puts the noise back into a tile `[3,h,w]` whose upper left pixel is at `place`. What it draws depends only on a
    /// pixel's place in the image; pixels that pad the image use its last squares. Noise that the channels share is the
    /// same in them where they are equal, and nearly so elsewhere.
    pub(crate) fn restore(&self, tile: &mut Array3<f32>, place: (usize, usize)) {
        let (_, rows, columns) = self.clean.dim();
        for ((c, y, x), value) in tile.indexed_iter_mut() {
            let sign = match *value {
                v if v <= 0.0 => -1.0,
                v if v >= 1.0 => 1.0,
                _ => continue,
            };
            let (y, x) = (place.0 + y, place.1 + x);
            let clean = self.clean[[c, (y / SIDE).min(rows - 1), (x / SIDE).min(columns - 1)]];
            let channel = if self.shared { 0 } else { c as u64 };
            let least = sign * (*value - clean) / self.sigma;
            let key = [y as u64, x as u64, 1 + channel];
            *value = clean + sign * self.sigma * draw::normal_above(least, key);
        }
    }
}

/// Moments over all clean values.
struct Table {
    sigma: f64,
    moments: Vec<Moments>,
}

impl Table {
    fn new(sigma: f64) -> Table {
        let about = ABOUT * sigma;
        let within = about.min(0.5);
        let bounds = [-about, within, 1.0 - within, 1.0 + about];
        let moments = bounds.windows(2).flat_map(|bounds| {
            let step = (bounds[1] - bounds[0]) / (VALUES - 1) as f64;
            (0..VALUES).map(move |i| Moments::of(bounds[0] + step * i as f64, sigma))
        });
        Table { sigma, moments: moments.collect() }
    }

    /// Interpolates `what` at a mean between its neighbours in the table, or takes the nearest end's. The mean
    /// rises with the clean value.
    fn at(&self, mean: f64, what: impl Fn(&Moments) -> f64) -> f64 {
        let moments = &self.moments;
        let above = moments.partition_point(|m| m.mean < mean);
        match (moments.get(above.wrapping_sub(1)), moments.get(above)) {
            (Some(low), Some(high)) => {
                let part = (mean - low.mean) / (high.mean - low.mean);
                what(low) + part * (what(high) - what(low))
            }
            (Some(end), None) | (None, Some(end)) => what(end),
            (None, None) => 0.0,
        }
    }
}

/// Moments of y = clip(x + σε) for one clean value x.
struct Moments {
    /// x
    clean: f64,
    /// E y
    mean: f64,
    /// E (y − E y)²
    variance: f64,
}

impl Moments {
    fn of(x: f64, sigma: f64) -> Moments {
        let below = |t: f64| 0.5 * libm::erfc(-t * FRAC_1_SQRT_2);
        let density = |t: f64| (-0.5 * t * t).exp() / (2.0 * PI).sqrt();
        let (a, b) = (-x / sigma, (1.0 - x) / sigma);
        let (low, high) = (below(a), below(-b));
        let inside = 1.0 - low - high;
        let mean = x * inside + sigma * (density(a) - density(b)) + high;
        let square = sigma * sigma * (inside + a * density(a) - b * density(b))
            + x * x * low
            + (1.0 - x).powi(2) * high;
        Moments { clean: x, mean, variance: square - (mean - x).powi(2) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::{add, estimate, estimate_left};
    use ndarray::s;

    /// Dark and bright places, and all between.
    fn clean() -> Array3<f32> {
        Array3::from_shape_fn((3, 200, 304), |(c, y, x)| {
            ((x + 20 * c) as f32 / 300.0 - (y / 100) as f32 * 0.3).clamp(0.0, 1.0)
        })
    }

    fn noisy(clean: &Array3<f32>, sigma: f32) -> Array3<f32> {
        let mut picture = Picture::from_pixels(clean.view());
        add(&mut picture, sigma, 5, "a");
        picture.pixels()
    }

    fn independent(sigma: f32) -> Noise {
        Noise { sigma, spread: Spread::Independent, strength: 1.0 }
    }

    #[test]
    fn what_was_clipped_is_noise_again() {
        let clean = clean();
        for sigma in [5.0 / 255.0, 25.0 / 255.0, 70.0 / 255.0] {
            let clipped = noisy(&clean, sigma).mapv(|v| v.clamp(0.0, 1.0));
            let mut restored = clipped.clone();
            Clipped::new(&Picture::from_pixels(restored.view()), independent(sigma))
                .unwrap()
                .restore(&mut restored, (0, 0));
            // Dark, middle and bright places apart: an error in one must not make up for another's.
            for (name, from, to) in [("dark", 0.0, 0.3), ("middle", 0.3, 0.7), ("bright", 0.7, 1.1)] {
                let moments = |image: &Array3<f32>| {
                    let pairs = image.iter().zip(&clean).filter(|(_, clean)| (from..to).contains(*clean));
                    let noise: Vec<f64> = pairs.map(|(v, clean)| f64::from((v - clean) / sigma)).collect();
                    let count = noise.len() as f64;
                    (
                        noise.iter().sum::<f64>() / count,
                        (noise.iter().map(|n| n * n).sum::<f64>() / count).sqrt(),
                    )
                };
                let ((bias, _), (mean, level)) = (moments(&clipped), moments(&restored));
                // Means and deviations of 40,000 samples or more scatter by 0.005; clean values vary within squares.
                assert!(
                    mean.abs() < 0.03 && (level - 1.0).abs() < 0.03,
                    "{name}: {mean} and {level} at {sigma}"
                );
                assert!(name == "middle" || bias.abs() > 0.03, "{name}: {bias} before");
            }
            // Nothing else is touched.
            for (before, after) in clipped.iter().zip(&restored) {
                assert!(before == after || *before == 0.0 && *after < 0.0 || *before == 1.0 && *after > 1.0);
            }
        }
    }

    #[test]
    fn a_level_is_found_whatever_clipping_took_of_it() {
        let mut red = clean() / 30.0;
        red.slice_mut(s![0, .., ..]).mapv_inplace(|v| 0.5 + v);
        for (name, clean) in [
            ("mixed", clean()),
            ("dark", clean() / 8.0),
            ("bright", 1.0 - clean() / 8.0),
            ("red", red),
            ("overexposed", 0.8 + 0.5 * clean()),
            ("underexposed", 0.2 - 0.5 * clean()),
            ("without noise beyond the ends", 0.5 + clean() / 30.0),
        ] {
            for sigma in [5.0f32, 25.0, 50.0] {
                let picture =
                    Picture::from_pixels(noisy(&clean, sigma / 255.0).mapv(|v| v.clamp(0.0, 1.0)).view());
                let found = 255.0 * estimate(&picture).sigma;
                // The estimate of noise that is not clipped scatters by up to 0.05.
                assert!((found / sigma - 1.0).abs() < 0.06, "{name}: {found} of {sigma}");
            }
        }
    }

    #[test]
    fn a_level_that_channels_share_is_found_too() {
        let clean = clean();
        let grey = Array3::from_shape_fn(clean.dim(), |(_, y, x)| clean[[0, y, x]]);
        for (clean, share, spread) in
            [(&grey, 1.0, Spread::Grey), (&clean, LUMINANCE_SIGMA, Spread::Luminance)]
        {
            for sigma in [25.0f32, 50.0] {
                let noise = noisy(&Array3::zeros(clean.dim()), share * sigma / 255.0);
                let shared = |(c, y, x)| (clean[[c, y, x]] + noise[[0, y, x]]).clamp(0.0, 1.0);
                let picture = Picture::from_pixels(Array3::from_shape_fn(clean.dim(), shared).view());
                let (left, _) = estimate_left(&picture);
                let found = estimate(&picture);
                assert_eq!(found.spread, spread);
                let (left, found) = (255.0 * left / sigma, 255.0 * found.sigma / sigma);
                assert!(
                    (found - 1.0).abs() < 0.06 && left < 0.9,
                    "{spread:?}: {found} times {sigma}, and {left} times it before"
                );
            }
        }
    }

    #[test]
    fn what_is_hidden_says_nothing_of_the_ends() {
        let opaque = Array3::from_shape_fn((4, 16, 16), |(c, ..)| if c == 3 { 1.0 } else { 0.5 });
        let beyond = |alpha| {
            let mut image = opaque.clone();
            (image[[0, 7, 9]], image[[3, 7, 9]]) = (-0.001, alpha);
            Clipped::new(&Picture::from_pixels(image.view()), independent(0.1)).is_none()
        };
        assert!(beyond(1.0) && !beyond(0.0));
    }

    #[test]
    fn what_is_drawn_belongs_to_a_place_and_to_a_channel_or_all() {
        let black = Array3::<f32>::zeros((3, 24, 32));
        let restored = |spread, part: (usize, usize)| {
            let clipped = Clipped::new(
                &Picture::from_pixels(black.view()),
                Noise { sigma: 0.1, spread, strength: 1.0 },
            )
            .unwrap();
            let mut tile = black.slice(s![.., part.0.., part.1..]).to_owned();
            clipped.restore(&mut tile, part);
            tile
        };
        let whole = restored(Spread::Independent, (0, 0));
        assert_eq!(whole.slice(s![.., 5.., 9..]), restored(Spread::Independent, (5, 9)));
        let equal = |tile: &Array3<f32>| tile.slice(s![0, .., ..]) == tile.slice(s![1, .., ..]);
        assert!(!equal(&whole) && equal(&restored(Spread::Grey, (0, 0))));
    }

    #[test]
    fn pictures_beyond_the_ends_or_without_noise_are_left_alone() {
        let picture = |image: &Array3<f32>| Picture::from_pixels(image.view());
        let mut image = clean();
        assert!(Clipped::new(&picture(&image), independent(0.0)).is_none());
        let nothing_to_remove = Noise { strength: 0.0, ..independent(0.1) };
        assert!(Clipped::new(&picture(&image), nothing_to_remove).is_none());
        assert!(Clipped::new(&picture(&image), independent(0.1)).is_some());
        image[[1, 7, 9]] = -0.001;
        assert!(Clipped::new(&picture(&image), independent(0.1)).is_none());
        assert_eq!(before_clipping(&picture(&image), Spread::Independent, 0.1), 0.1);
        for value in [0.0, 0.5, 1.0] {
            let flat = Picture::from_pixels(Array3::from_elem((3, 5, 5), value).view());
            let found = before_clipping(&flat, Spread::Independent, 0.1);
            assert!((found - 0.1).abs() < 1e-6, "{found} of {value}");
        }
    }

    /// By the trapezoidal rule over ±8 standard deviations.
    #[test]
    fn the_moments_are_those_of_the_definition() {
        for (x, sigma) in
            [(0.0, 0.2), (0.05, 0.1), (0.5, 0.3), (0.97, 0.02), (1.0, 2.0), (-0.3, 0.1), (1.05, 0.02)]
        {
            let steps = 200_000;
            let (mut mean, mut square) = (0.0, 0.0);
            for i in 0..=steps {
                let t = 16.0 * f64::from(i) / f64::from(steps) - 8.0;
                let weight = (-0.5 * t * t).exp() / (2.0 * PI).sqrt() * 16.0 / f64::from(steps);
                let y = (x + sigma * t).clamp(0.0, 1.0);
                mean += weight * y;
                square += weight * y * y;
            }
            let moments = Moments::of(x, sigma);
            assert!((moments.mean - mean).abs() < 1e-6 * sigma, "{x}, {sigma}");
            let variance = square - mean * mean;
            assert!((moments.variance - variance).abs() < 1e-6 * sigma * sigma, "{x}, {sigma}");
        }
    }

    #[test]
    fn what_is_looked_up_is_what_the_moments_say() {
        for sigma in [1e-5, 0.02, 0.2, 0.3] {
            let table = Table::new(sigma);
            for x in (0..=200).map(|i| 0.005 * f64::from(i)) {
                for x in [x, 2.0 * sigma * x, 1.0 - 2.0 * sigma * x, -2.0 * sigma * x, 1.0 + 2.0 * sigma * x]
                {
                    let moments = Moments::of(x, sigma);
                    let (clean, variance) =
                        (table.at(moments.mean, |m| m.clean), table.at(moments.mean, |m| m.variance));
                    assert!((clean - x).abs() < 0.01 * sigma, "{clean} of {x}, {sigma}");
                    let error = (variance - moments.variance).abs();
                    assert!(error < 0.01 * sigma * sigma, "{variance} at {x}, {sigma}");
                }
            }
        }
    }

    /// What is white throughout may be much brighter, and is taken to be white.
    #[test]
    fn places_are_not_taken_to_be_beyond_the_ends() {
        let mut tile = Array3::ones((3, 64, 64));
        let white = Picture::from_pixels(tile.view());
        Clipped::new(&white, independent(0.1)).unwrap().restore(&mut tile, (0, 0));
        // The mean of |ε| is √(2/π); of 12,288 draws it scatters by 0.006.
        let excess = (tile.mean().unwrap() - 1.0) / 0.1;
        assert!((excess - 0.798).abs() < 0.03, "{excess}");
    }
}

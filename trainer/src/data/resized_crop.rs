//! The random resized crop (Szegedy et al. 2015) with torchvision's defaults: 8 % to all of the area,
//! 3:4 to 4:3, bilinear with antialiasing.

use super::Region;
use super::images::Pixels;
use rand::{Rng, RngExt};
use tch::Tensor;

/// Fraction of the image's area, and width over height, smallest and largest.
const AREA: (f64, f64) = (0.08, 1.0);
const ASPECT: (f64, f64) = (3.0 / 4.0, 4.0 / 3.0);
const TRIES: usize = 10;

/// A random part of the image, resized to `size`×`size`: 3 planes in [0, 1], row by row.
pub fn resized_crop(image: &Pixels, size: usize, rng: &mut impl Rng) -> Vec<f32> {
    resize(image, region(image.height, image.width, rng), size)
}

/// The part: a uniform area, an aspect ratio of uniform logarithm and a uniform place; after ten that do
/// not fit, the largest central part of an allowed aspect ratio.
fn region(height: usize, width: usize, rng: &mut impl Rng) -> Region {
    let (h, w) = (height as f64, width as f64);
    // Rounded as Python rounds.
    let side = |x: f64| x.round_ties_even() as usize;
    for _ in 0..TRIES {
        let area = h * w * rng.random_range(AREA.0..=AREA.1);
        let aspect = rng.random_range(ASPECT.0.ln()..=ASPECT.1.ln()).exp();
        let (rows, columns) = (side((area / aspect).sqrt()), side((area * aspect).sqrt()));
        if (1..=height).contains(&rows) && (1..=width).contains(&columns) {
            let (top, left) = (rng.random_range(0..=height - rows), rng.random_range(0..=width - columns));
            return Region { top, left, height: rows, width: columns };
        }
    }
    let (rows, columns) = match w / h {
        narrow if narrow < ASPECT.0 => (side(w / ASPECT.0), width),
        wide if wide > ASPECT.1 => (height, side(h * ASPECT.1)),
        _ => (height, width),
    };
    Region { top: (height - rows) / 2, left: (width - columns) / 2, height: rows, width: columns }
}

fn resize(image: &Pixels, part: Region, size: usize) -> Vec<f32> {
    let mut values = Vec::with_capacity(3 * part.height * part.width);
    for channel in 0..3 {
        for row in part.top..part.top + part.height {
            let start = (row * image.width + part.left) * 3 + channel;
            let row = image.rgb[start..].iter().step_by(3).take(part.width);
            values.extend(row.map(|&value| f32::from(value) / 255.0));
        }
    }
    let planes = Tensor::from_slice(&values).view([1, 3, part.height as i64, part.width as i64]);
    let side = size as i64;
    let resized = planes.internal_upsample_bilinear2d_aa([side, side], false, None::<f64>, None::<f64>);
    let mut out = vec![0.0; 3 * size * size];
    resized.view(-1).copy_data(&mut out, 3 * size * size);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    /// On a large square image a part of area a (a fraction) and aspect ratio r fits if a·r ≤ 1 and
    /// a/r ≤ 1. With log r uniform in [−L, L], L = log 4/3, that is so with probability
    /// min(1, −log a / L), and what is drawn has a density in a that is proportional to it.
    #[test]
    fn areas_and_places_follow_their_densities() {
        const SIDE: usize = 3000;
        let draws = 20_000;
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let parts: Vec<Region> = (0..draws).map(|_| region(SIDE, SIDE, &mut rng)).collect();
        let mean = |f: &dyn Fn(&Region) -> f64| parts.iter().map(f).sum::<f64>() / f64::from(draws);
        let area = |p: &Region| (p.height * p.width) as f64 / (SIDE * SIDE) as f64;

        // ∫ aⁿ da up to 3/4, where every ratio fits, and ∫ aⁿ (−log a)/L da from there to 1.
        let l = (4.0f64 / 3.0).ln();
        let moment = |n: f64| {
            let b = 0.75f64;
            let below = (b.powf(n + 1.0) - 0.08f64.powf(n + 1.0)) / (n + 1.0);
            let primitive = |a: f64| a.powf(n + 1.0) * (1.0 / (n + 1.0) - a.ln()) / (n + 1.0);
            below + (primitive(1.0) - primitive(b)) / l
        };
        let (expected, square) = (moment(1.0) / moment(0.0), moment(2.0) / moment(0.0));
        let error = 5.0 * ((square - expected * expected) / f64::from(draws)).sqrt();
        let found = mean(&area);
        assert!((found - expected).abs() < error, "area: {found} for {expected} ± {error}");
        assert!(parts.iter().all(|p| area(p) > 0.0795 && p.top + p.height <= SIDE));

        // Aspect ratio and place favour no direction. The logarithm's deviation is below L.
        let aspect = mean(&|p| (p.width as f64 / p.height as f64).ln());
        assert!(aspect.abs() < 5.0 * l / f64::from(draws).sqrt(), "aspect: {aspect}");
        let place = mean(&|p| p.left as f64 / (SIDE - p.width).max(1) as f64);
        assert!((place - 0.5).abs() < 5.0 * 0.29 / f64::from(draws).sqrt() + 1e-3, "place: {place}");
        let extreme = parts.iter().map(|p| (p.width as f64 / p.height as f64).ln().abs()).fold(0.0, f64::max);
        assert!(extreme < l + 1e-2 && extreme > l - 1e-2, "aspect: up to {extreme} for {l}");
    }

    #[test]
    fn what_no_part_fits_gives_its_middle() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        // 8 % of 1000×10 in 3:4 is 25 wide at least. 10 / (3/4) = 13.3; 10 · 4/3 = 13.3.
        let tall = Region { top: 493, left: 0, height: 13, width: 10 };
        let wide = Region { top: 0, left: 493, height: 10, width: 13 };
        assert_eq!((region(1000, 10, &mut rng), region(10, 1000, &mut rng)), (tall, wide));
        assert_eq!(region(1, 1, &mut rng), Region { top: 0, left: 0, height: 1, width: 1 });
    }

    /// Each output pixel is the mean of input pixels under a triangle about its centre, on either side as
    /// wide as the scale when shrinking, and one pixel when growing.
    fn bilinear(row: &[f64], size: usize) -> Vec<f64> {
        let scale = row.len() as f64 / size as f64;
        (0..size)
            .map(|i| {
                let centre = (i as f64 + 0.5) * scale;
                let weight = |j: usize| (1.0 - ((j as f64 + 0.5 - centre) / scale.max(1.0)).abs()).max(0.0);
                let total: f64 = (0..row.len()).map(weight).sum();
                row.iter().enumerate().map(|(j, v)| weight(j) * v).sum::<f64>() / total
            })
            .collect()
    }

    #[test]
    fn resizing_is_bilinear_and_antialiased() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for (height, width, size) in [(12, 9, 4), (3, 4, 8), (5, 5, 5), (30, 7, 10)] {
            let rgb: Vec<u8> = (0..(height + 2) * (width + 3) * 3).map(|_| rng.random()).collect();
            let image = Pixels { height: height + 2, width: width + 3, rgb };
            let part = Region { top: 1, left: 2, height, width };
            let found = resize(&image, part, size);
            for channel in 0..3 {
                let at = |r: usize, c: usize| {
                    f64::from(image.rgb[((r + 1) * image.width + c + 2) * 3 + channel]) / 255.0
                };
                // Rows first, then columns: the triangles factor.
                let rows: Vec<Vec<f64>> = (0..height)
                    .map(|r| bilinear(&(0..width).map(|c| at(r, c)).collect::<Vec<_>>(), size))
                    .collect();
                for column in 0..size {
                    let whole = bilinear(&rows.iter().map(|row| row[column]).collect::<Vec<_>>(), size);
                    for (row, expected) in whole.iter().enumerate() {
                        let found = f64::from(found[(channel * size + row) * size + column]);
                        // float32 against float64.
                        assert!((found - expected).abs() < 1e-5, "{height}×{width}: {found} for {expected}");
                    }
                }
            }
        }
    }
}

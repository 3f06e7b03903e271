//! Noise that all channels share, for a network that expects it to be independent.
//!
//! Networks are trained on noise that is independent in the three channels. What is equal in all of them
//! they take for detail, and enhance: grey images of σ = 15 came out at 20.5 dB, worse than they went in.
//! So noise is added where there is none, in the colour, until the channels' noise is independent: each then has
//! √3 times the level that they share, and their mean still that level. What the network returns for a grey
//! image is averaged over the channels; such images come out at 31.3 dB (`docs/denoising.md`).

use super::draw::normal_pair;
use ndarray::Array3;

/// √3: noise of a channel over that of the mean of three.
const RATIO: f32 = 1.732_050_8;

/// The noise level that the network is told, where the channels share noise of `sigma`.
pub(crate) fn channel_sigma(sigma: f32) -> f32 {
    RATIO * sigma
}

/// Adds colour noise to a tile `[3,h,w]` whose channels share noise of `sigma`, and whose upper left
/// pixel is at `place`. The noise is a function of a pixel's place in the image alone, so that tiles agree
/// where they overlap and a result does not depend on how an image is cut.
pub(crate) fn add_color_noise(tile: &mut Array3<f32>, sigma: f32, place: (usize, usize)) {
    let (_, height, width) = tile.dim();
    for y in 0..height {
        for x in 0..width {
            let [a, b] = normal_pair([(place.0 + y) as u64, (place.1 + x) as u64, 0]);
            // Two directions at right angles to grey and to one another.
            let (a, b) = (a / 2f32.sqrt(), b / 6f32.sqrt());
            for (c, noise) in [a + b, b - a, -2.0 * b].into_iter().enumerate() {
                tile[[c, y, x]] += channel_sigma(sigma) * noise;
            }
        }
    }
}

/// Makes the three channels of a tile `[3,h,w]` their mean.
pub(crate) fn average(tile: &mut Array3<f32>) {
    let (_, height, width) = tile.dim();
    for y in 0..height {
        for x in 0..width {
            let mean = (0..3).map(|c| tile[[c, y, x]]).sum::<f32>() / 3.0;
            (0..3).for_each(|c| tile[[c, y, x]] = mean);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Axis, s};

    #[test]
    fn the_channels_noise_becomes_independent_and_grey_keeps_its_own() {
        let (n, sigma) = (200usize, 0.1);
        let mut tile = Array3::zeros((3, n, n));
        add_color_noise(&mut tile, sigma, (7, 3));
        let mean = tile.mean_axis(Axis(0)).unwrap();
        assert!(mean.iter().all(|m| m.abs() < 1e-6));
        // With the grey noise of variance σ², which all channels share, covariances vanish and variances
        // are 3σ². Means of 40,000 scatter by less than 2 %.
        for (a, b) in [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)] {
            let product = &tile.index_axis(Axis(0), a) * &tile.index_axis(Axis(0), b);
            let with_grey = product.mean().unwrap() / (sigma * sigma) + 1.0;
            let expected = if a == b { 3.0 } else { 0.0 };
            assert!((with_grey - expected).abs() < 0.06, "{a} {b}: {with_grey}");
        }
    }

    #[test]
    fn noise_belongs_to_a_place() {
        let of = |place| {
            let mut tile = Array3::zeros((3, 8, 9));
            add_color_noise(&mut tile, 1.0, place);
            tile
        };
        assert_eq!(of((0, 0)).slice(s![.., 2.., 3..]), of((2, 3)).slice(s![.., ..6, ..6]));
        assert_ne!(of((0, 0)), of((0, 1)));
    }
}

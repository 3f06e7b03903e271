//! Cutting an image into overlapping tiles of one shape, and weights that blend them smoothly.
//!
//! Along each axis the tiles are evenly spaced, on multiples of the network's stride, and no longer than their
//! number requires, since what they share is computed twice. Two neighbours are blended by a raised cosine in
//! the middle of what they share, so that pixels near a tile's border, which lack context, do not count. The
//! weights of a pixel add up to 1.

use crate::error::{ErrorKind, Result};
use crate::padding::padded;
use std::ops::Range;

/// How large images are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiling {
    tile: usize,
    overlap: usize,
    /// Images of at most this many pixels with their padding are not cut, whatever their sides.
    whole: usize,
}

impl Tiling {
    /// Longest side of a tile in pixels, where the caller does not choose.
    pub const TILE: usize = 448;
    /// Width in pixels of the band over which tiles are blended, where the caller does not choose.
    pub const OVERLAP: usize = 32;
    /// Images of at most this many pixels are not cut, where the caller does not choose.
    pub const WHOLE: usize = 512 * 512;

    /// Tiles of at most `tile`×`tile` pixels (rounded up to the network's stride, and to two of them; an image is not
    /// cut along an axis on which it is no longer than a tile), which share at least `overlap` pixels; by default
    /// [`Tiling::OVERLAP`], and a quarter of small tiles.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] unless 1 ≤ `tile` ≤ 16384 and `overlap` ≤ `tile`/3: at most two tiles may
    /// share a pixel along an axis.
    pub fn new(tile: usize, overlap: Option<usize>) -> Result<Tiling> {
        if !(1..=1 << 14).contains(&tile) {
            return Err(ErrorKind::Input(format!("a tile must have 1 to 16384 pixels, not {tile}")).into());
        }
        let overlap = overlap.unwrap_or(Tiling::OVERLAP.min(tile / 4));
        if overlap > tile / 3 {
            return Err(ErrorKind::Input(format!(
                "tiles of {tile} pixels can overlap by {} at most, not {overlap}",
                tile / 3
            ))
            .into());
        }
        Ok(Tiling { tile, overlap, whole: 0 })
    }

    /// The default, reduced just enough for `threads` tiles, or small images, to be denoised at a time within
    /// `bytes` of memory, at `bytes_per_pixel` ([`Session::bytes_per_pixel`](crate::Session::bytes_per_pixel)).
    ///
    /// # Errors
    /// [`ErrorKind::Input`] if even tiles of 64×64 pixels take more.
    pub fn within(bytes: u64, threads: usize, bytes_per_pixel: u64) -> Result<Tiling> {
        const SMALLEST: usize = 64;
        let bytes_per_pixel = bytes_per_pixel.max(1);
        let pixels = usize::try_from(bytes / bytes_per_pixel).unwrap_or(usize::MAX) / threads.max(1);
        let tile = Tiling::TILE.min(pixels.isqrt() / 16 * 16);
        if tile < SMALLEST {
            let needed = (SMALLEST * SMALLEST * threads) as u64 * bytes_per_pixel;
            let reason =
                format!("tiles for {threads} threads take {} MiB at least", needed.div_ceil(1 << 20));
            return Err(ErrorKind::Input(reason).into());
        }
        Ok(Tiling { whole: Tiling::WHOLE.min(pixels), ..Tiling::new(tile, None)? })
    }

    /// Pixels of the plans that are kept for later images: two of the largest, since a folder of photographs has
    /// two shapes.
    pub(crate) fn kept_pixels(&self) -> usize {
        2 * self.whole.max(self.tile * self.tile)
    }

    /// The tiles of an image of `height`×`width` pixels, both at least 1.
    pub(crate) fn grid(&self, height: usize, width: usize, stride: usize) -> Grid {
        // A thin image is mostly padding.
        let whole = padded(height, stride).saturating_mul(padded(width, stride)) <= self.whole;
        let axis = |length| {
            // The last tile's padding is reflected from pixels up to two strides away, which must be its own: those of
            // tiles before it may be replaced already.
            let tile = if whole { length } else { self.tile.max(2 * stride) };
            Axis::new(length, tile, self.overlap, stride)
        };
        Grid { rows: axis(height), columns: axis(width) }
    }
}

impl Default for Tiling {
    fn default() -> Self {
        Tiling { tile: Tiling::TILE, overlap: Tiling::OVERLAP, whole: Tiling::WHOLE }
    }
}

/// The tiles of one image: every pair of a row and a column range.
pub(crate) struct Grid {
    pub(crate) rows: Axis,
    pub(crate) columns: Axis,
}

impl Grid {
    /// Whether there is one tile.
    pub(crate) fn is_whole(&self) -> bool {
        self.rows.len() * self.columns.len() == 1
    }
}

/// The tiles along one axis.
pub(crate) struct Axis {
    starts: Vec<usize>,
    tile: usize,
    overlap: usize,
}

impl Axis {
    fn new(length: usize, tile: usize, overlap: usize, stride: usize) -> Axis {
        let length = padded(length, stride);
        let tile = padded(tile, stride).min(length);
        // What neighbours share is a multiple of the stride too, and at most a third of a tile: this
        // reduces the overlap only of tiles of a few strides.
        let shared = padded(overlap, stride).min(tile / 3 / stride * stride);
        let overlap = overlap.min(shared);
        let count = if tile == length { 1 } else { (length - shared).div_ceil(tile - shared) };
        let tile = padded((length + (count - 1) * shared).div_ceil(count), stride);
        let starts = (0..count)
            .map(|i| {
                let even = i * (length - tile) / (count - 1).max(1);
                even / stride * stride
            })
            .collect();
        Axis { starts, tile, overlap }
    }

    /// Number of tiles.
    pub(crate) fn len(&self) -> usize {
        self.starts.len()
    }

    /// Extent of every tile.
    pub(crate) fn tile(&self) -> usize {
        self.tile
    }

    /// Extent of the padded axis.
    pub(crate) fn padded(&self) -> usize {
        self.starts.last().copied().unwrap_or(0) + self.tile
    }

    /// Pixels of tile `i`.
    pub(crate) fn range(&self, i: usize) -> Range<usize> {
        self.starts[i]..self.starts[i] + self.tile
    }

    /// Weight of each of the pixels of tile `i`.
    pub(crate) fn weights(&self, i: usize) -> Vec<f32> {
        self.range(i)
            .map(|x| {
                let from_left = if i > 0 { self.passed(i - 1, x) } else { 1.0 };
                let to_right = if i + 1 < self.len() { 1.0 - self.passed(i, x) } else { 1.0 };
                // At most one of the two differs from 1: the bands of two seams never meet.
                (from_left * to_right) as f32
            })
            .collect()
    }

    /// How far pixel `x` has passed from tile `i` to tile `i + 1`, from 0 to 1.
    fn passed(&self, i: usize, x: usize) -> f64 {
        let centre = (self.starts[i] + self.tile + self.starts[i + 1]) as f64 / 2.0;
        let distance = x as f64 + 0.5 - centre;
        let t = if self.overlap == 0 {
            f64::from(distance > 0.0)
        } else {
            (distance / self.overlap as f64 + 0.5).clamp(0.0, 1.0)
        };
        (std::f64::consts::FRAC_PI_2 * t).sin().powi(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn weights_add_up_to_one_and_tiles_cover_the_axis(
            length in 1usize..900,
            tile in 1usize..300,
            overlap in 0usize..100,
            log_stride in 0u32..5,
        ) {
            let stride = 1 << log_stride;
            let axis = Axis::new(length, tile, overlap.min(tile / 3), stride);
            prop_assert_eq!(axis.padded(), padded(length, stride));
            let mut sum = vec![0f32; axis.padded()];
            for i in 0..axis.len() {
                prop_assert_eq!(axis.range(i).len(), axis.tile());
                prop_assert_eq!(axis.starts[i] % stride, 0);
                for (x, weight) in axis.range(i).zip(axis.weights(i)) {
                    prop_assert!((0.0..=1.0).contains(&weight));
                    sum[x] += weight;
                }
            }
            for (x, sum) in sum.iter().enumerate() {
                // Two float32 roundings of numbers below 1.
                prop_assert!((sum - 1.0).abs() <= 2.0 * f32::EPSILON, "{} at {}", sum, x);
            }
        }

        #[test]
        fn neighbours_share_what_was_asked_for(length in 300usize..2000, log_stride in 0u32..4) {
            let axis = Axis::new(length, 128, 32, 1 << log_stride);
            prop_assert!(axis.tile() <= 128);
            for pair in axis.starts.windows(2) {
                prop_assert!(pair[0] + axis.tile() - pair[1] >= 32);
            }
        }
    }

    #[test]
    fn a_seam_is_the_same_from_both_sides() {
        let axis = Axis::new(224, 128, 32, 1);
        let mut mirrored = axis.weights(1);
        mirrored.reverse();
        // Rounding of the sine to float32.
        assert!(axis.weights(0).iter().zip(&mirrored).all(|(a, b)| (a - b).abs() < 1e-6));
    }

    #[test]
    fn tiles_pass_smoothly_into_one_another_and_their_borders_do_not_count() {
        let weights = Axis::new(224, 128, 32, 1).weights(0);
        // From one pixel to the next, a raised cosine over 32 pixels falls by π/64 at most.
        let steepest = std::f32::consts::PI / 64.0 + 1e-6;
        assert!(weights.windows(2).all(|w| (w[1] - w[0]).abs() <= steepest), "{weights:?}");
        assert!(weights[96..].iter().filter(|w| (0.01..0.99).contains(*w)).count() > 24, "{weights:?}");
        // Two tiles of 64 on multiples of 16 share 16 pixels, of which the middle 8 are blended.
        let axis = Axis::new(112, 64, 8, 16);
        assert_eq!(axis.starts, [0, 48]);
        assert!(axis.weights(0)[60..].iter().chain(&axis.weights(1)[..4]).all(|w| *w == 0.0));
    }

    #[test]
    fn small_images_are_not_cut() {
        let grid = Tiling::default().grid(321, 481, 4);
        assert_eq!((grid.rows.len(), grid.columns.len()), (1, 1));
        assert_eq!((grid.rows.tile(), grid.columns.tile()), (324, 484));
        let grid = Tiling::default().grid(1, Tiling::WHOLE, 4);
        assert!(grid.rows.tile() * grid.columns.tile() <= Tiling::WHOLE && !grid.is_whole());
        let grid = Tiling::new(128, None).unwrap().grid(100, 481, 4);
        assert_eq!((grid.rows.len(), grid.rows.tile()), (1, 100));
        // Five tiles of 128 would share more than 32 pixels: (484 + 4 · 32) ÷ 5, rounded up.
        assert_eq!((grid.columns.len(), grid.columns.tile()), (5, 124));
    }

    #[test]
    fn tiles_shrink_to_what_memory_there_is() {
        let tile = |mib: u64| Tiling::within(mib << 20, 2, 1200).map(|t| (t.tile, t.whole));
        assert_eq!(tile(1024).unwrap(), (Tiling::TILE, Tiling::WHOLE));
        let (side, whole) = tile(64).unwrap();
        assert!((64..Tiling::TILE).contains(&side) && side * side <= whole && whole < Tiling::WHOLE);
        assert!(tile(1).unwrap_err().to_string().contains("MiB"));
    }

    #[test]
    fn impossible_tilings_are_refused() {
        assert!(Tiling::new(0, None).is_err());
        assert!(Tiling::new(usize::MAX, None).is_err());
        assert!(Tiling::new(96, Some(33)).is_err());
        assert!(Tiling::new(96, Some(32)).is_ok());
    }
}

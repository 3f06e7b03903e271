//! Crops, flips and quarter turns of 8-bit images into planar float images.

use super::images::Pixels;
use super::resized_crop::resized_crop;
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// How a training image is varied. The result's size is given separately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Augment {
    /// Black pixels added on every side before the crop (He et al. use 4 on CIFAR-10).
    #[serde(default)]
    pub padding: usize,
    /// Left-right flips, half of the time.
    #[serde(default)]
    pub flip: bool,
    /// Turns by a multiple of 90°, of square crops.
    #[serde(default)]
    pub turn: bool,
    /// A part of random size and shape, resized to the crop's size, in place of a crop.
    #[serde(default)]
    pub resized_crop: bool,
}

impl Augment {
    /// A random `size`×`size` crop, varied, appended to `out` as 3 planes in [0, 1]. Where the image is
    /// smaller than the crop, it is continued by reflection.
    pub fn apply(&self, image: &Pixels, size: usize, rng: &mut impl Rng, out: &mut Vec<f32>) {
        if self.resized_crop {
            let planes = resized_crop(image, size, rng);
            let pixel = |channel, row, column| planes[(channel * size + row) * size + column];
            self.orient(size, rng, out, pixel);
        } else {
            let mut offset = |extent: usize| -> isize {
                let room = (extent + 2 * self.padding).saturating_sub(size);
                rng.random_range(0..=room) as isize - self.padding as isize
            };
            let (top, left) = (offset(image.height), offset(image.width));
            let at = |start: isize, i: usize, extent| self.source(start + i as isize, extent);
            self.orient(size, rng, out, |channel, row, column| {
                match (at(top, row, image.height), at(left, column, image.width)) {
                    (Some(y), Some(x)) => f32::from(image.rgb[(y * image.width + x) * 3 + channel]) / 255.0,
                    _ => 0.0,
                }
            });
        }
    }

    /// Appends what `pixel` says of a channel, row and column, flipped and turned.
    fn orient(
        &self,
        size: usize,
        rng: &mut impl Rng,
        out: &mut Vec<f32>,
        pixel: impl Fn(usize, usize, usize) -> f32,
    ) {
        let flip = self.flip && rng.random();
        let turns = if self.turn { rng.random_range(0..4) } else { 0 };
        let last = size - 1;
        for channel in 0..3 {
            for row in 0..size {
                for column in 0..size {
                    let (r, c) = match turns {
                        0 => (row, column),
                        1 => (column, last - row),
                        2 => (last - row, last - column),
                        _ => (last - column, row),
                    };
                    out.push(pixel(channel, r, if flip { last - c } else { c }));
                }
            }
        }
    }

    /// The coordinate that `position` reads: itself inside; nothing in the padding; else reflected.
    fn source(&self, position: isize, extent: usize) -> Option<usize> {
        let padding = self.padding as isize;
        let end = extent as isize;
        match position {
            p if (0..end).contains(&p) => Some(p as usize),
            p if padding > 0 && p >= -padding && p < end + padding => None,
            p => Some(reflect(p, extent)),
        }
    }
}

/// Reflection about the borders without repeating them: −1 → 1, `extent` → `extent − 2`.
pub fn reflect(position: isize, extent: usize) -> usize {
    let period = 2 * (extent.max(2) as isize - 1);
    let folded = position.rem_euclid(period) as usize;
    if extent == 1 { 0 } else { folded.min(period as usize - folded) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use std::collections::HashSet;

    fn image(height: usize, width: usize) -> Pixels {
        Pixels { height, width, rgb: (0..height * width * 3).map(|i| i as u8).collect() }
    }

    fn variants(augment: Augment, image: &Pixels, size: usize) -> HashSet<Vec<u32>> {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        (0..200)
            .map(|_| {
                let mut out = Vec::new();
                augment.apply(image, size, &mut rng, &mut out);
                out.iter().map(|x| (x * 255.0).round() as u32).collect()
            })
            .collect()
    }

    #[test]
    fn nothing_asked_for_is_the_image_itself_in_planes() {
        let found = variants(Augment::default(), &image(2, 2), 2);
        assert_eq!(found, HashSet::from([vec![0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]]));
    }

    #[test]
    fn flips_and_turns_reach_all_eight_symmetries_of_the_square() {
        let all = Augment { flip: true, turn: true, ..Augment::default() };
        assert_eq!(variants(all, &image(2, 2), 2).len(), 8);
    }

    #[test]
    fn padding_is_black_and_moves_the_crop() {
        let padded = Augment { padding: 1, ..Augment::default() };
        let found = variants(padded, &Pixels { height: 1, width: 1, rgb: vec![9, 9, 9] }, 1);
        assert_eq!(found, HashSet::from([vec![9; 3], vec![0; 3]]));
    }

    #[test]
    fn an_image_smaller_than_the_crop_is_reflected() {
        let reflected: Vec<_> = (-3..6).map(|p| reflect(p, 3)).collect();
        assert_eq!(reflected, [1, 2, 1, 0, 1, 2, 1, 0, 1]);
        assert_eq!(reflect(-5, 1), 0);
        variants(Augment { flip: true, turn: true, ..Augment::default() }, &image(2, 3), 8);
    }
}

//! Pixels that cannot be seen. Denoising must neither change them nor let them leak into their neighbours.

use super::Picture;
use super::samples::Samples;

/// The original samples of a picture with pixels that cannot be seen.
pub(crate) struct Hidden(Option<Samples>);

/// Distances to the next pixel in a row or column, and to the one across the corner: 4/3 is near √2.
const BESIDE: u32 = 3;
const CORNER: u32 = 4;

impl Picture {
    /// Gives every hidden pixel the colour of a visible one nearby, and returns what was there. Where nothing
    /// is visible, nothing changes.
    pub(crate) fn cover_hidden(&mut self) -> Hidden {
        let (height, width) = self.size();
        let places = move || (0..height).flat_map(move |y| (0..width).map(move |x| (y, x)));
        if !self.has_alpha() || !places().any(|(y, x)| self.is_hidden(y, x)) {
            return Hidden(None);
        }
        let before = self.samples.clone();
        let mut distance: Vec<u32> =
            places().map(|(y, x)| if self.is_hidden(y, x) { u32::MAX } else { 0 }).collect();
        // Towards the lower right and back: each pixel learns of the nearest in every direction.
        for i in 0..distance.len() {
            self.cover(i, &mut distance, [(0, -1), (-1, 0), (-1, -1), (-1, 1)]);
        }
        for i in (0..distance.len()).rev() {
            self.cover(i, &mut distance, [(0, 1), (1, 0), (1, 1), (1, -1)]);
        }
        Hidden(Some(before))
    }

    /// Puts back what [`Picture::cover_hidden`] returned.
    pub(crate) fn uncover(&mut self, hidden: Hidden) {
        let Hidden(Some(before)) = hidden else { return };
        let (height, width) = self.size();
        for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
            if self.is_hidden(y, x) {
                let i = y * width + x;
                self.set_color(i, self.color_in(&before, i));
            }
        }
    }

    /// Takes the colour of the neighbour that is nearest to a visible pixel.
    fn cover(&mut self, i: usize, distance: &mut [u32], neighbours: [(isize, isize); 4]) {
        if distance[i] == 0 {
            return;
        }
        let (height, width) = self.size();
        for (down, right) in neighbours {
            let (y, x) = ((i / width).checked_add_signed(down), (i % width).checked_add_signed(right));
            let (Some(y), Some(x)) = (y, x) else { continue };
            if y < height && x < width {
                let neighbour = y * width + x;
                let step = if down != 0 && right != 0 { CORNER } else { BESIDE };
                let through = distance[neighbour].saturating_add(step);
                if through < distance[i] {
                    distance[i] = through;
                    self.set_color(i, self.color_in(&self.samples, neighbour));
                }
            }
        }
    }

    fn color_in(&self, samples: &Samples, i: usize) -> [f32; 3] {
        let colors = if self.is_grey() { [0; 3] } else { [0, 1, 2] };
        colors.map(|c| samples.get(i * self.channels + c))
    }

    fn set_color(&mut self, i: usize, color: [f32; 3]) {
        let colors = if self.is_grey() { 1 } else { 3 };
        for (c, value) in color.into_iter().enumerate().take(colors) {
            self.samples.set(i * self.channels + c, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Encoding;
    use image::{Rgba, RgbaImage};

    #[test]
    fn hidden_pixels_are_covered_by_near_ones_and_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.png");
        // Left to right: red that is seen, black that is not, green that is hardly seen.
        let image = RgbaImage::from_fn(9, 4, |x, _| match x {
            0..2 => Rgba([200, 0, 0, 255]),
            2..7 => Rgba([0, 0, 9, 0]),
            _ => Rgba([0, 200, 0, 1]),
        });
        image.save(&path).unwrap();
        let mut picture = Picture::read(&path).unwrap();
        let hidden = picture.cover_hidden();
        let pixels = picture.pixels();
        assert!(pixels.iter().all(|&v| v == 0.0 || v == 200.0 / 255.0));
        assert!((0..4).all(|y| pixels[[0, y, 3]] > 0.5 && pixels[[1, y, 5]] > 0.5));
        picture.uncover(hidden);
        picture.write(&path, &Encoding::default()).unwrap();
        assert_eq!(image::open(&path).unwrap().to_rgba8(), image);
    }

    #[test]
    fn where_nothing_is_seen_nothing_is_covered() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.png");
        RgbaImage::from_fn(3, 3, |x, y| Rgba([x as u8, y as u8, 9, 0])).save(&path).unwrap();
        let mut picture = Picture::read(&path).unwrap();
        let before = picture.pixels();
        picture.cover_hidden();
        assert_eq!(picture.pixels(), before);
    }
}

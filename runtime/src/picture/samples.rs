//! Interleaved samples at the depth they were stored with.

use image::metadata::Orientation;
use std::borrow::Cow;

/// Bits of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    Eight,
    Sixteen,
    Float,
}

/// Samples of an image, row by row, channels interleaved. Integers stand for [0, 1], floats for themselves.
#[derive(Clone, Debug)]
pub(super) enum Samples {
    Eight(Vec<u8>),
    Sixteen(Vec<u16>),
    Float(Vec<f32>),
}

impl Samples {
    pub(super) fn depth(&self) -> Depth {
        match self {
            Samples::Eight(_) => Depth::Eight,
            Samples::Sixteen(_) => Depth::Sixteen,
            Samples::Float(_) => Depth::Float,
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Samples::Eight(v) => v.len(),
            Samples::Sixteen(v) => v.len(),
            Samples::Float(v) => v.len(),
        }
    }

    /// In image units.
    pub(super) fn get(&self, i: usize) -> f32 {
        match self {
            Samples::Eight(v) => f32::from(v[i]) / 255.0,
            Samples::Sixteen(v) => f32::from(v[i]) / 65535.0,
            Samples::Float(v) => v[i],
        }
    }

    /// Integers are rounded and clipped to [0, 1].
    pub(super) fn set(&mut self, i: usize, value: f32) {
        // Casts from float cut off the fraction and saturate.
        match self {
            Samples::Eight(v) => v[i] = (value * 255.0 + 0.5) as u8,
            Samples::Sixteen(v) => v[i] = (value * 65535.0 + 0.5) as u16,
            Samples::Float(v) => v[i] = value,
        }
    }

    pub(super) fn all_finite(&self) -> bool {
        match self {
            Samples::Float(v) => v.iter().all(|v| v.is_finite()),
            _ => true,
        }
    }

    /// Whether white is not 1 but something like 255: more than a quarter of the floats are above 4, where noise and
    /// highlights do not bring them.
    pub(super) fn on_another_scale(&self) -> bool {
        match self {
            Samples::Float(v) => 4 * v.iter().filter(|v| **v > 4.0).count() > v.len(),
            _ => false,
        }
    }

    /// Makes premultiplied colours straight: divides them by the transparency, the last of the `channels`, where
    /// that is not 0.
    pub(super) fn divide_by_alpha(&mut self, channels: usize) {
        for start in (0..self.len()).step_by(channels) {
            let alpha = self.get(start + channels - 1);
            if alpha > 0.0 {
                (start..start + channels - 1).for_each(|i| self.set(i, self.get(i) / alpha));
            }
        }
    }

    /// The same samples at another depth; a copy only if it differs.
    pub(super) fn at(&self, depth: Depth) -> Cow<'_, Samples> {
        if depth == self.depth() {
            return Cow::Borrowed(self);
        }
        let mut other = match depth {
            Depth::Eight => Samples::Eight(vec![0; self.len()]),
            Depth::Sixteen => Samples::Sixteen(vec![0; self.len()]),
            Depth::Float => Samples::Float(vec![0.0; self.len()]),
        };
        for i in 0..self.len() {
            other.set(i, self.get(i));
        }
        Cow::Owned(other)
    }

    /// In the machine's byte order.
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Samples::Eight(v) => v,
            Samples::Sixteen(v) => bytemuck::cast_slice(v),
            Samples::Float(v) => bytemuck::cast_slice(v),
        }
    }

    /// Integers have the high byte first.
    pub(super) fn big_endian(&self) -> Cow<'_, [u8]> {
        match self {
            Samples::Sixteen(v) => Cow::Owned(v.iter().flat_map(|v| v.to_be_bytes()).collect()),
            samples => Cow::Borrowed(samples.bytes()),
        }
    }

    /// Turns an image of `height`×`width` pixels upright, and returns its new height and width.
    pub(super) fn turn(
        &mut self,
        (height, width): (usize, usize),
        orientation: Orientation,
    ) -> (usize, usize) {
        if orientation == Orientation::NoTransforms {
            return (height, width);
        }
        match self {
            Samples::Eight(v) => *v = turned(v, (height, width), orientation),
            Samples::Sixteen(v) => *v = turned(v, (height, width), orientation),
            Samples::Float(v) => *v = turned(v, (height, width), orientation),
        }
        if swaps_axes(orientation) { (width, height) } else { (height, width) }
    }
}

fn swaps_axes(orientation: Orientation) -> bool {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    matches!(orientation, Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH)
}

fn turned<T: Copy>(samples: &[T], (height, width): (usize, usize), orientation: Orientation) -> Vec<T> {
    let channels = samples.len() / (height * width);
    let (rows, columns) = if swaps_axes(orientation) { (width, height) } else { (height, width) };
    let mut result = Vec::with_capacity(samples.len());
    for y in 0..rows {
        for x in 0..columns {
            let (from_bottom, from_right) = (rows - 1 - y, columns - 1 - x);
            // The pixel of the stored image, by row and column, that belongs here.
            let (sy, sx) = match orientation {
                Orientation::NoTransforms => (y, x),
                Orientation::FlipHorizontal => (y, from_right),
                Orientation::Rotate180 => (from_bottom, from_right),
                Orientation::FlipVertical => (from_bottom, x),
                Orientation::Rotate90FlipH => (x, y),
                Orientation::Rotate90 => (from_right, y),
                Orientation::Rotate270FlipH => (from_right, from_bottom),
                Orientation::Rotate270 => (x, from_bottom),
            };
            let start = (sy * width + sx) * channels;
            result.extend_from_slice(&samples[start..start + channels]);
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{DynamicImage, Rgb, RgbImage};

    #[test]
    fn all_orientations_are_those_of_the_image_crate() {
        let image = RgbImage::from_fn(3, 2, |x, y| Rgb([x as u8, y as u8, 7]));
        for exif in 1..=8 {
            let orientation = Orientation::from_exif(exif).unwrap();
            let mut expected = DynamicImage::from(image.clone());
            expected.apply_orientation(orientation);
            let mut samples = Samples::Eight(image.as_raw().clone());
            let (height, width) = samples.turn((2, 3), orientation);
            assert_eq!((width as u32, height as u32), (expected.width(), expected.height()), "{exif}");
            assert_eq!(samples.bytes(), expected.as_bytes(), "{exif}");
        }
    }

    #[test]
    fn integers_are_rounded_and_clipped() {
        let mut samples = Samples::Eight(vec![0; 4]);
        for (i, value) in [-0.5, 0.5, 1.5, f32::NAN].into_iter().enumerate() {
            samples.set(i, value);
        }
        assert_eq!(samples.bytes(), [0, 128, 255, 0]);
        let sixteen = samples.at(Depth::Sixteen).into_owned();
        assert_eq!(sixteen.get(1), 128.0 / 255.0);
        assert_eq!(sixteen.at(Depth::Eight).bytes(), samples.bytes());
    }
}

//! Views of an image that reach beyond its lower and right border.
//!
//! Networks take whole multiples of their stride. What is missing is a reflection of the image, without
//! repeating the border pixel, or the border pixel itself where the image is smaller than the pad.

use ndarray::{Array3, ArrayView3};
use std::ops::Range;

/// Smallest multiple of `stride` (at least 1) that holds `length`.
pub(crate) fn padded(length: usize, stride: usize) -> usize {
    length.div_ceil(stride) * stride
}

/// Copies a window of `image` `[C,H,W]` as it stands after padding to `size` (rows, columns).
/// H, W ≥ 1, and the window lies within `size`.
pub(crate) fn window(
    image: ArrayView3<f32>,
    size: (usize, usize),
    rows: Range<usize>,
    columns: Range<usize>,
) -> Array3<f32> {
    let (channels, height, width) = image.dim();
    let rows: Vec<usize> = rows.map(|y| source(y, height, size.0)).collect();
    let columns: Vec<usize> = columns.map(|x| source(x, width, size.1)).collect();
    Array3::from_shape_fn((channels, rows.len(), columns.len()), |(c, y, x)| image[[c, rows[y], columns[x]]])
}

/// Where position `i` of an axis of `length` pixels, padded to `padded`, is copied from.
fn source(i: usize, length: usize, padded: usize) -> usize {
    let last = length - 1;
    if i <= last {
        i
    } else if padded - length <= last {
        2 * last - i
    } else {
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(length: usize, padded: usize) -> Vec<usize> {
        (0..padded).map(|i| source(i, length, padded)).collect()
    }

    #[test]
    fn a_pad_reflects_without_repeating_the_border() {
        assert_eq!(row(5, 8), [0, 1, 2, 3, 4, 3, 2, 1]);
        assert_eq!(row(4, 4), [0, 1, 2, 3]);
        assert_eq!(row(3, 5), [0, 1, 2, 1, 0]);
    }

    #[test]
    fn a_pad_larger_than_the_image_repeats_the_border() {
        assert_eq!(row(2, 4), [0, 1, 1, 1]);
        assert_eq!(row(1, 4), [0, 0, 0, 0]);
    }

    #[test]
    fn a_window_is_a_part_of_the_padded_image() {
        let image = Array3::from_shape_fn((3, 5, 3), |(c, y, x)| (100 * c + 10 * y + x) as f32);
        let whole = window(image.view(), (8, 4), 0..8, 0..4);
        let part = window(image.view(), (8, 4), 4..8, 1..4);
        assert_eq!(whole.slice(ndarray::s![.., 4..8, 1..4]), part);
        assert_eq!(whole[[2, 6, 3]], 200.0 + 20.0 + 1.0);
    }
}

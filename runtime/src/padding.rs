//! Views of an image that reach beyond its lower and right border.
//!
//! Networks take whole multiples of their stride. What is missing is a reflection of the image, without
//! repeating the border pixel, or the border pixel itself where the image is smaller than the pad.

use ndarray::Array3;
use std::ops::Range;

/// Smallest multiple of `stride` (at least 1) that holds `length`.
pub(crate) fn padded(length: usize, stride: usize) -> usize {
    length.div_ceil(stride) * stride
}

/// Copies a window of an image of `size` (rows, columns; each at least 1) as it stands after padding to
/// `padded`, within which the window lies. `pixel` gives a sample by channel, row and column.
pub(crate) fn window(
    size: (usize, usize),
    padded: (usize, usize),
    rows: Range<usize>,
    columns: Range<usize>,
    pixel: impl Fn(usize, usize, usize) -> f32,
) -> Array3<f32> {
    let rows: Vec<usize> = rows.map(|y| source(y, size.0, padded.0)).collect();
    let columns: Vec<usize> = columns.map(|x| source(x, size.1, padded.1)).collect();
    Array3::from_shape_fn((3, rows.len(), columns.len()), |(c, y, x)| pixel(c, rows[y], columns[x]))
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
        let of = |rows, columns| window((5, 3), (8, 4), rows, columns, |c, y, x| image[[c, y, x]]);
        let (whole, part) = (of(0..8, 0..4), of(4..8, 1..4));
        assert_eq!(whole.slice(ndarray::s![.., 4..8, 1..4]), part);
        assert_eq!(whole[[2, 6, 3]], 200.0 + 20.0 + 1.0);
    }
}

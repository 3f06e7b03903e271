//! Changing an image in place, tile by tile.
//!
//! Tiles are cut from the original image, changed on all threads, and blended in a band as long as the
//! image's shorter side and as wide as a tile. What no later tile reaches is final and replaces the image.
//! So only a band is held in memory beside the image, however large that is.

use crate::error::Result;
use crate::padding::window;
use crate::picture::Picture;
use crate::tiling::Grid;
use ndarray::{Array3, ArrayView3, ArrayViewMut3, Zip, s};
use rayon::prelude::*;

/// An image whose pixels can be read and replaced.
pub(crate) trait Canvas: Sync {
    /// Rows and columns.
    fn size(&self) -> (usize, usize);
    /// A sample by channel (of three), row and column.
    fn pixel(&self, channel: usize, y: usize, x: usize) -> f32;
    /// Writes `[3,h,w]`, its first pixel at `place` (row, column).
    fn replace(&mut self, place: (usize, usize), pixels: ArrayView3<f32>);
}

impl Canvas for Picture {
    fn size(&self) -> (usize, usize) {
        self.size()
    }

    fn pixel(&self, channel: usize, y: usize, x: usize) -> f32 {
        self.pixel(channel, y, x)
    }

    fn replace(&mut self, place: (usize, usize), pixels: ArrayView3<f32>) {
        self.replace(place, pixels);
    }
}

impl Canvas for ArrayViewMut3<'_, f32> {
    fn size(&self) -> (usize, usize) {
        let (_, height, width) = self.dim();
        (height, width)
    }

    fn pixel(&self, channel: usize, y: usize, x: usize) -> f32 {
        self[[channel, y, x]]
    }

    fn replace(&mut self, (top, left): (usize, usize), pixels: ArrayView3<f32>) {
        let (_, height, width) = pixels.dim();
        self.slice_mut(s![.., top..top + height, left..left + width]).assign(&pixels);
    }
}

/// Replaces the image by what `run` makes of its tiles, each `[3,h,w]` to `[3,h,w]`, given with the row and
/// column of its upper left pixel.
///
/// # Errors
/// Those of `run`; the image may be half changed then.
pub(crate) fn change(
    canvas: &mut impl Canvas,
    grid: &Grid,
    run: impl Fn(Array3<f32>, (usize, usize)) -> Result<Array3<f32>> + Sync,
) -> Result<()> {
    let (height, width) = canvas.size();
    let padded = (grid.rows.padded(), grid.columns.padded());
    if grid.is_whole() {
        let pixel = |c, y, x| canvas.pixel(c, y, x);
        let changed = run(window((height, width), padded, 0..padded.0, 0..padded.1, pixel), (0, 0))?;
        canvas.replace((0, 0), changed.slice(s![.., ..height, ..width]));
        return Ok(());
    }
    // Bands lie across the longer side.
    let tall = height >= width;
    let (bands, places) = if tall { (&grid.rows, &grid.columns) } else { (&grid.columns, &grid.rows) };
    let (length, across) = if tall { (height, width) } else { (width, height) };
    let upright = |pixels: Array3<f32>| if tall { pixels } else { pixels.permuted_axes([0, 2, 1]) };

    let tiles: Vec<(usize, usize)> =
        (0..bands.len()).flat_map(|band| (0..places.len()).map(move |place| (band, place))).collect();
    // `[3, along the longer side, across]`
    let mut blend = Array3::<f32>::zeros((3, bands.tile(), across));
    let mut current = 0;
    // A few tiles at a time bound the memory; adding them in order makes the sum the same for any number
    // of threads.
    for some in tiles.chunks(2 * rayon::current_num_threads()) {
        let image = &*canvas;
        let one = |&(band, place): &(usize, usize)| {
            let (band, place) = (bands.range(band), places.range(place));
            let (rows, columns) = if tall { (band, place) } else { (place, band) };
            let corner = (rows.start, columns.start);
            run(window((height, width), padded, rows, columns, |c, y, x| image.pixel(c, y, x)), corner)
        };
        let done: Vec<Result<Array3<f32>>> = match some {
            // One tile stays outside the pool, so that an engine spreads it over its own threads.
            [last] => vec![one(last)],
            some => some.par_iter().map(one).collect(),
        };
        for (&(band, place), tile) in some.iter().zip(done) {
            if band > current {
                finish(canvas, tall, &mut blend, bands.range(current).start..bands.range(band).start);
                current = band;
            }
            let left = places.range(place).start;
            let weights = (bands.weights(band), places.weights(place));
            add(blend.slice_mut(s![.., .., left..]), &upright(tile?), (&weights.0, &weights.1));
        }
    }
    finish(canvas, tall, &mut blend, bands.range(current).start..length);
    Ok(())
}

/// Writes the band's first rows (columns, unless `tall`) to the image's `range`, and moves the band on.
fn finish(canvas: &mut impl Canvas, tall: bool, blend: &mut Array3<f32>, range: std::ops::Range<usize>) {
    let done = range.len();
    let finished = blend.slice(s![.., ..done, ..]);
    let (place, finished) = if tall {
        ((range.start, 0), finished)
    } else {
        ((0, range.start), finished.permuted_axes([0, 2, 1]))
    };
    canvas.replace(place, finished);
    let mut rest = Array3::zeros(blend.raw_dim());
    let kept = blend.dim().1 - done;
    rest.slice_mut(s![.., ..kept, ..]).assign(&blend.slice(s![.., done.., ..]));
    *blend = rest;
}

/// Adds a weighted tile, without what hangs over the border.
fn add(mut blend: ArrayViewMut3<f32>, tile: &Array3<f32>, (rows, columns): (&[f32], &[f32])) {
    let (channels, height, width) = blend.dim();
    let (height, width) = (height.min(rows.len()), width.min(columns.len()));
    for c in 0..channels {
        for (y, &row) in rows[..height].iter().enumerate() {
            Zip::from(blend.slice_mut(s![c, y, ..width]))
                .and(tile.slice(s![c, y, ..width]))
                .and(&columns[..width])
                .for_each(|sum, &value, &weight| *sum += value * weight * row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tiling::Tiling;
    use proptest::prelude::*;

    proptest! {
        /// A change of single pixels must not depend on the tiles.
        #[test]
        fn tiles_make_up_the_image(
            height in 1usize..90,
            width in 1usize..90,
            tile in 1usize..40,
            log_stride in 0u32..4,
        ) {
            let image = Array3::from_shape_fn((3, height, width), |(c, y, x)| (c * 7 + y * 3 + x) as f32 / 100.0);
            let mut changed = image.clone();
            let grid = Tiling::new(tile, None).unwrap().grid(height, width, 1 << log_stride);
            change(&mut changed.view_mut(), &grid, |tile, _| Ok(tile.mapv(|v| 1.0 - v))).unwrap();
            for (before, after) in image.iter().zip(&changed) {
                // A few roundings of numbers below 4.
                prop_assert!((1.0 - before - after).abs() < 2e-6);
            }
        }
    }

    /// The padding of the last tiles is made of the image as it was, whatever has been replaced meanwhile.
    #[test]
    fn the_padding_is_that_of_the_original_image() {
        for (height, width, tile) in [(9, 9, 4), (21, 7, 4), (7, 21, 4), (33, 17, 8)] {
            let image = Array3::from_shape_fn((3, height, width), |(c, y, x)| (c * 7 + y * 3 + x) as f32);
            let grid = Tiling::new(tile, Some(0)).unwrap().grid(height, width, 4);
            let shape = (grid.rows.padded(), grid.columns.padded());
            let padded = window((height, width), shape, 0..shape.0, 0..shape.1, |c, y, x| image[[c, y, x]]);
            change(&mut image.clone().view_mut(), &grid, |tile, (top, left)| {
                for ((c, y, x), value) in tile.indexed_iter() {
                    assert_eq!(*value, padded[[c, top + y, left + x]], "{height}×{width}, {top}, {left}");
                }
                Ok(tile.mapv(|v| -1.0 - v))
            })
            .unwrap();
        }
    }

    #[test]
    fn a_tile_is_told_where_it_lies() {
        for (height, width) in [(70, 50), (50, 70)] {
            let code = |c, y, x| (c * 10_000 + y * 100 + x) as f32;
            let mut image = Array3::from_shape_fn((3, height, width), |(c, y, x)| code(c, y, x));
            let grid = Tiling::new(24, None).unwrap().grid(height, width, 4);
            change(&mut image.view_mut(), &grid, |tile, (top, left)| {
                for ((c, y, x), value) in tile.indexed_iter() {
                    if top + y < height && left + x < width {
                        assert_eq!(*value, code(c, top + y, left + x));
                    }
                }
                Ok(tile)
            })
            .unwrap();
        }
    }
}

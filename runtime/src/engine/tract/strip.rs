//! How an operator's output is cut into parts that are computed one by one, or by several threads.

use super::pool::Pool;
use tract_linalg::multithread::par_chunks_mut;
use tract_onnx::tract_core::internal::*;

/// Channels, rows and columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plane {
    pub(super) channels: usize,
    pub(super) height: usize,
    pub(super) width: usize,
}

impl Plane {
    /// An operator's output facts, for `batch` images.
    pub(super) fn facts(&self, batch: TDim) -> TVec<TypedFact> {
        tvec!(f32::fact([batch, self.channels.to_dim(), self.height.to_dim(), self.width.to_dim()]))
    }
}

/// Grows a thread's memory to at least `length` elements; it is kept from strip to strip.
pub(super) fn grow(scratch: &mut Vec<f32>, length: usize) {
    scratch.resize(length.max(scratch.len()), 0.0);
}

/// A part of the work: some rows of one image, or some whole images.
pub(super) struct Strip<'a> {
    pub(super) image: usize,
    pub(super) row: usize,
    pub(super) rows: usize,
    /// For each image and channel, the rows of the output.
    pub(super) output: Vec<&'a mut [f32]>,
}

/// Images and rows in a strip: all rows if there are several images.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    pub(super) images: usize,
    pub(super) rows: usize,
}

impl Cut {
    /// For a batch of images of `rows` rows, if `fitting` rows fit into the scratch and an image takes `taken`.
    pub(super) fn new(batch: usize, rows: usize, fitting: usize, taken: usize) -> Cut {
        match fitting / taken {
            0 => Cut { images: 1, rows: fitting.clamp(1, rows) },
            images => Cut { images: images.min(batch), rows },
        }
    }

    /// Computes `batch` images of shape `output`, strip by strip; a row counted here is `scale` rows of them.
    pub(super) fn run(
        self,
        batch: usize,
        output: Plane,
        scale: usize,
        pool: &Pool,
        run: impl Fn(&mut Strip) + Send + Sync,
    ) -> TractResult<TValue> {
        let Plane { channels, height, width } = output;
        let (images, rows, all) = (self.images, self.rows, height.div_ceil(scale));
        let mut made = pool.take(&[batch, channels, height, width])?;
        let tensor = Arc::get_mut(&mut made).context("memory in use")?;
        let each = all.div_ceil(rows);
        let mut strips: Vec<Strip> = (0..batch.div_ceil(images))
            .flat_map(|i| (0..each).map(move |s| (i * images, s * rows)))
            .map(|(image, row)| Strip {
                image,
                row,
                rows: rows.min(all - row),
                output: Vec::with_capacity(images * channels),
            })
            .collect();
        let total = tensor.len();
        let mut view = tensor.try_as_plain_ram_mut()?;
        for (i, plane) in view.as_slice_mut::<f32>()?.chunks_exact_mut(height * width).enumerate() {
            let first = i / channels / images * each;
            for (strip, rows) in strips[first..].iter_mut().zip(plane.chunks_mut(rows * scale * width)) {
                strip.output.push(rows);
            }
        }
        par_chunks_mut(&mut strips, 1, total, |_, strips| {
            strips.iter_mut().for_each(&run);
            Ok(())
        })?;
        drop(strips);
        Ok(pool.give(made))
    }
}

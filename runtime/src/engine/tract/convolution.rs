//! Convolutions, and their transposes, as products of a short block of output channels with long runs of
//! pixels: every multiply-add is one of the processor's widest, whatever the kernel, stride or size.
//!
//! The image is copied, a strip at a time, into a scratch with its border of zeros, one plane for each
//! channel and phase of the stride. There, each tap of the kernel is the plane shifted by a fixed number
//! of elements, so an output channel is a sum of shifted runs, and rows and small images follow one
//! another in one run. A transpose is the same with one set of taps for each phase of its output.

use super::pool::Pool;
use super::product::{BLOCK, LANES, Product};
use super::strip::{Cut, Plane, Strip, grow};
use pulp::{Arch, Simd, WithSimd};
use std::cell::RefCell;
use std::sync::Arc;
use tract_onnx::tract_core::internal::*;

/// Bytes that a strip's two scratches may take. The image's, half of this if the convolution keeps size and channels,
/// should stay in the second-level cache; but strips of few rows copy many rows twice.
const STRIP_BYTES: usize = 1 << 20;

/// A convolution or its transpose, for one size of image.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Convolution {
    input: Plane,
    output: Plane,
    /// Stride of the convolution: the image is read in this many phases along each axis.
    split: usize,
    /// Stride of the transpose: the output is written in this many phases along each axis.
    join: usize,
    /// Rows and columns of one phase of the output.
    size: [usize; 2],
    /// Zero rows and columns before the image.
    before: [usize; 2],
    /// How far taps reach, in rows and columns of one phase of the image.
    reach: [usize; 2],
    /// For each phase of the output, its blocks of channels.
    phases: Arc<Vec<Vec<Block>>>,
    pool: Pool,
}

impl Eq for Convolution {}

/// Biases, and the taps whose weights are not all 0.
#[derive(Clone, Debug, PartialEq)]
struct Block {
    bias: [f32; BLOCK],
    taps: Vec<Tap>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Tap {
    /// Channel and phase of the image.
    plane: usize,
    row: usize,
    column: usize,
    weights: [f32; BLOCK],
}

/// A kernel `[O,I,h,w]`, the zeros before the image, and what is added to each output channel.
pub(super) struct Kernel<'a> {
    pub(super) shape: [usize; 4],
    pub(super) values: &'a [f32],
    pub(super) before: [usize; 2],
    pub(super) bias: &'a [f32],
}

impl Kernel<'_> {
    pub(super) fn at(&self, o: usize, i: usize, y: usize, x: usize) -> f32 {
        let [_, inputs, h, w] = self.shape;
        self.values[((o * inputs + i) * h + y) * w + x]
    }

    pub(super) fn bias_of(&self, o: usize) -> f32 {
        self.bias[if self.bias.len() == 1 { 0 } else { o }]
    }

    /// Blocks of channels. Each tap is given by its place in the kernel, its phase of the image (one of
    /// `phases` along each axis) and its shift there.
    fn blocks(&self, phases: usize, taps: &[[[usize; 2]; 3]]) -> Vec<Block> {
        let [outputs, inputs, ..] = self.shape;
        (0..outputs)
            .step_by(BLOCK)
            .map(|first| {
                let mut block = Block { bias: [0.0; BLOCK], taps: Vec::new() };
                let channels = first..outputs.min(first + BLOCK);
                for o in channels.clone() {
                    block.bias[o - first] = self.bias_of(o);
                }
                for i in 0..inputs {
                    for &[[y, x], [phase_y, phase_x], [row, column]] in taps {
                        let mut weights = [0.0; BLOCK];
                        for o in channels.clone() {
                            weights[o - first] = self.at(o, i, y, x);
                        }
                        if weights.iter().any(|w| *w != 0.0) {
                            let plane = (i * phases + phase_y) * phases + phase_x;
                            block.taps.push(Tap { plane, row, column, weights });
                        }
                    }
                }
                block
            })
            .collect()
    }
}

impl Convolution {
    /// The convolution with this stride, of an image to `size` rows and columns.
    pub(super) fn new(
        kernel: &Kernel,
        stride: usize,
        input: Plane,
        size: [usize; 2],
        pool: Pool,
    ) -> Convolution {
        let [outputs, _, h, w] = kernel.shape;
        let tap = |y, x| [[y, x], [y % stride, x % stride], [y / stride, x / stride]];
        let taps: Vec<_> = (0..h).flat_map(|y| (0..w).map(move |x| tap(y, x))).collect();
        let output = Plane { channels: outputs, height: size[0], width: size[1] };
        let phases = vec![kernel.blocks(stride, &taps)];
        let reach = [(h - 1) / stride, (w - 1) / stride];
        Convolution {
            input,
            output,
            split: stride,
            join: 1,
            size,
            before: kernel.before,
            reach,
            phases: Arc::new(phases),
            pool,
        }
    }

    /// The transpose of the convolution with this stride, to `stride` times as many rows and columns.
    pub(super) fn transpose(kernel: &Kernel, stride: usize, input: Plane, pool: Pool) -> Convolution {
        let [outputs, _, h, w] = kernel.shape;
        // Output row u·y + a takes row y − e of the input through row a + p + u·e of the kernel.
        let range =
            |k: usize, p: usize| (-(p.div_ceil(stride) as isize), ((k - 1 - p.min(k - 1)) / stride) as isize);
        let ((first_y, last_y), (first_x, last_x)) = (range(h, kernel.before[0]), range(w, kernel.before[1]));
        let axis = |a: usize, p: usize, k: usize, first: isize, last: isize| -> Vec<(usize, usize)> {
            (first..=last)
                .filter_map(|e| {
                    let at = (a + p) as isize + stride as isize * e;
                    usize::try_from(at).ok().filter(|at| *at < k).map(|at| (at, (last - e) as usize))
                })
                .collect()
        };
        let mut phases = Vec::new();
        for a in 0..stride {
            for b in 0..stride {
                let rows = axis(a, kernel.before[0], h, first_y, last_y);
                let columns = axis(b, kernel.before[1], w, first_x, last_x);
                let tap = |(y, row), (x, column)| [[y, x], [0, 0], [row, column]];
                let taps: Vec<_> =
                    rows.iter().flat_map(|&r| columns.iter().map(move |&c| tap(r, c))).collect();
                phases.push(kernel.blocks(1, &taps));
            }
        }
        Convolution {
            input,
            output: Plane { channels: outputs, height: input.height * stride, width: input.width * stride },
            split: 1,
            join: stride,
            size: [input.height, input.width],
            before: [last_y as usize, last_x as usize],
            reach: [(last_y - first_y) as usize, (last_x - first_x) as usize],
            phases: Arc::new(phases),
            pool,
        }
    }

    /// Elements from one row of a scratch plane to the next. Without phases, the zeros that follow a row
    /// are those that precede the next one.
    fn pitch(&self) -> usize {
        self.shared(1, self.input.width)
    }

    /// Rows from one whole image in a scratch plane to the next; as [`Convolution::pitch`].
    fn image_rows(&self) -> usize {
        self.shared(0, self.input.height)
    }

    fn shared(&self, axis: usize, extent: usize) -> usize {
        let whole = self.size[axis] + self.reach[axis];
        match self.split {
            1 => (whole - self.before[axis].min(whole)).max(self.before[axis] + extent.min(whole)),
            _ => whole,
        }
    }

    fn cut(&self, batch: usize) -> Cut {
        let planes = self.input.channels * self.split * self.split
            + self.phases.iter().map(|blocks| BLOCK * blocks.len()).sum::<usize>();
        let fitting = STRIP_BYTES / (4 * planes * self.pitch());
        Cut::new(batch, self.size[0], fitting, self.image_rows())
    }
}

thread_local! {
    /// The image with its border, and the output before it is put in place.
    static SCRATCH: RefCell<[Vec<f32>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

impl Convolution {
    fn run(&self, strip: &mut Strip, input: &[f32]) {
        SCRATCH.with_borrow_mut(|[image, sums]| self.run_in(strip, input, image, sums));
    }

    fn run_in(&self, strip: &mut Strip, input: &[f32], image: &mut Vec<f32>, sums: &mut Vec<f32>) {
        let pitch = self.pitch();
        let channels = self.output.channels;
        let images = strip.output.len() / channels;
        let rows = (images - 1) * self.image_rows() + strip.rows;
        let length = (rows * pitch).next_multiple_of(LANES);
        let plane = length + self.reach[0] * pitch + self.reach[1];
        grow(image, self.input.channels * self.split * self.split * plane);
        self.fill(strip, images, input, image, plane);

        let blocks: usize = self.phases.iter().map(Vec::len).sum();
        grow(sums, blocks * BLOCK * length);
        Arch::new().dispatch(Sums { convolution: self, image, plane, sums, length, pitch });

        let [height, width] = self.size;
        let join = self.join;
        let mut first = 0;
        for (phase, blocks) in self.phases.iter().enumerate() {
            let (a, b) = (phase / join, phase % join);
            for i in 0..images {
                for o in 0..channels {
                    let sums = &sums[(first + o) * length + i * self.image_rows() * pitch..];
                    let target = &mut strip.output[i * channels + o];
                    for (sums, target) in sums
                        .chunks(pitch)
                        .zip(target.chunks_exact_mut(join * join * width))
                        .take(strip.rows.min(height))
                    {
                        let target = &mut target[a * join * width..][..join * width];
                        match join {
                            1 => target.copy_from_slice(&sums[..width]),
                            2 => {
                                for (pair, sum) in target.as_chunks_mut::<2>().0.iter_mut().zip(sums) {
                                    pair[b] = *sum;
                                }
                            }
                            _ => target.iter_mut().skip(b).step_by(join).zip(sums).for_each(|(t, s)| *t = *s),
                        }
                    }
                }
            }
            first += blocks.len() * BLOCK;
        }
    }

    /// Copies what the strip needs of the image, between zeros.
    fn fill(&self, strip: &Strip, images: usize, input: &[f32], scratch: &mut [f32], plane: usize) {
        let Plane { channels, height, width } = self.input;
        let (pitch, split) = (self.pitch(), self.split);
        let [above, left] = self.before;
        for c in 0..channels {
            for a in 0..split {
                for b in 0..split {
                    let scratch = &mut scratch[((c * split + a) * split + b) * plane..][..plane];
                    let mut rows = scratch.chunks_mut(pitch);
                    for i in 0..images {
                        let last = i + 1 == images;
                        let count = if last { strip.rows + self.reach[0] } else { self.image_rows() };
                        let input =
                            &input[((strip.image + i) * channels + c) * height * width..][..height * width];
                        for (r, target) in rows.by_ref().take(count).enumerate() {
                            let Some(y) =
                                (split * (strip.row + r) + a).checked_sub(above).filter(|y| *y < height)
                            else {
                                target.fill(0.0);
                                continue;
                            };
                            let source = &input[y * width..][..width];
                            if split == 1 {
                                let zeros = left.min(target.len());
                                target[..zeros].fill(0.0);
                                let count = width.min(target.len() - zeros);
                                target[zeros..zeros + count].copy_from_slice(&source[..count]);
                                target[zeros + count..].fill(0.0);
                            } else {
                                // Column split·j + b − left of the image.
                                let zeros = left.saturating_sub(b).div_ceil(split).min(target.len());
                                target[..zeros].fill(0.0);
                                let from = (split * zeros + b).saturating_sub(left);
                                let source = source.get(from..).unwrap_or_default();
                                let count = source.len().div_ceil(split).min(target.len() - zeros);
                                let (values, rest) = target[zeros..].split_at_mut(count);
                                if let (2, Some(pairs)) = (split, source.get(..2 * count)) {
                                    for (value, pair) in values.iter_mut().zip(pairs.as_chunks::<2>().0) {
                                        *value = pair[0];
                                    }
                                } else {
                                    for (value, source) in values.iter_mut().zip(source.iter().step_by(split))
                                    {
                                        *value = *source;
                                    }
                                }
                                rest.fill(0.0);
                            }
                        }
                    }
                    // What the last row's last taps reach.
                    rows.for_each(|rest| rest.fill(0.0));
                }
            }
        }
    }
}

/// All output channels of a strip.
struct Sums<'a> {
    convolution: &'a Convolution,
    image: &'a [f32],
    plane: usize,
    sums: &'a mut [f32],
    length: usize,
    pitch: usize,
}

impl WithSimd for Sums<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Sums { convolution, image, plane, sums, length, pitch } = self;
        // With blocks outermost, a block's taps stay in the first two levels of cache; otherwise the taps of all
        // blocks, megabytes in a wide network, would be read for each run.
        let blocks = convolution.phases.iter().flatten();
        for (block, sums) in blocks.zip(sums.chunks_exact_mut(BLOCK * length)) {
            let taps = block.taps.iter();
            let taps = taps.map(|t| (t.plane * plane + t.row * pitch + t.column, t.weights));
            simd.vectorize(Product { image, taps, bias: block.bias, sums, length });
        }
    }
}

impl Op for Convolution {
    fn name(&self) -> StaticName {
        "Convolution".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Convolution {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let batch = inputs[0].shape()[0];
        let input = inputs[0].try_as_plain_ram()?;
        let input = input.as_slice::<f32>()?;
        let run = |strip: &mut Strip| self.run(strip, input);
        Ok(tvec!(self.cut(batch).run(batch, self.output, self.join, &self.pool, run)?))
    }
}

impl TypedOp for Convolution {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(self.output.facts(inputs[0].shape[0].clone()))
    }

    as_op!();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 37 + seed * 11) % 29) as f32 / 8.0 - 1.5).collect()
    }

    fn run(op: &Convolution, shape: [usize; 4], image: &[f32]) -> Vec<f32> {
        let input = Tensor::from_shape(&shape, image).unwrap().into_tvalue();
        let output = op.eval(&EvalContext::out_of_plan(), tvec!(input)).unwrap();
        output[0].try_as_plain_ram().unwrap().as_slice::<f32>().unwrap().to_vec()
    }

    /// Calls `f` with the indices of an image, an output and a weight, for every product of the convolution.
    fn products(
        [n, c, h, w]: [usize; 4],
        [o, kernel]: [usize; 2],
        stride: usize,
        mut f: impl FnMut(usize, usize, usize),
    ) {
        let (pad, rows, columns) = (kernel / 2, h / stride, w / stride);
        for (n, o, y, x) in indices([n, o, rows, columns]) {
            for (c, i, j, _) in indices([c, kernel, kernel, 1]) {
                let (row, column) = ((stride * y + i).wrapping_sub(pad), (stride * x + j).wrapping_sub(pad));
                if row < h && column < w {
                    let image = ((n * CHANNELS + c) * h + row) * w + column;
                    f(
                        image,
                        ((n * OUTPUTS + o) * rows + y) * columns + x,
                        ((o * CHANNELS + c) * kernel + i) * kernel + j,
                    );
                }
            }
        }
    }

    const CHANNELS: usize = 5;
    const OUTPUTS: usize = 6;

    fn indices([a, b, c, d]: [usize; 4]) -> impl Iterator<Item = (usize, usize, usize, usize)> {
        (0..a * b * c * d).map(move |i| (i / (b * c * d), i / (c * d) % b, i / d % c, i % d))
    }

    /// Sizes below, at and above what a strip and a run hold, and batches that share a strip.
    const SHAPES: [[usize; 3]; 6] = [[1, 8, 8], [3, 4, 4], [70, 4, 8], [2, 32, 20], [1, 700, 64], CUT];
    /// This one takes several strips whatever the kernel and the stride.
    const CUT: [usize; 3] = [2, 40, 1600];

    #[test]
    fn convolutions_are_sums_of_products() {
        for ([n, h, w], stride, kernel) in cases() {
            let shape = [n, CHANNELS, h, w];
            let (image, weights) =
                (numbers(shape.iter().product(), 1), numbers(OUTPUTS * CHANNELS * kernel * kernel, 2));
            let bias = numbers(OUTPUTS, 3);
            let plane = (h / stride) * (w / stride);
            let mut expected: Vec<f64> =
                (0..n * OUTPUTS * plane).map(|i| f64::from(bias[i / plane % OUTPUTS])).collect();
            products(shape, [OUTPUTS, kernel], stride, |x, y, k| {
                expected[y] += f64::from(image[x]) * f64::from(weights[k])
            });
            let kernel = Kernel {
                shape: [OUTPUTS, CHANNELS, kernel, kernel],
                values: &weights,
                before: [kernel / 2; 2],
                bias: &bias,
            };
            let input = Plane { channels: CHANNELS, height: h, width: w };
            let op = Convolution::new(&kernel, stride, input, [h / stride, w / stride], Pool::default());
            assert!([n, h, w] != CUT || op.cut(n).rows < op.size[0]);
            compare(&run(&op, shape, &image), &expected);
        }
    }

    #[test]
    fn transposes_are_sums_of_products() {
        for ([n, h, w], stride, kernel) in cases() {
            // The gradient of a convolution of images [n, CHANNELS, h, w].
            let size = [h / stride, w / stride];
            let count = n * OUTPUTS * size[0] * size[1];
            let (gradient, weights) = (numbers(count, 1), numbers(OUTPUTS * CHANNELS * kernel * kernel, 2));
            let mut expected = vec![0f64; n * CHANNELS * h * w];
            products([n, CHANNELS, h, w], [OUTPUTS, kernel], stride, |x, y, k| {
                expected[x] += f64::from(gradient[y]) * f64::from(weights[k]);
            });
            // Its output channels come first in its kernel.
            let taps = kernel * kernel;
            let exchanged: Vec<f32> = (0..weights.len())
                .map(|i| weights[(i / taps % OUTPUTS * CHANNELS + i / taps / OUTPUTS) * taps + i % taps])
                .collect();
            let kernel = Kernel {
                shape: [CHANNELS, OUTPUTS, kernel, kernel],
                values: &exchanged,
                before: [kernel / 2; 2],
                bias: &[0.0],
            };
            let op = Convolution::transpose(
                &kernel,
                stride,
                Plane { channels: OUTPUTS, height: size[0], width: size[1] },
                Pool::default(),
            );
            assert!([n, h, w] != CUT || op.cut(n).rows < op.size[0]);
            compare(&run(&op, [n, OUTPUTS, size[0], size[1]], &gradient), &expected);
        }
    }

    fn cases() -> impl Iterator<Item = ([usize; 3], usize, usize)> {
        SHAPES
            .into_iter()
            .flat_map(|s| [(1, 3), (2, 3), (1, 1), (2, 1), (2, 7), (4, 5)].map(|(stride, k)| (s, stride, k)))
    }

    fn compare(found: &[f32], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            // Multiples of 1/64 below 2048: float32 holds every sum exactly.
            assert_eq!(f64::from(*found), *expected);
        }
    }
}

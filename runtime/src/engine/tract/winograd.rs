//! Convolutions of 3×3 and stride 1 by Winograd's minimal filtering (Lavin & Gray 2016): 4×4 pixels of the output
//! take 36 products for each pair of channels instead of 144.
//!
//! Along an axis, four outputs and three weights are the coefficients of two polynomials, whose product follows
//! from its values at six points. With the points 0, ±¾, ±3/2 and ∞, sums err by twice as much as those of the direct
//! form in float32; with the usual 0, ±1, ±2 and ∞, by four times as much.
//!
//! A strip of the image is cut into tiles of 6×6 pixels, which overlap by two. Each of the 36 values of a transformed
//! tile has a plane of its own, in which tiles follow one another: image beside image, then columns, then rows.

use super::convolution::Kernel;
use super::pool::Pool;
use super::product::{BLOCK, LANES, Product};
use super::strip::{Cut, Plane, Strip, grow};
use pulp::{Arch, Simd, WithSimd};
use std::cell::RefCell;
use std::sync::Arc;
use tract_onnx::tract_core::internal::*;

/// Rows and columns of the output in a tile.
const TILE: usize = 4;
/// Rows and columns of the image that a tile reads, and values of a transformed tile along an axis.
const SPAN: usize = 6;
/// The points are 0, ±P, ±Q and ∞.
const P: f32 = 0.75;
const Q: f32 = 1.5;
/// Bytes that a strip's transformed tiles may take, before and after the products, unless one row takes more.
const STRIP_BYTES: usize = 1 << 20;
/// Fewest channels for which the transforms cost less than they save.
const LEAST_CHANNELS: usize = 16;

/// A convolution of 3×3 and stride 1 that keeps the size of the image, for one size of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Winograd {
    input: Plane,
    output: Plane,
    /// For each value of a transformed tile, each block of output channels and each channel of the image.
    weights: Arc<Vec<[f32; BLOCK]>>,
    bias: Arc<Vec<f32>>,
    pool: Pool,
}

impl Eq for Winograd {}

impl Winograd {
    /// The convolution, if this form is the faster for it.
    pub(super) fn new(
        kernel: &Kernel,
        stride: usize,
        input: Plane,
        size: [usize; 2],
        pool: Pool,
    ) -> Option<Winograd> {
        let [outputs, inputs, ..] = kernel.shape;
        let suits = kernel.shape[2..] == [3, 3]
            && stride == 1
            && kernel.before == [1, 1]
            && size == [input.height, input.width]
            && outputs.min(inputs) >= LEAST_CHANNELS;
        // Tiles may exceed the image's area by half of it.
        let [rows, columns] = size.map(|extent| extent.div_ceil(TILE));
        if !suits || 2 * rows * columns * TILE * TILE > 3 * size[0] * size[1] {
            return None;
        }
        let blocks = outputs.div_ceil(BLOCK);
        let mut weights = vec![[0.0; BLOCK]; SPAN * SPAN * blocks * inputs];
        for o in 0..outputs {
            for i in 0..inputs {
                let rows = [0, 1, 2].map(|y| filter([0, 1, 2].map(|x| f64::from(kernel.at(o, i, y, x)))));
                for v in 0..SPAN {
                    for (u, value) in filter(rows.map(|row| row[v])).into_iter().enumerate() {
                        let at = ((u * SPAN + v) * blocks + o / BLOCK) * inputs + i;
                        weights[at][o % BLOCK] = value as f32;
                    }
                }
            }
        }
        let bias = (0..outputs).map(|o| kernel.bias_of(o)).collect();
        Some(Winograd {
            input,
            output: Plane { channels: outputs, ..input },
            weights: Arc::new(weights),
            bias: Arc::new(bias),
            pool,
        })
    }

    /// Rows and columns of tiles.
    fn tiles(&self) -> [usize; 2] {
        [self.input.height, self.input.width].map(|extent| extent.div_ceil(TILE))
    }

    fn cut(&self, batch: usize) -> Cut {
        let [rows, columns] = self.tiles();
        let fitting =
            STRIP_BYTES / (4 * SPAN * SPAN * (self.input.channels + self.output.channels) * columns);
        Cut::new(batch, rows, fitting, rows)
    }
}

/// The values of a filter along an axis at the points, each over the product of its point's differences from the other
/// finite points.
fn filter([a, b, c]: [f64; 3]) -> [f64; SPAN] {
    let (p, q) = (f64::from(P), f64::from(Q));
    let at = |x: f64, scale: f64| (a + x * b + x * x * c) / scale;
    let (scale_p, scale_q) = (2.0 * p * p * (p * p - q * q), 2.0 * q * q * (q * q - p * p));
    [a / (p * p * q * q), at(p, scale_p), at(-p, scale_p), at(q, scale_q), at(-q, scale_q), c]
}

/// The values of six pixels along an axis.
#[inline(always)]
fn forward<S: Simd>(simd: S, [a, b, c, d, e, f]: [S::f32s; SPAN]) -> [S::f32s; SPAN] {
    let add = |factor: f32, x, y| simd.mul_add_f32s(simd.splat_f32s(factor), x, y);
    let (even_p, odd_p) = (add(-Q * Q, c, e), add(-Q * Q, b, d));
    let (even_q, odd_q) = (add(-P * P, c, e), add(-P * P, b, d));
    [
        add(P * P * Q * Q, a, add(-P * P - Q * Q, c, e)),
        add(P, odd_p, even_p),
        add(-P, odd_p, even_p),
        add(Q, odd_q, even_q),
        add(-Q, odd_q, even_q),
        add(P * P * Q * Q, b, add(-P * P - Q * Q, d, f)),
    ]
}

/// Four outputs along an axis from the products at the points.
#[inline(always)]
fn backward<S: Simd>(simd: S, [zero, p, minus_p, q, minus_q, infinity]: [S::f32s; SPAN]) -> [S::f32s; TILE] {
    let add = |factor: f32, x, y| simd.mul_add_f32s(simd.splat_f32s(factor), x, y);
    let (even_p, odd_p) = (simd.add_f32s(p, minus_p), simd.sub_f32s(p, minus_p));
    let (even_q, odd_q) = (simd.add_f32s(q, minus_q), simd.sub_f32s(q, minus_q));
    let times = |factor: f32, x| simd.mul_f32s(simd.splat_f32s(factor), x);
    [
        simd.add_f32s(zero, simd.add_f32s(even_p, even_q)),
        add(Q, odd_q, times(P, odd_p)),
        add(Q * Q, even_q, times(P * P, even_p)),
        add(Q * Q * Q, odd_q, add(P * P * P, odd_p, infinity)),
    ]
}

/// Where the tiles of a strip lie.
#[derive(Clone, Copy)]
struct Layout {
    images: usize,
    rows: usize,
    columns: usize,
}

impl Layout {
    /// Tiles in a row, over all images.
    fn row(&self) -> usize {
        self.columns * self.images
    }

    /// Tiles, in whole vectors.
    fn count(&self) -> usize {
        (self.rows * self.row()).next_multiple_of(LANES)
    }

    /// Elements of one value of a channel's tiles. The last vector of a row may reach beyond it.
    fn plane(&self) -> usize {
        self.count() + LANES
    }

    /// Elements from one row of tiles to the next in a phase of the image, which has a tile more.
    fn pitch(&self) -> usize {
        self.row() + self.images
    }

    /// Elements of a phase of the image, which has a row of tiles more.
    fn phase(&self) -> usize {
        (self.rows + 1) * self.pitch() + LANES
    }
}

/// The memory of one thread. It grows and is not cleared: what is read was written before, except the ends of vectors,
/// which do not reach an image.
#[derive(Default)]
struct Scratch {
    /// A row of the image between zeros.
    line: Vec<f32>,
    /// One channel, or one output channel, by row and column within the tile.
    phases: Vec<f32>,
    /// Transformed tiles, by value and channel.
    tiles: Vec<f32>,
    /// Products, by value and output channel.
    sums: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// The computation of a strip.
struct Run<'a, 'b> {
    convolution: &'a Winograd,
    strip: &'a mut Strip<'b>,
    input: &'a [f32],
    scratch: &'a mut Scratch,
}

// Loops, because closures that hold vectors, such as those of `array::from_fn` and `map`, are compiled for the
// baseline processor.
impl WithSimd for Run<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Run { convolution, strip, input, scratch: Scratch { line, phases, tiles, sums } } = self;
        let (inputs, outputs) = (convolution.input.channels, convolution.output.channels);
        let blocks = outputs.div_ceil(BLOCK);
        let columns = convolution.tiles()[1];
        let layout = Layout { images: strip.output.len() / outputs, rows: strip.rows, columns };
        let (count, plane) = (layout.count(), layout.plane());
        grow(line, TILE * (columns + 1));
        grow(phases, TILE * TILE * layout.phase().max(count));
        grow(tiles, SPAN * SPAN * inputs * plane);
        grow(sums, SPAN * SPAN * blocks * BLOCK * count);

        for channel in 0..inputs {
            convolution.split(channel, strip, layout, input, line, phases);
            for r in 0..layout.rows {
                for x in (0..layout.row()).step_by(S::F32_LANES) {
                    let mut values = [[simd.splat_f32s(0.0); SPAN]; SPAN];
                    for v in 0..SPAN {
                        let mut pixels = [simd.splat_f32s(0.0); SPAN];
                        for (u, pixel) in pixels.iter_mut().enumerate() {
                            let phase = (u % TILE * TILE + v % TILE) * layout.phase();
                            let at = (r + u / TILE) * layout.pitch() + v / TILE * layout.images + x;
                            *pixel = load::<S>(phases, phase + at);
                        }
                        for (values, value) in values.iter_mut().zip(forward(simd, pixels)) {
                            values[v] = value;
                        }
                    }
                    for (u, values) in values.into_iter().enumerate() {
                        for (v, value) in forward(simd, values).into_iter().enumerate() {
                            // The last vector may reach into the next row, which is written later.
                            let first = ((u * SPAN + v) * inputs + channel) * plane;
                            store::<S>(tiles, first + r * layout.row() + x, value);
                        }
                    }
                }
            }
        }

        let weights = convolution.weights.chunks_exact(inputs);
        for (n, (weights, sums)) in weights.zip(sums.chunks_exact_mut(BLOCK * count)).enumerate() {
            let tiles = &tiles[n / blocks * inputs * plane..];
            let taps = weights.iter().enumerate().map(|(c, weights)| (c * plane, *weights));
            simd.vectorize(Product { image: tiles, taps, bias: [0.0; BLOCK], sums, length: count });
        }

        for channel in 0..outputs {
            let bias = simd.splat_f32s(convolution.bias[channel]);
            for x in (0..count).step_by(S::F32_LANES) {
                let mut values = [[simd.splat_f32s(0.0); SPAN]; TILE];
                for v in 0..SPAN {
                    let mut products = [simd.splat_f32s(0.0); SPAN];
                    for (u, product) in products.iter_mut().enumerate() {
                        let first = ((u * SPAN + v) * blocks * BLOCK + channel) * count;
                        *product = load::<S>(sums, first + x);
                    }
                    for (values, value) in values.iter_mut().zip(backward(simd, products)) {
                        values[v] = value;
                    }
                }
                for (a, values) in values.into_iter().enumerate() {
                    for (b, value) in backward(simd, values).into_iter().enumerate() {
                        store::<S>(phases, (a * TILE + b) * count + x, simd.add_f32s(value, bias));
                    }
                }
            }
            convolution.join(channel, strip, layout, phases);
        }
    }
}

/// The vector of elements from `at` on.
#[inline(always)]
fn load<S: Simd>(elements: &[f32], at: usize) -> S::f32s {
    S::as_simd_f32s(&elements[at..at + S::F32_LANES]).0[0]
}

#[inline(always)]
fn store<S: Simd>(elements: &mut [f32], at: usize, value: S::f32s) {
    S::as_mut_simd_f32s(&mut elements[at..at + S::F32_LANES]).0[0] = value;
}

impl Winograd {
    /// Splits a channel of a strip into its phases, with a border of zeros.
    #[inline(always)]
    fn split(
        &self,
        channel: usize,
        strip: &Strip,
        layout: Layout,
        input: &[f32],
        line: &mut [f32],
        phases: &mut [f32],
    ) {
        let Plane { channels, height, width } = self.input;
        let line = &mut line[..TILE * (layout.columns + 1)];
        line.fill(0.0);
        for n in 0..layout.images {
            let image = &input[((strip.image + n) * channels + channel) * height * width..][..height * width];
            // Of the row of tiles that follows the last, the first two rows are read.
            for r in 0..TILE * layout.rows + SPAN - TILE {
                match (TILE * strip.row + r).checked_sub(1).filter(|y| *y < height) {
                    Some(y) => line[1..=width].copy_from_slice(&image[y * width..][..width]),
                    None => line.fill(0.0),
                }
                let quads = line.as_chunks::<TILE>().0;
                for b in 0..TILE {
                    let at = (r % TILE * TILE + b) * layout.phase() + r / TILE * layout.pitch() + n;
                    let target = &mut phases[at..][..layout.row() + 1];
                    if layout.images == 1 {
                        target.iter_mut().zip(quads).for_each(|(target, quad)| *target = quad[b]);
                    } else {
                        let target = target.iter_mut().step_by(layout.images);
                        target.zip(quads).for_each(|(target, quad)| *target = quad[b]);
                    }
                }
            }
        }
    }

    /// Puts the phases of an output channel in place.
    #[inline(always)]
    fn join(&self, channel: usize, strip: &mut Strip, layout: Layout, phases: &[f32]) {
        let images = layout.images;
        for n in 0..images {
            let target = &mut strip.output[n * self.output.channels + channel];
            for (y, target) in target.chunks_exact_mut(self.output.width).enumerate() {
                let mut parts = [phases; TILE];
                for (b, part) in parts.iter_mut().enumerate() {
                    *part = &phases[(y % TILE * TILE + b) * layout.count() + y / TILE * layout.row() + n..];
                }
                let [a, b, c, d] = parts;
                let (quads, rest) = target.as_chunks_mut::<TILE>();
                let whole = quads.len();
                if images == 1 {
                    for ((((quad, a), b), c), d) in quads.iter_mut().zip(a).zip(b).zip(c).zip(d) {
                        *quad = [*a, *b, *c, *d];
                    }
                } else {
                    for (j, quad) in quads.iter_mut().enumerate() {
                        let at = j * images;
                        *quad = [a[at], b[at], c[at], d[at]];
                    }
                }
                rest.iter_mut().zip(parts).for_each(|(target, part)| *target = part[whole * images]);
            }
        }
    }
}

impl Op for Winograd {
    fn name(&self) -> StaticName {
        "Winograd".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Winograd {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let batch = inputs[0].shape()[0];
        let input = inputs[0].try_as_plain_ram()?;
        let input = input.as_slice::<f32>()?;
        let run = |strip: &mut Strip| {
            SCRATCH.with_borrow_mut(|scratch| {
                Arch::new().dispatch(Run { convolution: self, strip, input, scratch })
            });
        };
        Ok(tvec!(self.cut(batch).run(batch, self.output, TILE, &self.pool, run)?))
    }
}

impl TypedOp for Winograd {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(self.output.facts(inputs[0].shape[0].clone()))
    }

    as_op!();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tract::convolution::Convolution;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use tract_linalg::multithread::{Executor, multithread_tract_scope};

    const INPUTS: usize = 18;
    const OUTPUTS: usize = 21;

    /// Multiples of 1/8 up to 2.
    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 37 + seed * 11) % 29) as f32 / 8.0 - 1.5).collect()
    }

    fn with_kernel<T>(make: impl FnOnce(&Kernel) -> T) -> T {
        let (values, bias) = (numbers(OUTPUTS * INPUTS * 9, 2), numbers(OUTPUTS, 3));
        make(&Kernel { shape: [OUTPUTS, INPUTS, 3, 3], values: &values, before: [1, 1], bias: &bias })
    }

    fn plane(height: usize, width: usize) -> Plane {
        Plane { channels: INPUTS, height, width }
    }

    fn winograd(height: usize, width: usize) -> Winograd {
        let size = [height, width];
        with_kernel(|k| Winograd::new(k, 1, plane(height, width), size, Pool::default())).unwrap()
    }

    fn run(op: &dyn TypedOp, batch: usize, height: usize, width: usize) -> Vec<f32> {
        let shape = [batch, INPUTS, height, width];
        evaluated(op, &shape, &numbers(shape.iter().product(), 1))
    }

    fn evaluated(op: &dyn TypedOp, shape: &[usize], image: &[f32]) -> Vec<f32> {
        let input = Tensor::from_shape(shape, image).unwrap().into_tvalue();
        let output = op.eval(&EvalContext::out_of_plan(), tvec!(input)).unwrap();
        output[0].try_as_plain_ram().unwrap().as_slice::<f32>().unwrap().to_vec()
    }

    /// Images of whole tiles and not, one and several in a strip, one in several strips.
    const SHAPES: [[usize; 3]; 8] = [
        [1, 4, 4],
        [3, 8, 8],
        [40, 7, 7],
        [70, 16, 16],
        [1, 21, 35],
        [2, 33, 16],
        [2, 90, 203],
        [1, 9, 3000],
    ];

    #[test]
    fn results_are_those_of_the_direct_form() {
        for [n, h, w] in SHAPES {
            let size = [h, w];
            let direct = with_kernel(|k| Convolution::new(k, 1, plane(h, w), size, Pool::default()));
            let (found, expected) = (run(&winograd(h, w), n, h, w), run(&direct, n, h, w));
            assert_eq!(found.len(), expected.len());
            let worst = found.iter().zip(&expected).map(|(f, e)| (f - e).abs()).fold(0.0, f32::max);
            // The direct form is exact for these numbers. Their sums stay below 2^8, where float32 has steps of 2^-16:
            // the error may be ten, and was at most five.
            assert!(worst < 1.5e-4, "{n} images of {h}×{w}: {worst:e}");
        }
    }

    /// What the points cost (`docs/performance.md`): with these the factor is 1.99, with the usual P = 1 and Q = 2
    /// it is 4.05.
    #[test]
    fn sums_err_by_little_more_than_those_of_the_direct_form() {
        let (channels, side) = (48, 24);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut uniform =
            |count: usize| -> Vec<f32> { (0..count).map(|_| rng.random_range(-1.0..1.0)).collect() };
        let (values, image) = (uniform(channels * channels * 9), uniform(channels * side * side));
        let (shape, bias) = ([channels, channels, 3, 3], vec![0.0; channels]);
        let kernel = Kernel { shape, values: &values, before: [1, 1], bias: &bias };
        let plane = Plane { channels, height: side, width: side };

        let exact = |at: usize| -> f64 {
            let (o, y, x) = (at / (side * side), at / side % side, at % side);
            let taps = (0..channels * 9).filter_map(|tap| {
                let (i, row, column) = (tap / 9, y + tap / 3 % 3, x + tap % 3);
                let inside = (1..=side).contains(&row) && (1..=side).contains(&column);
                let pixel = inside.then(|| image[(i * side + row - 1) * side + column - 1])?;
                Some(f64::from(pixel) * f64::from(values[o * channels * 9 + tap]))
            });
            taps.sum()
        };
        let exact: Vec<f64> = (0..channels * side * side).map(exact).collect();
        let error = |op: &dyn TypedOp| {
            let found = evaluated(op, &[1, channels, side, side], &image);
            found.iter().zip(&exact).map(|(f, e)| (f64::from(*f) - e).powi(2)).sum::<f64>().sqrt()
        };
        let winograd = Winograd::new(&kernel, 1, plane, [side, side], Pool::default()).unwrap();
        let direct = Convolution::new(&kernel, 1, plane, [side, side], Pool::default());
        let factor = error(&winograd) / error(&direct);
        // Below 1 would be a mistake in this test.
        assert!((1.0..2.5).contains(&factor), "{factor}");
    }

    #[test]
    fn images_are_cut_and_threads_change_nothing() {
        for ([n, h, w], parts) in [([70, 16, 16], false), ([2, 90, 203], true), ([1, 9, 3000], true)] {
            let op = winograd(h, w);
            let cut = op.cut(n);
            assert_eq!(cut.images == 1 && cut.rows < h.div_ceil(TILE), parts, "{cut:?}");
            assert!(parts || (1..n).contains(&cut.images), "{cut:?}");
            let alone = run(&op, n, h, w);
            let together = multithread_tract_scope(Executor::multithread(3), || run(&op, n, h, w));
            assert!(alone == together);
        }
    }

    #[test]
    fn only_what_suits_is_taken() {
        let of = |shape: [usize; 4], before, stride, [height, width]: [usize; 2], size| {
            let values = vec![0.0; shape.iter().product()];
            let kernel = Kernel { shape, values: &values, before, bias: &[0.0] };
            let plane = Plane { channels: shape[1], height, width };
            Winograd::new(&kernel, stride, plane, size, Pool::default()).is_some()
        };
        assert!(of([16, 16, 3, 3], [1, 1], 1, [32, 32], [32, 32]));
        assert!(!of([16, 3, 3, 3], [1, 1], 1, [32, 32], [32, 32]), "few channels");
        assert!(!of([3, 16, 3, 3], [1, 1], 1, [32, 32], [32, 32]), "few channels");
        assert!(!of([16, 16, 1, 1], [0, 0], 1, [32, 32], [32, 32]), "another kernel");
        assert!(!of([16, 16, 3, 3], [1, 1], 2, [32, 32], [16, 16]), "a stride");
        assert!(!of([16, 16, 3, 3], [0, 0], 1, [32, 32], [30, 30]), "no border");
        assert!(!of([16, 16, 3, 3], [1, 1], 1, [32, 32], [32, 31]), "a border at one side");
        assert!(!of([16, 16, 3, 3], [1, 1], 1, [2, 2], [2, 2]), "tiles that are mostly outside");
    }
}

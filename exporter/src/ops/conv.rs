//! Convolutions of images with square kernels of odd side and same padding, and their transposes.

use crate::error::Result;
use crate::ir::{Backward, Dim, NodeId, Operator, Shape, Tensor};
use crate::onnx::{Attribute, Emitter};

/// `[N,I,H,W]` and a kernel `[O,I,k,k]` to `[N,O,H/stride,W/stride]`. The kernel has no gradient here: it is
/// a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv {
    /// 1 or 2.
    pub stride: usize,
}

/// The transpose of [`Conv`] with the same kernel `[O,I,k,k]` and stride: `[N,O,h,w]` to
/// `[N,I,h·stride,w·stride]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvTranspose {
    /// That of the convolution.
    pub stride: usize,
}

/// `[O, I, k]` of a kernel.
fn kernel(shape: &[Dim]) -> Option<[usize; 3]> {
    match shape {
        [Dim::Fixed(o), Dim::Fixed(i), Dim::Fixed(k), Dim::Fixed(l)] if k == l && k % 2 == 1 => {
            Some([*o, *i, *k])
        }
        _ => None,
    }
}

fn same_padding(kernel: usize) -> usize {
    (kernel - 1) / 2
}

/// For every product of the convolution of one plane, calls `f` with its positions in the image, in the
/// result and in the kernel.
fn for_each_tap(size: [usize; 2], stride: usize, k: usize, mut f: impl FnMut(usize, usize, usize)) {
    let [height, width] = size;
    let (rows, columns, pad) = (height / stride, width / stride, same_padding(k));
    for row in 0..rows {
        for i in 0..k {
            let Some(y) = (row * stride + i).checked_sub(pad).filter(|y| *y < height) else { continue };
            for column in 0..columns {
                for j in 0..k {
                    let Some(x) = (column * stride + j).checked_sub(pad).filter(|x| *x < width) else {
                        continue;
                    };
                    f(y * width + x, row * columns + column, i * k + j);
                }
            }
        }
    }
}

impl Operator for Conv {
    fn name(&self) -> &'static str {
        "Conv"
    }

    fn shape(&self, inputs: &[&[Dim]]) -> std::result::Result<Shape, String> {
        if let [[n, c, h, w], weight] = inputs
            && let Some([o, i, _]) = kernel(weight)
            && *c == Dim::Fixed(i)
            && let (Some(h), Some(w)) = (h.divided(self.stride), w.divided(self.stride))
        {
            return Ok(vec![*n, Dim::Fixed(o), h, w]);
        }
        Err(format!("{inputs:?} with stride {}", self.stride))
    }

    fn evaluate(&self, inputs: &[&Tensor]) -> Tensor {
        let (x, w) = (inputs[0], inputs[1]);
        let (&[n, c, height, width], &[o, _, k, _]) = (x.shape(), w.shape()) else { return x.clone() };
        let (plane, result) = (height * width, (height / self.stride) * (width / self.stride));
        let mut out = vec![0.0; n * o * result];
        for (image, out) in x.values().chunks_exact(c * plane).zip(out.chunks_exact_mut(o * result)) {
            for (out, kernels) in out.chunks_exact_mut(result).zip(w.values().chunks_exact(c * k * k)) {
                for (image, kernel) in image.chunks_exact(plane).zip(kernels.chunks_exact(k * k)) {
                    for_each_tap([height, width], self.stride, k, |x, y, t| out[y] += image[x] * kernel[t]);
                }
            }
        }
        let mut out = out.into_iter();
        Tensor::from_fn(&[n, o, height / self.stride, width / self.stride], |_| {
            out.next().unwrap_or_default()
        })
    }

    fn vjp(&self, b: &mut Backward) -> Result<Vec<Option<NodeId>>> {
        let gradient = b.full_gradient()?;
        let kernel = b.inputs[1];
        Ok(vec![Some(b.graph.add(ConvTranspose { stride: self.stride }, &[gradient, kernel])?), None])
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], output: &str) {
        let k = emitter.extent_of(&inputs[1], 2);
        let attributes = geometry(k, self.stride);
        emitter.node("Conv", inputs, output, &attributes);
    }
}

impl Operator for ConvTranspose {
    fn name(&self) -> &'static str {
        "ConvTranspose"
    }

    fn shape(&self, inputs: &[&[Dim]]) -> std::result::Result<Shape, String> {
        if let [[n, c, h, w], weight] = inputs
            && let Some([o, i, _]) = kernel(weight)
            && *c == Dim::Fixed(o)
            && let (Some(h), Some(w)) = (h.multiplied(self.stride), w.multiplied(self.stride))
        {
            return Ok(vec![*n, Dim::Fixed(i), h, w]);
        }
        Err(format!("{inputs:?} with stride {}", self.stride))
    }

    fn evaluate(&self, inputs: &[&Tensor]) -> Tensor {
        let (g, w) = (inputs[0], inputs[1]);
        let (&[n, o, rows, columns], &[_, c, k, _]) = (g.shape(), w.shape()) else { return g.clone() };
        let (height, width) = (rows * self.stride, columns * self.stride);
        let (plane, result) = (height * width, rows * columns);
        let mut out = vec![0.0; n * c * plane];
        for (g, out) in g.values().chunks_exact(o * result).zip(out.chunks_exact_mut(c * plane)) {
            for (g, kernels) in g.chunks_exact(result).zip(w.values().chunks_exact(c * k * k)) {
                for (out, kernel) in out.chunks_exact_mut(plane).zip(kernels.chunks_exact(k * k)) {
                    for_each_tap([height, width], self.stride, k, |x, y, t| out[x] += g[y] * kernel[t]);
                }
            }
        }
        let mut out = out.into_iter();
        Tensor::from_fn(&[n, c, height, width], |_| out.next().unwrap_or_default())
    }

    fn vjp(&self, b: &mut Backward) -> Result<Vec<Option<NodeId>>> {
        let gradient = b.full_gradient()?;
        let kernel = b.inputs[1];
        Ok(vec![Some(b.graph.add(Conv { stride: self.stride }, &[gradient, kernel])?), None])
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], output: &str) {
        let k = emitter.extent_of(&inputs[1], 2);
        let mut attributes = geometry(k, self.stride);
        // The largest size that the convolution maps to this one: a multiple of the stride.
        attributes.push(("output_padding", Attribute::Ints(vec![self.stride as i64 - 1; 2])));
        emitter.node("ConvTranspose", inputs, output, &attributes);
    }
}

fn geometry(k: usize, stride: usize) -> Vec<(&'static str, Attribute)> {
    vec![
        ("kernel_shape", Attribute::ints(&[k; 2])),
        ("strides", Attribute::ints(&[stride; 2])),
        ("pads", Attribute::ints(&[same_padding(k); 4])),
    ]
}

/// The kernel `[I,O,k,k]` whose convolution of stride 1 is the transpose of that with a kernel `[O,I,k,k]`: flipped in
/// space, channel axes exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransposedKernel;

impl Operator for TransposedKernel {
    fn name(&self) -> &'static str {
        "TransposedKernel"
    }

    fn shape(&self, inputs: &[&[Dim]]) -> std::result::Result<Shape, String> {
        match inputs {
            [weight] if let Some([o, i, k]) = kernel(weight) => Ok([i, o, k, k].map(Dim::Fixed).to_vec()),
            _ => Err(format!("{inputs:?}")),
        }
    }

    fn evaluate(&self, inputs: &[&Tensor]) -> Tensor {
        let weight = inputs[0];
        let &[o, i, k, l] = weight.shape() else { return weight.clone() };
        Tensor::from_fn(&[i, o, k, l], |at| weight.at(&[at[1], at[0], k - 1 - at[2], l - 1 - at[3]]))
    }

    /// A permutation that is its own inverse.
    fn vjp(&self, b: &mut Backward) -> Result<Vec<Option<NodeId>>> {
        let gradient = b.full_gradient()?;
        Ok(vec![Some(b.graph.add(TransposedKernel, &[gradient])?)])
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], output: &str) {
        let k = emitter.extent_of(&inputs[0], 2);
        let reversed: Vec<usize> = (0..k).rev().collect();
        let reversed = emitter.integers(&reversed);
        let (rows, columns) = (emitter.temporary(output, "rows"), emitter.temporary(output, "columns"));
        let axis = |axis| [("axis", Attribute::Int(axis))];
        emitter.node("Gather", &[inputs[0].clone(), reversed.clone()], &rows, &axis(2));
        emitter.node("Gather", &[rows, reversed], &columns, &axis(3));
        emitter.node("Transpose", &[columns], output, &[("perm", Attribute::ints(&[1, 0, 2, 3]))]);
    }
}

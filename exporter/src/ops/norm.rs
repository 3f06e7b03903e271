//! Statistics of groups of channels.
//!
//! A group's are the means of its channels', so that only reductions over planes, which engines do at
//! the speed of memory, read the whole image.

use crate::error::Result;
use crate::ir::{Backward, Dim, Graph, NodeId, Operator, Shape, Tensor};
use crate::onnx::Emitter;
use crate::ops::elementwise::Unary;
use crate::ops::leaf::Constant;
use crate::ops::linear::Linear;
use crate::ops::reduce::{Extent, Reduce};
use crate::ops::shape::Reshape;

/// `value` where a channel belongs to a group, else 0: `[G,C]`.
fn membership(g: &mut Graph, channels: usize, size: usize, value: f64) -> Result<NodeId> {
    let belongs = |at: &[usize]| if at[1] / size == at[0] { value } else { 0.0 };
    g.add(Constant::new(Tensor::from_fn(&[channels / size, channels], belongs)), &[])
}

/// Means `[N,G]` of groups of `size` channels of `[N,C,H,W]`.
///
/// # Errors
/// As for [`Graph::add`].
pub fn group_means(g: &mut Graph, x: NodeId, size: usize) -> Result<NodeId> {
    let channels = g.shape(x)[1].fixed().unwrap_or(size);
    let average = membership(g, channels, size, 1.0 / size as f64)?;
    let mean = g.add(Reduce::mean(&[2, 3]), &[x])?;
    let shape = g.shape(mean)[..2].to_vec();
    let mean = g.add(Reshape { shape }, &[mean])?;
    g.add(Linear { transposed: false }, &[mean, average])
}

/// Values `[N,G]` of groups, repeated for each of their `size` channels: `[N,C,1,1]`.
///
/// # Errors
/// As for [`Graph::add`].
pub fn of_channels(g: &mut Graph, values: NodeId, size: usize) -> Result<NodeId> {
    let channels = g.shape(values)[1].fixed().unwrap_or(1) * size;
    let shape = vec![g.shape(values)[0], Dim::Fixed(channels), Dim::Fixed(1), Dim::Fixed(1)];
    let spread = membership(g, channels, size, 1.0)?;
    let values = g.add(Linear { transposed: true }, &[values, spread])?;
    g.add(Reshape { shape }, &[values])
}

/// `[N,C,H,W]` less the mean of each group of `size` channels.
///
/// # Errors
/// As for [`Graph::add`].
pub fn centred(g: &mut Graph, x: NodeId, size: usize) -> Result<NodeId> {
    let mean = group_means(g, x, size)?;
    let mean = of_channels(g, mean, size)?;
    g.sub(x, mean)
}

/// Variances `[N,G]` of groups of `size` channels of `[N,C,H,W]`. It has a reverse-mode rule of its own because
/// those of its parts do not know that centred values have mean zero, and take one more pass over the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupVariance {
    /// Channels in a group; it divides C.
    pub size: usize,
}

impl Operator for GroupVariance {
    fn name(&self) -> &'static str {
        "GroupVariance"
    }

    fn shape(&self, inputs: &[&[Dim]]) -> std::result::Result<Shape, String> {
        match inputs {
            [[n, Dim::Fixed(c), _, _]] if c.is_multiple_of(self.size) => {
                Ok(vec![*n, Dim::Fixed(c / self.size)])
            }
            _ => Err(format!("{inputs:?} in groups of {}", self.size)),
        }
    }

    fn evaluate(&self, inputs: &[&Tensor]) -> Tensor {
        let x = inputs[0];
        let &[n, c, h, w] = x.shape() else { return x.clone() };
        let count = self.size * h * w;
        let variance = |group: &[f64]| {
            let mean = group.iter().sum::<f64>() / count as f64;
            group.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / count as f64
        };
        let mut variances = x.values().chunks_exact(count).map(variance);
        Tensor::from_fn(&[n, c / self.size], |_| variances.next().unwrap_or_default())
    }

    fn vjp(&self, b: &mut Backward) -> Result<Vec<Option<NodeId>>> {
        // ∂var/∂x = 2 (x − μ) ÷ (size·H·W)
        let gradient = b.full_gradient()?;
        let gradient = b.graph.scaled(gradient, 2.0 / self.size as f64)?;
        let gradient = of_channels(b.graph, gradient, self.size)?;
        let count = b.graph.add(Extent { axes: vec![2, 3] }, &[b.inputs[0]])?;
        let share = b.graph.add(Unary::Reciprocal, &[count])?;
        let factor = b.graph.mul(gradient, share)?;
        let centred = centred(b.graph, b.inputs[0], self.size)?;
        Ok(vec![Some(b.graph.mul(centred, factor)?)])
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], output: &str) {
        // Gone after lowering.
        emitter.node(self.name(), inputs, output, &[]);
    }

    fn expand(&self, g: &mut Graph, inputs: &[NodeId]) -> Result<Option<NodeId>> {
        let centred = centred(g, inputs[0], self.size)?;
        let square = g.add(Unary::Square, &[centred])?;
        group_means(g, square, self.size).map(Some)
    }
}

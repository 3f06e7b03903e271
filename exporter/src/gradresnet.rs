//! GradResNet as a graph: the one file that knows the network.
//!
//! What each field of the architecture means is said in [`gradresnet_models::spec`]; the names and
//! shapes of the parameters come from [`gradresnet_models::parameters`].

use crate::error::{ErrorKind, Result};
use crate::ir::{Dim, Graph, NodeId, Tensor};
use crate::ops::conv::Conv;
use crate::ops::elementwise::Unary;
use crate::ops::leaf::{Constant, Input, Parameter};
use crate::ops::linear::Linear;
use crate::ops::norm::{GroupVariance, centred, of_channels};
use crate::ops::reduce::{Extent, Reduce};
use crate::ops::shape::{Concat, Reshape};
use crate::ops::softmax::Softmax;
use crate::reverse::gradient;
use gradresnet_models::parameters::{has_shortcut, side_connections};
use gradresnet_models::spec::NORM_EPSILON;
use gradresnet_models::{Activation, BlockForm, Checkpoint, Norm, SideConnections, Stem};

/// Where the graphs' parameters are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weights {
    /// In each graph, with what follows from them computed in advance.
    #[default]
    Inline,
    /// Once, in `model.safetensors`, to which both graphs refer.
    Shared,
}

/// `forward.onnx`: `image` `[N,3,H,W]` to `energy` `[N]` and, with classes, `logits` `[N,C]`.
///
/// # Errors
/// [`ErrorKind::ParameterMissing`]; others are faults of this program.
pub fn forward(checkpoint: &Checkpoint, weights: Weights) -> Result<Graph> {
    let mut network = Network { checkpoint, weights, graph: Graph::new() };
    let heads = network.heads("image")?;
    network.finish(None, &heads)
}

/// `denoiser.onnx`: `noisy` `[N,3,H,W]`, `sigma` `[N]` and, with classes, `class_weights` a `[N,C]` to
/// `denoised` = y + σ² ∇_y [log p(y) + Σ_c a_c log p(c|y)] (eq. 7), and `energy` and `logits` of `noisy`.
///
/// # Errors
/// [`ErrorKind::ParameterMissing`]; others are faults of this program.
pub fn denoiser(checkpoint: &Checkpoint, weights: Weights) -> Result<Graph> {
    let classes = checkpoint.spec.classes.len();
    let mut network = Network { checkpoint, weights, graph: Graph::new() };
    let heads = network.heads("noisy")?;
    let g = &mut network.graph;
    g.set_scope("objective");
    let sigma = g.add(Input { name: "sigma".into(), shape: vec![Dim::Batch] }, &[])?;
    let mut objective = g.scaled(heads.energy, -1.0)?;
    if let Some(logits) = heads.logits {
        let shape = vec![Dim::Batch, Dim::Fixed(classes)];
        let class_weights = g.add(Input { name: "class_weights".into(), shape }, &[])?;
        let log_probability = g.add(Softmax::Logarithm, &[logits])?;
        let weighted = g.mul(class_weights, log_probability)?;
        let conditional = g.add(Reduce::sum(&[1]), &[weighted])?;
        objective = g.sum(objective, conditional)?;
    }
    let score = gradient(g, objective, heads.image)?;
    g.set_scope("denoise");
    let variance = g.add(Unary::Square, &[sigma])?;
    let variance = g.add(Reshape::batch(&[1, 1, 1]), &[variance])?;
    let change = g.mul(score, variance)?;
    let denoised = g.sum(heads.image, change)?;
    network.finish(Some(denoised), &heads)
}

struct Network<'a> {
    checkpoint: &'a Checkpoint,
    weights: Weights,
    graph: Graph,
}

struct Heads {
    image: NodeId,
    /// `[N,1]`
    energy: NodeId,
    logits: Option<NodeId>,
}

impl Network<'_> {
    /// The network up to energy and logits (eqs. 10 and 11).
    fn heads(&mut self, image: &str) -> Result<Heads> {
        let a = &self.checkpoint.spec.architecture;
        let shape = vec![Dim::Batch, Dim::Fixed(3), Dim::Height(1), Dim::Width(1)];
        let image = self.graph.add(Input { name: image.into(), shape }, &[])?;
        self.graph.set_scope("stem");
        let centred = self.graph.shifted(image, -a.centre)?;
        let z = self.graph.scaled(centred, a.scale)?;
        let stride = match a.stem {
            Stem::Cifar => 1,
            Stem::Imagenet => 2,
        };
        let x = self.convolution("stem.conv", z, stride)?;
        let mut x = self.activation(x)?;

        // The stem and all stages but the last, pooled, in the order of the forward pass.
        let mut pooled = Vec::new();
        if a.side_connections == SideConnections::Stem {
            pooled.push(self.pool(x, a.width)?);
        }
        for (stage, &blocks) in a.blocks.iter().enumerate() {
            for block in 0..blocks {
                x = self.block(stage, block, x)?;
            }
            if a.side_connections != SideConnections::None && stage + 1 < a.blocks.len() {
                pooled.push(self.pool(x, a.stage_width(stage))?);
            }
        }
        let mut features = vec![self.pool(x, a.stage_width(a.blocks.len() - 1))?];
        for ((name, _), pooled) in side_connections(a).iter().zip(pooled.into_iter().rev()) {
            self.graph.set_scope(name.trim_end_matches(".weight"));
            let matrix = self.parameter(name)?;
            features.push(self.graph.add(Linear { transposed: false }, &[pooled, matrix])?);
        }
        self.graph.set_scope("features");
        let features = match *features {
            [only] => only,
            _ => self.graph.add(Concat { axis: 1 }, &features)?,
        };

        self.graph.set_scope("energy");
        let vector = self.parameter("energy.weight")?;
        let vector = self.graph.add(Reshape::fixed(&[1, a.features()]), &[vector])?;
        let projection = self.graph.add(Linear { transposed: false }, &[features, vector])?;
        let square = self.graph.add(Unary::Square, &[projection])?;
        let pixels = self.graph.add(Extent { axes: vec![2, 3] }, &[image])?;
        let half = self.graph.scaled(pixels, 0.5)?;
        let energy = self.graph.mul(square, half)?;
        let logits = if self.checkpoint.spec.classes.is_empty() {
            None
        } else {
            self.graph.set_scope("head");
            let matrix = self.parameter("head.weight")?;
            Some(self.graph.add(Linear { transposed: false }, &[features, matrix])?)
        };
        Ok(Heads { image, energy, logits })
    }

    fn finish(mut self, denoised: Option<NodeId>, heads: &Heads) -> Result<Graph> {
        self.graph.set_scope("energy");
        let energy = self.graph.add(Reshape::batch(&[]), &[heads.energy])?;
        let outputs = [("denoised", denoised), ("logits", heads.logits), ("energy", Some(energy))];
        for (name, id) in outputs {
            if let Some(id) = id {
                self.graph.set_output(name, id);
            }
        }
        Ok(self.graph)
    }

    fn block(&mut self, stage: usize, block: usize, x: NodeId) -> Result<NodeId> {
        let form = self.checkpoint.spec.architecture.block;
        let path = format!("stages.{stage}.{block}");
        let changes = has_shortcut(stage, block);
        let stride = if changes { 2 } else { 1 };
        let h = self.convolution(&format!("{path}.conv1"), x, stride)?;
        let h = self.activation(h)?;
        let h = self.convolution(&format!("{path}.conv2"), h, 1)?;
        let shortcut = if changes {
            let r = self.convolution(&format!("{path}.shortcut.conv"), x, 2)?;
            self.norm(&format!("{path}.shortcut.norm"), r)?
        } else {
            x
        };
        let norm = format!("{path}.norm");
        match form {
            BlockForm::Residual => {
                let h = self.norm(&norm, h)?;
                self.graph.sum(shortcut, h)
            }
            BlockForm::Postact => {
                let h = self.norm(&norm, h)?;
                let sum = self.graph.sum(shortcut, h)?;
                self.activation(sum)
            }
            BlockForm::End => {
                let sum = self.graph.sum(shortcut, h)?;
                let active = self.activation(sum)?;
                self.norm(&norm, active)
            }
        }
    }

    fn convolution(&mut self, path: &str, x: NodeId, stride: usize) -> Result<NodeId> {
        self.graph.set_scope(path);
        let kernel = self.parameter(&format!("{path}.weight"))?;
        let y = self.graph.add(Conv { stride }, &[x, kernel])?;
        if self.checkpoint.spec.architecture.biases {
            let bias = self.per_channel(&format!("{path}.bias"))?;
            return self.graph.sum(y, bias);
        }
        Ok(y)
    }

    fn activation(&mut self, x: NodeId) -> Result<NodeId> {
        let function = match self.checkpoint.spec.architecture.activation {
            Activation::Gelu => Unary::Gelu,
            Activation::Relu => Unary::Relu,
            Activation::Silu => Unary::Silu,
        };
        self.graph.add(function, &[x])
    }

    /// The mean over the image plane, `[N,C]`.
    fn pool(&mut self, x: NodeId, channels: usize) -> Result<NodeId> {
        let mean = self.graph.add(Reduce::mean(&[2, 3]), &[x])?;
        self.graph.add(Reshape::batch(&[channels]), &[mean])
    }

    fn norm(&mut self, path: &str, x: NodeId) -> Result<NodeId> {
        self.graph.set_scope(path);
        let a = &self.checkpoint.spec.architecture;
        let (kind, biases) = (a.norm, a.biases);
        let normalised = match kind {
            Norm::None => return Ok(x),
            Norm::Group | Norm::Homogeneous => self.group_norm(path, x)?,
            Norm::Batch => {
                // A fixed affine map: x·scale − mean·scale.
                let gain = self.per_channel(&format!("{path}.weight"))?;
                let mean = self.per_channel(&format!("{path}.running_mean"))?;
                let variance = self.per_channel(&format!("{path}.running_var"))?;
                let scale = self.inverse_deviation(variance)?;
                let scale = self.graph.mul(scale, gain)?;
                let shift = self.graph.mul(mean, scale)?;
                let scaled = self.graph.mul(x, scale)?;
                self.graph.sub(scaled, shift)?
            }
        };
        if biases {
            let bias = self.per_channel(&format!("{path}.bias"))?;
            return self.graph.sum(normalised, bias);
        }
        Ok(normalised)
    }

    /// (x − μ_g) times the gain and a factor of each group.
    fn group_norm(&mut self, path: &str, x: NodeId) -> Result<NodeId> {
        let a = &self.checkpoint.spec.architecture;
        let (kind, size) = (a.norm, a.group_size);
        let gain = self.per_channel(&format!("{path}.weight"))?;
        let g = &mut self.graph;
        let centred = centred(g, x, size)?;
        let variance = g.add(GroupVariance { size }, &[x])?;
        let factor = match kind {
            Norm::Homogeneous => {
                let overall = g.add(Reduce::mean(&[1]), &[variance])?;
                let shifted = g.shifted(variance, NORM_EPSILON)?;
                let inverse = g.add(Unary::Reciprocal, &[shifted])?;
                let ratio = g.mul(overall, inverse)?;
                let ratio = g.shifted(ratio, NORM_EPSILON)?;
                g.add(Unary::Sqrt, &[ratio])?
            }
            _ => self.inverse_deviation(variance)?,
        };
        let g = &mut self.graph;
        let factor = of_channels(g, factor, size)?;
        let factor = g.mul(factor, gain)?;
        g.mul(centred, factor)
    }

    /// 1/√(variance + ε)
    fn inverse_deviation(&mut self, variance: NodeId) -> Result<NodeId> {
        let shifted = self.graph.shifted(variance, NORM_EPSILON)?;
        let deviation = self.graph.add(Unary::Sqrt, &[shifted])?;
        self.graph.add(Unary::Reciprocal, &[deviation])
    }

    /// A parameter `[C]` as `[1,C,1,1]`.
    fn per_channel(&mut self, name: &str) -> Result<NodeId> {
        let parameter = self.parameter(name)?;
        let channels = self.graph.shape(parameter)[0].fixed().unwrap_or(1);
        self.graph.add(Reshape::fixed(&[1, channels, 1, 1]), &[parameter])
    }

    fn parameter(&mut self, name: &str) -> Result<NodeId> {
        let missing = || ErrorKind::ParameterMissing(name.to_string());
        let array = self.checkpoint.parameters.get(name).ok_or_else(missing)?;
        let value = Tensor::new(array.shape().to_vec(), array.to_f64()).ok_or_else(missing)?;
        match self.weights {
            Weights::Inline => self.graph.add(Constant::named(name.into(), value), &[]),
            Weights::Shared => self.graph.add(Parameter { name: name.into(), value }, &[]),
        }
    }
}

//! From a checkpoint's network to its graphs: what all families are built from.
//!
//! The names and shapes of the parameters come from [`gradresnet_models::parameters`]; what goes in and out
//! of a graph from [`gradresnet_models::port`].

use crate::error::{ErrorKind, Result};
use crate::ir::{Dim, Graph, NodeId, Tensor};
use crate::ops::conv::Conv;
use crate::ops::elementwise::Unary;
use crate::ops::leaf::{Constant, Input, Parameter};
use crate::ops::linear::Linear;
use crate::ops::norm::{GroupVariance, centred, of_channels};
use crate::ops::reduce::Reduce;
use crate::ops::shape::Reshape;
use crate::ops::softmax::Softmax;
use crate::reverse::gradient;
use crate::{dncnn, gradresnet, resnet};
use gradresnet_models::architecture::NORM_EPSILON;
use gradresnet_models::{Activation, Architecture, Checkpoint, Norm, Port, port};

/// Where the graphs' parameters are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weights {
    /// In each graph, with what depends on them alone computed in advance.
    #[default]
    Inline,
    /// In `model.safetensors` alone, to which both graphs refer.
    Shared,
}

/// One of the graphs of a checkpoint's network, with the inputs and outputs of the contract.
///
/// The denoiser of a network with an energy yields `denoised` = y + σ² ∇_y [log p(y) + Σ_c a_c log p(c|y)]
/// (eq. 7), derived by reverse mode from its forward pass.
///
/// # Errors
/// [`ErrorKind::ParameterMissing`]; [`ErrorKind::Family`] if there is no such graph or this program cannot
/// draw it; others are faults of this program.
pub fn draw(checkpoint: &Checkpoint, role: port::Graph, weights: Weights) -> Result<Graph> {
    let (spec, mut graph) = (&checkpoint.spec, Graph::new());
    let family = spec.architecture.family();
    if !role.is_of(spec) {
        return Err(ErrorKind::Family { family, graph: role.name() }.into());
    }
    let shape = vec![Dim::Batch, Dim::Fixed(3), Dim::Height(1), Dim::Width(1)];
    let image = graph.add(Input { name: Port::Image.name_in(role).into(), shape }, &[])?;
    let mut network = Network { checkpoint, weights, graph };
    let heads = match &spec.architecture {
        Architecture::GradResNet(a) => gradresnet::heads(&mut network, a, image)?,
        Architecture::ResNet(a) => resnet::heads(&mut network, a, image)?,
        Architecture::DnCnn(a) => {
            let denoised = dncnn::denoised(&mut network, a, image)?;
            network.graph.set_output(Port::Denoised.name(), denoised);
            return Ok(network.graph);
        }
        Architecture::DruNet(_) => return Err(ErrorKind::Family { family, graph: role.name() }.into()),
    };
    if let (port::Graph::Denoiser, Some(energy)) = (role, heads.energy) {
        let denoised = network.denoised(image, energy, heads.logits)?;
        network.graph.set_output(Port::Denoised.name(), denoised);
    }
    let mut graph = network.graph;
    if let Some(logits) = heads.logits {
        graph.set_output(Port::Logits.name(), logits);
    }
    if let Some(energy) = heads.energy {
        graph.set_scope("energy");
        let energy = graph.add(Reshape::batch(&[]), &[energy])?;
        graph.set_output(Port::Energy.name(), energy);
    }
    Ok(graph)
}

/// A graph that is being drawn.
pub(crate) struct Network<'a> {
    checkpoint: &'a Checkpoint,
    weights: Weights,
    pub(crate) graph: Graph,
}

/// What a network says of an image.
pub(crate) struct Heads {
    /// −log p(y) without its constant, `[N,1]`.
    pub(crate) energy: Option<NodeId>,
    /// `[N,C]`.
    pub(crate) logits: Option<NodeId>,
}

impl Network<'_> {
    /// y + σ² ∇_y [log p(y) + Σ_c a_c log p(c|y)] (eq. 7).
    fn denoised(&mut self, image: NodeId, energy: NodeId, logits: Option<NodeId>) -> Result<NodeId> {
        let classes = self.checkpoint.spec.classes.len();
        let g = &mut self.graph;
        g.set_scope("objective");
        let sigma = g.add(Input { name: Port::Sigma.name().into(), shape: vec![Dim::Batch] }, &[])?;
        let mut objective = g.scaled(energy, -1.0)?;
        if let Some(logits) = logits {
            let shape = vec![Dim::Batch, Dim::Fixed(classes)];
            let class_weights = g.add(Input { name: Port::ClassWeights.name().into(), shape }, &[])?;
            let log_probability = g.add(Softmax::Logarithm, &[logits])?;
            let weighted = g.mul(class_weights, log_probability)?;
            let conditional = g.add(Reduce::sum(&[1]), &[weighted])?;
            objective = g.sum(objective, conditional)?;
        }
        let score = gradient(g, objective, image)?;
        g.set_scope("denoise");
        let variance = g.add(Unary::Square, &[sigma])?;
        let variance = g.add(Reshape::batch(&[1, 1, 1]), &[variance])?;
        let change = g.mul(score, variance)?;
        g.sum(image, change)
    }

    /// scale · (image − centre).
    pub(crate) fn scaled(&mut self, image: NodeId, centre: f64, scale: f64) -> Result<NodeId> {
        self.graph.set_scope("stem");
        let centred = self.graph.shifted(image, -centre)?;
        self.graph.scaled(centred, scale)
    }

    /// The matrix `path`.weight times `features` `[N,K]`, plus `path`.bias if there is one; `None` without a
    /// matrix.
    pub(crate) fn head(&mut self, path: &str, features: NodeId) -> Result<Option<NodeId>> {
        let name = format!("{path}.weight");
        if !self.has(&name) {
            return Ok(None);
        }
        self.graph.set_scope(path);
        let matrix = self.parameter(&name)?;
        let product = self.graph.add(Linear { transposed: false }, &[features, matrix])?;
        let bias = format!("{path}.bias");
        if !self.has(&bias) {
            return Ok(Some(product));
        }
        let bias = self.parameter(&bias)?;
        let outputs = self.graph.shape(bias)[0].fixed().unwrap_or(1);
        let bias = self.graph.add(Reshape::fixed(&[1, outputs]), &[bias])?;
        Ok(Some(self.graph.sum(product, bias)?))
    }

    /// The convolution at `path`, with its bias if it has one.
    pub(crate) fn convolution(&mut self, path: &str, x: NodeId, stride: usize) -> Result<NodeId> {
        self.graph.set_scope(path);
        let kernel = self.parameter(&format!("{path}.weight"))?;
        let y = self.graph.add(Conv { stride }, &[x, kernel])?;
        self.biased(path, y)
    }

    /// x plus the bias at `path`, if there is one.
    fn biased(&mut self, path: &str, x: NodeId) -> Result<NodeId> {
        let name = format!("{path}.bias");
        if !self.has(&name) {
            return Ok(x);
        }
        let bias = self.per_channel(&name)?;
        self.graph.sum(x, bias)
    }

    pub(crate) fn activation(&mut self, kind: Activation, x: NodeId) -> Result<NodeId> {
        let function = match kind {
            Activation::Gelu => Unary::Gelu,
            Activation::Relu => Unary::Relu,
            Activation::Silu => Unary::Silu,
        };
        self.graph.add(function, &[x])
    }

    /// The mean over the image plane, `[N,C]`.
    pub(crate) fn pool(&mut self, x: NodeId) -> Result<NodeId> {
        let channels = self.graph.shape(x)[1].fixed().unwrap_or(1);
        let mean = self.graph.add(Reduce::mean(&[2, 3]), &[x])?;
        self.graph.add(Reshape::batch(&[channels]), &[mean])
    }

    /// The norm at `path`, with its bias if it has one.
    pub(crate) fn norm(&mut self, path: &str, kind: Norm, group_size: usize, x: NodeId) -> Result<NodeId> {
        self.graph.set_scope(path);
        let normalised = match kind {
            Norm::None => return Ok(x),
            Norm::Group | Norm::Homogeneous => self.group_norm(path, kind, group_size, x)?,
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
        self.biased(path, normalised)
    }

    /// (x − μ_g) times the gain and a factor of each group.
    fn group_norm(&mut self, path: &str, kind: Norm, size: usize, x: NodeId) -> Result<NodeId> {
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

    /// Whether the checkpoint has a parameter of that name.
    fn has(&self, name: &str) -> bool {
        self.checkpoint.parameters.contains_key(name)
    }

    pub(crate) fn parameter(&mut self, name: &str) -> Result<NodeId> {
        let missing = || ErrorKind::ParameterMissing(name.to_string());
        let array = self.checkpoint.parameters.get(name).ok_or_else(missing)?;
        let value = Tensor::new(array.shape().to_vec(), array.to_f64()).ok_or_else(missing)?;
        match self.weights {
            Weights::Inline => self.graph.add(Constant::named(name.into(), value), &[]),
            Weights::Shared => self.graph.add(Parameter { name: name.into(), value }, &[]),
        }
    }
}

//! The parameters that an architecture implies: the one list that the trainer fills, the checkpoint
//! holds and the exporter reads.

use crate::architecture::{Architecture, Norm};

/// One parameter: its name in `model.safetensors`, its shape, and its part in the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Dotted module path, for instance `stages.0.1.conv2.weight`.
    pub name: String,
    /// Shape; convolutions are `[out, in, height, width]`.
    pub shape: Vec<usize>,
    /// What it is.
    pub kind: ParameterKind,
}

/// The part that a parameter plays; decides its initial value and its optimiser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParameterKind {
    /// Kernel of a convolution, `[out, in, k, k]`.
    Convolution,
    /// Kernel of a transposed convolution, `[in, out, k, k]`.
    TransposedConvolution,
    /// Matrix of a side connection, `[width/2, width]`.
    Linear,
    /// Gain of a norm.
    Gain,
    /// Bias of a convolution, a norm or a head.
    Bias,
    /// Running mean of a batch norm: follows the data, not the gradient.
    RunningMean,
    /// Running variance of a batch norm.
    RunningVariance,
    /// Matrix of the logits (W of eq. 10), `[classes, K]`.
    Head,
    /// Vector w of eq. 11, `[K]`.
    Energy,
}

impl Parameter {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no elements; never so for a valid architecture.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the optimiser moves it (running statistics follow the data instead).
    pub fn is_trained(&self) -> bool {
        !matches!(self.kind, ParameterKind::RunningMean | ParameterKind::RunningVariance)
    }
}

/// Every parameter of `architecture` with `classes` classes, in the order of the forward pass.
pub fn parameters(architecture: &Architecture, classes: usize) -> Vec<Parameter> {
    architecture.list(classes)
}

/// Parameters as a family lists them.
#[derive(Default)]
pub(crate) struct List {
    pub(crate) parameters: Vec<Parameter>,
}

impl List {
    pub(crate) fn add(&mut self, name: String, shape: Vec<usize>, kind: ParameterKind) {
        self.parameters.push(Parameter { name, shape, kind });
    }

    pub(crate) fn convolution(
        &mut self,
        path: &str,
        input: usize,
        output: usize,
        kernel: usize,
        biases: bool,
    ) {
        self.add(format!("{path}.weight"), vec![output, input, kernel, kernel], ParameterKind::Convolution);
        if biases {
            self.add(format!("{path}.bias"), vec![output], ParameterKind::Bias);
        }
    }

    pub(crate) fn norm(&mut self, path: &str, channels: usize, norm: Norm, biases: bool) {
        if norm == Norm::None {
            return;
        }
        self.add(format!("{path}.weight"), vec![channels], ParameterKind::Gain);
        if biases {
            self.add(format!("{path}.bias"), vec![channels], ParameterKind::Bias);
        }
        if norm == Norm::Batch {
            self.add(format!("{path}.running_mean"), vec![channels], ParameterKind::RunningMean);
            self.add(format!("{path}.running_var"), vec![channels], ParameterKind::RunningVariance);
        }
    }
}

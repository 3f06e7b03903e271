//! The parameters that an architecture implies: the one list that the trainer fills, the checkpoint
//! holds and the exporter reads.

use crate::spec::{Architecture, Norm, SideConnections, Stem};

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
    /// Kernel of a convolution.
    Convolution,
    /// Matrix of a side connection, `[width/2, width]`.
    Linear,
    /// Gain of a norm.
    Gain,
    /// Bias of a convolution or a norm.
    Bias,
    /// Running mean of a batch norm: follows the data, not the gradient.
    RunningMean,
    /// Running variance of a batch norm.
    RunningVariance,
    /// Matrix W of eq. 10, `[classes, K]`.
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
    let a = architecture;
    let mut list = List { architecture: a, parameters: Vec::new() };
    let kernel = match a.stem {
        Stem::Cifar => 3,
        Stem::Imagenet => 7,
    };
    list.convolution("stem.conv", 3, a.width, kernel);
    let mut channels = a.width;
    for (stage, &blocks) in a.blocks.iter().enumerate() {
        let out = a.stage_width(stage);
        for block in 0..blocks {
            let path = format!("stages.{stage}.{block}");
            list.convolution(&format!("{path}.conv1"), channels, out, 3);
            list.convolution(&format!("{path}.conv2"), out, out, 3);
            list.norm(&format!("{path}.norm"), out);
            if has_shortcut(stage, block) {
                list.convolution(&format!("{path}.shortcut.conv"), channels, out, 1);
                list.norm(&format!("{path}.shortcut.norm"), out);
            }
            channels = out;
        }
    }
    for (name, width) in side_connections(a) {
        list.add(name, vec![width / 2, width], ParameterKind::Linear);
    }
    if classes > 0 {
        list.add("head.weight".into(), vec![classes, a.features()], ParameterKind::Head);
    }
    list.add("energy.weight".into(), vec![a.features()], ParameterKind::Energy);
    list.parameters
}

/// Whether a block changes the shape and so has a 1×1 convolution on its shortcut.
pub fn has_shortcut(stage: usize, block: usize) -> bool {
    stage > 0 && block == 0
}

/// Name and input width of each side connection's matrix, in the order in which f̄ holds them: from
/// the last stage but one to the first, then the stem.
pub fn side_connections(architecture: &Architecture) -> Vec<(String, usize)> {
    let a = architecture;
    let mut sides = Vec::new();
    if a.side_connections != SideConnections::None {
        for stage in (0..a.blocks.len() - 1).rev() {
            sides.push((format!("side.stage{stage}.weight"), a.stage_width(stage)));
        }
    }
    if a.side_connections == SideConnections::Stem {
        sides.push(("side.stem.weight".into(), a.width));
    }
    sides
}

struct List<'a> {
    architecture: &'a Architecture,
    parameters: Vec<Parameter>,
}

impl List<'_> {
    fn add(&mut self, name: String, shape: Vec<usize>, kind: ParameterKind) {
        self.parameters.push(Parameter { name, shape, kind });
    }

    fn convolution(&mut self, path: &str, input: usize, output: usize, kernel: usize) {
        self.add(format!("{path}.weight"), vec![output, input, kernel, kernel], ParameterKind::Convolution);
        if self.architecture.biases {
            self.add(format!("{path}.bias"), vec![output], ParameterKind::Bias);
        }
    }

    fn norm(&mut self, path: &str, channels: usize) {
        let norm = self.architecture.norm;
        if norm == Norm::None {
            return;
        }
        self.add(format!("{path}.weight"), vec![channels], ParameterKind::Gain);
        if self.architecture.biases {
            self.add(format!("{path}.bias"), vec![channels], ParameterKind::Bias);
        }
        if norm == Norm::Batch {
            self.add(format!("{path}.running_mean"), vec![channels], ParameterKind::RunningMean);
            self.add(format!("{path}.running_var"), vec![channels], ParameterKind::RunningVariance);
        }
    }
}

//! The graph contract: which graphs a model has, and what goes in and comes out of each.

use crate::bundle::{DENOISER, FORWARD};
use crate::spec::{Spec, Task};
use std::fmt;

/// The two graphs of a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Graph {
    /// `forward.onnx`: `logits` and `energy` of an image.
    Forward,
    /// `denoiser.onnx`: `denoised`, and the outputs of the forward graph.
    Denoiser,
}

/// One input or output of a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Port {
    /// `image` or `noisy`: `[N,3,H,W]`, image units.
    Image,
    /// `[N]`, image units.
    Sigma,
    /// `[N,C]`.
    ClassWeights,
    /// `[N,3,H,W]`, image units.
    Denoised,
    /// `[N,C]`.
    Logits,
    /// `[N]`, nats.
    Energy,
}

impl Graph {
    /// Both.
    pub const ALL: [Graph; 2] = [Graph::Forward, Graph::Denoiser];

    /// `forward` or `denoiser`.
    pub fn name(self) -> &'static str {
        match self {
            Graph::Forward => "forward",
            Graph::Denoiser => "denoiser",
        }
    }

    /// Name of its file in a bundle.
    pub fn file_name(self) -> &'static str {
        match self {
            Graph::Forward => FORWARD,
            Graph::Denoiser => DENOISER,
        }
    }

    /// Whether a model has it: a forward graph if it has an energy or classes, a denoiser if the network
    /// denoises and was trained for more than classes.
    pub fn is_of(self, spec: &Spec) -> bool {
        match self {
            Graph::Forward => spec.architecture.has_energy() || !spec.classes.is_empty(),
            Graph::Denoiser => spec.architecture.denoises() && spec.task != Task::Classification,
        }
    }

    /// Its inputs.
    pub fn inputs(self, spec: &Spec) -> Vec<Port> {
        let a = &spec.architecture;
        let denoiser = self == Graph::Denoiser;
        let mut inputs = vec![Port::Image];
        if denoiser && a.takes_sigma() {
            inputs.push(Port::Sigma);
        }
        // Class weights steer a gradient.
        if denoiser && a.has_energy() && !spec.classes.is_empty() {
            inputs.push(Port::ClassWeights);
        }
        inputs
    }

    /// Its outputs.
    pub fn outputs(self, spec: &Spec) -> Vec<Port> {
        let mut outputs = Vec::new();
        if self == Graph::Denoiser {
            outputs.push(Port::Denoised);
        }
        if !spec.classes.is_empty() {
            outputs.push(Port::Logits);
        }
        if spec.architecture.has_energy() {
            outputs.push(Port::Energy);
        }
        outputs
    }
}

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Port {
    /// Its name in golden values and in graphs, but for the forward graph, which calls the image `image`.
    pub fn name(self) -> &'static str {
        match self {
            Port::Image => "noisy",
            Port::Sigma => "sigma",
            Port::ClassWeights => "class_weights",
            Port::Denoised => "denoised",
            Port::Logits => "logits",
            Port::Energy => "energy",
        }
    }

    /// Its name in `graph`.
    pub fn name_in(self, graph: Graph) -> &'static str {
        match (self, graph) {
            (Port::Image, Graph::Forward) => "image",
            _ => self.name(),
        }
    }

    /// All ports of a model's graphs.
    pub fn of(spec: &Spec) -> Vec<Port> {
        let graphs = Graph::ALL.into_iter().filter(|graph| graph.is_of(spec));
        let mut ports: Vec<Port> =
            graphs.flat_map(|graph| graph.inputs(spec).into_iter().chain(graph.outputs(spec))).collect();
        ports.sort_by_key(|port| port.name());
        ports.dedup();
        ports
    }
}

//! Where graphs begin: inputs, parameters and constants.

use crate::error::Result;
use crate::ir::{Backward, Dim, NodeId, Operator, Shape, Tensor};
use crate::onnx::Emitter;
use sha2::{Digest, Sha256};

/// A value given at run time.
#[derive(Clone, Debug)]
pub struct Input {
    /// Name in the graph's signature.
    pub name: String,
    /// Its shape.
    pub shape: Shape,
}

/// A parameter that the graph refers to by name and does not hold.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// Name in `model.safetensors`.
    pub name: String,
    /// Its value, for evaluation.
    pub value: Tensor,
}

/// A value that the graph holds.
#[derive(Clone, Debug)]
pub struct Constant {
    name: Option<String>,
    value: Tensor,
}

impl Constant {
    /// A constant without a name of its own.
    pub fn new(value: Tensor) -> Constant {
        Constant { name: None, value }
    }

    /// A constant that is known by a name.
    pub fn named(name: String, value: Tensor) -> Constant {
        Constant { name: Some(name), value }
    }
}

fn fixed(value: &Tensor) -> Shape {
    value.shape().iter().map(|&d| Dim::Fixed(d)).collect()
}

impl Operator for Input {
    fn name(&self) -> &'static str {
        "Input"
    }

    fn shape(&self, _: &[&[Dim]]) -> std::result::Result<Shape, String> {
        Ok(self.shape.clone())
    }

    /// Not called: the evaluator is given the inputs.
    fn evaluate(&self, _: &[&Tensor]) -> Tensor {
        Tensor::scalar(f64::NAN)
    }

    fn vjp(&self, _: &mut Backward) -> Result<Vec<Option<NodeId>>> {
        Ok(Vec::new())
    }

    fn emit(&self, emitter: &mut Emitter, _: &[String], _: &str) {
        emitter.input(&self.name, &self.shape);
    }

    fn input_name(&self) -> Option<&str> {
        Some(&self.name)
    }
}

impl Operator for Parameter {
    fn name(&self) -> &'static str {
        "Parameter"
    }

    fn shape(&self, _: &[&[Dim]]) -> std::result::Result<Shape, String> {
        Ok(fixed(&self.value))
    }

    fn evaluate(&self, _: &[&Tensor]) -> Tensor {
        self.value.clone()
    }

    fn vjp(&self, _: &mut Backward) -> Result<Vec<Option<NodeId>>> {
        Ok(Vec::new())
    }

    fn emit(&self, emitter: &mut Emitter, _: &[String], output: &str) {
        emitter.external(output, &self.name, self.value.shape());
    }

    fn key(&self) -> String {
        format!("Parameter {}", self.name)
    }

    fn parameter_name(&self) -> Option<&str> {
        Some(&self.name)
    }
}

impl Operator for Constant {
    fn name(&self) -> &'static str {
        "Constant"
    }

    fn shape(&self, _: &[&[Dim]]) -> std::result::Result<Shape, String> {
        Ok(fixed(&self.value))
    }

    fn evaluate(&self, _: &[&Tensor]) -> Tensor {
        self.value.clone()
    }

    fn vjp(&self, _: &mut Backward) -> Result<Vec<Option<NodeId>>> {
        Ok(Vec::new())
    }

    fn emit(&self, emitter: &mut Emitter, _: &[String], output: &str) {
        emitter.initialiser(output, &self.value);
    }

    fn key(&self) -> String {
        match &self.name {
            Some(name) => format!("Constant {name}"),
            None => {
                let bytes: Vec<u8> = self.value.values().iter().flat_map(|v| v.to_le_bytes()).collect();
                format!("Constant {:?} {:?}", self.value.shape(), Sha256::digest(bytes))
            }
        }
    }

    fn constant(&self) -> Option<&Tensor> {
        Some(&self.value)
    }

    fn parameter_name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}

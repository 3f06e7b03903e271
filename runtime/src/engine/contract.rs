//! The graph contract, and what an untrusted graph is checked for before an engine sees it.
//!
//! A graph is decoded within bounds, searched for everything that could reach outside the bundle
//! (external data, functions, operators of other domains), compared with the contract's inputs and
//! outputs, and written out again with concrete sizes and with its external data filled in. An engine
//! therefore never opens a file and never sees a field that was not checked. What a graph may still do
//! is use much memory and time.

use super::{Graph, Inputs, Outputs, Shape};
use crate::error::{At, ErrorKind, Result};
use gradresnet_models::checkpoint::MODEL;
use gradresnet_models::{Bundle, Port, Spec, parameters, tensors};
use ndarray::{Array2, Array4};
use prost::Message;
use std::collections::HashSet;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto, ValueInfoProto,
    tensor_proto::{DataLocation, DataType},
    tensor_shape_proto::{Dimension, dimension},
    type_proto,
};

/// What a graph may hold besides parameters and copies of them: its nodes and names.
const STRUCTURE_BYTES: u64 = 4 << 20;
/// Copies of the parameters that a graph may hold (each in its own orientation).
const COPIES: u64 = 4;
/// Operator domains that may be used; both mean the standard operators.
const DOMAINS: [&str; 2] = ["", "ai.onnx"];

/// Extent of each axis of a port at one shape.
fn extents(port: Port, shape: Shape, classes: usize) -> Vec<usize> {
    match port {
        Port::Image | Port::Denoised => vec![shape.batch, 3, shape.height, shape.width],
        Port::Sigma | Port::Energy => vec![shape.batch],
        Port::ClassWeights | Port::Logits => vec![shape.batch, classes],
    }
}

/// Extents of a port that hold at every shape, by axis.
fn fixed_extents(port: Port, classes: usize) -> Vec<Option<usize>> {
    match port {
        Port::Image | Port::Denoised => vec![None, Some(3), None, None],
        Port::Sigma | Port::Energy => vec![None],
        Port::ClassWeights | Port::Logits => vec![None, Some(classes)],
    }
}

/// A graph that satisfies the contract, for one shape.
pub(super) struct CheckedGraph {
    /// The graph, with concrete input sizes and without external data.
    pub(super) model: ModelProto,
    /// How to call it.
    pub(super) signature: Signature,
}

/// How a plan is called: checks inputs on the way in and outputs on the way out.
#[derive(Clone, Debug)]
pub(super) struct Signature {
    pub(super) graph: Graph,
    shape: Shape,
    classes: usize,
    /// In the graph's own order.
    inputs: Vec<Port>,
    /// In the graph's own order.
    outputs: Vec<Port>,
}

/// Reads and checks one graph of a bundle and makes its sizes concrete.
pub(super) fn load(bundle: &Bundle, graph: Graph, shape: Shape) -> Result<CheckedGraph> {
    let spec = bundle.spec();
    if !graph.is_of(spec) {
        return Err(ErrorKind::NoGraph { model: spec.name.clone(), graph: graph.name() }.into());
    }
    let stride = spec.architecture.stride();
    let whole = |n: usize| n > 0 && n.is_multiple_of(stride);
    if shape.batch == 0 || !whole(shape.height) || !whole(shape.width) {
        let reason = format!(
            "shape {shape}: the batch must be 1 or more, height and width multiples of the stride, {stride}, above 0"
        );
        return Err(ErrorKind::Input(reason).into());
    }
    let path = bundle.path(graph.file_name());
    let bytes = bundle.read(graph.file_name(), limit(spec))?;
    let model = ModelProto::decode(bytes.as_slice())
        .map_err(|e| ErrorKind::Graph(format!("it cannot be decoded: {e}")))
        .at(&path)?;
    drop(bytes);
    check(bundle, model, graph, shape).at(&path)
}

/// Largest graph, and largest total of its external data, in bytes.
fn limit(spec: &Spec) -> u64 {
    let parameters = parameters::parameters(&spec.architecture, spec.classes.len());
    let count: u64 = parameters.iter().map(|p| p.len() as u64).sum();
    COPIES * 4 * count + STRUCTURE_BYTES
}

fn check(bundle: &Bundle, mut model: ModelProto, graph: Graph, shape: Shape) -> Result<CheckedGraph> {
    let classes = bundle.spec().classes.len();
    if !model.functions.is_empty() || !model.training_info.is_empty() {
        return violation("it has functions or training information");
    }
    repeats(&model.metadata_props, bundle.spec())?;
    let Some(body) = &mut model.graph else {
        return violation("it is empty");
    };
    let mut tensors = TensorCheck { bundle, shared: None, budget: limit(bundle.spec()) };
    tensors.graph(body)?;
    let (inputs, outputs) = (graph.inputs(bundle.spec()), graph.outputs(bundle.spec()));
    let initialised: HashSet<&str> = body.initializer.iter().map(|t| t.name.as_str()).collect();
    body.input.retain(|input| !initialised.contains(input.name.as_str()));
    let inputs = match_ports(&body.input, &inputs, graph, classes, "input")?;
    let outputs = match_ports(&body.output, &outputs, graph, classes, "output")?;
    for (info, port) in body.input.iter_mut().zip(&inputs) {
        make_concrete(info, &extents(*port, shape, classes));
    }
    for (info, port) in body.output.iter_mut().zip(&outputs) {
        make_concrete(info, &extents(*port, shape, classes));
    }
    // Sizes of intermediate values are hints, written for symbolic sizes.
    body.value_info.clear();
    Ok(CheckedGraph { model, signature: Signature { graph, shape, classes, inputs, outputs } })
}

/// A graph that says what it is for must say what `spec.json` does, which has no digest of its own.
fn repeats(entries: &[StringStringEntryProto], spec: &Spec) -> Result<()> {
    let found = |key: &str| entries.iter().find(|entry| entry.key == key).map(|entry| entry.value.as_str());
    let essentials = spec.essentials();
    if essentials.iter().all(|(key, _)| found(key).is_none()) {
        return Ok(());
    }
    let told = |value: Option<&str>| value.map_or("nothing".to_string(), |value| format!("`{value}`"));
    match essentials.iter().find(|(key, value)| found(key) != value.as_deref()) {
        Some((key, value)) => violation(format!(
            "for `{key}` it has {}, and spec.json {}: one of them was changed; copy or export the model again",
            told(found(key)),
            told(value.as_deref())
        )),
        None => Ok(()),
    }
}

/// Finds the port of each declared value; every port must occur exactly once.
fn match_ports(
    infos: &[ValueInfoProto],
    expected: &[Port],
    graph: Graph,
    classes: usize,
    role: &str,
) -> Result<Vec<Port>> {
    let mut found = Vec::new();
    for info in infos {
        let Some(&port) = expected.iter().find(|p| p.name_in(graph) == info.name && !found.contains(*p))
        else {
            return violation(format!("{role} `{}` is not one of the contract's", info.name));
        };
        check_type(info, &fixed_extents(port, classes))?;
        found.push(port);
    }
    match expected.iter().find(|p| !found.contains(p)) {
        Some(port) => violation(format!("{role} `{}` is missing", port.name_in(graph))),
        None => Ok(found),
    }
}

fn check_type(info: &ValueInfoProto, extents: &[Option<usize>]) -> Result<()> {
    let name = &info.name;
    let Some(type_proto::Value::TensorType(tensor)) = info.r#type.as_ref().and_then(|t| t.value.as_ref())
    else {
        return violation(format!("`{name}` has no tensor type"));
    };
    if tensor.elem_type != DataType::Float as i32 {
        return violation(format!("`{name}` is not float32"));
    }
    let Some(shape) = &tensor.shape else {
        return violation(format!("`{name}` has no shape"));
    };
    if shape.dim.len() != extents.len() {
        return violation(format!("`{name}` has {} axes instead of {}", shape.dim.len(), extents.len()));
    }
    for (axis, (dim, &extent)) in shape.dim.iter().zip(extents).enumerate() {
        match (&dim.value, extent) {
            (Some(dimension::Value::DimValue(n)), Some(extent)) if *n == extent as i64 => {}
            (Some(dimension::Value::DimValue(n)), None) => {
                return violation(format!("axis {axis} of `{name}` is fixed at {n}, and must be symbolic"));
            }
            (_, None) => {}
            (_, Some(extent)) => {
                return violation(format!("axis {axis} of `{name}` must have extent {extent}"));
            }
        }
    }
    Ok(())
}

fn make_concrete(info: &mut ValueInfoProto, extents: &[usize]) {
    if let Some(type_proto::Value::TensorType(tensor)) = info.r#type.as_mut().and_then(|t| t.value.as_mut())
        && let Some(shape) = &mut tensor.shape
    {
        shape.dim = extents
            .iter()
            .map(|&n| Dimension { value: Some(dimension::Value::DimValue(n as i64)), ..Default::default() })
            .collect();
    }
}

/// Walks over all tensors of a graph, checks them and fills in external data.
struct TensorCheck<'a> {
    bundle: &'a Bundle,
    /// `model.safetensors`, read when first needed.
    shared: Option<Vec<u8>>,
    /// Bytes of external data that may still be copied in.
    budget: u64,
}

impl TensorCheck<'_> {
    fn graph(&mut self, graph: &mut GraphProto) -> Result<()> {
        if !graph.sparse_initializer.is_empty() || !graph.quantization_annotation.is_empty() {
            return violation("it has sparse or quantised tensors");
        }
        graph.initializer.iter_mut().try_for_each(|tensor| self.tensor(tensor))?;
        graph.node.iter_mut().try_for_each(|node| self.node(node))
    }

    fn node(&mut self, node: &mut NodeProto) -> Result<()> {
        if !DOMAINS.contains(&node.domain.as_str()) {
            return violation(format!("operator `{}.{}` is not a standard one", node.domain, node.op_type));
        }
        node.attribute.iter_mut().try_for_each(|attribute| self.attribute(attribute))
    }

    // Depth of nesting is bounded by the decoder.
    fn attribute(&mut self, attribute: &mut AttributeProto) -> Result<()> {
        if attribute.sparse_tensor.is_some() || !attribute.sparse_tensors.is_empty() {
            return violation("it has sparse tensors");
        }
        attribute.t.iter_mut().chain(&mut attribute.tensors).try_for_each(|tensor| self.tensor(tensor))?;
        attribute.g.iter_mut().chain(&mut attribute.graphs).try_for_each(|graph| self.graph(graph))
    }

    fn tensor(&mut self, tensor: &mut TensorProto) -> Result<()> {
        let name = tensor.name.clone();
        let elements = tensor
            .dims
            .iter()
            .try_fold(1usize, |n, &d| n.checked_mul(usize::try_from(d).ok()?))
            .ok_or_else(|| ErrorKind::Graph(format!("tensor `{name}` has impossible extents")))?;
        if tensor.data_location == Some(DataLocation::External as i32) {
            self.fill_in(tensor, elements)?;
        } else if !tensor.external_data.is_empty() {
            return violation(format!("tensor `{name}` has external data and denies it"));
        }
        let found = if tensor.raw_data.is_empty() {
            let typed = [
                tensor.float_data.len(),
                tensor.int32_data.len(),
                tensor.int64_data.len(),
                tensor.uint64_data.len(),
                tensor.double_data.len(),
                tensor.string_data.len(),
            ];
            typed.into_iter().sum()
        } else {
            let Some(size) = element_bytes(tensor.data_type) else {
                return violation(format!("tensor `{name}` has an element type that is not used here"));
            };
            if !tensor.raw_data.len().is_multiple_of(size) {
                return violation(format!("tensor `{name}` ends within an element"));
            }
            tensor.raw_data.len() / size
        };
        if found != elements {
            return violation(format!(
                "tensor `{name}` holds {found} elements, and its extents say {elements}"
            ));
        }
        Ok(())
    }

    /// Copies external data into the tensor: float32 from `model.safetensors` and from nowhere else.
    fn fill_in(&mut self, tensor: &mut TensorProto, elements: usize) -> Result<()> {
        let name = tensor.name.clone();
        let outside = || violation(format!("tensor `{name}` lies outside `{MODEL}`"));
        if tensor.data_type != DataType::Float as i32 {
            return violation(format!("external tensor `{name}` is not float32"));
        }
        let (mut location, mut offset, mut length) = (None, 0, None);
        for entry in &tensor.external_data {
            match entry.key.as_str() {
                "location" => location = Some(entry.value.as_str()),
                "offset" => offset = entry.value.parse::<usize>().unwrap_or(usize::MAX),
                "length" => length = Some(entry.value.parse::<usize>().unwrap_or(usize::MAX)),
                "checksum" => {}
                key => return violation(format!("tensor `{name}` has the unknown external field `{key}`")),
            }
        }
        if location != Some(MODEL) || !self.bundle.spec().files.contains_key(MODEL) {
            return outside();
        }
        let bytes = elements.saturating_mul(4);
        if length.is_some_and(|n| n != bytes) {
            return violation(format!("external tensor `{name}` has another length than its extents"));
        }
        if bytes as u64 > self.budget {
            return violation("its external data is larger than the architecture's parameters allow");
        }
        self.budget -= bytes as u64;
        if self.shared.is_none() {
            self.shared = Some(self.bundle.read(MODEL, tensors::MAX_TENSOR_BYTES)?);
        }
        let shared = self.shared.as_deref().unwrap_or_default();
        let Some(data) = offset.checked_add(bytes).and_then(|end| shared.get(offset..end)) else {
            return outside();
        };
        tensor.raw_data = data.to_vec();
        tensor.data_location = None;
        tensor.external_data.clear();
        Ok(())
    }
}

/// Bytes of one element in `raw_data`.
fn element_bytes(data_type: i32) -> Option<usize> {
    match DataType::try_from(data_type).ok()? {
        DataType::Uint8 | DataType::Int8 | DataType::Bool => Some(1),
        DataType::Uint16 | DataType::Int16 | DataType::Float16 | DataType::Bfloat16 => Some(2),
        DataType::Float | DataType::Int32 | DataType::Uint32 => Some(4),
        DataType::Double | DataType::Int64 | DataType::Uint64 => Some(8),
        _ => None,
    }
}

fn violation<T>(reason: impl Into<String>) -> Result<T> {
    Err(ErrorKind::Graph(reason.into()).into())
}

/// One input, flat and in row-major order.
pub(super) struct InputValue<'a> {
    pub(super) name: &'static str,
    pub(super) extents: Vec<usize>,
    pub(super) values: std::borrow::Cow<'a, [f32]>,
}

impl Signature {
    /// The inputs in the graph's order, after checking them.
    pub(super) fn values<'a>(&self, inputs: &Inputs<'a>) -> Result<Vec<InputValue<'a>>> {
        let unwanted = |port| !self.inputs.contains(&port);
        if unwanted(Port::Sigma) && !inputs.sigma.is_empty() {
            return Err(ErrorKind::Input(format!("the {} graph takes no sigma", self.graph.name())).into());
        }
        if unwanted(Port::ClassWeights) && inputs.class_weights.is_some() {
            return Err(ErrorKind::Input(format!(
                "the {} graph of this model takes no class weights",
                self.graph.name()
            ))
            .into());
        }
        self.inputs
            .iter()
            .map(|&port| {
                let (found, values) = match port {
                    Port::Sigma => (vec![inputs.sigma.len()], inputs.sigma.into()),
                    Port::ClassWeights => match inputs.class_weights {
                        Some(weights) => (weights.shape().to_vec(), flat(weights)),
                        None => (vec![], vec![].into()),
                    },
                    _ => (inputs.image.shape().to_vec(), flat(inputs.image)),
                };
                let name = port.name_in(self.graph);
                let extents = extents(port, self.shape, self.classes);
                if found != extents {
                    let reason = format!("`{name}` has shape {found:?}, and this plan takes {extents:?}");
                    return Err(ErrorKind::Input(reason).into());
                }
                if !values.iter().all(|v| v.is_finite()) {
                    return Err(ErrorKind::NotFinite(name).into());
                }
                Ok(InputValue { name, extents, values })
            })
            .collect()
    }

    /// Names of the outputs, in the graph's order.
    pub(super) fn output_names(&self) -> impl Iterator<Item = &'static str> {
        self.outputs.iter().map(|port| port.name_in(self.graph))
    }

    /// Puts the outputs together from their extents and values in the graph's order. `Err` says what is
    /// wrong with them.
    pub(super) fn outputs(
        &self,
        values: Vec<(Vec<usize>, Vec<f32>)>,
    ) -> std::result::Result<Outputs, String> {
        let mut outputs = Outputs { denoised: None, logits: None, energy: None };
        if values.len() != self.outputs.len() {
            return Err(format!("{} outputs instead of {}", values.len(), self.outputs.len()));
        }
        for (&port, (found, values)) in self.outputs.iter().zip(values) {
            let name = port.name_in(self.graph);
            let extents = extents(port, self.shape, self.classes);
            let wrong = || format!("`{name}` came out with shape {found:?} instead of {extents:?}");
            if found != extents {
                return Err(wrong());
            }
            if !values.iter().all(|v| v.is_finite()) {
                return Err(format!("`{name}` came out with a value that is not a finite number"));
            }
            let Shape { batch, height, width } = self.shape;
            match port {
                Port::Denoised => {
                    let array = Array4::from_shape_vec((batch, 3, height, width), values);
                    outputs.denoised = Some(array.map_err(|_| wrong())?);
                }
                Port::Logits => {
                    let array = Array2::from_shape_vec((batch, self.classes), values);
                    outputs.logits = Some(array.map_err(|_| wrong())?);
                }
                _ => outputs.energy = Some(values),
            }
        }
        Ok(outputs)
    }
}

fn flat<'a, D: ndarray::Dimension>(view: ndarray::ArrayView<'a, f32, D>) -> std::borrow::Cow<'a, [f32]> {
    match view.to_slice() {
        Some(slice) => slice.into(),
        None => view.iter().copied().collect::<Vec<_>>().into(),
    }
}

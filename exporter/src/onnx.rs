//! Writes a graph as an ONNX model.

use crate::error::{ErrorKind, Result};
use crate::ir::{Dim, Graph, NodeId, Tensor};
use gradresnet_models::checkpoint::MODEL;
use half::f16;
use prost::Message;
use std::collections::{BTreeMap, HashMap, HashSet};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, attribute_proto::AttributeType,
    tensor_proto::DataLocation, tensor_proto::DataType, tensor_shape_proto, type_proto,
};

/// The opsets that graphs can be written in: every operator means the same in all of them, except for
/// where ReduceMean takes its axes.
pub const OPSETS: std::ops::RangeInclusive<i64> = 17..=21;

/// Where in [`MODEL`] the parameters are that a model refers to: offset and length in bytes, by
/// name.
pub type External = BTreeMap<String, (usize, usize)>;

/// An attribute of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// One integer.
    Int(i64),
    /// Several.
    Ints(Vec<i64>),
}

impl Attribute {
    /// The element type float32.
    pub const FLOAT: Attribute = Attribute::Int(DataType::Float as i64);

    /// The element type float16.
    pub const FLOAT16: Attribute = Attribute::Int(DataType::Float16 as i64);

    /// Several integers.
    pub fn ints(values: &[usize]) -> Attribute {
        Attribute::Ints(values.iter().map(|&v| v as i64).collect())
    }
}

/// Collects the ONNX nodes of one model. Operators call it to add theirs.
#[derive(Debug)]
pub struct Emitter {
    opset: i64,
    external: External,
    proto: GraphProto,
    /// Shapes of the tensors that nodes of our graph yield, by name.
    shapes: HashMap<String, Vec<Dim>>,
    names: HashSet<String>,
}

/// The bytes of an ONNX model of `graph`.
///
/// # Errors
/// [`ErrorKind::Opset`], and [`ErrorKind::ParameterMissing`] for a parameter that is not in `external`.
pub fn serialise(
    graph: &Graph,
    name: &str,
    opset: i64,
    external: &External,
    metadata: &[(&str, String)],
) -> Result<Vec<u8>> {
    if !OPSETS.contains(&opset) {
        return Err(ErrorKind::Opset(opset).into());
    }
    let mut emitter = Emitter {
        opset,
        external: external.clone(),
        proto: GraphProto { name: name.into(), ..Default::default() },
        shapes: HashMap::new(),
        names: graph.outputs().iter().map(|(name, _)| name.clone()).collect(),
    };
    emitter.graph(graph)?;
    let entry =
        |(key, value): &(&str, String)| StringStringEntryProto { key: (*key).into(), value: value.clone() };
    let model = ModelProto {
        // The version that came with opset 17; later opsets may be written in it too.
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: opset }],
        producer_name: env!("CARGO_PKG_NAME").into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(emitter.proto),
        metadata_props: metadata.iter().map(entry).collect(),
        ..Default::default()
    };
    Ok(model.encode_to_vec())
}

impl Emitter {
    fn graph(&mut self, graph: &Graph) -> Result<()> {
        let mut tensors: HashMap<NodeId, String> = HashMap::new();
        for (id, node) in graph.nodes() {
            let output = graph.outputs().iter().find(|(_, o)| *o == id).map(|(name, _)| name.clone());
            let name = match (graph.input_name(id), node.operator.parameter_name(), output) {
                (Some(input), _, _) => input.to_string(),
                (None, Some(parameter), _) => {
                    if node.operator.constant().is_none() && !self.external.contains_key(parameter) {
                        return Err(ErrorKind::ParameterMissing(parameter.to_string()).into());
                    }
                    self.unique(parameter)
                }
                (None, None, Some(output)) => output,
                (None, None, None) => self.unique(&format!("{}/{}", node.scope, node.operator.name())),
            };
            let inputs: Vec<String> = node.inputs.iter().map(|i| tensors[i].clone()).collect();
            self.shapes.insert(name.clone(), node.shape.clone());
            node.operator.emit(self, &inputs, &name);
            tensors.insert(id, name);
        }
        for (name, id) in graph.outputs() {
            // One tensor has one name, and it may be an input or another output already.
            if tensors[id] != *name {
                self.node("Identity", &[tensors[id].clone()], name, &[]);
            }
            self.proto.output.push(value_info(name, graph.shape(*id)));
        }
        // Narrowed tensors may be unused in float32.
        let used: HashSet<&String> = self.proto.node.iter().flat_map(|node| &node.input).collect();
        self.proto.initializer.retain(|tensor| used.contains(&tensor.name));
        Ok(())
    }

    fn unique(&mut self, name: &str) -> String {
        let mut candidate = name.to_string();
        let mut number = 1;
        while !self.names.insert(candidate.clone()) {
            number += 1;
            candidate = format!("{name}_{number}");
        }
        candidate
    }

    /// The version of the operators.
    pub fn opset(&self) -> i64 {
        self.opset
    }

    /// Number of axes of a tensor that a node of our graph yields.
    pub fn rank_of(&self, tensor: &str) -> usize {
        self.shapes.get(tensor).map_or(0, Vec::len)
    }

    /// Extent of one axis of such a tensor; 1 if it is symbolic.
    pub fn extent_of(&self, tensor: &str, axis: usize) -> usize {
        self.shapes.get(tensor).and_then(|s| s.get(axis)?.fixed()).unwrap_or(1)
    }

    /// A name for a tensor between the nodes of one operator.
    pub fn temporary(&mut self, output: &str, part: &str) -> String {
        self.unique(&format!("{output}/{part}"))
    }

    /// Adds a node.
    pub fn node(&mut self, op_type: &str, inputs: &[String], output: &str, attributes: &[(&str, Attribute)]) {
        let attribute = attributes
            .iter()
            .map(|(name, value)| match value {
                Attribute::Int(i) => AttributeProto {
                    name: (*name).into(),
                    r#type: AttributeType::Int.into(),
                    i: *i,
                    ..Default::default()
                },
                Attribute::Ints(ints) => AttributeProto {
                    name: (*name).into(),
                    r#type: AttributeType::Ints.into(),
                    ints: ints.clone(),
                    ..Default::default()
                },
            })
            .collect();
        self.proto.node.push(NodeProto {
            name: output.into(),
            op_type: op_type.into(),
            input: inputs.to_vec(),
            output: vec![output.into()],
            attribute,
            ..Default::default()
        });
    }

    /// Declares an input of the model.
    pub fn input(&mut self, name: &str, shape: &[Dim]) {
        self.proto.input.push(value_info(name, shape));
    }

    /// Adds a float32 tensor that the model holds.
    pub fn initialiser(&mut self, name: &str, value: &Tensor) {
        let raw_data = value.values().iter().flat_map(|&v| (v as f32).to_le_bytes()).collect();
        let dims = dims(value.shape());
        let data_type = DataType::Float.into();
        self.proto.initializer.push(TensorProto {
            name: name.into(),
            dims,
            data_type,
            raw_data,
            ..Default::default()
        });
    }

    /// Adds `name`, a float32 tensor that the model holds, in float16 as `narrow`; `false` if it holds none of
    /// that name.
    pub fn narrow_initialiser(&mut self, name: &str, narrow: &str) -> bool {
        let holds = |t: &&TensorProto| t.name == name && t.external_data.is_empty();
        let Some(wide) = self.proto.initializer.iter().find(holds) else { return false };
        let values = wide.raw_data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        let narrow = TensorProto {
            name: narrow.into(),
            data_type: DataType::Float16.into(),
            raw_data: values.flat_map(|v| f16::from_f32(v).to_le_bytes()).collect(),
            ..wide.clone()
        };
        self.proto.initializer.push(narrow);
        true
    }

    /// Adds a number, once; returns its name.
    pub fn scalar(&mut self, value: f64) -> String {
        let name = format!("scalar/{value}");
        if self.names.insert(name.clone()) {
            self.initialiser(&name, &Tensor::scalar(value));
        }
        name
    }

    /// Adds a list of integers, once; returns its name.
    pub fn integers(&mut self, values: &[usize]) -> String {
        let list: Vec<String> = values.iter().map(usize::to_string).collect();
        let name = format!("integers/{}", list.join(","));
        if self.names.insert(name.clone()) {
            self.proto.initializer.push(TensorProto {
                name: name.clone(),
                dims: vec![values.len() as i64],
                data_type: DataType::Int64.into(),
                raw_data: values.iter().flat_map(|&v| (v as i64).to_le_bytes()).collect(),
                ..Default::default()
            });
        }
        name
    }

    /// Adds a float32 tensor whose values are in [`MODEL`], under the name `parameter`.
    pub fn external(&mut self, name: &str, parameter: &str, shape: &[usize]) {
        // `graph` has checked that it is there.
        let (offset, length) = self.external.get(parameter).copied().unwrap_or_default();
        let entry = |key: &str, value: String| StringStringEntryProto { key: key.into(), value };
        self.proto.initializer.push(TensorProto {
            name: name.into(),
            dims: dims(shape),
            data_type: DataType::Float.into(),
            data_location: Some(DataLocation::External.into()),
            external_data: vec![
                entry("location", MODEL.into()),
                entry("offset", offset.to_string()),
                entry("length", length.to_string()),
            ],
            ..Default::default()
        });
    }
}

fn dims(shape: &[usize]) -> Vec<i64> {
    shape.iter().map(|&d| d as i64).collect()
}

fn value_info(name: &str, shape: &[Dim]) -> ValueInfoProto {
    use tensor_shape_proto::{Dimension, dimension::Value};
    let dim = shape
        .iter()
        .map(|d| {
            let value = match d {
                Dim::Fixed(n) => Value::DimValue(*n as i64),
                Dim::Batch => Value::DimParam("batch".into()),
                Dim::Height(1) => Value::DimParam("height".into()),
                Dim::Width(1) => Value::DimParam("width".into()),
                Dim::Height(by) => Value::DimParam(format!("height/{by}")),
                Dim::Width(by) => Value::DimParam(format!("width/{by}")),
            };
            Dimension { value: Some(value), ..Default::default() }
        })
        .collect();
    let tensor =
        type_proto::Tensor { elem_type: DataType::Float.into(), shape: Some(TensorShapeProto { dim }) };
    let value = Some(type_proto::Value::TensorType(tensor));
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto { value, ..Default::default() }),
        ..Default::default()
    }
}

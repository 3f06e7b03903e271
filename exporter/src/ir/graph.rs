//! The graph and its builder.

use super::operator::Operator;
use super::shape::{Dim, Shape};
use super::tensor::Tensor;
use crate::error::{ErrorKind, Result};
use crate::ops::elementwise::Binary;
use crate::ops::leaf::Constant;
use std::collections::HashMap;
use std::sync::Arc;

/// Position of a node in its graph. A node's inputs come before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(usize);

/// An operator on inputs.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it does.
    pub operator: Arc<dyn Operator>,
    /// On what.
    pub inputs: Vec<NodeId>,
    /// Shape of the result.
    pub shape: Shape,
    /// Path of the module that it belongs to, for instance `stages.0.1.norm`.
    pub scope: String,
}

/// Nodes in an order in which they can be computed, with named outputs. Two nodes never do the same
/// thing to the same inputs.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    nodes: Vec<Node>,
    known: HashMap<(String, Vec<NodeId>), NodeId>,
    scope: String,
    outputs: Vec<(String, NodeId)>,
}

impl Graph {
    /// An empty one.
    pub fn new() -> Graph {
        Graph::default()
    }

    /// Names the module that the next nodes belong to.
    pub fn set_scope(&mut self, scope: impl Into<String>) {
        self.scope = scope.into();
    }

    /// Adds a node, or finds the one that does the same.
    ///
    /// # Errors
    /// If the inputs do not suit the operator.
    pub fn add(&mut self, operator: impl Operator + 'static, inputs: &[NodeId]) -> Result<NodeId> {
        self.add_shared(Arc::new(operator), inputs)
    }

    /// [`Graph::add`] for an operator that graphs share.
    ///
    /// # Errors
    /// If the inputs do not suit the operator.
    pub fn add_shared(&mut self, operator: Arc<dyn Operator>, inputs: &[NodeId]) -> Result<NodeId> {
        let key = (operator.key(), inputs.to_vec());
        if let Some(&known) = self.known.get(&key) {
            return Ok(known);
        }
        let shapes: Vec<&[Dim]> = inputs.iter().map(|&i| self.shape(i)).collect();
        let shape = operator.shape(&shapes).map_err(|reason| ErrorKind::Operator {
            name: operator.name(),
            reason: format!("{reason} (in {})", self.scope),
        })?;
        let id = NodeId(self.nodes.len());
        let scope = self.scope.clone();
        self.nodes.push(Node { operator, inputs: inputs.to_vec(), shape, scope });
        self.known.insert(key, id);
        Ok(id)
    }

    /// A number.
    ///
    /// # Errors
    /// As for [`Graph::add`].
    pub fn scalar(&mut self, value: f64) -> Result<NodeId> {
        self.add(Constant::new(Tensor::scalar(value)), &[])
    }

    /// a + b, broadcasting.
    ///
    /// # Errors
    /// As for [`Graph::add`].
    pub fn sum(&mut self, a: NodeId, b: NodeId) -> Result<NodeId> {
        self.add(Binary::Add, &[a, b])
    }

    /// a − b, broadcasting.
    ///
    /// # Errors
    /// As for [`Graph::add`].
    pub fn sub(&mut self, a: NodeId, b: NodeId) -> Result<NodeId> {
        self.add(Binary::Sub, &[a, b])
    }

    /// a · b, broadcasting.
    ///
    /// # Errors
    /// As for [`Graph::add`].
    pub fn mul(&mut self, a: NodeId, b: NodeId) -> Result<NodeId> {
        self.add(Binary::Mul, &[a, b])
    }

    /// factor · a.
    ///
    /// # Errors
    /// As for [`Graph::add`].
    pub fn scaled(&mut self, a: NodeId, factor: f64) -> Result<NodeId> {
        let factor = self.scalar(factor)?;
        self.mul(a, factor)
    }

    /// a + term.
    ///
    /// # Errors
    /// As for [`Graph::add`].
    pub fn shifted(&mut self, a: NodeId, term: f64) -> Result<NodeId> {
        let term = self.scalar(term)?;
        self.sum(a, term)
    }

    /// Names an output.
    pub fn set_output(&mut self, name: &str, id: NodeId) {
        self.outputs.push((name.to_string(), id));
    }

    /// The outputs.
    pub fn outputs(&self) -> &[(String, NodeId)] {
        &self.outputs
    }

    /// The node.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// The shape of a node's result.
    pub fn shape(&self, id: NodeId) -> &[Dim] {
        &self.nodes[id.0].shape
    }

    /// The name of an input of the graph, if the node is one.
    pub fn input_name(&self, id: NodeId) -> Option<&str> {
        self.node(id).operator.input_name()
    }

    /// All nodes, each after its inputs.
    pub fn nodes(&self) -> impl DoubleEndedIterator<Item = (NodeId, &Node)> {
        self.nodes.iter().enumerate().map(|(i, node)| (NodeId(i), node))
    }

    /// How many nodes compute something, unlike inputs and constants.
    pub fn operations(&self) -> usize {
        self.nodes.iter().filter(|n| !n.inputs.is_empty()).count()
    }

    /// A graph with every node passed through `rule`, which adds its replacement to the new graph, or
    /// returns `None` to keep it. Only what the outputs need is kept.
    ///
    /// # Errors
    /// As for [`Graph::add`].
    pub fn rewrite(
        &self,
        mut rule: impl FnMut(&mut Graph, &Node, &[NodeId]) -> Result<Option<NodeId>>,
    ) -> Result<Graph> {
        let mut needed = vec![false; self.nodes.len()];
        for (_, id) in &self.outputs {
            needed[id.0] = true;
        }
        for (i, node) in self.nodes.iter().enumerate().rev() {
            if needed[i] {
                node.inputs.iter().for_each(|input| needed[input.0] = true);
            }
        }
        let mut new = Graph::new();
        let mut image: Vec<Option<NodeId>> = vec![None; self.nodes.len()];
        for (i, node) in self.nodes.iter().enumerate() {
            if !needed[i] {
                continue;
            }
            // What is needed has needed inputs, and they come first.
            let inputs: Vec<NodeId> = node.inputs.iter().filter_map(|input| image[input.0]).collect();
            new.set_scope(&node.scope);
            image[i] = Some(match rule(&mut new, node, &inputs)? {
                Some(replacement) => replacement,
                None => new.add_shared(node.operator.clone(), &inputs)?,
            });
        }
        new.outputs =
            self.outputs.iter().filter_map(|(name, id)| Some((name.clone(), image[id.0]?))).collect();
        Ok(new)
    }
}

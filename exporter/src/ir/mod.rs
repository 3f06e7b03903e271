//! The intermediate representation: a graph of operators on float tensors, whose sizes are known up to
//! batch, height and width.
//!
//! - [`shape`]: sizes, symbolic and bound.
//! - [`tensor`]: float64 values, for constants and for evaluation.
//! - [`graph`]: nodes, and the builder that shares equal ones.
//! - [`operator`]: what an operator must be able to say of itself.
//!
//! The operators themselves are in [`crate::ops`].

pub mod graph;
pub mod operator;
pub mod shape;
pub mod tensor;

pub use graph::{Graph, Node, NodeId};
pub use operator::{Backward, Operator};
pub use shape::{Dim, Shape};
pub use tensor::Tensor;

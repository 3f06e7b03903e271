//! The operators, one file per family. Each has its shape rule, its value, its reverse-mode rule and its
//! ONNX nodes side by side.

pub mod cast;
pub mod conv;
pub mod elementwise;
pub mod leaf;
pub mod linear;
pub mod norm;
pub mod pool;
pub mod reduce;
pub mod shape;
pub mod softmax;

#[cfg(test)]
mod tests;

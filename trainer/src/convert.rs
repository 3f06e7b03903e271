//! From libtorch's tensors to the arrays of the file formats and to numbers, and back.

use anyhow::{Context, Result, ensure};
use gradresnet_models::tensors::Values;
use gradresnet_models::{Array, Tensors};
use tch::{Kind, Tensor};

/// A CPU tensor with the array's shape and element type.
pub fn from_array(array: &Array) -> Tensor {
    let shape: Vec<i64> = array.shape().iter().map(|&d| d as i64).collect();
    match array.values() {
        Values::F32(v) => Tensor::from_slice(v).reshape(shape),
        Values::F64(v) => Tensor::from_slice(v).reshape(shape),
    }
}

/// The tensor of this name in an untrusted checkpoint, for the place of `like`.
///
/// # Errors
/// If it is missing, of another shape, or not of finite float32.
pub fn saved(tensors: &Tensors, name: &str, like: &Tensor) -> Result<Tensor> {
    let array = tensors.get(name).with_context(|| format!("tensor `{name}` is missing"))?;
    ensure!(array.as_f32().is_some() && array.is_finite(), "tensor `{name}` is not finite float32");
    let tensor = from_array(array).to_device(like.device());
    ensure!(tensor.size() == like.size(), "tensor `{name}` has shape {:?}", tensor.size());
    Ok(tensor)
}

/// An array with the tensor's shape; float64 if the tensor is, else float32.
pub fn to_array(tensor: &Tensor) -> Array {
    let shape: Vec<usize> = tensor.size().iter().map(|&d| d as usize).collect();
    let flat = tensor.detach().to_device(tch::Device::Cpu).contiguous().view(-1);
    let array = match tensor.kind() {
        Kind::Double => {
            let mut values = vec![0f64; flat.numel()];
            flat.copy_data(&mut values, flat.numel());
            Array::f64(&shape, values)
        }
        _ => {
            let flat = flat.to_kind(Kind::Float);
            let mut values = vec![0f32; flat.numel()];
            flat.copy_data(&mut values, flat.numel());
            Array::f32(&shape, values)
        }
    };
    // A tensor has as many elements as the product of its extents.
    #[allow(clippy::expect_used)]
    array.expect("shape and element count of one tensor agree")
}

/// Sum of all elements, in float64.
pub fn sum(tensor: &Tensor) -> f64 {
    tensor.sum(Kind::Double).double_value(&[])
}

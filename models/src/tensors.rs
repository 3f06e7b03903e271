//! Named arrays in safetensors files.

use crate::error::{At, Error, ErrorKind, Result};
use crate::staged;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Largest safetensors file that is read: the largest architecture in float64 and some room.
pub const MAX_TENSOR_BYTES: u64 = 8 * crate::spec::MAX_PARAMETERS + (1 << 20);

/// A dense array in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    shape: Vec<usize>,
    values: Values,
}

/// The elements of an [`Array`].
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// 32-bit floats: parameters and inputs.
    F32(Vec<f32>),
    /// 64-bit floats: reference values.
    F64(Vec<f64>),
}

/// Arrays by name.
pub type Tensors = BTreeMap<String, Array>;

impl Array {
    /// A float32 array; `None` unless the shape holds exactly `values`.
    pub fn f32(shape: &[usize], values: Vec<f32>) -> Option<Array> {
        (product(shape)? == values.len())
            .then(|| Array { shape: shape.to_vec(), values: Values::F32(values) })
    }

    /// A float64 array; `None` unless the shape holds exactly `values`.
    pub fn f64(shape: &[usize], values: Vec<f64>) -> Option<Array> {
        (product(shape)? == values.len())
            .then(|| Array { shape: shape.to_vec(), values: Values::F64(values) })
    }

    /// Extent of each axis.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements.
    pub fn values(&self) -> &Values {
        &self.values
    }

    /// The elements, if they are float32.
    pub fn as_f32(&self) -> Option<&[f32]> {
        match &self.values {
            Values::F32(v) => Some(v),
            Values::F64(_) => None,
        }
    }

    /// The elements in float64, converted if need be.
    pub fn to_f64(&self) -> Vec<f64> {
        match &self.values {
            Values::F32(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Values::F64(v) => v.clone(),
        }
    }

    /// Whether no element is NaN or infinite.
    pub fn is_finite(&self) -> bool {
        match &self.values {
            Values::F32(v) => v.iter().all(|x| x.is_finite()),
            Values::F64(v) => v.iter().all(|x| x.is_finite()),
        }
    }

    /// Name of the element type, as safetensors writes it.
    pub fn dtype(&self) -> &'static str {
        match &self.values {
            Values::F32(_) => "F32",
            Values::F64(_) => "F64",
        }
    }
}

fn product(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
}

/// Reads a safetensors file of float32 and float64 arrays, with its metadata.
///
/// # Errors
/// [`ErrorKind::Safetensors`] (header out of bounds, overlapping or missing data),
/// [`ErrorKind::TensorType`], and those of [`staged::read_bounded`], whose limit is [`MAX_TENSOR_BYTES`].
pub fn read(path: &Path) -> Result<(Tensors, HashMap<String, String>)> {
    read_within(path, MAX_TENSOR_BYTES)
}

/// Reads a file of at most `limit` bytes; see [`read`].
///
/// # Errors
/// Those of [`read`], with this limit.
pub fn read_within(path: &Path, limit: u64) -> Result<(Tensors, HashMap<String, String>)> {
    parse(&staged::read_bounded(path, limit)?).at(path)
}

/// Parses the bytes of a safetensors file; see [`read`].
pub fn parse(bytes: &[u8]) -> Result<(Tensors, HashMap<String, String>)> {
    let invalid = |e: safetensors::SafeTensorError| Error::from(ErrorKind::Safetensors(e.to_string()));
    // safetensors bounds the header (100 MB), and rejects overlaps, gaps and overflows.
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(invalid)?;
    let file = SafeTensors::deserialize(bytes).map_err(invalid)?;
    let mut tensors = Tensors::new();
    for (name, view) in file.iter() {
        let data = view.data();
        let values = match view.dtype() {
            Dtype::F32 => Values::F32(data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()),
            Dtype::F64 => Values::F64(data.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect()),
            other => {
                return Err(ErrorKind::TensorType {
                    name: name.to_string(),
                    found: format!("{other:?}"),
                    expected: "F32 or F64",
                }
                .into());
            }
        };
        tensors.insert(name.to_string(), Array { shape: view.shape().to_vec(), values });
    }
    Ok((tensors, header.metadata().clone().unwrap_or_default()))
}

/// The bytes of a safetensors file.
///
/// # Errors
/// [`ErrorKind::Safetensors`] if the format cannot hold the arrays.
pub fn serialise(tensors: &Tensors, metadata: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    let invalid = |e: safetensors::SafeTensorError| Error::from(ErrorKind::Safetensors(e.to_string()));
    let bytes: Vec<(&String, &Array, Dtype, Vec<u8>)> = tensors
        .iter()
        .map(|(name, array)| match &array.values {
            Values::F32(v) => (name, array, Dtype::F32, v.iter().flat_map(|x| x.to_le_bytes()).collect()),
            Values::F64(v) => (name, array, Dtype::F64, v.iter().flat_map(|x| x.to_le_bytes()).collect()),
        })
        .collect();
    let views = bytes
        .iter()
        .map(|(name, array, dtype, data)| {
            Ok((name.as_str(), TensorView::new(*dtype, array.shape.clone(), data).map_err(invalid)?))
        })
        .collect::<Result<Vec<_>>>()?;
    let metadata = (!metadata.is_empty()).then(|| metadata.clone().into_iter().collect());
    safetensors::serialize(views, metadata).map_err(invalid)
}

//! `golden.safetensors`: inputs and reference outputs that every engine must reproduce.
//!
//! For each case `n`, counted from 0, the file holds `n.noisy` `[N,3,H,W]`, `n.sigma` `[N]` and, for a
//! network with classes, `n.class_weights` `[N,C]`, in float32; and `n.denoised` `[N,3,H,W]`, `n.energy`
//! `[N]` and, with classes, `n.logits` `[N,C]`, in float64. `energy` and `logits` are those of `noisy`.
//! The metadata entry `source` says who computed the outputs.

use crate::error::{At, Error, ErrorKind, Result};
use crate::tensors::{self, Array, Tensors};
use std::collections::BTreeMap;
use std::path::Path;

const SOURCE: &str = "source";
const MAX_CASES: usize = 64;

/// The golden values of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Golden {
    /// Who computed the outputs, for instance `libtorch 2.13.0 float64 autograd`.
    pub source: String,
    /// One case for each size and batch.
    pub cases: Vec<GoldenCase>,
}

/// One batch of inputs with its outputs, named as in the graphs.
#[derive(Clone, Debug, PartialEq)]
pub struct GoldenCase {
    /// `[N,3,H,W]`, float32, image units.
    pub noisy: Array,
    /// `[N]`, float32, image units.
    pub sigma: Array,
    /// `[N,C]`, float32; absent without classes.
    pub class_weights: Option<Array>,
    /// `[N,3,H,W]`, float64.
    pub denoised: Array,
    /// `[N]`, float64, nats.
    pub energy: Array,
    /// `[N,C]`, float64; absent without classes.
    pub logits: Option<Array>,
}

impl Golden {
    /// Reads the file and checks that its shapes agree with one another and with `classes`.
    ///
    /// # Errors
    /// Those of [`tensors::read`], and [`ErrorKind::Golden`].
    pub fn read(path: &Path, classes: usize) -> Result<Golden> {
        let (tensors, metadata) = tensors::read(path)?;
        Golden::from_tensors(tensors, metadata.get(SOURCE).cloned().unwrap_or_default(), classes).at(path)
    }

    /// The bytes of the file.
    pub fn serialise(&self) -> Result<Vec<u8>> {
        let mut tensors = Tensors::new();
        for (n, case) in self.cases.iter().enumerate() {
            let mut put = |name: &str, array: Option<&Array>| {
                if let Some(array) = array {
                    tensors.insert(format!("{n}.{name}"), array.clone());
                }
            };
            put("noisy", Some(&case.noisy));
            put("sigma", Some(&case.sigma));
            put("class_weights", case.class_weights.as_ref());
            put("denoised", Some(&case.denoised));
            put("energy", Some(&case.energy));
            put("logits", case.logits.as_ref());
        }
        tensors::serialise(&tensors, &BTreeMap::from([(SOURCE.to_string(), self.source.clone())]))
    }

    fn from_tensors(mut tensors: Tensors, source: String, classes: usize) -> Result<Golden> {
        let mut cases = Vec::new();
        while tensors.contains_key(&format!("{}.noisy", cases.len())) {
            let n = cases.len();
            if n == MAX_CASES {
                return Err(ErrorKind::Golden(format!("more than {MAX_CASES} cases")).into());
            }
            let mut take = |name: &str, expected: &'static str| -> Result<Array> {
                let name = format!("{n}.{name}");
                let array = tensors
                    .remove(&name)
                    .ok_or_else(|| Error::from(ErrorKind::TensorMissing(name.clone())))?;
                if array.dtype() != expected {
                    return Err(ErrorKind::TensorType { name, found: array.dtype().into(), expected }.into());
                }
                if !array.is_finite() {
                    return Err(ErrorKind::NotFinite(name).into());
                }
                Ok(array)
            };
            let case = GoldenCase {
                noisy: take("noisy", "F32")?,
                sigma: take("sigma", "F32")?,
                class_weights: (classes > 0).then(|| take("class_weights", "F32")).transpose()?,
                denoised: take("denoised", "F64")?,
                energy: take("energy", "F64")?,
                logits: (classes > 0).then(|| take("logits", "F64")).transpose()?,
            };
            case.check(classes).map_err(|reason| ErrorKind::Golden(format!("case {n}: {reason}")))?;
            cases.push(case);
        }
        if cases.is_empty() {
            return Err(ErrorKind::Golden("no case".into()).into());
        }
        match tensors.into_keys().next() {
            Some(name) => Err(ErrorKind::TensorUnknown(name).into()),
            None => Ok(Golden { source, cases }),
        }
    }
}

impl GoldenCase {
    /// `[N, H, W]` of the images.
    pub fn size(&self) -> [usize; 3] {
        match *self.noisy.shape() {
            [n, _, h, w] => [n, h, w],
            _ => [0; 3],
        }
    }

    fn check(&self, classes: usize) -> std::result::Result<(), String> {
        let [n, h, w] = self.size();
        if n == 0 || h == 0 || w == 0 {
            return Err(format!("`noisy` has shape {:?}, and [N,3,H,W] is required", self.noisy.shape()));
        }
        let shapes = [
            ("noisy", Some(&self.noisy), vec![n, 3, h, w]),
            ("sigma", Some(&self.sigma), vec![n]),
            ("class_weights", self.class_weights.as_ref(), vec![n, classes]),
            ("denoised", Some(&self.denoised), vec![n, 3, h, w]),
            ("energy", Some(&self.energy), vec![n]),
            ("logits", self.logits.as_ref(), vec![n, classes]),
        ];
        for (name, array, expected) in shapes {
            if let Some(found) = array.map(Array::shape).filter(|s| *s != expected) {
                return Err(format!("`{name}` has shape {found:?}, and {expected:?} is required"));
            }
        }
        Ok(())
    }
}

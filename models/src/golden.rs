//! `golden.safetensors`: inputs and reference outputs that every engine must reproduce.
//!
//! For each case `n`, counted from 0, the file holds inputs in float32, `n.noisy` `[N,3,H,W]`, `n.sigma` `[N]`
//! and `n.class_weights` `[N,C]`, and outputs in float64, `n.denoised` `[N,3,H,W]`, `n.energy` `[N]` and
//! `n.logits` `[N,C]`: those that the network's graphs have ([`Port`]). `energy` and `logits` are of `noisy`.
//! The metadata entry `source` says who computed the outputs.

use crate::error::{At, Error, ErrorKind, Result};
use crate::port::Port;
use crate::spec::Spec;
use crate::staged;
use crate::tensors::{self, Array, MAX_TENSOR_BYTES, Tensors};
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
    /// `[N]`, float32, image units; absent if denoising does not take it.
    pub sigma: Option<Array>,
    /// `[N,C]`, float32; absent without classes or without a gradient to steer.
    pub class_weights: Option<Array>,
    /// `[N,3,H,W]`, float64; absent if the network does not denoise.
    pub denoised: Option<Array>,
    /// `[N]`, float64, nats; absent if the network has none.
    pub energy: Option<Array>,
    /// `[N,C]`, float64; absent without classes.
    pub logits: Option<Array>,
}

impl Golden {
    /// Reads the file and checks that it holds what a model with this spec has, in shapes that agree with one
    /// another.
    ///
    /// # Errors
    /// Those of [`tensors::read`], [`ErrorKind::Golden`], and the kinds that name a tensor.
    pub fn read(path: &Path, spec: &Spec) -> Result<Golden> {
        Golden::parse(&staged::read_bounded(path, MAX_TENSOR_BYTES)?, spec).at(path)
    }

    /// Parses the bytes of the file; see [`Golden::read`].
    pub fn parse(bytes: &[u8], spec: &Spec) -> Result<Golden> {
        let (tensors, metadata) = tensors::parse(bytes)?;
        let source = metadata.get(SOURCE).cloned().unwrap_or_default();
        if source.chars().any(char::is_control) {
            return Err(ErrorKind::Golden("`source` holds a control character".into()).into());
        }
        Golden::from_tensors(tensors, source, spec)
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
            put("sigma", case.sigma.as_ref());
            put("class_weights", case.class_weights.as_ref());
            put("denoised", case.denoised.as_ref());
            put("energy", case.energy.as_ref());
            put("logits", case.logits.as_ref());
        }
        tensors::serialise(&tensors, &BTreeMap::from([(SOURCE.to_string(), self.source.clone())]))
    }

    fn from_tensors(mut tensors: Tensors, source: String, spec: &Spec) -> Result<Golden> {
        let classes = spec.classes.len();
        let ports = Port::of(spec);
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
            let noisy = take("noisy", "F32")?;
            let mut of =
                |port: Port, kind| ports.contains(&port).then(|| take(port.name(), kind)).transpose();
            let case = GoldenCase {
                noisy,
                sigma: of(Port::Sigma, "F32")?,
                class_weights: of(Port::ClassWeights, "F32")?,
                denoised: of(Port::Denoised, "F64")?,
                energy: of(Port::Energy, "F64")?,
                logits: of(Port::Logits, "F64")?,
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
            ("sigma", self.sigma.as_ref(), vec![n]),
            ("class_weights", self.class_weights.as_ref(), vec![n, classes]),
            ("denoised", self.denoised.as_ref(), vec![n, 3, h, w]),
            ("energy", self.energy.as_ref(), vec![n]),
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

//! One error for the whole library.

use std::fmt;

/// Shorthand for this crate's results.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an export failed.
#[derive(Debug)]
pub struct Error(Box<ErrorKind>);

/// The reasons for a failure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A checkpoint or bundle cannot be read or written; the message names the file.
    #[error("{0}")]
    Models(#[from] gradresnet_models::Error),
    /// An engine rejects what was written.
    #[error("{0}")]
    Engine(#[from] gradresnet::Error),
    /// The file of shared weights that was just written cannot be read: a fault of this program.
    #[error("model.safetensors: {0}")]
    SharedWeights(#[from] safetensors::SafeTensorError),
    /// A node of the graph does not fit its inputs: a fault of this program.
    #[error("operator {name}: {reason}")]
    Operator {
        /// Name of the operator.
        name: &'static str,
        /// What does not fit.
        reason: String,
    },
    /// The parameters are not those of the spec.
    #[error("parameter `{0}` is missing")]
    ParameterMissing(String),
    /// A network of this family has no such graph, or this program does not know how to draw it.
    #[error("a {graph} graph of a `{family}` cannot be exported")]
    Family {
        /// The family of the architecture.
        family: &'static str,
        /// `forward` or `denoiser`.
        graph: &'static str,
    },
    /// log p has no gradient at an image that was tried.
    #[error("the gradient of log p is zero, so the network denoises nothing; train it")]
    NoGradient,
    /// The denoiser graph is not the gradient of the forward graph.
    #[error(
        "denoiser graph at {size}: the slope of log p along a random direction is {slope:.6e}, and \
         (denoised − noisy)/σ² along it is {found:.6e}"
    )]
    Gradient {
        /// The size of the image, as text.
        size: String,
        /// By central differences of the forward graph.
        slope: f64,
        /// By the denoiser graph.
        found: f64,
    },
    /// The graph in float16 is too far from the one in float32.
    #[error(
        "{graph} graph in float16: `{output}` is off by {error:.1e} of its norm, and at most {tolerance:.0e} is accepted; \
         this network needs float32"
    )]
    Rounding {
        /// `forward` or `denoiser`.
        graph: &'static str,
        /// Name of the output.
        output: String,
        /// ‖out − ref‖/‖ref‖, or NaN.
        error: f64,
        /// What is accepted.
        tolerance: f64,
    },
    /// Graphs cannot be written in the opset asked for.
    #[error("opset {0}: graphs are written in opsets 17 to 21")]
    Opset(i64),
}

impl Error {
    /// What went wrong.
    pub fn kind(&self) -> &ErrorKind {
        &self.0
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// It has no source: the message includes the cause's, which a report of the chain would repeat.
/// The cause itself is in the [`ErrorKind`].
impl std::error::Error for Error {}

impl<K: Into<ErrorKind>> From<K> for Error {
    fn from(kind: K) -> Self {
        Error(Box::new(kind.into()))
    }
}

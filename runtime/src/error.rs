//! One error for the whole library: a kind that a program can match on, and the file it is about.

use crate::engine::EngineKind;
use gradresnet_models::write_printable;
use std::cell::Cell;
use std::fmt;
use std::path::{Path, PathBuf};

/// Shorthand for this crate's results.
pub type Result<T> = std::result::Result<T, Error>;

/// Why something failed, and at which file.
#[derive(Debug)]
pub struct Error {
    path: Option<PathBuf>,
    kind: Box<ErrorKind>,
}

/// The reasons for a failure. Each names the cause, and the cure where there is one; [`Error`] adds
/// the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The operating system refused.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// A bundle was rejected; the message names the file.
    #[error("{0}")]
    Bundle(#[from] gradresnet_models::Error),
    /// No bundle has this name.
    #[error("no model `{name}`; {known} (looked in {searched})")]
    NoBundle {
        /// The name asked for.
        name: String,
        /// Those that are there, as text.
        known: String,
        /// The places looked in, as text.
        searched: String,
    },
    /// The folder of models that an environment variable names is not there.
    #[error("{}: {variable} names it, and it is not a folder", dir.display())]
    NoPlace {
        /// The variable.
        variable: &'static str,
        /// What it says.
        dir: std::path::PathBuf,
    },
    /// A graph is not what the graph contract says, or tries to reach outside its bundle.
    #[error("not a graph of this format: {0}")]
    Graph(String),
    /// An engine is not there, or not in a version that can be used.
    #[error("{engine} is not usable here: {reason}")]
    EngineAbsent {
        /// Which one.
        engine: EngineKind,
        /// Cause and cure.
        reason: String,
    },
    /// An engine cannot run on the device asked for.
    #[error("device {device} is not usable: {reason}")]
    Device {
        /// The device, as written on the command line.
        device: String,
        /// Cause and cure.
        reason: String,
    },
    /// An engine failed to load or run a graph.
    #[error("{engine} failed to {action} the {graph} graph: {reason}")]
    Engine {
        /// Which one.
        engine: EngineKind,
        /// `load` or `run`.
        action: &'static str,
        /// Name of the graph.
        graph: &'static str,
        /// What it said.
        reason: String,
    },
    /// The caller's arrays contradict one another or the model.
    #[error("{0}")]
    Input(String),
    /// A value is NaN or infinite.
    #[error("{0} holds a value that is not a finite number")]
    NotFinite(&'static str),
    /// An image cannot be decoded or encoded.
    #[error("{0}")]
    Image(#[from] image::ImageError),
    /// An image is larger than accepted.
    #[error("{width}×{height} pixels, and at most {limit} pixels are accepted{cure}")]
    TooLarge {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
        /// Largest number of pixels accepted.
        limit: usize,
        /// What to do about it, with its punctuation.
        cure: &'static str,
    },
    /// The model has no such class.
    #[error("no class `{name}`; {known}")]
    UnknownClass {
        /// The name asked for.
        name: String,
        /// Some that exist, as text.
        known: String,
    },
    /// The model was trained without classes.
    #[error("model `{0}` has no classes")]
    NoClasses(String),
    /// The model has no such graph.
    #[error("model `{model}` has no {graph} graph; `gradresnet info` says what it is for")]
    NoGraph {
        /// Name of the model.
        model: String,
        /// `forward` or `denoiser`.
        graph: &'static str,
    },
    /// The model does not say how probable an image is.
    #[error("model `{0}` has no energy: it does not model log p(y)")]
    NoEnergy(String),
    /// A graph's output is further from the golden values than accepted.
    #[error(
        "{graph} graph, case {case}, {size}: `{output}` is off by {error:.2e} of its norm, and at most \
         {tolerance:.0e} is accepted ({engine})"
    )]
    Golden {
        /// Name of the graph.
        graph: &'static str,
        /// Position of the case in `golden.safetensors`.
        case: usize,
        /// Its batch and size, as text.
        size: String,
        /// Name of the output.
        output: &'static str,
        /// ‖out − ref‖/‖ref‖.
        error: f64,
        /// Largest accepted.
        tolerance: f64,
        /// The engine's description.
        engine: String,
    },
}

impl Error {
    /// What went wrong.
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// The file or directory it is about.
    pub fn path(&self) -> Option<&Path> {
        let of_bundle = match &*self.kind {
            ErrorKind::Bundle(error) => error.path(),
            _ => None,
        };
        self.path.as_deref().or(of_bundle)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.path {
            write!(f, "{}: ", path.display())?;
        }
        write_printable(f, &self.kind)
    }
}

/// It has no source: the message holds that of the cause, and a report of the chain would say it twice.
/// The cause itself is in the [`ErrorKind`].
impl std::error::Error for Error {}

impl<K: Into<ErrorKind>> From<K> for Error {
    fn from(kind: K) -> Self {
        Error { path: None, kind: Box::new(kind.into()) }
    }
}

/// Names the file that an error is about, where it has none yet.
pub(crate) trait At<T> {
    fn at(self, path: &Path) -> Result<T>;
}

impl<T, E: Into<Error>> At<T> for std::result::Result<T, E> {
    fn at(self, path: &Path) -> Result<T> {
        self.map_err(|e| {
            let mut error: Error = e.into();
            if error.path().is_none() {
                error.path = Some(path.to_path_buf());
            }
            error
        })
    }
}

thread_local! {
    /// Whether a panic on this thread will be caught.
    static CATCHING: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f` and turns a panic in it into its message, so that an engine that panics on a hostile graph
/// costs one error and not the process. What `f` was building is dropped with the panic, and nothing
/// that outlives it is left half-changed: plans are immutable, and a session of ONNX Runtime returns
/// before it is unlocked.
pub(crate) fn catch_panic<T>(f: impl FnOnce() -> T) -> std::result::Result<T, String> {
    let outer = CATCHING.replace(true);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
    CATCHING.set(outer);
    result.map_err(|payload| {
        let text = payload
            .downcast_ref::<&str>()
            .map(|s| (*s).to_string())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "no message".into());
        format!("it panicked: {text}")
    })
}

/// Keeps panics that this library turns into errors from being printed as well. It wraps the process's
/// panic hook, so it is for programs, and to be called once.
pub fn silence_caught_panics() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !CATCHING.get() {
            print(info);
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_its_message() {
        assert_eq!(catch_panic(|| 1), Ok(1));
        assert!(catch_panic(|| panic!("no such axis")).unwrap_err().contains("no such axis"));
    }

    /// A message reaches a terminal, which obeys escape sequences.
    #[test]
    fn a_message_holds_no_control_character_of_a_graph() {
        let message = Error::from(ErrorKind::Graph("`\u{1b}[2J` is not an input".into())).to_string();
        assert!(message.contains("[2J") && !message.contains(char::is_control), "{message:?}");
    }
}

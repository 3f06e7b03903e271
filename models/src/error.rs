//! One error for the whole crate: a kind that a program can match on, and the file it is about.

use std::fmt::{self, Write};
use std::path::{Path, PathBuf};

/// Shorthand for this crate's results.
pub type Result<T> = std::result::Result<T, Error>;

/// Why something was rejected, and in which file.
#[derive(Debug)]
pub struct Error {
    path: Option<PathBuf>,
    kind: ErrorKind,
}

/// The reasons for a rejection. Each names what is wrong; [`Error`] adds the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The operating system refused.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// A directory lacks a file that its format requires.
    #[error("the file is missing")]
    Missing,
    /// The folder of a training run, which holds a checkpoint and is none.
    #[error("this is the folder of a run; its checkpoint is the folder `{0}` in it")]
    Run(&'static str),
    /// A bundle exported without its parameters is not a checkpoint.
    #[error(
        "this bundle has no parameters beside its graphs; export its checkpoint again, or give the checkpoint"
    )]
    NoParameters,
    /// A file is larger than anything this format holds.
    #[error("{size} bytes, and at most {limit} are accepted")]
    TooLarge {
        /// Size found.
        size: u64,
        /// Largest size accepted.
        limit: u64,
    },
    /// Not JSON, or JSON of another shape.
    #[error("not a valid spec: {0}")]
    Json(#[from] serde_json::Error),
    /// Written by a newer version of this format.
    #[error("format {found}, and this program reads format {known}")]
    Format {
        /// The `format` field found.
        found: u32,
        /// The one this crate reads.
        known: u32,
    },
    /// A field of the spec is out of range or contradicts another.
    #[error("field `{field}`: {reason}")]
    Field {
        /// Dotted path of the field, for instance `architecture.width`.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A tensor that the spec requires is absent.
    #[error("tensor `{0}` is missing")]
    TensorMissing(String),
    /// A tensor that the spec does not know.
    #[error("tensor `{0}` is not part of this architecture")]
    TensorUnknown(String),
    /// A tensor has another shape than the spec implies.
    #[error("tensor `{name}` has shape {found:?}, and the spec requires {expected:?}")]
    TensorShape {
        /// Its name.
        name: String,
        /// Shape in the file.
        found: Vec<usize>,
        /// Shape that the spec implies.
        expected: Vec<usize>,
    },
    /// A tensor has an element type that does not belong there.
    #[error("tensor `{name}` has element type {found}, and {expected} is required")]
    TensorType {
        /// Its name.
        name: String,
        /// Element type in the file.
        found: String,
        /// Element type required.
        expected: &'static str,
    },
    /// A tensor holds NaN or infinity.
    #[error("tensor `{0}` holds a value that is not finite")]
    NotFinite(String),
    /// A running variance is below zero: its square root would not be a number.
    #[error("tensor `{0}` holds a variance below zero")]
    NegativeVariance(String),
    /// Not a safetensors file.
    #[error("not a valid safetensors file: {0}")]
    Safetensors(String),
    /// A file named in the spec is not one that a bundle may hold.
    #[error("`{0}` is not a file that a bundle may hold")]
    FileName(String),
    /// A file is not a plain file inside its directory.
    #[error("not a regular file; links and folders are refused")]
    NotRegular,
    /// A file's SHA-256 is not the one in the spec.
    #[error(
        "its SHA-256 is {found}, and spec.json says {expected}: the file was changed or damaged; copy or export the bundle again"
    )]
    Digest {
        /// Digest of the file.
        found: String,
        /// Digest in `spec.json`.
        expected: String,
    },
    /// The place to write to is taken.
    #[error("exists already; remove it, or replace it with --overwrite")]
    Exists,
    /// The folder to be replaced holds this, which no bundle does.
    #[error(
        "holds `{0}`, which is not part of a bundle and would be deleted; move it or choose another folder"
    )]
    NotABundle(String),
    /// The golden values contradict the spec or themselves.
    #[error("golden values: {0}")]
    Golden(String),
}

impl Error {
    /// What went wrong.
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// The file or directory it is about.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
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

/// Writes a message with its control characters escaped: names in an untrusted file may hold escape
/// sequences, which a terminal would obey.
///
/// # Errors
/// Those of the formatter.
pub fn write_printable(f: &mut fmt::Formatter<'_>, message: &impl fmt::Display) -> fmt::Result {
    message.to_string().chars().try_for_each(|c| match c {
        c if c.is_control() => write!(f, "{}", c.escape_default()),
        c => f.write_char(c),
    })
}

/// It has no source: the message includes the cause's, which a report of the chain would repeat.
/// The cause itself is in the [`ErrorKind`].
impl std::error::Error for Error {}

impl<K: Into<ErrorKind>> From<K> for Error {
    fn from(kind: K) -> Self {
        Error { path: None, kind: kind.into() }
    }
}

/// Names the file that an error is about, unless it names one.
pub(crate) trait At<T> {
    fn at(self, path: &Path) -> Result<T>;
}

impl<T, E: Into<Error>> At<T> for std::result::Result<T, E> {
    fn at(self, path: &Path) -> Result<T> {
        self.map_err(|e| {
            let mut error: Error = e.into();
            if matches!(&error.kind, ErrorKind::Io(e) if e.kind() == std::io::ErrorKind::NotFound) {
                error.kind = ErrorKind::Missing;
            }
            error.path.get_or_insert_with(|| path.to_path_buf());
            error
        })
    }
}

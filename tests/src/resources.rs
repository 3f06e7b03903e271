//! What some tests need from outside the repository, and the line that reports its absence.

use std::io::Write;
use std::path::PathBuf;

/// The path in an environment variable. If it is unset, says on stderr that `test` is skipped (a line that
/// is not captured, for a skip must be seen) and returns `None`.
pub fn path(variable: &str, test: &str) -> Option<PathBuf> {
    let value = std::env::var_os(variable).filter(|v| !v.is_empty());
    if value.is_none() {
        // If stderr is closed, nothing can be done.
        let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {variable} is not set");
    }
    value.map(PathBuf::from)
}

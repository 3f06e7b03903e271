//! What some tests need from outside the repository, and the line that says so where it is not there.

use std::io::Write;
use std::path::PathBuf;

/// The path in an environment variable. Where it is unset, says on stderr that `test` is skipped (past
/// the capture of passing tests' output: a skip must be seen) and returns `None`.
pub fn path(variable: &str, test: &str) -> Option<PathBuf> {
    let value = std::env::var_os(variable).filter(|v| !v.is_empty());
    if value.is_none() {
        // Nothing is left to do if stderr is closed.
        let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {variable} is not set");
    }
    value.map(PathBuf::from)
}

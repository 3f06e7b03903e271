//! What people and programs are told: results on stdout, messages on stderr.

use std::fmt::Display;
use std::io::{ErrorKind, Write};

/// What a shell reports of a program that writes to a reader that has gone away.
const BROKEN_PIPE_STATUS: i32 = 141;

/// A result, on stdout. If it cannot be written, the program ends: quietly if the reader has gone away (`| head`).
pub fn line(text: impl Display) {
    if let Err(error) = writeln!(std::io::stdout(), "{text}") {
        if error.kind() == ErrorKind::BrokenPipe {
            std::process::exit(BROKEN_PIPE_STATUS);
        }
        note(format_args!("error: standard output: {error}"));
        std::process::exit(1);
    }
}

/// A message, on stderr. If nobody can read it any more, the work goes on.
pub fn note(text: impl Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

//! What people see while a command works, and how it ends.

use gradresnet_models::write_printable;
use indicatif::{ProgressBar, ProgressStyle};
use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// How a command that could start ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was done.
    Done,
    /// At least one input, or the report, failed and was named on stderr.
    SomeFailed,
    /// Every input failed, and was named on stderr.
    AllFailed,
    /// The user stopped the work before it was done.
    Interrupted,
}

/// What a shell reports of a program that writes to a reader that has gone away.
const BROKEN_PIPE_STATUS: i32 = 141;

/// A line of the result for people, on stdout, with control characters escaped; it ends the program as [`verbatim`] does.
pub fn line(text: impl Display) {
    verbatim(Printable(text));
}

/// A line of JSON, which escapes control characters in its own way, or of a generated script, on stdout. If it cannot be
/// written, the program ends, since what follows could not be either: quietly if the reader has gone away (`| head`).
pub fn verbatim(text: impl Display) {
    if let Err(error) = writeln!(std::io::stdout(), "{text}") {
        if error.kind() == ErrorKind::BrokenPipe {
            std::process::exit(BROKEN_PIPE_STATUS);
        }
        self::error(&anyhow::Error::from(error).context("standard output"));
        std::process::exit(1);
    }
}

/// A message, on stderr. If nobody can read it any more, the work goes on.
pub fn note(text: impl Display) {
    let _ = writeln!(std::io::stderr(), "{}", Printable(text));
}

/// An error, on stderr.
pub fn error(error: &anyhow::Error) {
    note(format_args!("error: {error:#}"));
}

/// A text whose control characters are escaped: names of files may hold escape sequences, which a terminal would obey,
/// or a line's end.
struct Printable<T>(T);

impl<T: Display> Display for Printable<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write_printable(f, &self.0)
    }
}

/// Progress over a number of inputs: a bar on a terminal, and elsewhere nothing but messages.
pub struct Console {
    inputs: usize,
    bar: ProgressBar,
    quiet: bool,
    failed: AtomicUsize,
    failed_beside: AtomicBool,
}

impl Console {
    /// `quiet` leaves errors only.
    pub fn new(inputs: usize, quiet: bool) -> Console {
        let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(inputs as u64) };
        // The template is a literal that the tests run through; without it the bar has its default look.
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {per_sec}, {eta} left") {
            bar.set_style(style);
        }
        Console { inputs, bar, quiet, failed: AtomicUsize::new(0), failed_beside: AtomicBool::new(false) }
    }

    /// One more input is done.
    pub fn advance(&self) {
        self.bar.inc(1);
    }

    /// Says something to people: above the bar on a terminal, a plain line on stderr elsewhere.
    pub fn say(&self, text: impl Display) {
        if !self.quiet {
            self.bar.suspend(|| note(text));
        }
    }

    /// As [`line`], with the bar out of its way.
    pub fn line(&self, text: impl Display) {
        self.bar.suspend(|| line(text));
    }

    /// As [`verbatim`], with the bar out of its way.
    pub fn verbatim(&self, text: impl Display) {
        self.bar.suspend(|| verbatim(text));
    }

    /// Says what happened to a file, where there is no bar to show it.
    pub fn log(&self, text: impl Display) {
        if self.bar.is_hidden() {
            self.say(text);
        }
    }

    /// Names an input that failed, and goes on.
    pub fn fail(&self, error: &anyhow::Error) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.bar.suspend(|| self::error(error));
    }

    /// Reports the first failure that is not an input's.
    pub fn fail_beside(&self, error: &anyhow::Error) {
        if !self.failed_beside.swap(true, Ordering::Relaxed) {
            self.bar.suspend(|| self::error(error));
        }
    }

    /// Takes the bar away and says how it went.
    pub fn finish(self) -> Outcome {
        self.finish_or("--skip-existing resumes")
    }

    /// As [`Console::finish`]; after an interruption it says how the run `goes_on`.
    pub fn finish_or(self, goes_on: impl Display) -> Outcome {
        // Before the bar is moved to its end.
        let done = self.bar.position();
        self.bar.finish_and_clear();
        if super::workers::interrupted() {
            let inputs = self.inputs;
            note(format_args!("interrupted: {done} of {inputs} inputs were done; {goes_on}"));
            return Outcome::Interrupted;
        }
        match self.failed.into_inner() {
            0 if self.failed_beside.into_inner() => Outcome::SomeFailed,
            0 => Outcome::Done,
            failed if failed >= self.inputs => Outcome::AllFailed,
            _ => Outcome::SomeFailed,
        }
    }
}

/// `count` images, in words.
pub fn images(count: usize) -> String {
    if count == 1 { "1 image".into() } else { format!("{count} images") }
}

/// Adds the file's name to an error that does not begin with it.
pub fn about(path: &Path, error: impl Into<anyhow::Error>) -> anyhow::Error {
    let error = error.into();
    let name = path.display().to_string();
    // Or that of a file in it.
    let text = error.to_string();
    let named = text.strip_prefix(&name).is_some_and(|rest| rest.starts_with([':', '/', '\\']));
    if named { error } else { error.context(name) }
}

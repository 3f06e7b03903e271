//! What people see while a command works, and how it ends.

use indicatif::{ProgressBar, ProgressStyle};
use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// How a command ended that was able to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was done.
    Done,
    /// At least one input failed, or the report, and was named on stderr.
    SomeFailed,
    /// Every input failed, and was named on stderr.
    AllFailed,
    /// The user stopped the work before it was done.
    Interrupted,
}

/// A line of the result, on stdout. A reader that has gone away (`| head`) is no failure; a full disk is
/// one, and ends the program: what follows could not be written either.
pub fn line(text: impl Display) {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("error: standard output: {error}");
            std::process::exit(1);
        }
        _ => {}
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
            self.bar.suspend(|| eprintln!("{text}"));
        }
    }

    /// A line of the result, on stdout, with the bar out of its way.
    pub fn line(&self, text: impl Display) {
        self.bar.suspend(|| line(text));
    }

    /// Names what happened to each file where there is no bar to show it.
    pub fn log(&self, text: impl Display) {
        if self.bar.is_hidden() {
            self.say(text);
        }
    }

    /// Names an input that failed, and goes on.
    pub fn fail(&self, error: &anyhow::Error) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.bar.suspend(|| eprintln!("error: {error:#}"));
    }

    /// Says what failed that is no input, the first time.
    pub fn fail_beside(&self, error: &anyhow::Error) {
        if !self.failed_beside.swap(true, Ordering::Relaxed) {
            self.bar.suspend(|| eprintln!("error: {error:#}"));
        }
    }

    /// Takes the bar away and says how it went.
    pub fn finish(self) -> Outcome {
        self.finish_or("--skip-existing goes on")
    }

    /// Takes the bar away and says how it went, and of an interrupted run how it `goes_on`.
    pub fn finish_or(self, goes_on: impl Display) -> Outcome {
        self.bar.finish_and_clear();
        if super::workers::interrupted() {
            let done = self.bar.position();
            eprintln!("interrupted: {done} of {} inputs were done; {goes_on}", self.inputs);
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

/// So many images, in words.
pub fn images(count: usize) -> String {
    if count == 1 { "1 image".into() } else { format!("{count} images") }
}

/// An error with the file it is about, unless it names it already.
pub fn about(path: &Path, error: impl Into<anyhow::Error>) -> anyhow::Error {
    let error = error.into();
    let name = path.display().to_string();
    // Or a file in it.
    let text = error.to_string();
    let named = text.strip_prefix(&name).is_some_and(|rest| rest.starts_with([':', '/', '\\']));
    if named { error } else { error.context(name) }
}

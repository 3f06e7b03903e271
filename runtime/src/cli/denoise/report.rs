//! The report: a line of JSON for every file.

use super::args::Args;
use crate::cli::inputs::{ExistingArgs, Failure, Job};
use anyhow::{Context, Result, anyhow};
use serde::Serialize;
use std::borrow::Cow;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// A line of the report.
#[derive(Serialize)]
pub struct Record<'a> {
    path: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub skipped: bool,
    #[serde(flatten)]
    pub done: Option<Done>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl<'a> Record<'a> {
    /// That of an image of which nothing is known yet.
    pub fn of(job: &'a Job) -> Record<'a> {
        let (path, output) = (job.input.path.to_string_lossy(), Some(job.output.to_string_lossy()));
        Record { path, output, skipped: false, done: None, seconds: None, error: None }
    }
}

/// What is told of an image that was denoised.
#[derive(Clone, Copy, Serialize)]
pub struct Done {
    pub height: usize,
    pub width: usize,
    /// In 8-bit units, without the strength.
    pub sigma: f32,
    /// Whether that is an estimate beyond what the model was trained for.
    #[serde(skip)]
    pub beyond: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psnr: Option<f64>,
}

/// Lines are written as files are done, so that an interrupted run leaves a record.
pub struct Report {
    path: PathBuf,
    file: Mutex<File>,
}

impl Report {
    /// The report that was asked for. A resumed run appends to the lines of the one before; any other replaces no
    /// file unasked.
    pub fn create(args: &Args) -> Result<Option<Report>> {
        let Some(path) = args.report.as_deref() else { return Ok(None) };
        let mut options = File::options();
        if args.existing.skip_existing {
            options.append(true).create(true);
        } else if args.existing.overwrite {
            options.write(true).create(true).truncate(true);
        } else {
            options.write(true).create_new(true);
        }
        let unwritable = |error| anyhow!("{}: cannot be written: {error}", path.display());
        // It may lie in the output folder, which is made if missing.
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(unwritable)?;
        }
        let file = options.open(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => would_replace(path, args.in_place),
            _ => unwritable(error),
        })?;
        Ok(Some(Report { path: path.to_path_buf(), file: Mutex::new(file) }))
    }

    /// The error of [`Report::create`] if a file is in the way; creates nothing.
    pub fn may_be_created(args: &Args) -> Result<()> {
        let ExistingArgs { overwrite, skip_existing } = args.existing;
        match args.report.as_deref().filter(|path| path.symlink_metadata().is_ok()) {
            Some(path) if !overwrite && !skip_existing => Err(would_replace(path, args.in_place)),
            _ => Ok(()),
        }
    }

    pub fn add(&self, record: &Record) -> Result<()> {
        let line = serde_json::to_string(record)? + "\n";
        // A line is written whole or not at all; a thread that panicked has not left half of one.
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(line.as_bytes()).with_context(|| format!("{}: cannot be written", self.path.display()))
    }

    /// Adds what is known before the start.
    pub fn add_placed(&self, failures: &[&Failure], skipped: &[Job]) -> Result<()> {
        for failure in failures {
            self.add(&Record {
                path: failure.path.to_string_lossy(),
                output: None,
                skipped: false,
                done: None,
                seconds: None,
                error: Some(format!("{:#}", failure.error)),
            })?;
        }
        skipped.iter().try_for_each(|job| self.add(&Record { skipped: true, ..Record::of(job) }))
    }
}

fn would_replace(path: &Path, in_place: bool) -> anyhow::Error {
    // With --in-place there is neither option.
    let cure = if in_place { "name another" } else { "--overwrite replaces it, --skip-existing adds to it" };
    anyhow!("{}: exists; {cure}", path.display())
}

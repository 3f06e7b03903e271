//! Which files the arguments name, and where their outputs go.

use super::console::Console;
use anyhow::{Result, anyhow, bail};
use gradresnet::EXTENSIONS;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use walkdir::{DirEntry, WalkDir};

/// Files and folders to work on.
#[derive(clap::Args)]
pub struct InputArgs {
    /// Images, and folders of images (PNG, JPEG, TIFF)
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Look into the folders' subfolders too
    #[arg(long, short)]
    pub recursive: bool,
}

/// A file to work on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// Where it is.
    pub path: PathBuf,
    /// Its path below the folder that was named; of a file that was named, its name.
    pub relative: PathBuf,
}

/// What the arguments name, and what of it is not there.
pub struct Found {
    /// In the order of the arguments, sorted within a folder.
    pub inputs: Vec<Input>,
    /// Why an argument yields nothing.
    pub failures: Vec<anyhow::Error>,
}

impl Found {
    /// The console for this work, on which what is not there has been said.
    pub fn console(&self, quiet: bool) -> Console {
        let console = Console::new(self.inputs.len() + self.failures.len(), quiet);
        for error in &self.failures {
            console.fail(error);
            console.advance();
        }
        console
    }
}

impl InputArgs {
    /// Looks at the file system. What lies below `output` is left out: it is what earlier runs wrote.
    pub fn find(&self, output: Option<&Path>) -> Found {
        let output = output.and_then(|path| path.canonicalize().ok());
        let mut found = Found { inputs: Vec::new(), failures: Vec::new() };
        for path in &self.paths {
            match std::fs::metadata(path) {
                Err(error) => found.failures.push(anyhow!(error).context(path.display().to_string())),
                Ok(metadata) if metadata.is_dir() => self.folder(path, output.as_deref(), &mut found),
                Ok(_) => {
                    let relative = path.file_name().map_or_else(|| path.clone(), PathBuf::from);
                    found.inputs.push(Input { path: path.clone(), relative });
                }
            }
        }
        found
    }

    fn folder(&self, folder: &Path, output: Option<&Path>, found: &mut Found) {
        let before = found.inputs.len() + found.failures.len();
        let depth = if self.recursive { usize::MAX } else { 1 };
        // Links to folders are not followed: they may lead in a circle.
        let walk = WalkDir::new(folder).min_depth(1).max_depth(depth).sort_by_file_name().into_iter();
        let is_work = |entry: &DirEntry| {
            let is_output = || entry.path().canonicalize().is_ok_and(|path| Some(path.as_path()) == output);
            !(is_hidden(entry.path()) || entry.file_type().is_dir() && is_output())
        };
        for entry in walk.filter_entry(|entry| entry.depth() == 0 || is_work(entry)) {
            match entry {
                Err(error) => found.failures.push(error.into()),
                Ok(entry) => {
                    let path = entry.path();
                    if path.is_file() && is_image(path) {
                        let relative = path.strip_prefix(folder).unwrap_or(path).to_path_buf();
                        found.inputs.push(Input { path: path.to_path_buf(), relative });
                    }
                }
            }
        }
        if found.inputs.len() + found.failures.len() == before {
            let deeper = if self.recursive { "" } else { "; --recursive looks into subfolders" };
            let (folder, kinds) = (folder.display(), EXTENSIONS.join(", "));
            found.failures.push(anyhow!("{folder}: no image ({kinds}) in it{deeper}"));
        }
    }
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    EXTENSIONS.contains(&extension.as_str())
}

/// Half-written outputs and what file managers leave have names that start with a dot.
fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
}

/// What to do with an output that exists.
#[derive(clap::Args)]
pub struct ExistingArgs {
    /// Leave outputs that exist as they are
    #[arg(long)]
    pub skip_existing: bool,
    /// Replace outputs that exist
    #[arg(long, conflicts_with = "skip_existing")]
    pub overwrite: bool,
}

/// An input with the place of its output.
pub struct Job {
    /// What is read.
    pub input: Input,
    /// What is written.
    pub output: PathBuf,
}

/// Places the outputs of `inputs` below `folder`, with another extension if one is given, and settles
/// what is to be done with those that exist: left out, replaced, or named as failures.
///
/// # Errors
/// If two inputs have one output: before anything is written.
pub fn place(
    inputs: Vec<Input>,
    folder: &Path,
    extension: Option<&str>,
    existing: &ExistingArgs,
    console: &Console,
) -> Result<Vec<Job>> {
    let mut taken: HashMap<PathBuf, PathBuf> = HashMap::new();
    let mut jobs = Vec::new();
    for input in inputs {
        let mut output = folder.join(&input.relative);
        if let Some(extension) = extension {
            output.set_extension(extension);
        }
        if let Some(other) = taken.insert(output.clone(), input.path.clone()) {
            bail!(
                "{} and {} would both be written to {}; run them one after the other with different -o",
                other.display(),
                input.path.display(),
                output.display()
            );
        }
        jobs.push(Job { input, output });
    }
    jobs.retain(|job| {
        if existing.overwrite || !job.output.exists() {
            return true;
        }
        if !existing.skip_existing {
            let output = job.output.display();
            console.fail(&anyhow!(
                "{output}: exists; use --overwrite to replace it or --skip-existing to keep it"
            ));
        }
        console.advance();
        false
    });
    Ok(jobs)
}

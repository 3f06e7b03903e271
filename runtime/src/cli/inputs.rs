//! Which files the arguments name, and where their outputs go.

use super::console::Console;
use anyhow::{Error, Result, anyhow, bail, ensure};
use gradresnet::{Encoding, Picture};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Component, Path, PathBuf};
use walkdir::{DirEntry, WalkDir};

/// Files and folders to work on.
#[derive(clap::Args)]
pub struct InputArgs {
    /// Images, folders of images, and patterns (`shots/*.jpg`, `**/raw/*.tif`)
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Include subfolders
    #[arg(long, short)]
    pub recursive: bool,
}

/// A file to work on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// Where it is.
    pub path: PathBuf,
    /// Its path below the named folder; for a file that was named itself, its name.
    pub relative: PathBuf,
}

/// Something that was named and cannot be worked on.
pub struct Failure {
    pub path: PathBuf,
    pub error: Error,
}

/// What the arguments name, and what of it is unusable.
#[derive(Default)]
pub struct Found {
    /// In the order of the arguments, sorted within a folder.
    pub inputs: Vec<Input>,
    /// Arguments that yield nothing, and folders that cannot be read.
    pub failures: Vec<Failure>,
    /// Files in folders whose names are not those of images, counted by extension.
    pub left_out: BTreeMap<String, usize>,
}

impl Found {
    /// The console for this work, on which failures have been reported.
    pub fn console(&self, quiet: bool) -> Console {
        let console = Console::new(self.inputs.len() + self.failures.len(), quiet);
        for failure in &self.failures {
            console.fail(&failure.error);
            console.advance();
        }
        if !self.left_out.is_empty() {
            let counts: Vec<String> =
                self.left_out.iter().map(|(ending, count)| format!("{count} {ending}")).collect();
            console.say(format!("left out by their names: {}", counts.join(", ")));
        }
        console
    }

    /// A folder that cannot be read: the one that was named, or one below it.
    fn unwalkable(&mut self, named: &Path, error: walkdir::Error) {
        let path = error.path().unwrap_or(named).to_path_buf();
        // Its own text would repeat the cause.
        let cause = error.io_error().map_or_else(|| error.to_string(), ToString::to_string);
        self.failed(&path, anyhow!("{}: {cause}", path.display()));
    }

    fn failed(&mut self, path: &Path, error: Error) {
        self.failures.push(Failure { path: path.to_path_buf(), error });
    }
}

impl InputArgs {
    /// Searches the file system, leaving out what lies below `output`: earlier runs wrote it.
    pub fn find(&self, output: Option<&Path>) -> Found {
        let output = output.and_then(|path| path.canonicalize().ok());
        let mut found = Found::default();
        for path in &self.paths {
            match std::fs::metadata(path) {
                Ok(metadata) if metadata.is_dir() => self.folder(path, output.as_deref(), &mut found),
                Ok(_) => found.inputs.push(Input { path: path.clone(), relative: file_name(path) }),
                // A file may have such a name; one that does not exist is a pattern.
                Err(_) if is_pattern(path) => self.pattern(path, output.as_deref(), &mut found),
                Err(error) => {
                    found.failed(path, anyhow!(error).context(path.display().to_string()));
                }
            }
        }
        found
    }

    /// Matching files keep their path from the first part with a wildcard on.
    fn pattern(&self, pattern: &Path, output: Option<&Path>, found: &mut Found) {
        let text = pattern.display();
        let parts: Vec<Component> = pattern.components().filter(|part| *part != Component::CurDir).collect();
        let is_fixed =
            |part: &&Component| matches!(part, Component::Prefix(_)) || !is_pattern(Path::new(part));
        let fixed = parts.iter().take_while(is_fixed).count();
        let (base, rest) = parts.split_at(fixed);
        let (base, below): (PathBuf, PathBuf) = (base.iter().collect(), rest.iter().collect());
        if rest.contains(&Component::ParentDir) {
            return found.failed(pattern, anyhow!("{text}: `..` after a wildcard is not understood"));
        }
        let compile = |part: &Path| glob::Pattern::new(&part.to_string_lossy());
        // Folders that the first parts do not match are not entered.
        let first = rest.iter().take_while(|part| part.as_os_str() != "**");
        let first: Result<Vec<glob::Pattern>, _> = first.map(|part| compile(Path::new(part))).collect();
        let (matcher, first) = match compile(&below).and_then(|matcher| Ok((matcher, first?))) {
            Ok(compiled) => compiled,
            Err(error) => return found.failed(pattern, anyhow!("{text}: not a pattern: {error}")),
        };
        // A pattern that begins below the output asks for what is there.
        let output = output.filter(|output| !resolved(&base).starts_with(output));
        let any_depth = rest.iter().any(|part| part.as_os_str() == "**");
        let depth = if any_depth { usize::MAX } else { rest.len() };
        let hidden = rest.iter().any(|part| is_hidden(Path::new(part)));
        let root = if base.as_os_str().is_empty() { Path::new(".") } else { &base };
        let before = found.inputs.len() + found.failures.len();
        for entry in walk(root, depth, hidden, output, first) {
            match entry {
                Ok(entry) => {
                    let relative = entry.path().strip_prefix(root).unwrap_or(entry.path()).to_path_buf();
                    if is_image(&relative)
                        && matcher.matches_with(&relative.to_string_lossy(), MATCHING)
                        && !entry.path().is_dir()
                    {
                        found.inputs.push(Input { path: base.join(&relative), relative });
                    }
                }
                // Of a folder that is not there, it is said below that nothing matches.
                Err(error) if is_missing(&error) => {}
                Err(error) => found.unwalkable(root, error),
            }
        }
        if found.inputs.len() + found.failures.len() == before {
            found.failed(pattern, anyhow!("{text}: no image ({}) matches", gradresnet::names()));
        }
    }

    fn folder(&self, folder: &Path, output: Option<&Path>, found: &mut Found) {
        let before = found.inputs.len() + found.failures.len();
        let depth = if self.recursive { usize::MAX } else { 1 };
        for entry in walk(folder, depth, false, output, Vec::new()) {
            match entry {
                Err(error) => found.unwalkable(folder, error),
                Ok(entry) => {
                    let path = entry.path();
                    if is_image(path) && !path.is_dir() {
                        let relative = path.strip_prefix(folder).unwrap_or(path).to_path_buf();
                        found.inputs.push(Input { path: path.to_path_buf(), relative });
                    } else if entry.file_type().is_file() {
                        let ending = path.extension().map(|e| format!(".{}", e.display()));
                        *found.left_out.entry(ending.unwrap_or("without ending".into())).or_default() += 1;
                    }
                }
            }
        }
        if found.inputs.len() + found.failures.len() == before {
            let deeper = if self.recursive { "" } else { "; --recursive looks into subfolders" };
            let error = anyhow!("{}: no image ({}) in it{deeper}", folder.display(), gradresnet::names());
            found.failed(folder, error);
        }
    }
}

/// How patterns match: names that begin with a dot only by one, and folders only one by one. What is not text in a name is
/// one character, as it is shown.
const MATCHING: glob::MatchOptions = glob::MatchOptions {
    case_sensitive: true,
    require_literal_leading_dot: true,
    require_literal_separator: true,
};

fn is_missing(error: &walkdir::Error) -> bool {
    error.depth() == 0 && error.io_error().is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

/// What lies below a folder, in order, without hidden files unless they are asked for, and without the output folder.
/// Entries of the first depths must match `first`.
fn walk(
    folder: &Path,
    depth: usize,
    hidden: bool,
    output: Option<&Path>,
    first: Vec<glob::Pattern>,
) -> impl Iterator<Item = walkdir::Result<DirEntry>> {
    // Links to folders are not followed: they may lead in a circle.
    let walk = WalkDir::new(folder).min_depth(1).max_depth(depth).sort_by_file_name().into_iter();
    let output = output.map(Path::to_path_buf);
    walk.filter_entry(move |entry| {
        let is_output = || entry.path().canonicalize().is_ok_and(|path| Some(path) == output);
        let Some(above) = entry.depth().checked_sub(1) else { return true };
        let name = entry.file_name().to_string_lossy();
        let matches = |part: &glob::Pattern| part.matches_with(&name, MATCHING);
        first.get(above).is_none_or(matches)
            && (hidden || !is_hidden(entry.path()))
            && !(entry.file_type().is_dir() && is_output())
    })
}

fn file_name(path: &Path) -> PathBuf {
    path.file_name().map_or_else(|| path.to_path_buf(), PathBuf::from)
}

/// What a path will mean once its folders exist: those yet to be made will not be links.
pub fn resolved(path: &Path) -> PathBuf {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    path.canonicalize().unwrap_or_else(|_| {
        let mut parts = path.components();
        match parts.next_back() {
            Some(Component::Normal(name)) => resolved(parts.as_path()).join(name),
            Some(Component::ParentDir) => {
                let mut folder = resolved(parts.as_path());
                folder.pop();
                folder
            }
            _ => path.to_path_buf(),
        }
    })
}

fn is_pattern(path: &Path) -> bool {
    path.to_string_lossy().contains(['*', '?', '['])
}

pub fn is_image(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    gradresnet::extensions().any(|known| known == extension)
}

/// Half-written outputs and what file managers leave have names that start with a dot.
fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
}

/// What to do with an output that exists.
#[derive(clap::Args, Clone, Copy)]
pub struct ExistingArgs {
    /// Keep existing outputs: resumes an interrupted run
    #[arg(long)]
    pub skip_existing: bool,
    /// Replace existing outputs
    #[arg(long, conflicts_with = "skip_existing")]
    pub overwrite: bool,
}

impl ExistingArgs {
    /// Writes an output; one that exists is replaced only with `overwrite`.
    ///
    /// # Errors
    /// If it cannot be written, or may not be replaced.
    pub fn write(&self, picture: &Picture, output: &Path, encoding: &Encoding) -> Result<()> {
        let write = if self.overwrite { Picture::write } else { Picture::write_new };
        Ok(write(picture, output, encoding)?)
    }
}

/// Where outputs go.
pub enum Target<'a> {
    /// Below a folder, with another extension if one is given.
    Folder(&'a Path, Option<&'a str>),
    /// In the place of the inputs.
    InPlace,
}

/// An input with the place of its output.
pub struct Job {
    /// What is read.
    pub input: Input,
    /// What is written.
    pub output: PathBuf,
    /// What to do if it exists.
    existing: ExistingArgs,
}

impl Job {
    /// Whether another process has been faster, and its output is to be kept.
    pub fn is_done(&self) -> bool {
        self.existing.skip_existing && self.output.exists()
    }

    /// Writes the output, and makes its folder if missing. Returns false if [`Job::is_done`] instead.
    ///
    /// # Errors
    /// If either fails, or the output exists and may not be replaced.
    pub fn write(&self, picture: &Picture, encoding: &Encoding) -> Result<bool> {
        match self.existing.write(picture, &self.output, encoding) {
            Err(_) if self.is_done() => Ok(false),
            result => result.map(|()| true),
        }
    }
}

/// What is to be done.
#[derive(Default)]
pub struct Placed {
    /// In the order of the inputs.
    pub jobs: Vec<Job>,
    /// Outputs that are there already and are to be left alone.
    pub skipped: Vec<Job>,
    /// Outputs that are there already, which is an error.
    pub failures: Vec<Failure>,
    /// How many inputs were named before.
    repeated: usize,
}

/// Places the outputs of `inputs`, and settles what is to be done with those that exist.
///
/// # Errors
/// If two inputs have one output, or an output would replace an input that was not meant to be changed;
/// nothing has been written then.
pub fn place(inputs: Vec<Input>, target: &Target, existing: ExistingArgs) -> Result<Placed> {
    if let Target::Folder(folder, _) = target {
        ensure!(
            folder.exists() || !is_image(folder),
            "{}: -o names a folder, and this looks like a file; leave its name out, or make the folder first",
            folder.display()
        );
        ensure!(
            folder.is_dir() || !folder.exists(),
            "{}: -o must name a folder, and this is a file",
            folder.display()
        );
    }
    let sources: HashSet<PathBuf> =
        inputs.iter().filter_map(|input| input.path.canonicalize().ok()).collect();
    let mut taken: HashMap<PathBuf, PathBuf> = HashMap::new();
    let mut placed = Placed::default();
    for input in inputs {
        let output = match target {
            // For a link, the file that it points to.
            Target::InPlace if input.path.is_symlink() => resolved(&input.path),
            Target::InPlace => input.path.clone(),
            Target::Folder(folder, extension) => {
                let output = folder.join(&input.relative);
                extension.map_or(output.clone(), |extension| output.with_extension(extension))
            }
        };
        let folder = matches!(target, Target::Folder(..));
        let file = resolved(&output);
        if let Some(other) = taken.insert(file.clone(), input.path.clone()) {
            // Named twice, or by two patterns.
            if folder && resolved(&other) == resolved(&input.path) {
                placed.repeated += 1;
                continue;
            }
            let (one, other, output) = (other.display(), input.path.display(), output.display());
            if !folder {
                bail!("{one} and {other} are the same file, which would be changed twice; name it once");
            }
            bail!(
                "{one} and {other} would both be written to {output}; run them one after the other with different -o"
            );
        }
        if folder && sources.contains(&file) {
            bail!("{} is one of the inputs; name another folder with -o", output.display());
        }
        let existing = ExistingArgs { overwrite: !folder || existing.overwrite, ..existing };
        let job = Job { input, output, existing };
        if existing.overwrite || !file.exists() {
            placed.jobs.push(job);
        } else if existing.skip_existing {
            placed.skipped.push(job);
        } else {
            let output = job.output.display();
            let error =
                anyhow!("{output}: exists; use --overwrite to replace it or --skip-existing to keep it");
            placed.failures.push(Failure { path: job.input.path, error });
        }
    }
    Ok(placed)
}

impl Placed {
    /// Says what will not be done.
    pub fn say(&self, console: &Console) {
        for failure in &self.failures {
            console.fail(&failure.error);
            console.advance();
        }
        (0..self.skipped.len() + self.repeated).for_each(|_| console.advance());
        if !self.skipped.is_empty() {
            console.say(format!("existing outputs kept: {}", self.skipped.len()));
        }
    }

    /// Finds out before the work whether anything can be written where the outputs go.
    ///
    /// # Errors
    /// If no folder takes a file.
    pub fn check(jobs: &[Job]) -> Result<()> {
        let mut refused = Ok(());
        for folder in Placed::folders(jobs) {
            let existing = folder.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("."));
            match gradresnet_models::staged::check_writable(existing) {
                Ok(()) => return Ok(()),
                Err(error) => refused = Err(error.into()),
            }
        }
        refused
    }

    /// Removes what interrupted runs left in the outputs' folders.
    pub fn clean(jobs: &[Job]) {
        Placed::folders(jobs).into_iter().for_each(gradresnet_models::staged::remove_stale);
    }

    fn folders(jobs: &[Job]) -> HashSet<&Path> {
        jobs.iter().filter_map(|job| job.output.parent()).collect()
    }
}

//! A bundle: what users deploy.
//!
//! A directory with `spec.json`, `forward.onnx`, `denoiser.onnx`, `golden.safetensors` and
//! `model.safetensors`: a checkpoint and its graphs, which may refer to the parameters in the last file.
//! `spec.json` carries the SHA-256 of every other file. Nothing outside the directory is ever read.

use crate::checkpoint::{GOLDEN, MODEL, SPEC};
use crate::error::{At, ErrorKind, Result};
use crate::golden::Golden;
use crate::port::Graph;
use crate::spec::Spec;
use crate::staged::{StagedDir, read_bounded, remove_stale};
use crate::tensors::MAX_TENSOR_BYTES;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Graph of the classifier and the energy.
pub const FORWARD: &str = "forward.onnx";
/// Graph of the denoiser.
pub const DENOISER: &str = "denoiser.onnx";

/// Whether a bundle holds a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Presence {
    Required,
    Optional,
    /// It has no place in a bundle of this model.
    Forbidden,
}

/// The files that a bundle may hold beside `spec.json`.
fn files(spec: &Spec) -> [(&'static str, Presence); 4] {
    let graph = |graph: Graph| {
        let presence = if graph.is_of(spec) { Presence::Required } else { Presence::Forbidden };
        (graph.file_name(), presence)
    };
    [graph(Graph::Forward), graph(Graph::Denoiser), (GOLDEN, Presence::Required), (MODEL, Presence::Optional)]
}

/// A bundle on disk whose spec was read and validated, and whose files were found.
#[derive(Clone, Debug)]
pub struct Bundle {
    dir: PathBuf,
    spec: Spec,
}

impl Bundle {
    /// Reads and validates `spec.json` and checks that the files it names are all there, are plain
    /// files, and are the ones that a bundle has.
    ///
    /// # Errors
    /// [`ErrorKind::FileName`], [`ErrorKind::Field`] (`files`), [`ErrorKind::Missing`], [`ErrorKind::NotRegular`],
    /// [`ErrorKind::TooLarge`], and those of [`Spec::read`].
    pub fn open(dir: &Path) -> Result<Bundle> {
        let path = dir.join(SPEC);
        if !std::fs::symlink_metadata(&path).at(&path)?.is_file() {
            return Err(ErrorKind::NotRegular).at(&path);
        }
        let spec = Spec::read(&path)?;
        let files = files(&spec);
        let known = |name: &String| {
            files.iter().any(|(known, presence)| known == name && *presence != Presence::Forbidden)
        };
        if let Some(name) = spec.files.keys().find(|name| !known(name)) {
            return Err(ErrorKind::FileName(name.clone())).at(&path);
        }
        for (name, presence) in files {
            let listed = spec.files.contains_key(name);
            // A file without a digest could be replaced unnoticed.
            if !listed && (presence == Presence::Required || dir.join(name).symlink_metadata().is_ok()) {
                let reason = format!("`{name}` is not listed");
                return Err(ErrorKind::Field { field: "files", reason }).at(&path);
            }
            if !listed {
                continue;
            }
            let path = dir.join(name);
            // A link could lead out of the bundle.
            let metadata = std::fs::symlink_metadata(&path).at(&path)?;
            if !metadata.is_file() {
                return Err(ErrorKind::NotRegular).at(&path);
            }
            if metadata.len() > MAX_TENSOR_BYTES {
                return Err(ErrorKind::TooLarge { size: metadata.len(), limit: MAX_TENSOR_BYTES }).at(&path);
            }
        }
        Ok(Bundle { dir: dir.to_path_buf(), spec })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What `spec.json` says.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Path of one of the bundle's files.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Reads the golden values.
    ///
    /// # Errors
    /// Those of [`Bundle::read`] and [`Golden::parse`].
    pub fn golden(&self) -> Result<Golden> {
        Golden::parse(&self.read(GOLDEN, MAX_TENSOR_BYTES)?, &self.spec).at(&self.path(GOLDEN))
    }

    /// Refuses to replace a directory that holds anything but the files of a bundle, such as a training run or
    /// pictures. One that does not exist is accepted.
    ///
    /// # Errors
    /// [`ErrorKind::NotABundle`], and [`ErrorKind::Io`] if it is not a directory.
    pub fn ensure_replaceable(dir: &Path) -> Result<()> {
        if dir.symlink_metadata().is_err() {
            return Ok(());
        }
        remove_stale(dir);
        for entry in std::fs::read_dir(dir).at(dir)? {
            let name = entry.at(dir)?.file_name();
            if ![SPEC, FORWARD, DENOISER, GOLDEN, MODEL].iter().any(|known| name == *known) {
                return Err(ErrorKind::NotABundle(name.to_string_lossy().into_owned())).at(dir);
            }
        }
        Ok(())
    }

    /// Compares the SHA-256 of every file with the spec's.
    ///
    /// # Errors
    /// [`ErrorKind::Digest`] for the first file that differs, and those of [`read_bounded`].
    pub fn verify_digests(&self) -> Result<()> {
        for (name, expected) in &self.spec.files {
            check_digest(&self.path(name), &read_bounded(&self.path(name), MAX_TENSOR_BYTES)?, expected)?;
        }
        Ok(())
    }

    /// Reads one file of the bundle, and compares its SHA-256 with the spec's.
    ///
    /// # Errors
    /// [`ErrorKind::Missing`] if the spec does not list the file, those of [`read_bounded`], and
    /// [`ErrorKind::Digest`].
    pub fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>> {
        let path = self.path(name);
        let expected = self.spec.files.get(name).ok_or(ErrorKind::Missing).at(&path)?;
        let bytes = read_bounded(&path, limit)?;
        check_digest(&path, &bytes, expected)?;
        Ok(bytes)
    }

    /// Writes `spec.json` with the digests of the files in a staged directory, so that the directory can be
    /// opened as a bundle before it is committed.
    ///
    /// # Errors
    /// [`ErrorKind::Missing`] if a required file is not there yet.
    pub fn seal(staged: &StagedDir, spec: &Spec) -> Result<Bundle> {
        let mut spec = spec.clone();
        spec.files.clear();
        for (name, presence) in files(&spec) {
            let path = staged.path().join(name);
            if presence == Presence::Required || path.exists() {
                spec.files.insert(name.to_string(), digest(&read_bounded(&path, MAX_TENSOR_BYTES)?));
            }
        }
        spec.validate()?;
        staged.write(SPEC, spec.to_json().as_bytes())?;
        Bundle::open(staged.path())
    }
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn check_digest(path: &Path, bytes: &[u8], expected: &str) -> Result<()> {
    let found = digest(bytes);
    if found == expected {
        return Ok(());
    }
    Err(ErrorKind::Digest { found, expected: expected.to_string() }).at(path)
}

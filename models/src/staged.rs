//! Files and directories that appear whole or not at all, and reads that are bounded.

use crate::error::{At, Error, ErrorKind, Result};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How the names of unfinished files and directories begin.
const TEMPORARY: &str = ".gradresnet-";

/// A directory under construction: a hidden sibling of its target, renamed into place when complete
/// and removed if dropped before.
#[derive(Debug)]
pub struct StagedDir {
    temporary: tempfile::TempDir,
    target: PathBuf,
}

impl StagedDir {
    /// Starts a directory that will become `target`, making its parents.
    pub fn new(target: &Path) -> Result<StagedDir> {
        let parent = match target.parent() {
            Some(p) if !p.as_os_str().is_empty() => p,
            _ => Path::new("."),
        };
        std::fs::create_dir_all(parent).at(parent)?;
        let temporary = tempfile::Builder::new().prefix(TEMPORARY).tempdir_in(parent).at(parent)?;
        Ok(StagedDir { temporary, target: target.to_path_buf() })
    }

    /// Where to write meanwhile.
    pub fn path(&self) -> &Path {
        self.temporary.path()
    }

    /// Writes one file in it.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path().join(name);
        std::fs::write(&path, bytes).at(&path)
    }

    /// Renames it into place. With `replace`, an existing directory is moved aside first and removed
    /// afterwards, so that at no moment is neither there for longer than one rename.
    ///
    /// # Errors
    /// [`ErrorKind::Exists`] if the target exists and `replace` is false.
    pub fn commit(self, replace: bool) -> Result<()> {
        let target = self.target.clone();
        if !replace {
            ensure_absent(&target)?;
        }
        // A temporary directory is private to its owner; a model is meant to be read.
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(self.path(), std::fs::Permissions::from_mode(0o755)).at(&target)?;
        }
        if target.exists() {
            let parent = self.path().parent().unwrap_or(Path::new("."));
            let aside = tempfile::Builder::new().prefix(".gradresnet-old-").tempdir_in(parent).at(parent)?;
            let old = aside.path().join("old");
            std::fs::rename(&target, &old).at(&target)?;
            if let Err(error) = std::fs::rename(self.path(), &target) {
                // Put it back; if even that fails, leave it where it is rather than remove it.
                if std::fs::rename(&old, &target).is_err() {
                    let _ = aside.keep();
                }
                return Err(error).at(&target);
            }
        } else {
            std::fs::rename(self.path(), &target).at(&target)?;
        }
        // Nothing is left under the temporary name to be removed.
        let _ = self.temporary.keep();
        Ok(())
    }
}

/// Refuses a target that exists, before work is done that [`StagedDir::commit`] would refuse.
///
/// # Errors
/// [`ErrorKind::Exists`].
pub fn ensure_absent(target: &Path) -> Result<()> {
    if target.exists() { Err(ErrorKind::Exists).at(target) } else { Ok(()) }
}

/// Writes a file beside its target and renames it.
///
/// # Errors
/// [`ErrorKind::Io`], with nothing left behind.
pub fn write_file(target: &Path, bytes: &[u8]) -> Result<()> {
    write_with(target, |file| file.write_all(bytes).at(target))
}

/// Lets `write` fill a file beside its target, and renames it if that went well.
///
/// # Errors
/// [`ErrorKind::Io`], and those of `write`, with nothing left behind.
pub fn write_with<E: From<Error>>(
    target: &Path,
    write: impl FnOnce(&mut File) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let parent = match target.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY);
    // As for any new file, less what the umask takes away.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(parent).at(parent)?;
    write(file.as_file_mut())?;
    file.persist(target).map_err(|e| e.error).at(target)?;
    Ok(())
}

/// Removes unfinished files of at least an hour ago from a folder: those of processes that were killed.
/// What cannot be removed stays.
pub fn remove_stale(folder: &Path) {
    const HOUR: Duration = Duration::from_secs(3600);
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let unfinished = entry.file_name().to_string_lossy().starts_with(TEMPORARY);
        let age = || entry.metadata().ok().filter(|m| m.is_file())?.modified().ok()?.elapsed().ok();
        if unfinished && age().is_some_and(|age| age >= HOUR) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Reads a regular file of at most `limit` bytes.
///
/// # Errors
/// [`ErrorKind::Missing`], [`ErrorKind::NotRegular`], [`ErrorKind::TooLarge`] (before reading), or
/// [`ErrorKind::Io`].
pub fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let metadata = std::fs::metadata(path).at(path)?;
    if !metadata.is_file() {
        return Err(ErrorKind::NotRegular).at(path);
    }
    let size = metadata.len();
    if size > limit {
        return Err(ErrorKind::TooLarge { size, limit }).at(path);
    }
    let mut bytes = Vec::with_capacity(size as usize);
    // The file may grow while it is read: take one byte more than allowed and look again.
    std::fs::File::open(path).at(path)?.take(limit + 1).read_to_end(&mut bytes).at(path)?;
    if bytes.len() as u64 > limit {
        return Err(ErrorKind::TooLarge { size: bytes.len() as u64, limit }).at(path);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_abandoned_directory_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let staged = StagedDir::new(&dir.path().join("target")).unwrap();
        staged.write("a", b"1").unwrap();
        drop(staged);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_existing_target_is_replaced_only_on_request() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("target");
        for (content, replace, expected) in [("1", false, "1"), ("2", false, "1"), ("3", true, "3")] {
            let staged = StagedDir::new(&target).unwrap();
            staged.write("a", content.as_bytes()).unwrap();
            let result = staged.commit(replace);
            assert_eq!(result.is_err(), content == "2");
            assert_eq!(std::fs::read_to_string(target.join("a")).unwrap(), expected);
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        }
    }

    /// A dangling link does not count as existing, and a directory cannot be renamed onto it.
    #[cfg(unix)]
    #[test]
    fn a_failed_rename_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("target");
        std::os::unix::fs::symlink(dir.path().join("nowhere"), &target).unwrap();
        assert!(StagedDir::new(&target).unwrap().commit(true).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn only_old_unfinished_files_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let old = std::time::SystemTime::now() - Duration::from_secs(7200);
        for (name, old) in [(".gradresnet-a", Some(old)), (".gradresnet-b", None), ("c", Some(old))] {
            let file = File::create(dir.path().join(name)).unwrap();
            old.into_iter().for_each(|old| file.set_modified(old).unwrap());
        }
        remove_stale(dir.path());
        let exists = |name: &str| dir.path().join(name).exists();
        assert_eq!([".gradresnet-a", ".gradresnet-b", "c"].map(exists), [false, true, true]);
    }

    #[test]
    fn a_file_over_the_limit_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write_file(&path, &[0; 100]).unwrap();
        assert_eq!(read_bounded(&path, 100).unwrap().len(), 100);
        assert!(matches!(
            read_bounded(&path, 99).unwrap_err().kind(),
            ErrorKind::TooLarge { size: 100, limit: 99 }
        ));
        assert!(matches!(read_bounded(dir.path(), 99).unwrap_err().kind(), ErrorKind::NotRegular));
        assert!(matches!(read_bounded(&dir.path().join("b"), 99).unwrap_err().kind(), ErrorKind::Missing));
    }
}

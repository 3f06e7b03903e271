//! Files and directories that appear whole or not at all, and reads that are bounded.

use crate::error::{At, Error, ErrorKind, Result};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Prefix of the names of unfinished files and directories, and how many letters and digits follow it.
const TEMPORARY: (&str, usize) = (".gradresnet-", 6);
/// Prefix of directories that hold what is being replaced.
const ASIDE: &str = ".gradresnet-old-";

const HOUR: Duration = Duration::from_secs(3600);
/// Age at which an unfinished file counts as abandoned, and a directory, which may take long to fill.
const ABANDONED: (Duration, Duration) = (HOUR, Duration::from_secs(24 * 3600));

/// A directory under construction: a hidden sibling of its target, renamed into place when complete
/// and removed if dropped before.
#[derive(Debug)]
pub struct StagedDir {
    temporary: tempfile::TempDir,
    target: PathBuf,
}

impl StagedDir {
    /// Starts a directory that will become `target`, creates its parents, and removes what killed processes
    /// left beside it.
    pub fn new(target: &Path) -> Result<StagedDir> {
        let parent = match target.parent() {
            Some(p) if !p.as_os_str().is_empty() => p,
            _ => Path::new("."),
        };
        std::fs::create_dir_all(parent).at(parent)?;
        remove_stale(parent);
        let temporary = temporary().tempdir_in(parent).map_err(without_path).at(parent)?;
        Ok(StagedDir { temporary, target: target.to_path_buf() })
    }

    /// Where to write until then.
    pub fn path(&self) -> &Path {
        self.temporary.path()
    }

    /// Writes one file in it.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        // The temporary directory will be gone when an error is read.
        let shown = self.target.join(name);
        let mut file = File::create(self.path().join(name)).at(&shown)?;
        // Must be on the disk before what it replaces is removed.
        file.write_all(bytes).and_then(|()| file.sync_all()).at(&shown)
    }

    /// Renames it into place. With `replace`, it and an existing directory change places in one step, and the latter
    /// is removed. Where the system cannot do so, the existing one is moved aside first, and between two renames there
    /// is none at the target.
    ///
    /// # Errors
    /// [`ErrorKind::Exists`] if the target exists and `replace` is false.
    pub fn commit(self, replace: bool) -> Result<()> {
        self.commit_by(replace, exchange)
    }

    fn commit_by(self, replace: bool, exchange: impl Fn(&Path, &Path) -> std::io::Result<()>) -> Result<()> {
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
        if replace && target.exists() {
            if exchange(self.path(), &target).is_ok() {
                // The old one now has the temporary name, and is removed on drop.
                return Ok(());
            }
            let parent = self.path().parent().unwrap_or(Path::new("."));
            let aside = tempfile::Builder::new().prefix(ASIDE).tempdir_in(parent).at(parent)?;
            let old = aside.path().join("old");
            std::fs::rename(&target, &old).at(&target)?;
            if let Err(error) = std::fs::rename(self.path(), &target) {
                // Put it back; if even that fails, keep it where it is.
                if std::fs::rename(&old, &target).is_err() {
                    let kept = aside.keep().join("old");
                    let text = format!("{error}; what was there is kept as {}", kept.display());
                    return Err(std::io::Error::other(text)).at(&target);
                }
                return Err(error).at(&target);
            }
        } else {
            // Fails if the target is a folder that came to be there meanwhile, unless that is empty.
            std::fs::rename(self.path(), &target).at(&target)?;
        }
        // Nothing is left under the temporary name to be removed.
        let _ = self.temporary.keep();
        Ok(())
    }
}

fn temporary() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY.0).rand_bytes(TEMPORARY.1);
    builder
}

/// The cause alone: the name of an unfinished file tells a user nothing.
fn without_path(error: std::io::Error) -> std::io::Error {
    let text = error.to_string();
    let cause = text.split(" at path ").next().unwrap_or_default();
    std::io::Error::new(error.kind(), cause.to_string())
}

/// Finds out whether files can be written into a folder, before work is done whose result could not be.
///
/// # Errors
/// [`ErrorKind::Io`].
pub fn check_writable(folder: &Path) -> Result<()> {
    temporary().tempfile_in(folder).map_err(without_path).at(folder)?;
    Ok(())
}

/// Exchanges two directories in one step.
#[cfg(any(target_os = "linux", target_vendor = "apple"))]
fn exchange(a: &Path, b: &Path) -> std::io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE)?)
}

#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
fn exchange(_: &Path, _: &Path) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

/// Refuses a target that exists, before work is done that [`StagedDir::commit`] would refuse.
///
/// # Errors
/// [`ErrorKind::Exists`].
pub fn ensure_absent(target: &Path) -> Result<()> {
    if target.exists() { Err(ErrorKind::Exists).at(target) } else { Ok(()) }
}

/// Writes a file beside its target and renames it, creating the target's folder.
///
/// # Errors
/// [`ErrorKind::Io`], with nothing left behind.
pub fn write_file(target: &Path, bytes: &[u8]) -> Result<()> {
    write_with(target, true, |file| file.write_all(bytes).at(target))
}

/// Lets `write` fill a file beside its target, and renames it if that succeeds. An existing file, even one created
/// meanwhile, is replaced only with `replace`; its permissions are kept.
///
/// # Errors
/// [`ErrorKind::Io`], [`ErrorKind::Exists`], and those of `write`, with nothing left behind.
pub fn write_with<E: From<Error>>(
    target: &Path,
    replace: bool,
    write: impl FnOnce(&mut File) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let parent = match target.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(parent).at(parent)?;
    let mut builder = temporary();
    #[cfg(unix)]
    let there = std::fs::metadata(target).ok().map(|metadata| metadata.permissions());
    // The usual ones of a new file, less the umask.
    #[cfg(unix)]
    builder.permissions(there.clone().unwrap_or(std::os::unix::fs::PermissionsExt::from_mode(0o666)));
    let mut file = builder.tempfile_in(parent).map_err(without_path).at(parent)?;
    #[cfg(unix)]
    if let Some(permissions) = there {
        file.as_file().set_permissions(permissions).at(target)?;
    }
    write(file.as_file_mut())?;
    if replace && target.exists() {
        // Must be on the disk before what it replaces is gone.
        file.as_file().sync_all().at(target)?;
    }
    let persisted = if replace { file.persist(target) } else { file.persist_noclobber(target) };
    match persisted {
        Ok(_) => Ok(()),
        Err(e) if !replace && e.error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(Error::from(ErrorKind::Exists)).at(target)?
        }
        // Some file systems can neither rename without replacing nor link.
        Err(e) if !replace && !target.exists() => {
            e.file.persist(target).map_err(|e| e.error).at(target)?;
            Ok(())
        }
        Err(e) => Err(e.error).at(target)?,
    }
}

/// Removes from a folder unfinished files that are at least an hour old, and directories a day old: those that
/// killed processes left. What cannot be removed stays, and so does what was moved aside.
pub fn remove_stale(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        // The whole name must match: a folder of the user's may begin with the prefix.
        let name = entry.file_name();
        let random = name.to_str().and_then(|name| name.strip_prefix(TEMPORARY.0)).unwrap_or_default();
        if random.len() != TEMPORARY.1 || !random.chars().all(|c| c.is_ascii_alphanumeric()) {
            continue;
        }
        let Ok(metadata) = entry.metadata() else { continue };
        let age = metadata.modified().ok().and_then(|time| time.elapsed().ok()).unwrap_or_default();
        let _ = match ABANDONED {
            (file, _) if metadata.is_file() && age >= file => std::fs::remove_file(entry.path()),
            (_, dir) if metadata.is_dir() && age >= dir => std::fs::remove_dir_all(entry.path()),
            _ => Ok(()),
        };
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
    #[cfg(target_os = "linux")]
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    #[test]
    fn an_abandoned_directory_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let staged = StagedDir::new(&dir.path().join("target")).unwrap();
        staged.write("a", b"1").unwrap();
        drop(staged);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_error_names_the_place_that_a_file_is_for() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("target");
        let staged = StagedDir::new(&target).unwrap();
        let error = staged.write("no folder/a", b"1").unwrap_err().to_string();
        assert!(error.starts_with(&target.join("no folder/a").display().to_string()), "{error}");
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

    #[test]
    fn directories_that_cannot_be_exchanged_are_moved_one_after_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("target");
        let stage = |content: &str| {
            let staged = StagedDir::new(&target).unwrap();
            staged.write("a", content.as_bytes()).unwrap();
            staged
        };
        let content = || std::fs::read_to_string(target.join("a")).unwrap();
        let unsupported = || Err(std::io::ErrorKind::Unsupported.into());
        stage("1").commit(false).unwrap();
        stage("2").commit_by(true, |_, _| unsupported()).unwrap();
        assert_eq!(content(), "2");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        // The second rename fails, and the first is undone.
        let lost = |staged: &Path, _: &Path| {
            std::fs::remove_dir_all(staged).unwrap();
            unsupported()
        };
        assert!(stage("3").commit_by(true, lost).is_err());
        assert_eq!(content(), "2");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
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

    #[cfg(unix)]
    #[test]
    fn only_what_was_left_unfinished_long_ago_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        for (name, hours, stays) in [
            (".gradresnet-aaaaaa", 2, false),
            (".gradresnet-bbbbbb", 0, true),
            (".gradresnet-notes", 48, true),
            ("c", 48, true),
            (".gradresnet-dddddd/", 48, false),
            (".gradresnet-eeeeee/", 2, true),
            (".gradresnet-old-ffffff/", 48, true),
            (".gradresnet-my-own/", 48, true),
            ("g/", 48, true),
        ] {
            let path = dir.path().join(name);
            if name.ends_with('/') {
                std::fs::create_dir(&path).unwrap();
                std::fs::write(path.join("a"), "1").unwrap();
            } else {
                std::fs::write(&path, "1").unwrap();
            }
            File::open(&path).unwrap().set_modified(std::time::SystemTime::now() - hours * HOUR).unwrap();
            remove_stale(dir.path());
            assert_eq!(path.exists(), stays, "{name}");
        }
    }

    /// A reader that keeps looking always finds one directory or the other.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_directory_that_is_replaced_is_there_at_every_moment() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("target");
        StagedDir::new(&target).unwrap().commit(false).unwrap();
        let (done, looks) = (AtomicBool::new(false), AtomicUsize::new(0));
        let missed = std::thread::scope(|scope| {
            let looked = scope.spawn(|| {
                let mut missed = 0;
                while !done.load(Ordering::Relaxed) {
                    missed += usize::from(!target.is_dir());
                    looks.fetch_add(1, Ordering::Relaxed);
                }
                missed
            });
            let mut commits = 0;
            let mut result = Ok(());
            while result.is_ok() && (commits < 300 || looks.load(Ordering::Relaxed) < 100) {
                result = StagedDir::new(&target).and_then(|staged| staged.commit(true));
                commits += 1;
            }
            done.store(true, Ordering::Relaxed);
            result.unwrap();
            looked.join().unwrap()
        });
        assert_eq!(missed, 0);
    }

    #[test]
    fn a_file_that_came_to_be_there_meanwhile_is_replaced_only_on_request() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("target");
        let write = |replace| {
            write_with(&target, replace, |file| {
                std::fs::write(&target, "theirs").at(&target)?;
                file.write_all(b"ours").at(&target)
            })
        };
        assert!(matches!(write(false).unwrap_err().kind(), ErrorKind::Exists));
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "theirs");
        write(true).unwrap();
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "ours");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_is_replaced_keeps_its_permissions() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("target");
        write_file(&target, b"1").unwrap();
        for mode in [0o600, 0o666, 0o640] {
            std::fs::set_permissions(&target, PermissionsExt::from_mode(mode)).unwrap();
            write_file(&target, b"2").unwrap();
            assert_eq!(target.metadata().unwrap().permissions().mode() & 0o777, mode);
        }
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

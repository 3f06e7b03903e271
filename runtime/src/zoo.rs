//! Finding bundles by name.
//!
//! A bundle's name is that of its directory. The places, in order: `$GRADRESNET_MODELS`; `models/zoo`
//! beside the program and in the directories above it; the user's data folder
//! (`$XDG_DATA_HOME/gradresnet/models`, or `~/.local/share/gradresnet/models`); `models/zoo` of the source
//! tree that the program was built from. The first place that has a directory of the name wins, sound or not:
//! a damaged model must not be passed over for another.

use crate::error::{At, ErrorKind, Result};
use gradresnet_models::Bundle;
use gradresnet_models::bundle::{DENOISER, FORWARD};
use gradresnet_models::checkpoint::{GOLDEN, MODEL, SPEC};
use std::path::{Path, PathBuf};

/// Directories above the program that are looked into.
const ANCESTORS: usize = 4;

/// Any of these makes a folder a model, if a damaged one.
const FILES: [&str; 5] = [SPEC, FORWARD, DENOISER, GOLDEN, MODEL];

/// The variable that names the first of the places.
const VARIABLE: &str = "GRADRESNET_MODELS";

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from)
}

/// The places where bundles are looked for, in order, whether they exist or not.
pub fn places() -> Vec<PathBuf> {
    let mut places = Vec::new();
    places.extend(variable(VARIABLE));
    if let Ok(program) = std::env::current_exe() {
        places.extend(program.ancestors().skip(1).take(ANCESTORS).map(|dir| dir.join("models/zoo")));
    }
    let data = variable("XDG_DATA_HOME").or_else(|| Some(variable("HOME")?.join(".local/share")));
    places.extend(data.map(|dir| dir.join("gradresnet/models")));
    let source = Path::new(env!("CARGO_MANIFEST_DIR"));
    places.extend(source.parent().map(|root| root.join("models/zoo")));
    let mut seen = std::collections::HashSet::new();
    places.retain(|place| seen.insert(place.clone()));
    places
}

/// A missing folder that was asked for must not be passed over for another.
fn check_variable() -> Result<()> {
    match variable(VARIABLE) {
        Some(dir) if !dir.is_dir() => Err(ErrorKind::NoPlace { variable: VARIABLE, dir }.into()),
        _ => Ok(()),
    }
}

/// Opens a bundle. `name` is a directory if it has a path separator or is one with a `spec.json`, and
/// otherwise a name that is looked up.
///
/// # Errors
/// [`ErrorKind::NoBundle`], [`ErrorKind::NoPlace`] and those of [`Bundle::open`].
pub fn find(name: &str) -> Result<Bundle> {
    let dir = Path::new(name);
    if name.contains(std::path::is_separator) || dir.join(SPEC).is_file() {
        if !dir.is_dir() {
            return Err(ErrorKind::Input("no such model folder".into())).at(dir);
        }
        return Ok(Bundle::open(dir)?);
    }
    check_variable()?;
    let places = places();
    match places.iter().map(|place| place.join(name)).find(|dir| dir.is_dir()) {
        // Neither empty nor `.` nor `..`.
        Some(dir) if Path::new(name).file_name().is_some() => Ok(Bundle::open(&dir)?),
        _ => {
            let existing: Vec<String> =
                places.iter().filter(|p| p.is_dir()).map(|p| p.display().to_string()).collect();
            let searched = if existing.is_empty() {
                "no place for models; set GRADRESNET_MODELS to one".to_string()
            } else {
                existing.join(", ")
            };
            let names =
                list()?.into_iter().filter_map(|(dir, _)| Some(dir.file_name()?.display().to_string()));
            let names: Vec<String> = names.collect();
            let known = match names.is_empty() {
                true => "there is none".to_string(),
                false => format!("there are {}", names.join(", ")),
            };
            Err(ErrorKind::NoBundle { name: name.to_string(), known, searched }.into())
        }
    }
}

/// Every bundle found in the [`places`], in their order and then by name, each with its directory; of
/// bundles with the same name, the one that [`find`] takes.
///
/// # Errors
/// [`ErrorKind::NoPlace`].
pub fn list() -> Result<Vec<(PathBuf, Result<Bundle>)>> {
    check_variable()?;
    let mut seen = std::collections::HashSet::new();
    let mut found = Vec::new();
    for place in places() {
        let Ok(entries) = std::fs::read_dir(&place) else {
            continue;
        };
        let mut dirs: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        dirs.sort();
        for dir in dirs {
            let hidden = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with('.');
            // Another folder hides what has its name in a later place, as it does from `find`.
            if dir.is_dir()
                && let Some(name) = dir.file_name().filter(|name| !hidden(name))
                && seen.insert(name.to_os_string())
                && FILES.iter().any(|file| dir.join(file).symlink_metadata().is_ok())
            {
                let bundle = Bundle::open(&dir).map_err(Into::into);
                found.push((dir, bundle));
            }
        }
    }
    Ok(found)
}

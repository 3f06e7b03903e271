//! What a study leaves behind: rows that grow one at a time, as JSON for programs and Markdown for people.
//!
//! The same command goes on with an interrupted study: rows that exist are not computed again.

use crate::console::note;
use anyhow::{Context, Result, ensure};
use gradresnet_models::staged;
use indicatif::{ProgressBar, ProgressStyle};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Rows of one kind, kept in `NAME.json` and `NAME.md` of a folder.
#[derive(Debug)]
pub struct Report<T> {
    path: PathBuf,
    contents: Contents<T>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Contents<T> {
    /// What the rows depend on; other settings need another folder.
    settings: Value,
    rows: Vec<Keyed<T>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Keyed<T> {
    key: String,
    #[serde(flatten)]
    row: T,
}

impl<T: Serialize + DeserializeOwned> Report<T> {
    /// Opens the report `name` in `folder`, which is made if missing, with the rows it already has.
    ///
    /// # Errors
    /// If the rows there were computed with other `settings`, or files cannot be read or made.
    pub fn open(folder: &Path, name: &str, settings: &impl Serialize) -> Result<Report<T>> {
        let mut report = Report::new(folder, name, settings)?;
        let path = &report.path;
        if path.exists() {
            let text = std::fs::read(path).with_context(|| path.display().to_string())?;
            let contents: Contents<T> = serde_json::from_slice(&text)
                .with_context(|| format!("{}: not a report of this command", path.display()))?;
            ensure!(
                contents.settings == report.contents.settings,
                "{}: its rows were computed with other settings or images; choose another folder, or remove it",
                path.display()
            );
            report.contents = contents;
        }
        Ok(report)
    }

    /// The same without any rows that exist: they are replaced.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn new(folder: &Path, name: &str, settings: &impl Serialize) -> Result<Report<T>> {
        std::fs::create_dir_all(folder).with_context(|| format!("{}: cannot be made", folder.display()))?;
        let path = folder.join(format!("{name}.json"));
        Ok(Report {
            path,
            contents: Contents { settings: serde_json::to_value(settings)?, rows: Vec::new() },
        })
    }

    /// The row named `key`: the one that is there, or a new one, written before this returns; `None`, and a note, if one
    /// of its figures is not a number.
    ///
    /// # Errors
    /// Those of `compute`, and if the files cannot be written.
    pub fn row(&mut self, key: &str, compute: impl FnOnce() -> Result<T>) -> Result<Option<&T>> {
        let rows = &mut self.contents.rows;
        let index = match rows.iter().position(|r| r.key == key) {
            Some(index) => index,
            None => {
                let row = compute()?;
                // JSON has no NaN, and a report that holds one could not be read again.
                if serde_json::from_value::<T>(serde_json::to_value(&row)?).is_err() {
                    note(format_args!("{key}: a figure is not a number; the row is left out"));
                    return Ok(None);
                }
                rows.push(Keyed { key: key.to_string(), row });
                let index = rows.len() - 1;
                let json = serde_json::to_string_pretty(&self.contents)? + "\n";
                staged::write_file(&self.path, json.as_bytes())?;
                staged::write_file(&self.path.with_extension("md"), self.markdown()?.as_bytes())?;
                index
            }
        };
        Ok(Some(&self.contents.rows[index].row))
    }

    /// All rows with their keys, in the order in which they were computed.
    pub fn keyed(&self) -> impl Iterator<Item = (&str, &T)> {
        self.contents.rows.iter().map(|r| (r.key.as_str(), &r.row))
    }

    /// All rows, in the order in which they were computed.
    pub fn rows(&self) -> impl Iterator<Item = &T> {
        self.keyed().map(|(_, row)| row)
    }

    /// A table whose columns are the fields of the rows.
    ///
    /// # Errors
    /// If a row is not an object.
    pub fn markdown(&self) -> Result<String> {
        let rows: Vec<Map<String, Value>> = self
            .rows()
            .map(|row| match serde_json::to_value(row)? {
                Value::Object(fields) => Ok(fields),
                other => anyhow::bail!("a row is an object, not {other}"),
            })
            .collect::<Result<_>>()?;
        let Some(first) = rows.first() else { return Ok(String::new()) };
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let mut text = line(first.keys().map(|k| k.replace('_', " ")).collect());
        text += &line(first.iter().map(|(_, v)| if v.is_string() { "---" } else { "---:" }.into()).collect());
        for row in &rows {
            text += &line(first.keys().map(|k| cell(row.get(k).unwrap_or(&Value::Null))).collect());
        }
        Ok(text)
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "–".into(),
        Value::String(text) => text.clone(),
        Value::Number(n) if n.is_f64() => number(n.as_f64().unwrap_or(f64::NAN)),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// Four significant digits, without trailing zeros.
pub fn number(value: f64) -> String {
    let magnitude = value.abs();
    if value == 0.0 {
        "0".into()
    } else if !(1e-3..1e6).contains(&magnitude) {
        format!("{value:.2e}")
    } else {
        let decimals = (3 - magnitude.log10().floor() as i32).max(0) as usize;
        let text = format!("{value:.decimals$}");
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').into() } else { text }
    }
}

/// A progress bar on stderr that says what is counted.
///
/// # Errors
/// None in practice: the template is fixed.
pub fn progress(length: usize, what: &str) -> Result<ProgressBar> {
    let bar = ProgressBar::new(length as u64);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {prefix} {msg} {eta} left")?);
    bar.set_prefix(what.to_string());
    Ok(bar)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Row {
        name: String,
        value: f64,
        missing: Option<f64>,
    }

    fn row(value: f64) -> Result<Row> {
        Ok(Row { name: "a".into(), value, missing: None })
    }

    #[test]
    fn rows_that_are_there_are_not_computed_again() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("out");
        let mut report = Report::open(&folder, "rows", &1).unwrap();
        assert_eq!(report.row("x", || row(0.25)).unwrap(), Some(&row(0.25).unwrap()));
        drop(report);

        let mut report = Report::<Row>::open(&folder, "rows", &1).unwrap();
        report.row("x", || panic!("it is there")).unwrap();
        report.row("y", || row(1.0 / 3.0)).unwrap();
        assert!(report.row("z", || anyhow::bail!("interrupted")).is_err());
        // It could not be read again, and those that follow are not its fault.
        assert_eq!(report.row("nan", || row(f64::NAN)).unwrap(), None);
        let table = std::fs::read_to_string(folder.join("rows.md")).unwrap();
        assert_eq!(
            table,
            "| name | value | missing |\n| --- | ---: | ---: |\n| a | 0.25 | – |\n| a | 0.3333 | – |\n"
        );

        let error = Report::<Row>::open(&folder, "rows", &2).unwrap_err().to_string();
        assert!(error.contains("other settings"), "{error}");
    }

    #[test]
    fn numbers_have_four_digits() {
        for (value, text) in [(0.0, "0"), (12.0, "12"), (123456.7, "123457"), (-0.012345, "-0.01235")] {
            assert_eq!(number(value), text);
        }
        assert_eq!((number(1e-5), number(2e7)), ("1.00e-5".into(), "2.00e7".into()));
    }
}

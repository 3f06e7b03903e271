//! Values of a config that parse but cannot be used, and where in the file they stand.

use gradresnet_models::ErrorKind;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A field that was refused, with what it may be.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// Dotted path; empty where it is the whole file.
    field: String,
    /// What is wrong, with the allowed values.
    reason: String,
}

/// Refuses `field` unless `holds`.
pub(crate) fn require(
    holds: bool,
    field: impl Into<String>,
    reason: impl Into<String>,
) -> Result<(), Refusal> {
    if holds { Ok(()) } else { Err(Refusal { field: field.into(), reason: reason.into() }) }
}

impl From<gradresnet_models::Error> for Refusal {
    fn from(error: gradresnet_models::Error) -> Self {
        match error.kind() {
            ErrorKind::Field { field, reason } => {
                Refusal { field: (*field).to_string(), reason: reason.clone() }
            }
            other => Refusal { field: String::new(), reason: other.to_string() },
        }
    }
}

/// Why a text is not a config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// Line of the text that is to blame, from 1.
    pub line: usize,
    /// What is wrong with it, and what would be right.
    pub reason: String,
}

impl std::fmt::Display for Invalid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.line, self.reason)
    }
}

impl std::error::Error for Invalid {}

impl Invalid {
    /// What the TOML reader says of `text`, in words for those who write TOML.
    pub(crate) fn unreadable(text: &str, error: &toml::de::Error) -> Invalid {
        const WORDS: [(&str, &str); 4] = [
            ("wanted string or table", "expected a name in quotes or a table"),
            ("expected usize", "expected a whole number, 0 or above"),
            ("expected u64", "expected a whole number, 0 or above"),
            ("expected f64", "expected a number"),
        ];
        let words = |message: String, (from, to): &(&str, &str)| message.replace(from, to);
        let reason = WORDS.iter().fold(error.message().to_string(), words);
        Invalid { line: line(text, error.span().map_or(0, |span| span.start)), reason }
    }

    /// A refusal with its place in `text`.
    pub(crate) fn refused(text: &str, Refusal { field, reason }: Refusal) -> Invalid {
        let line = line(text, span(text, &field).start);
        let reason = if field.is_empty() { reason } else { format!("{field}: {reason}") };
        Invalid { line, reason }
    }
}

fn line(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|&byte| byte == b'\n').count()
}

/// Where the value of a dotted field stands in `text`; for one that is not there, the innermost table that
/// would hold it. A table whose only entry is a table (the family of an architecture) is looked through.
fn span(text: &str, field: &str) -> Range<usize> {
    let Ok(root) = DeTable::parse(text) else { return 0..0 };
    let mut value = &Spanned::new(0..0, DeValue::Table(root.into_inner()));
    for name in field.split('.') {
        let inner = match name.parse::<usize>() {
            Ok(index) => value.get_ref().get(index),
            Err(_) => value.get_ref().get(name).or_else(|| only_entry(value.get_ref())?.get(name)),
        };
        match inner {
            Some(inner) => value = inner,
            None => break,
        }
    }
    value.span()
}

fn only_entry<'a, 'i>(value: &'a DeValue<'i>) -> Option<&'a DeValue<'i>> {
    match value {
        DeValue::Table(table) if table.len() == 1 => table.values().next().map(Spanned::get_ref),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_where_they_stand() {
        let text = "a = 1\n\n[b]\nc = 2\n[b.d]\ne = [\n 3,\n 4,\n]\n[f.family]\n# words\nwidth = 5\n[g]\nh = { i = 6 }\n";
        for (field, expected) in [
            ("a", 1),
            ("b", 3),
            ("b.c", 4),
            ("b.missing", 3),
            ("b.d", 5),
            ("b.d.e", 6),
            ("b.d.e.0", 7),
            ("b.d.e.1", 8),
            ("f.family.width", 12),
            ("f.width", 12),
            ("g.h.i", 14),
            ("missing", 1),
            ("", 1),
        ] {
            assert_eq!(line(text, span(text, field).start), expected, "{field}");
        }
    }
}

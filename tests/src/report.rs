//! How far an engine is from the reference.

use crate::engines::Values;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Largest accepted relative error ‖out − ref‖/‖ref‖ of float32 against float64: about a thousand
/// roundings of 6e-8, which is what a forward and a backward pass add up to.
pub const TOLERANCE: f64 = 1e-4;

/// Names of the compared outputs.
pub const OUTPUTS: [&str; 5] =
    ["denoised − noisy", "energy", "energy (forward)", "logits", "logits (forward)"];

/// ‖out − ref‖/‖ref‖ of each of [`OUTPUTS`]; `None` where the model has no such output.
///
/// An engine that leaves out elements, or returns NaN, is infinitely far off.
pub fn errors(found: &Values, reference: &Values) -> [Option<f64>; 5] {
    let outputs = |v: &Values| {
        let Values { change, energy: [energy, forward], logits: [logits, logits_forward] } = v.clone();
        [change, energy, forward, logits, logits_forward]
    };
    let (found, reference) = (outputs(found), outputs(reference));
    std::array::from_fn(|i| relative(&found[i], &reference[i]))
}

fn relative(found: &[f64], reference: &[f64]) -> Option<f64> {
    if found.is_empty() && reference.is_empty() {
        return None;
    }
    if found.len() != reference.len() {
        return Some(f64::INFINITY);
    }
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let error = norm(&mut found.iter().zip(reference).map(|(f, r)| f - r));
    let relative = error / norm(&mut reference.iter().copied());
    Some(if relative.is_nan() { f64::INFINITY } else { relative })
}

/// The worst errors by engine and output.
#[derive(Debug, Default)]
pub struct Table {
    runs: BTreeMap<String, usize>,
    worst: BTreeMap<(String, usize), (f64, String)>,
}

impl Table {
    /// Adds one run.
    pub fn add(&mut self, engine: &str, case: &str, errors: [Option<f64>; 5]) {
        *self.runs.entry(engine.to_string()).or_default() += 1;
        for (output, error) in errors.into_iter().enumerate() {
            let Some(error) = error else { continue };
            let entry = self.worst.entry((engine.to_string(), output)).or_insert((0.0, String::new()));
            if error >= entry.0 {
                *entry = (error, case.to_string());
            }
        }
    }

    /// A table in Markdown: one row per engine, one column per output, with the worst relative errors.
    pub fn to_markdown(&self) -> String {
        let mut text = format!("| engine | runs | {} | worst case |\n", OUTPUTS.join(" | "));
        let _ = writeln!(text, "|---|---|{}---|", "---|".repeat(OUTPUTS.len()));
        for (engine, runs) in &self.runs {
            let cells: Vec<_> = (0..OUTPUTS.len()).map(|o| self.worst.get(&(engine.clone(), o))).collect();
            let _ = write!(text, "| {engine} | {runs} |");
            for cell in &cells {
                let _ = write!(text, " {} |", cell.map_or("–".into(), |(e, _)| format!("{e:.1e}")));
            }
            let worst = cells.into_iter().flatten().max_by(|a, b| a.0.total_cmp(&b.0));
            let _ = writeln!(text, " {} |", worst.map_or("", |(_, case)| case));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_or_not_a_number_is_infinitely_wrong() {
        assert_eq!(relative(&[], &[]), None);
        assert_eq!(relative(&[1.0], &[1.0, 2.0]), Some(f64::INFINITY));
        assert_eq!(relative(&[f64::NAN], &[1.0]), Some(f64::INFINITY));
        assert_eq!(relative(&[3.0, 4.5], &[3.0, 4.0]), Some(0.1));
    }
}

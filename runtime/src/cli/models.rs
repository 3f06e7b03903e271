//! `gradresnet models` and `gradresnet info`

use super::console::{self, Outcome, line};
use anyhow::{Result, ensure};
use gradresnet::{Spec, zoo};
use gradresnet_models::parameters::parameters;
use gradresnet_models::{Architecture, Graph, Precision};
use std::path::Path;

/// List the models found here
#[derive(clap::Args)]
pub struct ModelsArgs {}

/// Print what a model says of itself
#[derive(clap::Args)]
#[command(after_help = "Example:\n  gradresnet info photo")]
pub struct InfoArgs {
    /// A model's name or its folder
    #[arg(value_name = "BUNDLE")]
    bundle: String,
}

pub fn list(_: &ModelsArgs) -> Result<Outcome> {
    let found = zoo::list()?;
    let looked = || zoo::places().iter().map(|place| place.display().to_string()).collect::<Vec<_>>();
    ensure!(!found.is_empty(), "no model found in {}", looked().join(", "));
    let name = |dir: &Path| dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let width = found.iter().map(|(dir, _)| name(dir).chars().count()).max().unwrap_or(0);
    let mut outcome = Outcome::Done;
    for (dir, bundle) in found {
        match bundle {
            Ok(bundle) => {
                let spec = bundle.spec();
                line(format_args!("{:width$}  {}  {}", name(&dir), summary(spec), dir.display()));
            }
            Err(error) => {
                console::error(&error.into());
                outcome = Outcome::SomeFailed;
            }
        }
    }
    Ok(outcome)
}

fn summary(spec: &Spec) -> String {
    let (min, max) = (255.0 * spec.sigma.min, 255.0 * spec.sigma.max);
    let task = match (spec.task, spec.classes.len()) {
        (gradresnet_models::Task::Denoising, _) => "denoises".to_string(),
        (gradresnet_models::Task::Classification, n) => format!("classifies into {n} classes"),
        (gradresnet_models::Task::Joint, n) => format!("denoises, classifies into {n} classes"),
    };
    format!("{task}, σ {min:.0} to {max:.0}")
}

/// The family and its fields, as in spec.json, for people: `gradresnet, width 24, …`.
fn fields(architecture: &Architecture) -> Result<String> {
    let serde_json::Value::Object(family) = serde_json::to_value(architecture)? else {
        return Ok(architecture.family().to_string());
    };
    let fields = family.values().filter_map(|fields| fields.as_object()).flatten();
    let told = fields.map(|(name, value)| match value.as_str() {
        Some(text) => format!("{name} {text}"),
        None => format!("{name} {value}"),
    });
    Ok(std::iter::once(architecture.family().to_string()).chain(told).collect::<Vec<_>>().join(", "))
}

pub fn info(args: &InfoArgs) -> Result<Outcome> {
    let bundle = zoo::find(&args.bundle)?;
    let spec = bundle.spec();
    let a = &spec.architecture;
    let count: usize = parameters(a, spec.classes.len()).iter().map(|p| p.len()).sum();
    let row = |name: &str, value: String| line(format_args!("{name:14} {value}"));
    row("name", spec.name.clone());
    row("folder", bundle.dir().display().to_string());
    row("task", summary(spec));
    if !spec.classes.is_empty() {
        row("classes", spec.classes.join(", "));
    }
    if let Some(size) = spec.image_size {
        let denoise = if Graph::Denoiser.is_of(spec) { "; any size for denoise" } else { "" };
        row("image size", format!("{size}×{size} for classify{denoise}"));
    }
    row("architecture", fields(a)?);
    if spec.precision != Precision::default() {
        row("precision", "float16 in convolutions, float32 elsewhere".into());
    }
    row("parameters", count.to_string());
    row(
        "multiply-adds",
        match (a.multiply_adds_per_pixel(), spec.has_energy()) {
            (count, true) => format!("{count:.0} a pixel forward, twice that for the denoiser"),
            (count, false) => format!("{count:.0} a pixel"),
        },
    );
    row("stride", a.stride().to_string());
    if let Some(p) = &spec.provenance {
        row("trained on", p.data.clone());
        row(
            "training",
            format!("{} steps, seed {}, {:.2} CPU hours: {}", p.steps, p.seed, p.cpu_hours, p.command),
        );
    }
    for m in &spec.metrics {
        let sigma = m.sigma.map(|s| format!(" at σ = {s}")).unwrap_or_default();
        row("measured", format!("{}{sigma} on {}: {:.4}  ({})", m.metric, m.data, m.value, m.command));
    }
    Ok(Outcome::Done)
}

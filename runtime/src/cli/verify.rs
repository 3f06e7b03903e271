//! `gradresnet verify`

use super::console::{self, Outcome, about, line, note};
use anyhow::{Result, bail};
use gradresnet::engine::{Engine, available};
use gradresnet::verify::{Report, verify};
use gradresnet::{Bundle, ErrorKind, zoo};
use gradresnet_models::checkpoint::SPEC;
use std::path::Path;
use std::sync::Arc;

/// Check a model's files and what engines here make of them
///
/// First the digests of all files are compared with those in spec.json; then the graphs are run on the
/// golden inputs by every engine that is usable on this machine, and their outputs are compared with the
/// trainer's float64 values.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  gradresnet verify
  gradresnet verify photo
  gradresnet verify ./my-bundle

Exit status: 0 everything agrees; 2 a model fails, or ORT_DYLIB_PATH names what is not usable; 1 there is no model.")]
pub struct Args {
    /// A model's name or its folder [default: every model found]
    #[arg(value_name = "BUNDLE")]
    bundle: Option<String>,
}

pub fn run(args: &Args) -> Result<Outcome> {
    let bundles: Vec<gradresnet::Result<Bundle>> = match &args.bundle {
        Some(name) => match zoo::find(name) {
            Err(error) if is_nowhere(name, &error) => return Err(error.into()),
            found => vec![found],
        },
        None => zoo::list()?.into_iter().map(|(_, bundle)| bundle).collect(),
    };
    if bundles.is_empty() {
        bail!("no model found; `gradresnet models` says where they are looked for");
    }
    let mut engines: Vec<Arc<dyn Engine>> = Vec::new();
    let mut outcome = Outcome::Done;
    for (kind, opened) in available(1) {
        match opened {
            Ok(engine) => engines.push(engine),
            // Whoever names the library wants it checked.
            Err(error) if kind.is_named() => {
                console::error(&error.into());
                outcome = Outcome::SomeFailed;
            }
            Err(error) => note(format_args!("not checked: {error}")),
        }
    }
    for bundle in bundles {
        let failures = match bundle {
            Ok(bundle) => check(&bundle, &engines),
            Err(error) => vec![error.into()],
        };
        for error in failures {
            console::error(&error);
            outcome = Outcome::SomeFailed;
        }
    }
    Ok(outcome)
}

/// Whether no model, sound or faulty, has this name or is in this folder.
fn is_nowhere(name: &str, error: &gradresnet::Error) -> bool {
    let folder = name.contains(std::path::is_separator) && !Path::new(name).join(SPEC).exists();
    folder || matches!(error.kind(), ErrorKind::NoBundle { .. } | ErrorKind::NoPlace { .. })
}

/// What each engine finds wrong with a bundle; comparing them tells whose fault it is.
fn check(bundle: &Bundle, engines: &[Arc<dyn Engine>]) -> Vec<anyhow::Error> {
    let dir = bundle.dir().display();
    if let Err(error) = bundle.verify_digests() {
        return vec![about(bundle.dir(), error)];
    }
    line(format_args!("{dir}: {} digests agree", bundle.spec().files.len()));
    let mut failures = Vec::new();
    for engine in engines {
        match verify(bundle, engine.as_ref()) {
            Err(error) => failures.push(about(bundle.dir(), error)),
            Ok(Report { engine, deviations }) => {
                let worst = deviations.first().map(|worst| {
                    let graph = worst.graph.name();
                    format!(", the worst within {:.1e} ({} of the {graph} graph)", worst.error, worst.output)
                });
                let worst = worst.unwrap_or_default();
                line(format_args!("{dir}: {engine}: {} outputs agree{worst}", deviations.len()));
            }
        }
    }
    failures
}

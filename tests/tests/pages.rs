//! What the pages say that can be checked: that links lead somewhere, that figures are those in `spec.json`,
//! that the tests they name exist.

use gradresnet_models::spec::{Spec, Task};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What a folder holds.
fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path())
}

/// The pages of this project, with their texts: others may have files of their own in the root.
fn pages() -> BTreeMap<PathBuf, String> {
    let named = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"].map(|name| root().join(name));
    let docs = entries(&root().join("docs")).filter(|path| path.extension().is_some_and(|e| e == "md"));
    named.into_iter().chain(docs).map(|path| (path.clone(), read(&path))).collect()
}

/// Whether a page has a heading of this name: in lower case, with hyphens for spaces and without punctuation.
fn has_heading(page: &str, anchor: &str) -> bool {
    let headings = page.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#'));
    let kept = |c: &char| c.is_alphanumeric() || "-_ ".contains(*c);
    let mut anchors = headings.map(|h| h.trim().to_lowercase().chars().filter(kept).collect::<String>());
    anchors.any(|name| name.replace(' ', "-") == anchor)
}

#[test]
fn links_lead_somewhere() {
    let pages = pages();
    let mut links = 0;
    for (page, text) in &pages {
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in targets.filter(|link| !link.starts_with("http")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            let target = target.canonicalize();
            let target = target.unwrap_or_else(|_| panic!("{}: {link} is not there", page.display()));
            let found = anchor.is_empty() || pages.get(&target).is_some_and(|text| has_heading(text, anchor));
            assert!(found, "{}: {link} is no heading of a page", page.display());
            links += 1;
        }
    }
    // So many are there that a page that was not read is noticed.
    assert!(links > 60, "{links}");
}

/// A figure of which more is better, cut off. What is added is only what binary fractions lose: specs have
/// four decimals.
fn cut(value: f64, decimals: usize) -> String {
    let unit = 10f64.powi(decimals as i32);
    format!("{:.decimals$}", (value * unit + 1e-6).floor() / unit)
}

/// A figure of which less is better, rounded up.
fn raised(value: f64, decimals: usize) -> String {
    let unit = 10f64.powi(decimals as i32);
    format!("{:.decimals$}", (value * unit - 1e-6).ceil() / unit)
}

/// 92000 as "92,000".
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    groups.map(|group| std::str::from_utf8(group).unwrap()).collect::<Vec<_>>().join(",")
}

/// Every row of a table that begins with a model's name, and every row of the section that has the name.
fn rows_of(page: &str, name: &str) -> String {
    let mut section = false;
    let of_model = |line: &&str| {
        section = if line.starts_with('#') { line.trim_start_matches('#').trim() == name } else { section };
        line.starts_with(&format!("| `{name}`")) || section && line.starts_with('|')
    };
    page.lines().filter(of_model).collect::<Vec<_>>().join("\n")
}

#[test]
fn figures_are_those_of_the_specs() {
    let text = |page: &str| read(&root().join(page));
    let (readme, models, changes) = (text("README.md"), text("docs/models.md"), text("CHANGELOG.md"));
    for name in ["photo", "photo-fast", "dncnn-photo", "cifar10", "resnet18-cifar10"] {
        let spec = Spec::read(&root().join("models/zoo").join(name).join("spec.json")).unwrap();
        let figure = |metric: &str, sigma: Option<f64>| {
            let found = spec.metrics.iter().find(|m| m.metric == metric && m.sigma == sigma);
            found.unwrap_or_else(|| panic!("{name}: no {metric} at {sigma:?}")).value
        };
        let says = |page: &str, text: &str, what: &str| {
            assert!(text.contains(what), "{page} lacks {what}, as {name} has")
        };
        let (in_readme, in_models) = (rows_of(&readme, name), rows_of(&models, name));

        let provenance = spec.provenance.as_ref().unwrap();
        let (steps, hours) = (grouped(provenance.steps), cut(provenance.cpu_hours, 2));
        says("docs/models.md", &in_models, &format!("{steps} steps, {hours} CPU hours"));

        if spec.task != Task::Classification {
            let figures =
                [15.0, 25.0, 50.0].map(Some).map(|sigma| (figure("psnr", sigma), figure("ssim", sigma)));
            // Beside accuracies, decibels and SSIM are named.
            let (unit, of) = if spec.task == Task::Joint { (" dB", "SSIM ") } else { ("", "") };
            let psnr = figures.map(|(psnr, _)| cut(psnr, 2));
            let cells = psnr.each_ref().map(|psnr| format!("{psnr}{unit}")).join(" | ");
            says("README.md", &in_readme, &format!(" {cells} |"));
            let cells = figures.map(|(psnr, ssim)| format!("{}{unit} ({of}{})", cut(psnr, 2), cut(ssim, 4)));
            says("docs/models.md", &in_models, &format!("| {} |", cells.join(" | ")));
            says("CHANGELOG.md", &changes, &psnr.join(" / "));
        }
        if spec.task != Task::Denoising {
            let accuracy = format!("{} %", cut(100.0 * figure("accuracy", None), 2));
            let calibration = format!("{} %", raised(100.0 * figure("calibration_error", None), 2));
            let cells = format!("| {accuracy} | {calibration} |");
            says("README.md", &in_readme, &cells);
            says("docs/models.md", &in_models, &cells);
            says("CHANGELOG.md", &changes, &accuracy);
        }
    }
}

/// The Rust files of a folder and of those below it.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for path in entries(folder) {
        if path.is_dir() && !path.is_symlink() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Whether a source has a test of this name.
fn has_test(source: &str, name: &str) -> bool {
    let before = source.split(&format!("fn {name}(")).next().unwrap_or_default();
    before.len() < source.len() && before.trim_end().ends_with("#[test]")
}

#[test]
fn tests_that_are_named_exist() {
    let mut files = Vec::new();
    for crate_folder in ["models", "runtime", "exporter", "trainer", "tests"] {
        for part in ["src", "tests"].map(|part| root().join(crate_folder).join(part)) {
            if part.is_dir() {
                sources(&part, &mut files);
            }
        }
    }
    let mut named = 0;
    let page = read(&root().join("docs/guarantees.md"));
    // A test is named by its file and its function.
    for (file, function) in page.split('`').skip(1).step_by(2).filter_map(|code| code.split_once("::")) {
        let mut of_file = files.iter().filter(|path| path.file_stem().is_some_and(|stem| *stem == *file));
        let found = of_file.any(|path| has_test(&read(path), function));
        assert!(found, "docs/guarantees.md names {file}::{function}");
        named += 1;
    }
    assert!(named > 60, "{named}");
}

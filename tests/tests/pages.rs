//! What the pages say that can be checked: that links lead somewhere, that figures are those in `spec.json`,
//! that the tests they name exist.

use gradresnet_models::spec::{Spec, Task};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// The files below a folder, hidden ones and what was built aside.
fn files(folder: &Path, files_found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && name != "target" {
            files(&path, files_found);
        } else if path.is_file() {
            files_found.push(path);
        }
    }
}

/// The Markdown pages of the root and of `docs/`, with their texts.
fn pages() -> BTreeMap<PathBuf, String> {
    let mut pages = BTreeMap::new();
    for folder in [root(), root().join("docs")] {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                pages.insert(path.clone(), std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    pages
}

/// The names under which a page's headings are linked to: lower case, spaces as hyphens, no punctuation.
fn anchors(page: &str) -> Vec<String> {
    let headings = page
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .map(|line| line.trim_start_matches('#').trim());
    let kept = |c: &char| c.is_alphanumeric() || "-_ ".contains(*c);
    headings
        .map(|heading| heading.to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-"))
        .collect()
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
            let target =
                target.canonicalize().unwrap_or_else(|_| panic!("{}: {link} is not there", page.display()));
            if !anchor.is_empty() {
                let found = anchors(&pages[&target]).iter().any(|name| name == anchor);
                assert!(found, "{}: {link} is no heading", page.display());
            }
            links += 1;
        }
    }
    // So many are there that a page that was not read is noticed.
    assert!(links > 60, "{links}");
}

/// Figures are cut off, never rounded in the model's favour. What is added is only what binary
/// fractions lose: the specs have four decimals.
fn cut(value: f64, decimals: i32) -> String {
    let unit = 10f64.powi(decimals);
    format!("{:.*}", decimals as usize, ((value * unit) + 1e-6).floor() / unit)
}

/// 92000 as "92,000".
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    groups.map(|group| std::str::from_utf8(group).unwrap()).collect::<Vec<_>>().join(",")
}

#[test]
fn figures_are_those_of_the_specs() {
    let read = |page: &str| std::fs::read_to_string(root().join(page)).unwrap();
    let (readme, models, changes) = (read("README.md"), read("docs/models.md"), read("CHANGELOG.md"));
    for name in ["photo", "photo-fast", "dncnn-photo", "cifar10", "resnet18-cifar10"] {
        let spec = Spec::read(&root().join("models/zoo").join(name).join("spec.json")).unwrap();
        let figure = |metric: &str, sigma: Option<f64>| {
            let found = spec.metrics.iter().find(|m| m.metric == metric && m.sigma == sigma);
            found.unwrap_or_else(|| panic!("{name}: no {metric} at {sigma:?}")).value
        };
        let says = |page: &str, what: &str, text: &str| {
            assert!(text.contains(what), "{page} lacks {what}, as {name} has")
        };

        let provenance = spec.provenance.as_ref().unwrap();
        let (steps, hours) = (grouped(provenance.steps), cut(provenance.cpu_hours, 2));
        let row = models.lines().find(|line| line.starts_with(&format!("| `{name}` | "))).unwrap();
        says("docs/models.md", &format!("{steps} steps, {hours} CPU hours"), row);

        if spec.task != Task::Classification {
            let figures =
                [15.0, 25.0, 50.0].map(Some).map(|sigma| (figure("psnr", sigma), figure("ssim", sigma)));
            // Beside accuracies, decibels and SSIM are named.
            let (unit, of) = if spec.task == Task::Joint { (" dB", "SSIM ") } else { ("", "") };
            let psnr = figures.map(|(psnr, _)| cut(psnr, 2));
            let cells = psnr.each_ref().map(|psnr| format!("{psnr}{unit}")).join(" | ");
            says("README.md", &format!(" {cells} |"), &readme);
            let cells = figures.map(|(psnr, ssim)| format!("{}{unit} ({of}{})", cut(psnr, 2), cut(ssim, 4)));
            says("docs/models.md", &format!("| {} |", cells.join(" | ")), &models);
            says("CHANGELOG.md", &psnr.join(" / "), &changes);
        }
        if spec.task != Task::Denoising {
            let accuracy = format!("{} %", cut(100.0 * figure("accuracy", None), 2));
            let calibration = format!("{} %", cut(100.0 * figure("calibration_error", None), 2));
            let cells = format!("| {accuracy} | {calibration} |");
            says("README.md", &cells, &readme);
            says("docs/models.md", &cells, &models);
            says("CHANGELOG.md", &accuracy, &changes);
        }
    }
}

#[test]
fn tests_that_are_named_exist() {
    let mut sources = Vec::new();
    files(&root(), &mut sources);
    let mut named = 0;
    let page = std::fs::read_to_string(root().join("docs/guarantees.md")).unwrap();
    // A test is named by its file and its function.
    for (file, function) in page.split('`').skip(1).step_by(2).filter_map(|code| code.split_once("::")) {
        let head = format!("fn {function}(");
        let of_file = |path: &&PathBuf| path.file_name().is_some_and(|name| *name == *format!("{file}.rs"));
        let found =
            sources.iter().filter(of_file).any(|path| std::fs::read_to_string(path).unwrap().contains(&head));
        assert!(found, "docs/guarantees.md names {file}::{function}");
        named += 1;
    }
    assert!(named > 60, "{named}");
}

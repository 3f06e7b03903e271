//! The bundles that ship, and their figures in the README and in docs.

use gradresnet::engine::{self, Device, EngineKind, Graph};
use gradresnet::{Bundle, Picture, Session, Tiling};
use gradresnet_tests::resources;
use ndarray::{Array4, s};
use std::path::{Path, PathBuf};
use std::process::Command;

fn bundle(name: &str) -> Bundle {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/zoo").join(name);
    Bundle::open(&dir).unwrap()
}

fn sessions(name: &str, test: &str) -> Vec<Session> {
    let open = |kind| Session::new(bundle(name), engine::open(kind, Device::Cpu, 1).unwrap());
    let mut sessions = vec![open(EngineKind::Tract)];
    if resources::path("ORT_DYLIB_PATH", test).is_some() {
        sessions.push(open(EngineKind::Ort));
    }
    sessions
}

/// Every `every`-th file of a folder and its subfolders, sorted.
fn files(dir: &Path, every: usize) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { all.push(path) }
        }
    }
    all.sort();
    all.into_iter().step_by(every).collect()
}

#[test]
fn every_shipped_bundle_verifies_on_every_engine_and_fits_the_limits() {
    let mut total = 0;
    // Others may have models of their own there.
    for name in ["photo", "photo-fast", "dncnn-photo", "cifar10", "resnet18-cifar10"] {
        let bundle = bundle(name);
        // It is a checkpoint too, to train further.
        gradresnet_models::Checkpoint::read(bundle.dir()).unwrap();
        for session in sessions(name, "shipped bundles on ONNX Runtime") {
            let report = gradresnet::verify::verify(&bundle, session.engine()).unwrap();
            let spec = bundle.spec();
            let graphs = Graph::ALL.into_iter().filter(|graph| graph.is_of(spec));
            let outputs: usize = graphs.map(|graph| graph.outputs(spec).len()).sum();
            let cases = bundle.golden().unwrap().cases.len();
            assert_eq!(report.deviations.len(), cases * outputs, "{name}: {}", report.engine);
        }
        let size: u64 = files(bundle.dir(), 1).iter().map(|f| f.metadata().unwrap().len()).sum();
        assert!(size < 16 << 20, "{name}: {size} bytes");
        total += size;
        let spec = bundle.spec();
        assert!(spec.metrics.iter().all(|m| !m.command.is_empty()), "{name}: a figure without its command");
        assert!(spec.provenance.as_ref().is_some_and(|p| p.cpu_hours >= 1.0), "{name}");
    }
    assert!(total < 64 << 20);
}

/// Every fourth image of CBSD68 with noise of σ = 25, clipped and rounded to 8 bits as in a file.
#[test]
fn photographs_are_denoised() {
    const TEST: &str = "photo and photo-fast on CBSD68";
    let Some(data) = resources::path("GRADRESNET_DATA", TEST) else { return };
    let sigma = 25.0 / 255.0;
    let tiles = Tiling::new(128, None).unwrap();
    let images = files(&data.join("cbsd68"), 4);
    // Half a decibel below what they reach, to leave room for retrained versions.
    for (name, least) in [("photo", 30.5), ("photo-fast", 30.3)] {
        let sessions = sessions(name, TEST);
        let (mut whole, mut tiled) = (vec![0.0; sessions.len()], 0.0);
        for (n, path) in images.iter().enumerate() {
            let clean = Picture::read(path).unwrap();
            let mut noisy = clean.clone();
            gradresnet::noise::add(&mut noisy, sigma, 1, &n.to_string());
            let noisy = noisy.pixels().mapv(|v| (v.clamp(0.0, 1.0) * 255.0).round() / 255.0);
            let psnr = |session: &Session, tiling: &Tiling| {
                let mut picture = Picture::from_pixels(noisy.view());
                let noise = session.estimate_noise(&picture);
                session.denoise_picture(&mut picture, noise, None, tiling).unwrap();
                let denoised = picture.pixels().mapv(|v| v.clamp(0.0, 1.0));
                gradresnet::psnr::psnr(denoised.view(), clean.pixels().view()).unwrap() / images.len() as f64
            };
            for (session, whole) in sessions.iter().zip(&mut whole) {
                *whole += psnr(session, &Tiling::default());
            }
            tiled += psnr(&sessions[0], &tiles);
        }
        assert!(whole[0] >= least, "{name}: {whole:?}");
        // In a tile, the norms see its statistics, not the image's. A seam or a shift costs whole decibels.
        assert!((tiled - whole[0]).abs() < 0.25, "{name}: tiled {tiled}, whole {whole:?}");
        assert!(whole.iter().all(|p| (p - whole[0]).abs() < 0.01), "{name}: {whole:?}");
    }
}

/// Every eighth image of the test set, on every engine.
#[test]
fn cifar10_classifies_its_test_set() {
    const TEST: &str = "cifar10 on its test set";
    let Some(data) = resources::path("GRADRESNET_DATA", TEST) else { return };
    let folder = data.join("cifar10/test");
    let images = files(&folder, 8);
    let mut pixels = Array4::zeros((images.len(), 3, 32, 32));
    for (path, mut target) in images.iter().zip(pixels.outer_iter_mut()) {
        target.assign(&Picture::read(path).unwrap().pixels());
    }
    let spec = bundle("cifar10").spec().clone();
    let mut predictions: Vec<Vec<usize>> = Vec::new();
    for session in sessions("cifar10", TEST) {
        let mut labels = Vec::new();
        for start in (0..images.len()).step_by(64) {
            let batch = pixels.slice(s![start..(start + 64).min(images.len()), .., .., ..]);
            for row in session.classify(batch).unwrap().rows() {
                let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(i, _)| i);
                labels.push(best.unwrap());
            }
        }
        predictions.push(labels);
    }
    let name = |path: &Path| path.parent().unwrap().file_name().unwrap().to_string_lossy().into_owned();
    let right = images.iter().zip(&predictions[0]).filter(|(p, l)| spec.classes[**l] == name(p)).count();
    // 91.0 % of all test images; the standard error of a share of 1,250 is 0.8 %.
    assert!(right as f64 >= 0.885 * images.len() as f64, "{right} of {}", images.len());
    for other in &predictions[1..] {
        assert_eq!(*other, predictions[0]);
    }
}

#[test]
fn the_table_of_what_graphs_ask_of_a_processor_is_of_those_that_ship() {
    let Some(python) = resources::path("GRADRESNET_PYTHON", "the table of what graphs ask of a processor")
    else {
        return;
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = std::fs::read_to_string(root.join("docs/performance.md")).unwrap();
    for arguments in [&["photo"][..], &["photo-fast"], &["cifar10", "--size", "32", "--batch", "64"]] {
        let mut floor = Command::new(&python);
        floor.arg(root.join("tests/floor.py")).arg(bundle(arguments[0]).dir()).args(&arguments[1..]);
        let output = floor.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let rows = String::from_utf8(output.stdout).unwrap();
        assert_eq!(rows.lines().count(), 2, "{rows}");
        for row in rows.lines() {
            assert!(page.lines().any(|line| line == row), "docs/performance.md lacks {row}");
        }
    }
}

/// The graphs also run without `gradresnet`, on ONNX Runtime.
#[test]
fn the_example_without_gradresnet_denoises() {
    let Some(python) = resources::path("GRADRESNET_PYTHON", "the example without gradresnet") else { return };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let pixels = |path: &Path| Picture::read(path).unwrap().pixels();
    let noisy = root.join("examples/noisy/lake.png");
    let expected = pixels(&root.join("examples/clean/lake.png"));
    let psnr = |path: &Path| -10.0 * (pixels(path) - &expected).mapv(|d| d * d).mean().unwrap().log10();
    let dir = tempfile::tempdir().unwrap();
    for name in ["photo", "photo-fast", "dncnn-photo"] {
        let clean = dir.path().join(name).with_extension("png");
        let mut example = Command::new(&python);
        example.arg(root.join("examples/any_runtime.py")).arg(bundle(name).dir());
        let output = example.arg(&noisy).arg("25").arg(&clean).output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        // From 20.2 dB, the models reach 31.8 or more.
        assert!(psnr(&clean) > psnr(&noisy) + 11.0, "{name}: {}", psnr(&clean));
    }
}

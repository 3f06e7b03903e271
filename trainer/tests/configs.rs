//! Every config in the repository can be read, and its network takes steps.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed")]

use gradresnet_models::parameters::parameters;
use gradresnet_models::{Architecture, Checkpoint};
use gradresnet_train::config::Config;
use gradresnet_train::run::{CHECKPOINT, Place, Run};
use std::path::{Path, PathBuf};
use tch::Device;

fn configs() -> Vec<(PathBuf, Config)> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("configs")];
    let mut all = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let config = Config::read(&path).unwrap();
                all.push((path, config));
            }
        }
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

#[test]
fn the_papers_networks_have_the_papers_sizes() {
    let millions = |a: &Architecture, classes| {
        parameters(a, classes).iter().filter(|p| p.is_trained()).map(|p| p.len()).sum::<usize>() as f64 / 1e6
    };
    for (path, config) in configs() {
        let Some(folder) = path.parent().and_then(|p| p.file_name()?.to_str()) else { continue };
        let classes = match (folder, config.architecture.is_direct()) {
            ("paper-cifar10", false) => 10,
            ("paper-imagenet", false) => 1000,
            ("paper-cifar10", true) => 0,
            _ => continue,
        };
        let expected = match (folder, config.architecture.family()) {
            ("paper-cifar10", "dncnn") => 0.665..0.675,
            ("paper-cifar10", "drunet") => 32.6..32.7,
            ("paper-cifar10", _) => 11.1..11.3,
            (_, _) => 11.6..12.0,
        };
        let found = millions(&config.architecture, classes);
        assert!(expected.contains(&found), "{}: {found} million", path.display());
    }
}

fn classes(dir: &Path) {
    for (class, name) in ["a", "b", "c"].into_iter().enumerate() {
        let folder = dir.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        for i in 0..4u32 {
            image::RgbImage::from_fn(40, 36, |x, y| {
                image::Rgb([(x * (i + 1) * 6) as u8, (y * 7) as u8, 80 * class as u8])
            })
            .save(folder.join(format!("{i}.png")))
            .unwrap();
        }
    }
}

/// The same run with a network and batches that take no time.
fn shrunk(mut config: Config) -> Config {
    match &mut config.architecture {
        Architecture::GradResNet(a) => a.width = 8,
        Architecture::ResNet(a) => a.width = 8,
        Architecture::DnCnn(a) => (a.depth, a.width) = (4, 8),
        Architecture::DruNet(a) => (a.width, a.blocks) = (2, 1),
    }
    config.steps = 4;
    if let Some(c) = &mut config.classification {
        (c.batch, c.size) = (12, 32);
    }
    if let Some(d) = &mut config.denoising {
        (d.batch, d.size) = (2, 32);
        for (i, change) in d.schedule.iter_mut().enumerate() {
            (change.from_step, change.batch, change.size) = (1 + i as u64, 1, 16);
        }
    }
    if let Some(j) = &mut config.jem {
        (j.batch, j.size, j.buffer, j.steps) = (2, 32, 4, 2);
    }
    config
}

#[test]
fn every_config_takes_steps_and_leaves_a_checkpoint() {
    tch::set_num_threads(1);
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    classes(&data);
    for (path, config) in configs() {
        let (folder, config) = (dir.path().join("run"), shrunk(config));
        let place = Place { data: data.clone(), device: Device::Cpu, threads: None, loader_threads: 1 };
        let mut run = Run::start(config, place, "test".into(), None).unwrap();
        for _ in 0..3 {
            let step = run.step().unwrap_or_else(|e| panic!("{}: {e:#}", path.display()));
            assert!(step.loss.is_finite() && step.gradient_norm > 0.0, "{}", path.display());
        }
        run.checkpoint(&folder).unwrap();
        let checkpoint = Checkpoint::read(&folder.join(CHECKPOINT)).unwrap();
        assert!(checkpoint.golden.is_some(), "{}", path.display());
    }
}

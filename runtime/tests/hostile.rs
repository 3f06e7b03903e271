//! What a run may meet unplanned: full disks, missing permissions, vanishing files, bombs, and a second run.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed")]
#![cfg(unix)]

mod program;

use program::{denoise, folder, program, root, skipped, stderr};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A user who owns nothing: `nobody` on most systems.
const NOBODY: u32 = 65534;

fn is_root(dir: &Path) -> bool {
    std::fs::metadata(dir).unwrap().uid() == 0
}

/// Names of the files in a folder, hidden ones too, in order.
fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Copies an example image of 384×256 pixels to each of these files.
fn place_images(dir: &Path, names: &[&str]) {
    for (i, name) in names.iter().enumerate() {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let source = ["lake", "table", "wall"][i % 3];
        std::fs::copy(root().join(format!("examples/noisy/{source}.png")), path).unwrap();
    }
}

/// A disk of 64 KiB, for as long as it lives.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(dir: PathBuf) -> Option<SmallDisk> {
        std::fs::create_dir_all(&dir).unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "none"]).arg(&dir).output();
        mount.is_ok_and(|output| output.status.success()).then_some(SmallDisk(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_an_error_and_leaves_no_half_file() {
    let dir = folder("full");
    let Some(disk) = SmallDisk::mount(dir.join("disk")) else {
        skipped("a_full_disk_is_an_error_and_leaves_no_half_file", "only root can mount a small disk");
        return;
    };
    // There is too little room for a clean image, but enough for a small one.
    place_images(&dir, &["in/lake.png", "in/table.png"]);
    image::open(dir.join("in/lake.png"))
        .unwrap()
        .crop_imm(0, 0, 40, 30)
        .save(dir.join("in/small.png"))
        .unwrap();
    let output = denoise(&dir, &["in", "-o", "disk"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    for name in ["lake.png", "table.png"] {
        assert!(stderr(&output).contains(&format!("disk/{name}")), "{}", stderr(&output));
    }
    assert_eq!(names(&disk.0), ["small.png"]);
}

#[test]
fn closed_files_and_folders_are_named_and_the_rest_is_done() {
    // Another user may enter here: the program and its models are copied.
    let dir = tempfile::tempdir().unwrap();
    let open = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    open(dir.path(), 0o755);
    let program = dir.path().join("gradresnet");
    std::fs::copy(env!("CARGO_BIN_EXE_gradresnet"), &program).unwrap();
    let photo = dir.path().join("models/photo");
    std::fs::create_dir_all(&photo).unwrap();
    for entry in std::fs::read_dir(root().join("models/zoo/photo")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), photo.join(entry.file_name())).unwrap();
    }
    place_images(dir.path(), &["in/open.png", "in/secret.png", "in/closed/a.png"]);
    for name in ["mine", "others"] {
        std::fs::create_dir(dir.path().join(name)).unwrap();
    }
    let root = is_root(dir.path());
    if root {
        chown(dir.path().join("mine"), Some(NOBODY), None).unwrap();
    } else {
        open(&dir.path().join("others"), 0o555);
    }
    open(&dir.path().join("in/secret.png"), 0);
    open(&dir.path().join("in/closed"), 0);
    let denoise = |out: &str| {
        let mut command = Command::new(&program);
        command.current_dir(dir.path()).env("GRADRESNET_MODELS", dir.path().join("models"));
        command.args(["denoise", "in", "-o", out, "--recursive"]);
        if root {
            command.uid(NOBODY);
        }
        command.output().unwrap()
    };
    let output = denoise("mine");
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("in/secret.png"), "{}", stderr(&output));
    assert!(stderr(&output).contains("in/closed"), "{}", stderr(&output));
    assert_eq!(names(&dir.path().join("mine")), ["open.png"]);

    let output = denoise("others");
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    // Once and before the work: of the folder, and not of an image whose result cannot be written.
    let told = stderr(&output).matches("others: Permission denied").count();
    assert_eq!(told, 1, "{}", stderr(&output));
    assert!(stderr(&output).contains("error: others: Permission denied"), "{}", stderr(&output));
    assert!(names(&dir.path().join("others")).is_empty());
    // So that the folder can be removed.
    open(&dir.path().join("in/closed"), 0o755);
    open(&dir.path().join("others"), 0o755);
}

#[test]
fn a_file_that_vanishes_is_named_and_the_rest_is_done() {
    let dir = folder("vanishes");
    place_images(&dir, &["in/1.png", "in/2.png", "in/3.png", "in/4.png", "in/5.png"]);
    let mut command = program();
    command.current_dir(&dir).args(["denoise", "in", "-o", "out", "--jobs", "1"]).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    // The list of inputs has been made when the first output is there.
    wait_for(&dir.join("out/1.png"));
    std::fs::remove_file(dir.join("in/5.png")).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("in/5.png"), "{}", stderr(&output));
    assert_eq!(names(&dir.join("out")), ["1.png", "2.png", "3.png", "4.png"]);
}

#[test]
fn an_interruption_finishes_the_files_in_work() {
    let dir = folder("interrupted");
    let inputs: Vec<String> = (1..=8).map(|i| format!("in/{i}.png")).collect();
    place_images(&dir, &inputs.iter().map(String::as_str).collect::<Vec<_>>());
    let mut command = program();
    command.current_dir(&dir).args(["denoise", "in", "-o", "out", "--jobs", "1"]).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    wait_for(&dir.join("out/1.png"));
    let interrupt = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(interrupt.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert!(stderr(&output).contains("--skip-existing resumes"), "{}", stderr(&output));
    let done = names(&dir.join("out"));
    assert!(stderr(&output).contains(&format!("interrupted: {} of 8", done.len())), "{}", stderr(&output));
    assert!((1..8).contains(&done.len()) && done.iter().all(|name| !name.starts_with('.')), "{done:?}");
    // What is there is whole, and the rest is done as if nothing had happened.
    assert!(denoise(&dir, &["in", "-o", "out", "--skip-existing"]).status.success());
    assert!(denoise(&dir, &["in", "-o", "whole"]).status.success());
    for name in names(&dir.join("whole")) {
        let read = |folder: &str| std::fs::read(dir.join(folder).join(&name)).unwrap();
        assert!(read("out") == read("whole"), "{name}");
    }
}

/// Done again, they would be denoised twice: the user has to know which are left.
#[test]
fn an_interruption_in_place_names_the_first_file_that_is_left() {
    let dir = folder("interrupted-in-place");
    let inputs: Vec<String> = (1..=8).map(|i| format!("in/{i}.png")).collect();
    place_images(&dir, &inputs.iter().map(String::as_str).collect::<Vec<_>>());
    let read = || inputs.iter().map(|name| std::fs::read(dir.join(name)).unwrap()).collect::<Vec<_>>();
    let before = read();
    let mut command = program();
    command.current_dir(&dir).args(["denoise", "in", "--in-place", "--jobs", "1"]).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    wait_until("the first image changes", || std::fs::read(dir.join("in/1.png")).unwrap() != before[0]);
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert!(!stderr(&output).contains("--skip-existing"), "{}", stderr(&output));
    let is_named =
        |name: &String| stderr(&output).contains(&format!("{name} and the files after it are unchanged"));
    let left = inputs.iter().position(is_named);
    let left = left.unwrap_or_else(|| panic!("{}", stderr(&output)));
    for (i, (now, before)) in read().iter().zip(&before).enumerate() {
        assert_eq!(now == before, i >= left, "{}: {}", inputs[i], stderr(&output));
    }
}

fn wait_for(path: &Path) {
    wait_until(&format!("{} is there", path.display()), || path.exists());
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "it never came to this: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn two_runs_on_one_folder_agree() {
    let dir = folder("two");
    place_images(&dir, &["in/1.png", "in/2.png", "in/3.png", "in/4.png"]);
    assert!(denoise(&dir, &["in", "-o", "one"]).status.success());
    for (out, existing) in [("skipped", "--skip-existing"), ("replaced", "--overwrite")] {
        let start = || -> Child {
            let args = ["denoise", "in", "-o", out, "--quiet"];
            program().current_dir(&dir).args(args).arg(existing).spawn().unwrap()
        };
        let both = [start(), start()];
        for mut child in both {
            assert!(child.wait().unwrap().success(), "{existing}");
        }
        assert_eq!(names(&dir.join(out)), names(&dir.join("one")));
        for name in names(&dir.join("one")) {
            let read = |folder: &str| std::fs::read(dir.join(folder).join(&name)).unwrap();
            assert!(read("one") == read(out), "{existing} {name}");
        }
    }
}

#[test]
fn bombs_empty_files_and_numbers_that_are_none_are_refused() {
    let dir = folder("bombs");
    place_images(&dir, &["in/good.png"]);
    std::fs::write(dir.join("in/empty.png"), "").unwrap();
    // 30 GB of pixels in a file of some hundred bytes.
    let bomb = std::fs::File::create(dir.join("in/bomb.png")).unwrap();
    let mut encoder = png::Encoder::new(bomb, 100_000, 100_000);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().unwrap().write_chunk(png::chunk::IDAT, &[0x78, 0x01]).unwrap();
    // A row alone is more than a decoder takes.
    let wide = std::fs::File::create(dir.join("in/wide.png")).unwrap();
    let mut encoder = png::Encoder::new(wide, i32::MAX as u32, i32::MAX as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().unwrap().write_chunk(png::chunk::IDAT, &[0x78, 0x01]).unwrap();
    let nan = std::fs::File::create(dir.join("in/nan.tif")).unwrap();
    let mut encoder = tiff::encoder::TiffEncoder::new(nan).unwrap();
    encoder.write_image::<tiff::encoder::colortype::RGB32Float>(2, 2, &[f32::NAN; 12]).unwrap();
    // To read it would wait for ever.
    assert!(Command::new("mkfifo").arg(dir.join("in/pipe.png")).status().unwrap().success());
    let output = denoise(&dir, &["in", "-o", "out"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    for (name, reason) in [
        ("empty.png", "the file is empty"),
        ("bomb.png", "100000"),
        ("wide.png", "2147483647"),
        ("nan.tif", "finite"),
        ("pipe.png", "not a regular file"),
    ] {
        let errors = stderr(&output);
        let line = errors.lines().find(|line| line.contains(name)).expect(name);
        assert!(line.contains(reason), "{line}");
    }
    assert_eq!(names(&dir.join("out")), ["good.png"]);
}

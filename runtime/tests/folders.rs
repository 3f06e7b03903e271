//! Folders of images through `gradresnet denoise`: what is kept, what is found, and what interruptions leave.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed")]

mod program;

use image::{DynamicImage, Rgba, RgbaImage};
use program::{denoise, folder, program, root, stderr};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

fn save(image: &DynamicImage, path: &Path) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    image.save(path).unwrap();
}

/// A part of an example image.
fn part(i: u32) -> DynamicImage {
    let names = ["lake", "table", "wall"];
    let path = root().join(format!("examples/noisy/{}.png", names[i as usize % 3]));
    image::open(path).unwrap().crop_imm(
        16 * (i % 16),
        8 * (i % 20),
        64,
        if i.is_multiple_of(2) { 48 } else { 80 },
    )
}

/// Every file below a folder, by its path there.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        let name = PathBuf::from(path.file_name().unwrap());
        if path.is_dir() {
            files.extend(contents(&path).into_iter().map(|(below, bytes)| (name.join(below), bytes)));
        } else {
            files.insert(name, std::fs::read(&path).unwrap());
        }
    }
    files
}

/// How many files there are below a folder, but for unfinished ones.
fn outputs(dir: &Path) -> usize {
    let entries = std::fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap());
    let visible = entries.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'));
    visible.map(|entry| if entry.path().is_dir() { outputs(&entry.path()) } else { 1 }).sum()
}

#[test]
fn a_killed_run_goes_on_to_the_same_bytes() {
    let dir = folder("killed");
    for i in 0..30 {
        let extension = ["png", "jpg", "tif"][i as usize % 3];
        save(&part(i).to_rgb8().into(), &dir.join(format!("in/{}/{i}.{extension}", i % 4)));
    }
    let whole = denoise(&dir, &["in", "-o", "whole", "--recursive"]);
    assert!(whole.status.success(), "{}", stderr(&whole));
    let whole = contents(&dir.join("whole"));
    assert_eq!(whole.len(), 30);
    let mut counts = Vec::new();
    for i in 0..10 {
        let args = ["denoise", "in", "-o", "killed", "--recursive", "--skip-existing", "--quiet"];
        let mut child = program().current_dir(&dir).args(args).spawn().unwrap();
        // At ten moments after one more output: in the middle of the next, whatever the speed of the machine.
        let before = outputs(&dir.join("killed"));
        while outputs(&dir.join("killed")) == before && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(3 * i));
        // On Unix this is SIGKILL, which no program can handle.
        child.kill().unwrap();
        child.wait().unwrap();
        counts.push(outputs(&dir.join("killed")));
        for (name, bytes) in contents(&dir.join("killed")) {
            let unfinished = name.file_name().unwrap().to_string_lossy().starts_with(".gradresnet-");
            assert!(unfinished || whole[&name] == bytes, "{} is not whole", name.display());
        }
    }
    assert!(counts.iter().any(|count| (1..30).contains(count)), "no run was killed at its work: {counts:?}");
    let last = denoise(&dir, &["in", "-o", "killed", "--recursive", "--skip-existing"]);
    assert!(last.status.success(), "{}", stderr(&last));
    let mut killed = contents(&dir.join("killed"));
    killed.retain(|name, _| !name.file_name().unwrap().to_string_lossy().starts_with("."));
    assert!(killed == whole);
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let dir = folder("threads");
    (0..4).for_each(|i| save(&part(i), &dir.join(format!("in/{i}.png"))));
    for jobs in ["1", "3"] {
        // Small tiles, so that one image is spread over the threads.
        let output = denoise(&dir, &["in", "-o", jobs, "--jobs", jobs, "--tile", "32"]);
        assert!(output.status.success(), "{}", stderr(&output));
        // One uncut image, so that its operators are spread.
        let alone = format!("alone-{jobs}");
        let output = denoise(&dir, &["in/0.png", "-o", &alone, "--jobs", jobs]);
        assert!(output.status.success(), "{}", stderr(&output));
    }
    assert!(contents(&dir.join("1")) == contents(&dir.join("3")));
    assert!(contents(&dir.join("alone-1")) == contents(&dir.join("alone-3")));
}

#[test]
fn grey_images_become_cleaner_and_stay_grey() {
    let dir = folder("grey");
    for name in ["lake", "table", "wall"] {
        let grey = image::open(root().join(format!("examples/clean/{name}.png"))).unwrap().to_luma8();
        save(&grey.into(), &dir.join(format!("clean/{name}.png")));
    }
    let run = |args: &[&str]| {
        let output = program().current_dir(&dir).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    run(&["add-noise", "clean", "-o", "noisy", "--sigma", "25"]);
    for name in ["lake", "table", "wall"] {
        let grey = image::open(dir.join(format!("noisy/{name}.png"))).unwrap();
        save(&grey.to_rgb8().into(), &dir.join(format!("noisy-rgb/{name}.png")));
    }
    let mean = |folder: &str| -> f64 {
        let text = run(&["psnr", folder, "clean"]);
        text.lines().last().unwrap().split_whitespace().next().unwrap().parse().unwrap()
    };
    for (noisy, out) in [("noisy", "out"), ("noisy-rgb", "out-rgb")] {
        run(&["denoise", noisy, "-o", out, "--sigma", "25"]);
        // 8.6 dB when this was written; without colour noise it came out worse than it went in.
        assert!(mean(out) > mean(noisy) + 8.2, "{} of {}", mean(out), mean(noisy));
    }
    let written = image::open(dir.join("out/lake.png")).unwrap();
    assert_eq!(written.color(), image::ColorType::L8);
    // The same image in one channel or three.
    assert_eq!(image::open(dir.join("out-rgb/lake.png")).unwrap().to_luma8(), written.to_luma8());
}

#[test]
fn what_is_hidden_neither_changes_nor_shows() {
    let dir = folder("hidden");
    let noisy = part(0).to_rgba8();
    let with = |hidden: [u8; 3]| {
        RgbaImage::from_fn(noisy.width(), noisy.height(), |x, y| {
            let Rgba([r, g, b, _]) = *noisy.get_pixel(x, y);
            let [hr, hg, hb] = hidden;
            if x < 20 { Rgba([hr, hg, hb, 0]) } else { Rgba([r, g, b, 255]) }
        })
    };
    for (name, hidden) in [("black", [0, 0, 0]), ("pink", [255, 0, 180])] {
        save(&with(hidden).into(), &dir.join(format!("in/{name}.png")));
    }
    let output = denoise(&dir, &["in", "-o", "out"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let read = |name: &str| image::open(dir.join(format!("out/{name}.png"))).unwrap().to_rgba8();
    let (black, pink) = (read("black"), read("pink"));
    assert!(black.pixels().zip(pink.pixels()).all(|(a, b)| a[3] == b[3] && (a[3] == 0 || a == b)));
    assert_eq!(*pink.get_pixel(3, 3), Rgba([255, 0, 180, 0]));
}

#[test]
fn inputs_are_replaced_only_when_that_was_asked_for() {
    let dir = folder("in-place");
    save(&part(0), &dir.join("in/a.png"));
    let before = contents(&dir.join("in"));
    for args in [&["in", "-o", "in", "--overwrite"][..], &["in/a.png", "-o", "in", "--overwrite"]] {
        let output = denoise(&dir, args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(stderr(&output).contains("is one of the inputs"), "{}", stderr(&output));
        assert!(contents(&dir.join("in")) == before);
    }
    assert_eq!(denoise(&dir, &["in", "--in-place", "-o", "out"]).status.code(), Some(1));
    // Named in a way that means an input only once folders are made, or that leads out of the output.
    for args in [&["in", "-o", "new/../in"][..], &["in", "-o", "new/../in", "--overwrite"]] {
        let output = denoise(&dir, args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(stderr(&output).contains("is one of the inputs"), "{}", stderr(&output));
    }
    let output = denoise(&dir, &["*/../in/*.png", "-o", "out"]);
    assert!(output.status.code() == Some(1) && !dir.join("out").exists(), "{}", stderr(&output));
    // Each file once, by whatever names.
    let output = denoise(&dir, &["in", "./in/a.png", "--in-place"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("are the same file"), "{}", stderr(&output));
    assert!(contents(&dir.join("in")) == before);
    let output = denoise(&dir, &["in", "--in-place"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(contents(&dir.join("in")) != before);
}

#[cfg(unix)]
#[test]
fn a_link_that_is_denoised_in_place_stays_a_link() {
    let dir = folder("link");
    save(&part(0), &dir.join("there/a.png"));
    std::fs::create_dir(dir.join("in")).unwrap();
    std::os::unix::fs::symlink("../there/a.png", dir.join("in/a.png")).unwrap();
    let before = contents(&dir.join("there"));
    let output = denoise(&dir, &["in", "--in-place"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(dir.join("in/a.png").is_symlink() && contents(&dir.join("there")) != before);
}

#[test]
fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let dir = folder("dry");
    save(&part(0), &dir.join("in/b/a.png"));
    let output = denoise(&dir, &["in", "-o", "out", "--recursive", "--dry-run", "--format", "jpeg"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let out = Path::new("out").join("b").join("a.jpg");
    assert!(String::from_utf8_lossy(&output.stdout).contains(&out.display().to_string()));
    let output = denoise(&dir, &["in", "-o", "out", "--dry-run", "--model", "nowhere"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("nowhere"), "{}", stderr(&output));
    std::fs::write(dir.join("log.jsonl"), "kept").unwrap();
    let output = denoise(&dir, &["in", "-o", "out", "--dry-run", "--recursive", "--report", "log.jsonl"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("log.jsonl: exists"), "{}", stderr(&output));
    assert!(!dir.join("out").exists());
    assert_eq!(std::fs::read_to_string(dir.join("log.jsonl")).unwrap(), "kept");
}

#[test]
fn patterns_keep_the_path_below_their_first_wildcard() {
    let dir = folder("patterns");
    for name in ["in/x/a.png", "in/y/b.png", "in/y/c.jpg"] {
        save(&part(0).to_rgb8().into(), &dir.join(name));
    }
    let output = denoise(&dir, &["in/*/*.png", "-o", "out"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let names: Vec<_> = contents(&dir.join("out")).into_keys().collect();
    assert_eq!(names, [Path::new("x").join("a.png"), Path::new("y").join("b.png")]);
    let output = denoise(&dir, &["./in/*/*.png", "-o", "dot"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(contents(&dir.join("dot")) == contents(&dir.join("out")));
    // The output is above what was asked for.
    let output = denoise(&dir, &["in/x/*.png", "-o", "."]);
    assert!(output.status.success() && dir.join("a.png").is_file(), "{}", stderr(&output));
    let nothing = denoise(&dir, &["in/*.bmp", "-o", "out"]);
    assert_eq!(nothing.status.code(), Some(1));
    assert!(stderr(&nothing).contains("in/*.bmp"), "{}", stderr(&nothing));
}

#[test]
fn noise_beyond_the_model_is_noted() {
    let dir = folder("beyond");
    std::fs::create_dir(dir.join("in")).unwrap();
    std::fs::copy(root().join("examples/clean/wall.png"), dir.join("in/wall.png")).unwrap();
    let add = |out: &str, sigma: &str| {
        let mut command = program();
        command.current_dir(&dir).args(["add-noise", "in", "-o", out, "--sigma", sigma]);
        assert!(command.status().unwrap().success());
    };
    add("much", "110");
    add("little", "20");
    let said = "more noise than `photo-fast` was trained for, σ = 70: 1 image";
    let trained = "`photo-fast` was trained for noise levels from 1 to 70";
    for (i, (folder, sigma, note, level)) in [
        ("much", "auto", said, "σ = 11"),
        ("much", "folder", trained, "σ = 11"),
        ("much", "110", trained, "σ = 110.0,"),
        ("little", "auto", "", "σ = 19.9,"),
    ]
    .into_iter()
    .enumerate()
    {
        let out = format!("out{i}");
        let args = [folder, "-o", &out, "--sigma", sigma, "--model", "photo-fast"];
        let output = denoise(&dir, &args);
        let text = stderr(&output);
        assert!(output.status.success() && text.contains(note) && text.contains(level), "{text}");
        assert_eq!(text.contains("was trained for"), !note.is_empty(), "{text}");
    }
}

#[test]
fn files_that_are_left_out_of_a_folder_are_counted() {
    let dir = folder("left-out");
    save(&part(0), &dir.join("in/a.png"));
    for name in ["b.gif", "c.gif", "notes"] {
        std::fs::write(dir.join("in").join(name), "").unwrap();
    }
    let output = denoise(&dir, &["in", "-o", "out"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("2 .gif, 1 without ending"), "{}", stderr(&output));
    assert_eq!(contents(&dir.join("out")).len(), 1);
}

#[cfg(unix)]
#[test]
fn links_in_a_circle_end() {
    let dir = folder("circle");
    save(&part(0), &dir.join("in/a.png"));
    std::os::unix::fs::symlink("..", dir.join("in/again")).unwrap();
    let output = denoise(&dir, &["in", "-o", "out", "--recursive"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(contents(&dir.join("out")).len(), 1);
}

#[test]
fn every_input_has_a_line_in_the_report() {
    let dir = folder("report");
    save(&part(0), &dir.join("in/done.png"));
    save(&part(1), &dir.join("in/there.png"));
    save(&part(1), &dir.join("out/there.png"));
    std::fs::write(dir.join("in/broken.png"), "no image").unwrap();
    let args = ["in", "nowhere", "-o", "out", "--skip-existing", "--report", "report.jsonl"];
    let output = denoise(&dir, &args);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    let report = std::fs::read_to_string(dir.join("report.jsonl")).unwrap();
    let lines: BTreeMap<String, serde_json::Value> = report
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|line| (line["path"].as_str().unwrap().replace('\\', "/"), line))
        .collect();
    assert_eq!(lines.len(), 4, "{report}");
    assert!(lines["in/done.png"]["sigma"].is_number() && lines["in/done.png"]["error"].is_null());
    assert_eq!(lines["in/there.png"]["skipped"], true);
    assert!(lines["in/broken.png"]["error"].is_string() && lines["nowhere"]["error"].is_string());
}

#[test]
fn a_report_replaces_nothing_unasked() {
    let dir = folder("report-kept");
    save(&part(0), &dir.join("in/a.png"));
    let image = std::fs::read(dir.join("in/a.png")).unwrap();
    let run = |extra: &[&str], report: &str| {
        denoise(&dir, &[&["in", "-o", "out", "--report", report, "--sigma", "20"], extra].concat())
    };
    // In a folder that is yet to be made, too.
    assert!(run(&[], "out/reports/r.jsonl").status.success());
    std::fs::remove_dir_all(dir.join("out")).unwrap();
    assert!(run(&[], "r.jsonl").status.success());
    let first = std::fs::read_to_string(dir.join("r.jsonl")).unwrap();
    let again = run(&[], "r.jsonl");
    assert!(
        again.status.code() == Some(1) && stderr(&again).contains("--skip-existing"),
        "{}",
        stderr(&again)
    );
    assert_eq!(std::fs::read_to_string(dir.join("r.jsonl")).unwrap(), first);
    assert!(run(&["--skip-existing"], "r.jsonl").status.success());
    let both = std::fs::read_to_string(dir.join("r.jsonl")).unwrap();
    assert!(both.starts_with(&first) && both.lines().count() == 2, "{both}");
    assert!(run(&["--overwrite"], "r.jsonl").status.success());
    assert_eq!(report(&dir.join("r.jsonl")).len(), 1);
    for extra in [&["--overwrite"][..], &["--skip-existing"]] {
        let named = run(extra, "in/a.png");
        assert!(named.status.code() == Some(1) && stderr(&named).contains("--report"), "{}", stderr(&named));
        assert_eq!(std::fs::read(dir.join("in/a.png")).unwrap(), image);
    }
}

/// The images are done all the same, and a script learns that something failed.
#[cfg(target_os = "linux")]
#[test]
fn a_report_that_cannot_be_written_is_no_failed_image() {
    let dir = folder("report-full");
    (0..2).for_each(|i| save(&part(i), &dir.join(format!("in/{i}.png"))));
    let output = denoise(&dir, &["in", "-o", "out", "--report", "/dev/full", "--overwrite"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert_eq!(stderr(&output).matches("/dev/full: cannot be written").count(), 1, "{}", stderr(&output));
    assert_eq!(contents(&dir.join("out")).len(), 2);
}

/// The lines of a report.
fn report(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_level_is_chosen_for_a_file_or_a_folder_and_strength_scales_it() {
    let dir = folder("levels");
    (0..3).for_each(|i| save(&part(i), &dir.join(format!("in/{i}.png"))));
    let run = |out: &str, args: &[&str]| {
        let report = format!("{out}.jsonl");
        let output = denoise(&dir, &[&["in", "-o", out, "--report", &report, "--quiet"], args].concat());
        assert!(output.status.success() && output.stderr.is_empty(), "{out}: {}", stderr(&output));
    };
    let levels = |out: &str| -> Vec<f64> {
        let lines = report(&dir.join(format!("{out}.jsonl")));
        let mut levels: Vec<f64> = lines.iter().map(|line| line["sigma"].as_f64().unwrap()).collect();
        levels.sort_by(f64::total_cmp);
        levels
    };
    run("auto", &[]);
    run("folder", &["--sigma", "folder"]);
    run("nothing", &["--strength", "0"]);
    assert_eq!(levels("folder"), [levels("auto")[1]; 3]);
    // A resumed run uses the level of all images.
    let whole = contents(&dir.join("folder"));
    (0..2).for_each(|i| std::fs::remove_file(dir.join(format!("folder/{i}.png"))).unwrap());
    run("folder", &["--sigma", "folder", "--skip-existing"]);
    assert!(contents(&dir.join("folder")) == whole);
    let pixels = |name: &str| image::open(dir.join(name)).unwrap().to_rgb8();
    assert_eq!(pixels("nothing/0.png"), pixels("in/0.png"));
    assert_ne!(pixels("auto/0.png"), pixels("in/0.png"));
    // Against the noisy images: the more is removed, the lower the PSNR.
    run("half", &["--strength", "0.5", "--reference", "in"]);
    run("full", &["--reference", "in"]);
    let mean = |out: &str| -> f64 {
        let lines = report(&dir.join(format!("{out}.jsonl")));
        lines.iter().map(|line| line["psnr"].as_f64().unwrap()).sum()
    };
    assert!(mean("half") > mean("full") + 1.0, "{} {}", mean("half"), mean("full"));
}

/// A lossy format costs decibels: the PSNR is that of the file, not of what went into it.
#[test]
fn the_psnr_told_is_that_of_the_written_file() {
    let dir = folder("reference");
    (0..2).for_each(|i| save(&part(i).to_rgb8().into(), &dir.join(format!("in/{i}.png"))));
    let args = ["in", "-o", "out", "--format", "jpeg", "--quality", "20", "--report", "out.jsonl"];
    let output = denoise(&dir, &[&args[..], &["--reference", "in"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let told: BTreeMap<String, f64> = report(&dir.join("out.jsonl"))
        .iter()
        .map(|line| (line["output"].as_str().unwrap().to_string(), line["psnr"].as_f64().unwrap()))
        .collect();
    let psnr = program().current_dir(&dir).args(["psnr", "out", "in", "--json"]).output().unwrap();
    let lines = String::from_utf8(psnr.stdout).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let measured: BTreeMap<String, f64> = lines
        .filter_map(|line| Some((line["path"].as_str()?.to_string(), line["psnr"].as_f64().unwrap())))
        .collect();
    assert_eq!(told.len(), 2);
    assert_eq!(told, measured);

    // Files that need more memory than there is are worked on alone, with their references.
    let short =
        ["in", "-o", "alone", "--memory", "1k", "--tile", "64", "--jobs", "2", "--report", "alone.jsonl"];
    let output = denoise(&dir, &[&short[..], &["--reference", "in"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(report(&dir.join("alone.jsonl")).iter().filter(|line| line["psnr"].is_f64()).count(), 2);

    // Whatever the ending of the reference, and its case.
    std::fs::create_dir(dir.join("upper")).unwrap();
    std::fs::copy(dir.join("in/0.png"), dir.join("upper/0.PNG")).unwrap();
    let output = denoise(&dir, &["in/0.png", "-o", "found", "--format", "jpeg", "--reference", "upper"]);
    assert!(output.status.success() && stderr(&output).contains(" dB"), "{}", stderr(&output));

    save(&part(0).crop_imm(0, 0, 64, 40).to_rgb8().into(), &dir.join("small/0.png"));
    let output = denoise(&dir, &["in/0.png", "-o", "none", "--reference", "small"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("64×48 pixels, and small/0.png has 64×40"), "{}", stderr(&output));
    assert!(contents(&dir.join("none")).is_empty());
}

/// Clipped noise has made black lighter; it becomes black again.
#[test]
fn dark_pictures_become_as_dark_as_they_were() {
    let dir = folder("dark");
    let dark = image::RgbImage::from_fn(96, 80, |x, y| image::Rgb([x as u8 / 4, y as u8 / 4, 12]));
    save(&dark.clone().into(), &dir.join("dark.png"));
    let noisy = program()
        .current_dir(&dir)
        .args(["add-noise", "dark.png", "-o", "noisy", "--sigma", "25"])
        .output()
        .unwrap();
    assert!(noisy.status.success(), "{}", stderr(&noisy));
    let mean = |image: &image::RgbImage| {
        image.as_raw().iter().map(|v| f64::from(*v)).sum::<f64>() / image.as_raw().len() as f64
    };
    let noisy = image::open(dir.join("noisy/dark.png")).unwrap().to_rgb8();
    assert!(mean(&noisy) > mean(&dark) + 4.0, "{} {}", mean(&noisy), mean(&dark));
    let output = denoise(&dir, &["noisy", "-o", "out"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let found = mean(&image::open(dir.join("out/dark.png")).unwrap().to_rgb8());
    assert!((found - mean(&dark)).abs() < 1.5, "{found}, not {}", mean(&dark));
}

#[test]
fn formats_quality_and_metadata_are_as_asked_for() {
    let dir = folder("asked");
    std::fs::create_dir(dir.join("in")).unwrap();
    let image = part(0).to_rgb8();
    let mut info = png::Info::with_size(image.width(), image.height());
    info.color_type = png::ColorType::Rgb;
    info.bit_depth = png::BitDepth::Eight;
    // A byte order mark and a directory without entries.
    info.exif_metadata = Some(b"II*\0\x08\0\0\0\0\0\0\0\0\0".into());
    let file = std::fs::File::create(dir.join("in/a.png")).unwrap();
    let mut writer = png::Encoder::with_info(file, info).unwrap().write_header().unwrap();
    writer.write_image_data(image.as_raw()).unwrap();
    writer.finish().unwrap();
    let run = |out: &str, args: &[&str]| {
        let output = denoise(&dir, &[&["in", "-o", out], args].concat());
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        contents(&dir.join(out)).into_iter().next().unwrap()
    };
    let holds_exif = |bytes: &[u8]| bytes.windows(4).any(|chunk| chunk == b"eXIf");
    assert!(holds_exif(&run("kept", &[]).1));
    assert!(!holds_exif(&run("stripped", &["--strip"]).1));
    for (format, name) in [("jpeg", "a.jpg"), ("webp", "a.webp"), ("tiff", "a.tif"), ("png", "a.png")] {
        let (path, bytes) = run(format, &["--format", format]);
        assert_eq!(path, Path::new(name));
        let found = image::guess_format(&bytes).unwrap();
        assert_eq!(image::ImageFormat::from_path(name).unwrap(), found);
    }
    let size = |quality| run(quality, &["--format", "jpeg", "--quality", quality]).1.len();
    assert!(size("30") < size("95"));
}

#[test]
fn a_comparison_shows_what_was_taken_away() {
    let dir = folder("compare");
    save(&part(0), &dir.join("a.png"));
    save(&part(2), &dir.join("b.png"));
    let run = |args: &[&str]| program().current_dir(&dir).arg("compare").args(args).output().unwrap();
    let output = run(&["a.png", "a.png", "--reference", "b.png", "-o", "strip.png"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let strip = image::open(dir.join("strip.png")).unwrap().to_rgb8();
    assert_eq!(strip.dimensions(), (4 * 64 + 3 * 4, 48));
    // Nothing was taken away.
    assert_eq!(strip.get_pixel(2 * 68 + 30, 20).0, [128; 3]);
    assert_eq!(run(&["a.png", "a.png", "-o", "strip.png"]).status.code(), Some(1));
    assert_eq!(run(&["a.png", "a.png", "-o", "strip.jpg"]).status.code(), Some(1));
    assert!(!dir.join("strip.jpg").exists());
    // What is compared is not replaced.
    let before = contents(&dir);
    for args in
        [&["a.png", "b.png", "-o", "a.png"][..], &["a.png", "a.png", "--reference", "b.png", "-o", "b.png"]]
    {
        let output = run(&[args, &["--overwrite"]].concat());
        assert!(output.status.code() == Some(1) && contents(&dir) == before, "{}", stderr(&output));
    }
    let psnr = program().current_dir(&dir).args(["psnr", "a.png", "b.png", "--json"]).output().unwrap();
    assert!(psnr.status.success() && String::from_utf8_lossy(&psnr.stdout).contains("\"files\":1"));
}

#[test]
fn pages_and_completions_cover_every_command() {
    let dir = folder("pages");
    let run = |args: &[&str]| program().current_dir(&dir).args(args).output().unwrap();
    assert!(run(&["man", "pages"]).status.success());
    for command in
        ["denoise", "classify", "energy", "noise", "psnr", "add-noise", "compare", "verify", "bench"]
    {
        assert!(dir.join(format!("pages/gradresnet-{command}.1")).is_file(), "{command}");
        let script = String::from_utf8(run(&["completions", "bash"]).stdout).unwrap();
        assert!(script.contains(command), "{command}");
    }
    assert!(outputs(&dir.join("pages")) < 16, "there is more than one page a command");
}

#[test]
fn a_class_steers_the_denoiser_as_strongly_as_is_asked_for() {
    let dir = folder("guidance");
    save(&part(0).crop_imm(8, 8, 32, 32), &dir.join("in/a.png"));
    let run = |out: &str, args: &[&str]| {
        let output =
            denoise(&dir, &[&["in", "-o", out, "--model", "cifar10", "--sigma", "25"], args].concat());
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        image::open(dir.join(out).join("a.png")).unwrap().to_rgb8()
    };
    let free = run("free", &[]);
    assert_eq!(run("zero", &["--class", "cat", "--guidance", "0"]), free);
    let [cat, ship] = ["cat", "ship"].map(|class| run(class, &["--class", class, "--guidance", "50"]));
    assert!(cat != free && cat != ship);
    assert_ne!(run("less", &["--class", "cat", "--guidance", "25"]), cat);
}

#[test]
fn references_are_not_replaced() {
    let dir = folder("references");
    (0..2).for_each(|i| save(&part(i).to_rgb8().into(), &dir.join(format!("in/{i}.png"))));
    std::fs::create_dir(dir.join("clean")).unwrap();
    std::fs::copy(dir.join("in/1.png"), dir.join("clean/1.png")).unwrap();
    let before = contents(&dir);
    for target in
        [&["-o", "clean", "--overwrite", "--reference", "clean"][..], &["--in-place", "--reference", "in"]]
    {
        let output = denoise(&dir, &[&["in"], target].concat());
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(".png is one of the references"), "{}", stderr(&output));
        assert!(contents(&dir) == before);
    }
}

#[test]
fn an_input_that_is_named_twice_is_done_once() {
    let dir = folder("repeated");
    save(&part(0), &dir.join("in/a.png"));
    let output = denoise(&dir, &["in", "in/a.png", "in/*.png", "-o", "out"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("1 image written to out\n"), "{}", stderr(&output));
}

/// Names from old archives are bytes of some other encoding.
#[cfg(target_os = "linux")]
#[test]
fn names_that_are_no_text_are_read_and_matched_by_patterns() {
    use std::os::unix::ffi::OsStrExt;
    let dir = folder("names");
    save(&part(0), &dir.join("in/a.png"));
    std::fs::copy(dir.join("in/a.png"), dir.join("in").join(std::ffi::OsStr::from_bytes(b"b\xe9.png")))
        .unwrap();
    for (input, out, count) in
        [("in", "all", 2), ("in/*.png", "both", 2), ("in/b?.png", "one", 1), ("i*/b?.png", "below", 1)]
    {
        let output = denoise(&dir, &[input, "-o", out]);
        assert!(output.status.success() && outputs(&dir.join(out)) == count, "{}", stderr(&output));
    }
}

/// A terminal would obey what is in them.
#[cfg(unix)]
#[test]
fn names_with_escape_sequences_are_told_escaped() {
    let dir = folder("escapes");
    std::fs::create_dir(dir.join("in")).unwrap();
    std::fs::write(dir.join("in/\x1b[31m.png"), "no image").unwrap();
    let output = denoise(&dir, &["in", "-o", "out"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(!stderr(&output).contains('\x1b') && stderr(&output).contains("[31m.png"), "{}", stderr(&output));
    // On stdout too, where a line's end in a name would make two lines of one.
    save(&part(0), &dir.join("in/\x1b[31m.png"));
    save(&part(0), &dir.join("in/a\n1.0  b.png"));
    for args in [&["noise", "in"][..], &["psnr", "in", "in"], &["denoise", "in", "-o", "out", "--dry-run"]] {
        let output = program().current_dir(&dir).args(args).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && !text.contains('\x1b') && text.contains("[31m.png"), "{text}");
        assert!(text.lines().count() <= 3 && text.contains("\\n1.0  b.png"), "{text}");
    }
    let json = program().current_dir(&dir).args(["noise", "in", "--json"]).output().unwrap();
    let json = String::from_utf8(json.stdout).unwrap();
    let paths: Vec<String> = json
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["path"].as_str().unwrap().into())
        .collect();
    assert_eq!(paths, ["in/\x1b[31m.png", "in/a\n1.0  b.png"]);
}

/// Nobody reads what the program says while it works: the work goes on.
#[test]
fn a_terminal_that_goes_away_costs_no_image() {
    let dir = folder("unheard");
    for i in 0..3 {
        save(&part(0), &dir.join(format!("in/{i}.png")));
    }
    std::fs::write(dir.join("in/3.png"), "no image").unwrap();
    let mut run = program()
        .current_dir(&dir)
        .args(["denoise", "in", "--in-place", "--report", "r.jsonl", "--sigma", "20"])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(run.stderr.take());
    assert_eq!(run.wait().unwrap().code(), Some(2));
    let done = report(&dir.join("r.jsonl"))
        .iter()
        .filter(|line| line["output"].is_string() && line["error"].is_null())
        .count();
    assert_eq!(done, 3);
}

#[test]
fn outputs_are_measured_against_the_references_of_their_names() {
    let dir = folder("references");
    save(&part(0), &dir.join("out/a.png"));
    save(&part(0), &dir.join("out/b.png"));
    save(&part(0), &dir.join("clean/a.png"));
    // The same name with another extension: the whole name counts first.
    std::fs::write(dir.join("clean/a.jpg"), "no image").unwrap();
    let psnr = |extra: &[&str]| {
        program().current_dir(&dir).args([&["psnr", "out", "clean"], extra].concat()).output().unwrap()
    };
    std::fs::copy(dir.join("clean/a.png"), dir.join("clean/b.bmp")).unwrap();
    let output = psnr(&["--json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let last: serde_json::Value =
        serde_json::from_str(String::from_utf8_lossy(&output.stdout).lines().last().unwrap()).unwrap();
    assert_eq!((&last["files"], &last["unused"]), (&serde_json::json!(2), &serde_json::json!(1)));
    assert!(stderr(&output).contains("references without an image: 1 of 3"), "{}", stderr(&output));
    // Which of two is not guessed.
    std::fs::copy(dir.join("clean/a.png"), dir.join("clean/b.tif")).unwrap();
    let output = psnr(&[]);
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    assert!(text.contains("could both be its reference") && text.contains("image: 1 of 4"), "{text}");
}

//! What a person and a script see of `gradresnet`: exit statuses, messages, files.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed")]

mod program;

use program::{folder, program, root, stderr};
use std::process::Output;

fn run(args: &[&str]) -> Output {
    program().args(args).output().unwrap()
}

#[test]
fn what_cannot_be_done_is_one_error_that_names_it() {
    let dir = folder("errors");
    let out = dir.join("out").display().to_string();
    let image = root().join("examples/noisy/wall.png").display().to_string();
    let nowhere = dir.join("nowhere.png").display().to_string();
    let twin = root().join("examples/clean/wall.png").display().to_string();
    let cases: [(&[&str], &str); 13] = [
        (&["denoise", &nowhere, "-o", &out], "nowhere.png"),
        (&["denoise", &image], "--output"),
        (&["denoise", &image, "-o", &nowhere], "-o names a folder"),
        (&["denoise", &image, "-o", &image], "this is none"),
        (&["denoise", &image, "-o", &out, "--sigma", "-1"], "sigma"),
        (&["denoise", &image, "-o", &out, "--sigma", "NaN"], "sigma"),
        (&["denoise", &image, "-o", &out, "--model", "nothing"], "nothing"),
        (&["denoise", &image, "-o", &out, "--engine", "ort"], "/nonexistent/libonnxruntime.so"),
        (&["denoise", &image, "-o", &out, "--device", "cuda"], "CUDA"),
        (&["denoise", &image, &twin, "-o", &out], "would both be written"),
        (&["denoise", &image, "-o", &out, "--class", "cat"], "no classes"),
        (&["denoise", &image, "-o", &out, "--model", "cifar10", "--class", "dragon"], "dragon"),
        (&["verify", &nowhere], "nowhere.png"),
    ];
    for (args, expected) in cases {
        let output = run(args);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {text}");
        assert!(text.to_lowercase().contains(&expected.to_lowercase()), "{args:?}: {text}");
        assert!(!text.contains("panicked") && output.stdout.is_empty(), "{args:?}: {text}");
        assert!(std::fs::read_dir(&dir).unwrap().next().is_none(), "{args:?} left something");
    }
}

#[test]
fn a_folder_of_models_that_is_not_there_is_not_passed_over() {
    for args in [&["models"][..], &["info", "photo"], &["verify"]] {
        let output = program().env("GRADRESNET_MODELS", "/nonexistent/models").args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains("/nonexistent/models"), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn a_broken_file_fails_alone() {
    let dir = folder("broken");
    let good = std::fs::read(root().join("examples/noisy/wall.png")).unwrap();
    std::fs::create_dir(dir.join("in")).unwrap();
    std::fs::write(dir.join("in/good.png"), &good).unwrap();
    std::fs::write(dir.join("in/half.png"), &good[..good.len() / 2]).unwrap();
    let path = |name: &str| dir.join(name).display().to_string();
    let output = run(&["denoise", &path("in"), "-o", &path("out"), "--sigma", "25"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("half.png"), "{}", stderr(&output));
    let names: Vec<_> = std::fs::read_dir(dir.join("out")).unwrap().map(|f| f.unwrap().file_name()).collect();
    assert_eq!(names, ["good.png"]);
    // The input is as it was.
    assert_eq!(std::fs::read(dir.join("in/good.png")).unwrap(), good);
}

#[test]
fn an_output_that_exists_is_kept_unless_it_may_be_replaced() {
    let dir = folder("existing");
    let out = dir.display().to_string();
    let image = root().join("examples/noisy/wall.png").display().to_string();
    let target = dir.join("wall.png");
    std::fs::write(&target, "mine").unwrap();
    for (flag, status, replaced) in
        [(None, 1, false), (Some("--skip-existing"), 0, false), (Some("--overwrite"), 0, true)]
    {
        let mut args = vec!["denoise", &image, "-o", &out, "--sigma", "25"];
        args.extend(flag);
        let output = run(&args);
        assert_eq!(output.status.code(), Some(status), "{flag:?}: {}", stderr(&output));
        assert_eq!(std::fs::read(&target).unwrap() != b"mine", replaced, "{flag:?}");
    }
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1, "something else was left behind");
}

#[test]
fn a_script_reads_one_object_a_line() {
    let image = root().join("examples/noisy/wall.png").display().to_string();
    for (command, key) in [("classify", "top"), ("energy", "energy"), ("noise", "sigma")] {
        let output = run(&[command, &image, "--json"]);
        assert!(output.status.success(), "{}", stderr(&output));
        let text = String::from_utf8(output.stdout).unwrap();
        let object: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!(object["path"], image.as_str());
        assert!(!object[key].is_null(), "{command}: {text}");
    }
    let output = run(&["bench", "cifar10", "--size", "32", "--engine", "tract", "--json"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let graphs: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(
        graphs.iter().map(|g| g["graph"].as_str().unwrap()).collect::<Vec<_>>(),
        ["forward", "denoiser"]
    );
}

#[test]
fn a_changed_byte_of_a_model_is_found() {
    let dir = folder("changed");
    for entry in std::fs::read_dir(root().join("models/zoo/photo")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, dir.join(path.file_name().unwrap())).unwrap();
    }
    let lake = root().join("examples/noisy/lake.png").display().to_string();
    for file in ["denoiser.onnx", "model.safetensors"] {
        let bytes = std::fs::read(dir.join(file)).unwrap();
        let mut changed = bytes.clone();
        changed[bytes.len() / 2] ^= 1;
        std::fs::write(dir.join(file), changed).unwrap();
        let output = run(&["verify", &dir.display().to_string()]);
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(file), "{}", stderr(&output));
        // Nor is it run.
        let model = dir.display().to_string();
        let out = dir.join("out").display().to_string();
        let output = run(&["denoise", &lake, "-o", &out, "--model", &model]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(file), "{}", stderr(&output));
        std::fs::write(dir.join(file), bytes).unwrap();
    }
    std::fs::write(dir.join("spec.json"), "{").unwrap();
    let output = run(&["verify", &dir.display().to_string()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("spec.json"), "{}", stderr(&output));
}

#[test]
fn denoising_brings_the_examples_nearer_to_the_truth() {
    let dir = folder("examples");
    let examples = |name: &str| root().join("examples").join(name).display().to_string();
    let out = dir.join("out").display().to_string();
    let mean = |folder: &str| -> f64 {
        let output = run(&["psnr", folder, &examples("clean")]);
        assert!(output.status.success(), "{}", stderr(&output));
        let text = String::from_utf8(output.stdout).unwrap();
        let line = text.lines().find(|l| l.contains("mean")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    let output = run(&["denoise", &examples("noisy"), "-o", &out]);
    assert!(output.status.success(), "{}", stderr(&output));
    // 10.6 dB when the model was shipped.
    assert!(mean(&out) > mean(&examples("noisy")) + 9.0);
}

#[test]
fn help_and_what_ships() {
    for args in [&["--help"][..], &["denoise", "--help"], &["models"], &["info", "photo"]] {
        let output = run(args);
        assert!(output.status.success() && !output.stdout.is_empty(), "{args:?}: {}", stderr(&output));
    }
    assert!(run(&["verify", "photo"]).status.success());
}

/// What a model is for, without what it is not for.
#[test]
fn a_model_says_what_it_does() {
    let cases = [
        (
            "photo",
            &["denoises, σ 1 to 70", "twice that for the denoiser"][..],
            &["classes", "image size"][..],
        ),
        (
            "cifar10",
            &["denoises, classifies into 10 classes, σ 1 to 100", "32×32 for classify; any size for denoise"],
            &[],
        ),
        ("resnet18-cifar10", &["classifies into 10 classes, σ 0 to 20", "32×32 for classify"], &["denoise"]),
    ];
    for (name, there, absent) in cases {
        let text = String::from_utf8(run(&["info", name]).stdout).unwrap();
        for words in there {
            assert!(text.contains(words), "{name}: no `{words}` in\n{text}");
        }
        for words in absent {
            assert!(!text.contains(words), "{name}: `{words}` in\n{text}");
        }
    }
}

//! What a person and a script see of `gradresnet`: exit statuses, messages, files.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed")]

mod program;

use gradresnet::engine::{self, Device, EngineKind};
use gradresnet::{Bundle, Picture, Session, Spec};
use gradresnet_models::staged::StagedDir;
use ndarray::Axis;
use program::{folder, program, root, stderr};
use std::process::{Output, Stdio};

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
    let cases: [(&[&str], &str); 14] = [
        (&["denoise", &nowhere, "-o", &out], "nowhere.png"),
        (&["denoise", &image], "--output"),
        (&["denoise", &image, "-o", &nowhere], "-o names a folder"),
        (&["denoise", &image, "-o", &image], "this is a file"),
        (&["denoise", &image, "-o", &out, "--sigma", "-1"], "sigma"),
        (&["denoise", &image, "-o", &out, "--sigma", "NaN"], "sigma"),
        (&["denoise", &image, "-o", &out, "--model", "nothing"], "there are cifar10, dncnn-photo"),
        (&["info", "./nowhere"], "no such model folder"),
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

/// The objects that a command prints, one a line.
fn objects(output: &Output) -> Vec<serde_json::Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_broken_image_does_not_move_the_classes_of_the_others() {
    let dir = folder("classes");
    for (name, source) in [("a.png", "lake"), ("c.png", "wall")] {
        std::fs::copy(root().join(format!("examples/clean/{source}.png")), dir.join(name)).unwrap();
    }
    std::fs::write(dir.join("b.png"), "no image").unwrap();
    let classify = |names: &[&str]| {
        let args = [&["classify"], names, &["--top", "10", "--json"]].concat();
        program().current_dir(&dir).args(args).output().unwrap()
    };
    let all = classify(&["a.png", "b.png", "c.png"]);
    assert_eq!(all.status.code(), Some(2), "{}", stderr(&all));
    let alone = ["a.png", "c.png"].map(|name| objects(&classify(&[name])).remove(0));
    assert_eq!(alone[0]["path"], "a.png");
    assert_ne!(alone[0]["top"], alone[1]["top"]);
    for (found, alone) in objects(&all).iter().zip(&alone) {
        assert_eq!(found["path"], alone["path"]);
        let probabilities = |object: &serde_json::Value| -> Vec<f64> {
            let top = object["top"].as_array().unwrap();
            top.iter().map(|class| class["probability"].as_f64().unwrap()).collect()
        };
        let (found, alone) = (probabilities(found), probabilities(alone));
        assert!(
            (found.iter().sum::<f64>() - 1.0).abs() < 1e-5 && found.is_sorted_by(|a, b| a >= b),
            "{found:?}"
        );
        // A batch of two is summed in another order than a batch of one.
        assert!(found.iter().zip(&alone).all(|(a, b)| (a - b).abs() < 1e-4), "{found:?}, {alone:?}");
    }
    assert_eq!(objects(&all).len(), 2);
}

#[test]
fn a_model_of_any_size_classifies_images_as_they_are() {
    let model = folder("any-size").join("model");
    let source = Bundle::open(&root().join("models/zoo/cifar10")).unwrap();
    let staged = StagedDir::new(&model).unwrap();
    for file in source.spec().files.keys() {
        let mut bytes = std::fs::read(source.path(file)).unwrap();
        // Both graphs say it too.
        let key = b"gradresnet.image_size";
        if let Some(at) = bytes.windows(key.len()).position(|window| window == key) {
            bytes[at..at + key.len()].copy_from_slice(b"gradresnet.other_size");
        }
        staged.write(file, &bytes).unwrap();
    }
    Bundle::seal(&staged, &Spec { image_size: None, ..source.spec().clone() }).unwrap();
    staged.commit(false).unwrap();
    let session =
        Session::new(Bundle::open(&model).unwrap(), engine::open(EngineKind::Tract, Device::Cpu, 1).unwrap());

    let images = ["lake", "wall"].map(|name| root().join(format!("examples/clean/{name}.png")));
    let paths = images.each_ref().map(|path| path.to_str().unwrap());
    let args = [&["classify", "--json", "--model", model.to_str().unwrap()], &paths[..]].concat();
    let output = run(&args);
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
    for (found, image) in objects(&output).iter().zip(&images) {
        let pixels = Picture::read(image).unwrap().pixels();
        let expected = session.classify(pixels.view().insert_axis(Axis(0))).unwrap();
        let most = expected.iter().copied().fold(0.0, f32::max);
        assert_eq!(found["top"][0]["probability"].as_f64(), Some(f64::from(most)));
    }
    assert_eq!(objects(&output).len(), 2);
}

/// As after `| head -n 1`.
#[cfg(unix)]
#[test]
fn a_reader_that_goes_away_ends_the_work_quietly() {
    let image = root().join("examples/noisy/wall.png").display().to_string();
    let mut command = program();
    command.args(["noise", &image]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(141), ""));
}

#[test]
fn levels_are_in_8_bit_units_and_energies_those_of_the_library() {
    let dir = folder("units");
    let image = root().join("examples/noisy/wall.png");
    let path = image.display().to_string();
    // What `examples/make_images.rs` has added.
    let near = |value: &serde_json::Value| (value.as_f64().unwrap() - 25.0).abs() < 1.0;
    let level = &objects(&run(&["noise", &path, "--json"]))[0]["sigma"];
    assert!(near(level), "{level}");
    let (out, report) = (dir.join("out").display().to_string(), dir.join("r.jsonl").display().to_string());
    let output = run(&["denoise", &path, "-o", &out, "--report", &report, "--model", "photo-fast"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let line: serde_json::Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
    assert!(near(&line["sigma"]), "{line}");

    let bundle = Bundle::open(&root().join("models/zoo/photo")).unwrap();
    let session = Session::new(bundle, engine::open(EngineKind::Tract, Device::Cpu, 1).unwrap());
    let pixels = Picture::read(&image).unwrap().pixels();
    let expected = f64::from(session.energy(pixels.view().insert_axis(Axis(0))).unwrap()[0]);
    let found = objects(&run(&["energy", &path, "--json"]))[0]["energy"].as_f64().unwrap();
    // Sums over all pixels by another number of threads.
    assert!((found - expected).abs() <= 1e-5 * expected.abs(), "{found}, not {expected}");
}

#[test]
fn a_model_is_the_first_folder_of_its_name() {
    let dir = folder("places");
    let place = |folder: &str, source: &str| {
        std::fs::create_dir_all(dir.join(folder)).unwrap();
        for entry in std::fs::read_dir(root().join("models/zoo").join(source)).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, dir.join(folder).join(path.file_name().unwrap())).unwrap();
        }
    };
    place("models/photo", "photo-fast");
    place("data/gradresnet/models/photo", "resnet18-cifar10");
    place("data/gradresnet/models/mine", "resnet18-cifar10");
    let info = |name: &str| {
        let mut command = program();
        command.env("GRADRESNET_MODELS", dir.join("models")).env("XDG_DATA_HOME", dir.join("data"));
        let output = command.args(["info", name]).output().unwrap();
        assert!(output.status.success(), "{name}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    for (name, model) in [("photo", "photo-fast"), ("cifar10", "cifar10"), ("mine", "resnet18-cifar10")] {
        let text = info(name);
        assert_eq!(text.lines().next().unwrap().split_whitespace().last(), Some(model), "{name}: {text}");
    }
    // One that is damaged is not passed over for another of its name, by `verify` least of all.
    std::fs::remove_file(dir.join("models/photo/spec.json")).unwrap();
    for args in [&["info", "photo"][..], &["verify", "photo"], &["models"]] {
        let mut command = program();
        command.env("GRADRESNET_MODELS", dir.join("models")).env("XDG_DATA_HOME", dir.join("data"));
        let output = command.args(args).output().unwrap();
        let others = args == ["models"];
        assert!(!output.status.success() && output.stdout.is_empty() != others, "{args:?}");
        assert!(stderr(&output).contains("models/photo/spec.json"), "{args:?}: {}", stderr(&output));
    }
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
        let text = stderr(&output);
        assert!(text.contains(&format!("{file}: its SHA-256")) && !text.contains("forward.onnx"), "{text}");
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
    // 10.6 dB when the model was shipped; `dncnn-photo`, which is no such model, has 10.2.
    assert!(mean(&out) > mean(&examples("noisy")) + 10.3);
}

#[test]
fn help_and_what_ships() {
    for args in [&["--help"][..], &["denoise", "--help"], &["models"], &["info", "photo"]] {
        let output = run(args);
        assert!(output.status.success() && !output.stdout.is_empty(), "{args:?}: {}", stderr(&output));
    }
    let verify = program().env_remove("ORT_DYLIB_PATH").args(["verify", "photo"]).output().unwrap();
    assert!(verify.status.success(), "{}", stderr(&verify));
    // Whoever names a library wants it checked.
    let verify = run(&["verify", "photo"]);
    assert_eq!(verify.status.code(), Some(2));
    assert!(stderr(&verify).contains("error: ONNX Runtime") || stderr(&verify).contains("libonnxruntime"));
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

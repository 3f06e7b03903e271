//! What a person and a script see of `gradresnet-train`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gradresnet-train")).args(args).output().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

const CONFIG: &str = r#"
name = "tiny"
data = "stripes"
steps = 4
validate_every = 2
held_out = 0.25
[architecture.gradresnet]
stem = "cifar"
width = 8
blocks = [1]
block = "residual"
norm = "group"
side_connections = "stem"
activation = "gelu"
biases = false
centre = 0.5
scale = 4.0
[denoising]
batch = 2
size = 8
sigma = [1, 70]
[optimizer]
adamw = { learning_rate = 4e-3 }
average = 0.9
"#;

fn photographs(dir: &Path) {
    std::fs::create_dir_all(dir).unwrap();
    for i in 0..4u32 {
        image::RgbImage::from_fn(16, 12, |x, y| image::Rgb([(x * i * 4) as u8, (y * 20) as u8, 90]))
            .save(dir.join(format!("{i}.png")))
            .unwrap();
    }
}

#[test]
fn fit_then_eval_then_record() {
    let dir = tempfile::tempdir().unwrap();
    let (config, data, run_dir) =
        (dir.path().join("tiny.toml"), dir.path().join("photos"), dir.path().join("run"));
    std::fs::write(&config, CONFIG).unwrap();
    photographs(&data);
    let fit =
        ["fit", "--config", text(&config), "--data", text(&data), "-o", text(&run_dir), "--threads", "1"];
    let out = run(&fit);
    let stderr = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{stderr}");
    assert!(stderr.contains("step 4"), "{stderr}");
    // Four steps, and validations after the second and the fourth.
    let metrics = std::fs::read_to_string(run_dir.join("metrics.jsonl")).unwrap();
    assert_eq!(metrics.lines().count(), 6, "{metrics}");

    // Starting again would overwrite a run.
    let out = run(&fit);
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("resume"));
    // A finished run has nothing left to do.
    assert!(run(&["resume", text(&run_dir)]).status.success());
    let checkpoint = run_dir.join("checkpoint");
    let eval =
        ["eval", text(&checkpoint), "--data", text(&data), "--sigma", "10,25", "--json", "--threads", "1"];
    let out = run(&eval);
    let value: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(value["images"], 4);
    let first = value["denoising"][0]["psnr"].as_f64().unwrap();
    assert!(value["denoising"][0]["sigma"] == 10.0 && first > 20.0, "{value}");

    // The image that the config's `held_out` kept from training: what the last validation says of it.
    let held_out: serde_json::Value =
        serde_json::from_slice(&run(&[&eval[..], &["--held-out", "0.25"]].concat()).stdout).unwrap();
    assert_eq!(held_out["images"], 1, "{held_out}");
    let last: serde_json::Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
    let validated = last["held_out/psnr_25"].as_f64().unwrap();
    // float32, perhaps in another order of summation.
    assert!(
        (held_out["denoising"][1]["psnr"].as_f64().unwrap() - validated).abs() < 1e-3,
        "{held_out} {last}"
    );
    let none = run(&[&eval[..], &["--held-out", "0.1"]].concat());
    let stderr = String::from_utf8_lossy(&none.stderr).into_owned();
    assert!(none.status.code() == Some(1) && stderr.contains("too few images"), "{stderr}");

    let mut float64 = eval.to_vec();
    float64.extend(["--float64", "--record", "stripes"]);
    let value: serde_json::Value = serde_json::from_slice(&run(&float64).stdout).unwrap();
    // float32 against float64 of one PSNR.
    assert!((value["denoising"][0]["psnr"].as_f64().unwrap() - first).abs() < 1e-4);
    let spec = gradresnet_models::Spec::read(&checkpoint.join("spec.json")).unwrap();
    let recorded: Vec<_> =
        spec.metrics.iter().map(|m| (m.data.as_str(), m.metric.as_str(), m.sigma)).collect();
    let expected = [("psnr", 10.0), ("ssim", 10.0), ("psnr", 25.0), ("ssim", 25.0)];
    assert_eq!(recorded, expected.map(|(metric, sigma)| ("stripes", metric, Some(sigma))));
    assert!(
        spec.metrics[0].command.ends_with("--data photos --sigma 10,25 --float64"),
        "{}",
        spec.metrics[0].command
    );
    // What is asked to be kept is kept, whether or not anybody reads what is printed.
    let mut unread = Command::new(env!("CARGO_BIN_EXE_gradresnet-train"))
        .args(eval)
        .args(["--record", "unread"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    drop(unread.stdout.take());
    assert_eq!(unread.wait().unwrap().code(), Some(141));
    let unread = gradresnet_models::Spec::read(&checkpoint.join("spec.json")).unwrap();
    assert_eq!(unread.metrics.iter().filter(|m| m.data == "unread").count(), 4);
    let spec = unread;
    // A name that no reader would accept leaves the figures that are there.
    let mut escaped = eval.to_vec();
    escaped.extend(["--record", "\u{1b}[31m"]);
    assert_eq!(run(&escaped).status.code(), Some(1));
    assert_eq!(gradresnet_models::Spec::read(&checkpoint.join("spec.json")).unwrap(), spec);
}

/// A run goes on with its threads, unless it is given others.
#[test]
fn a_resumed_run_keeps_its_threads() {
    let dir = tempfile::tempdir().unwrap();
    let (config, data, run_dir) =
        (dir.path().join("tiny.toml"), dir.path().join("photos"), dir.path().join("run"));
    photographs(&data);
    std::fs::write(&config, CONFIG).unwrap();
    let fit = ["fit", "--config", text(&config), "--data", text(&data), "-o", text(&run_dir)];
    assert!(run(&[&fit[..], &["--threads", "2"]].concat()).status.success());
    for (steps, given, threads) in [(8, &[][..], 2), (12, &["--threads", "1"], 1), (16, &[], 1)] {
        let longer = CONFIG.replace("steps = 4", &format!("steps = {steps}"));
        std::fs::write(run_dir.join("config.toml"), longer).unwrap();
        let out = run(&[&["resume", text(&run_dir)], given].concat());
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let state = std::fs::read(run_dir.join("checkpoint/state.json")).unwrap();
        let state: serde_json::Value = serde_json::from_slice(&state).unwrap();
        let expected = serde_json::json!([steps, "cpu", threads]);
        assert_eq!(serde_json::json!([state["step"], state["device"], state["threads"]]), expected);
    }
}

/// Two states of a run, the second four steps after the first, and the network between them.
#[test]
fn average_makes_one_network_of_several_states() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let (data, nothing, folder) = (at("photos"), at("nothing"), at("second"));
    photographs(&data);
    let fit = |name: &str, config: &str, from: &[&str]| {
        let path = at(&format!("{name}.toml"));
        std::fs::write(&path, config).unwrap();
        let output = at(name);
        let args = ["fit", "--config", text(&path), "--data", text(&data), "-o", text(&output)];
        let out = run(&[&args[..], &["--threads", "1"], from].concat());
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        output.join("checkpoint")
    };
    let first = fit("first", CONFIG, &[]);
    let second = fit("second", &CONFIG.replace("steps = 4", "steps = 8"), &["--from", text(&first)]);

    let read = |path: &Path| gradresnet_models::Checkpoint::read(path).unwrap();
    let (a, b) = (read(&first), read(&second));
    assert_ne!(a.parameters, b.parameters);
    for (name, order) in [("mean", [&second, &first]), ("again", [&first, &second])] {
        let out = run(&["average", text(order[0]), "-o", text(&at(name)), text(order[1])]);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let mean = read(&at(name));
        for (name, array) in &mean.parameters {
            let of = |checkpoint: &gradresnet_models::Checkpoint| checkpoint.parameters[name].to_f64();
            for ((m, a), b) in array.to_f64().iter().zip(of(&a)).zip(of(&b)) {
                assert_eq!(*m as f32, ((a + b) / 2.0) as f32, "{name}");
            }
        }
        // Golden values of the mean, and not those of a state.
        assert_eq!(mean.golden, gradresnet_train::golden::golden(&mean.spec, &mean.parameters));
        assert_ne!(mean.golden, b.golden);
        let provenance = mean.spec.provenance.unwrap();
        assert_eq!(provenance.steps, 8);
        let [fit, on] = ["first", "second"].map(|name| format!("gradresnet-train fit --config {name}.toml"));
        assert!(provenance.command.starts_with(&fit) && provenance.command.contains(&format!("; then {on}")));
        assert!(provenance.command.contains("; then gradresnet-train average checkpoint checkpoint"));
    }

    // Of a bundle too: what it scored and its digests are not those of the mean.
    let bundle = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/zoo/photo-fast"));
    assert!(run(&["average", text(bundle), text(bundle), "-o", text(&at("same"))]).status.success());
    let (mut bundle, same) = (read(bundle), read(&at("same")));
    assert!(same.parameters == bundle.parameters && !bundle.spec.metrics.is_empty());
    assert!(same.spec.metrics.is_empty() && same.spec.files.is_empty());

    // One without provenance, of a bundle in float16.
    bundle.spec.provenance = None;
    bundle.spec.precision = gradresnet_models::Precision::Float16;
    bundle.spec.files.clear();
    bundle.write(&at("half")).unwrap();
    assert!(
        run(&["average", text(&at("half")), text(&at("half")), "-o", text(&at("full"))]).status.success()
    );
    let full = read(&at("full")).spec;
    assert_eq!(full.precision, gradresnet_models::Precision::Float32);
    let provenance = full.provenance.unwrap();
    assert_eq!(provenance.command, "gradresnet-train average half half");
    assert_eq!(provenance.versions["gradresnet-train"], env!("CARGO_PKG_VERSION"));

    let narrow = fit("narrow", &CONFIG.replace("[1, 70]", "[1, 20]"), &[]);
    let batch = fit("batch", &CONFIG.replace("\"group\"", "\"batch\""), &[]);
    let cases: [(&[&str], &str); 6] = [
        (&[text(&first)], "name another as well"),
        (&[text(&first), text(&narrow)], "its range of sigma is not that of"),
        (&[text(&first), text(&batch)], "its architecture is not that of"),
        (&[text(&batch), text(&batch)], "has batch norms"),
        (&[text(&first), text(&nothing)], "nothing/spec.json"),
        (
            &[text(&first), text(&folder)],
            "second: this is the folder of a run; its checkpoint is the folder `checkpoint`",
        ),
    ];
    for (checkpoints, reason) in cases {
        let out = run(&[&["average"], checkpoints, &["-o", text(&at("refused"))]].concat());
        let stderr = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.code() == Some(1) && stderr.contains(reason), "{reason}: {stderr}");
        assert!(!at("refused").exists());
    }
    // What is there is never replaced.
    let out = run(&["average", text(&first), text(&second), "-o", text(&at("mean"))]);
    let stderr = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.code() == Some(1) && stderr.contains("name another folder"), "{stderr}");
}

/// The figures of a classifier, from what it says of each image; and the studies of classifiers.
#[test]
fn accuracy_is_the_share_of_predictions_that_are_right() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    // The same images in both classes but for two: no network can be right about all, and to mix up labels shows.
    photographs(&path("data/cat"));
    photographs(&path("data/dog"));
    for name in ["2.png", "3.png"] {
        std::fs::remove_file(path("data/dog").join(name)).unwrap();
    }
    let classification = "[classification]\nbatch = 2\nsize = 8\nsigma = [0, 20]\n[optimizer]";
    let config = CONFIG.replace("[optimizer]", classification).replace("held_out = 0.25", "held_out = 0.0");
    std::fs::write(path("joint.toml"), config).unwrap();
    let (config, data, out) = (path("joint.toml"), path("data"), path("run"));
    let fit =
        run(&["fit", "--config", text(&config), "--data", text(&data), "-o", text(&out), "--threads", "1"]);
    assert!(fit.status.success(), "{}", String::from_utf8_lossy(&fit.stderr));
    let (checkpoint, predictions) = (path("run/checkpoint"), path("predictions.jsonl"));
    let eval =
        ["eval", text(&checkpoint), "--data", text(&data), "--sigma", "25", "--json", "--threads", "1"];
    let eval = [&eval[..], &["--predictions", text(&predictions)]].concat();
    let figures: serde_json::Value = serde_json::from_slice(&run(&eval).stdout).unwrap();
    let lines = std::fs::read_to_string(&predictions).unwrap();
    // Whether each is right, and the probability of its own class, of two.
    let predicted = lines.lines().map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let path = Path::new(line["path"].as_str().unwrap());
        let right = path.parent().unwrap().ends_with(line["label"].as_str().unwrap());
        let probability = line["probability"].as_f64().unwrap();
        (right, if right { probability } else { 1.0 - probability })
    });
    let predicted: Vec<_> = predicted.collect();
    assert_eq!((predicted.len(), figures["images"].as_u64()), (6, Some(6)));
    let accuracy = predicted.iter().filter(|(right, _)| *right).count() as f64 / 6.0;
    assert!((figures["accuracy"].as_f64().unwrap() - accuracy).abs() < 1e-9, "{figures}\n{lines}");
    let cross_entropy = predicted.iter().map(|(_, p)| -p.ln()).sum::<f64>() / 6.0;
    // The same logarithms, summed in another order.
    assert!((figures["cross_entropy"].as_f64().unwrap() - cross_entropy).abs() < 1e-9, "{figures}\n{lines}");
    let level = &figures["denoising"][0];
    assert!(level["psnr_conditional"].is_f64() && level["psnr_conditional"] != level["psnr"], "{figures}");
    // Nothing is replaced, and nothing is computed that would have to be thrown away.
    let again = run(&eval);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("predictions.jsonl"));
    assert_eq!(std::fs::read_to_string(&predictions).unwrap(), lines);

    // A class that no image has.
    let few = path("few");
    photographs(&few.join("cat"));
    photographs(&few.join("eel"));
    let few = run(&["eval", text(&checkpoint), "--data", text(&few), "--sigma", "25", "--threads", "1"]);
    let stderr = String::from_utf8_lossy(&few.stderr);
    assert!(few.status.success() && stderr.contains("not the 2 classes that"), "{stderr}");
    assert!(!String::from_utf8_lossy(&few.stdout).contains("accuracy"));

    for (name, extra) in [
        ("attack", &["--linf", "0,64", "--l2", "0", "--draws", "1"][..]),
        ("adversarial", &["--sigma", "25", "--images", "2"]),
    ] {
        let out = path(name);
        let study = [name, text(&checkpoint), "--data", text(&data), "-o", text(&out), "--threads", "1"];
        let output = run(&[&study[..], extra].concat());
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let json = std::fs::read(out.join(format!("{name}.json"))).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let rows = json["rows"].as_array().unwrap();
        assert!(!rows.is_empty(), "{name}");
        if name == "attack" {
            let of = |strength: f64| {
                let found = rows.iter().find(|row| row["norm"] == "linf" && row["epsilon"] == strength);
                found.unwrap()["accuracy"].as_f64().unwrap()
            };
            assert!((of(0.0) - accuracy).abs() < 1e-9 && of(64.0) <= of(0.0), "{json}");
        }
    }
}

#[test]
fn bad_input_gives_one_line_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let (data, empty, out) = (dir.path().join("photos"), dir.path().join("empty"), dir.path().join("run"));
    photographs(&data);
    std::fs::create_dir(&empty).unwrap();
    let config = |name: &str, from: &str, to: &str| {
        let path = dir.path().join(name);
        assert!(CONFIG.contains(from));
        std::fs::write(&path, CONFIG.replace(from, to)).unwrap();
        path
    };
    let good = config("good.toml", "4", "4");
    let torn = dir.path().join("torn");
    photographs(&torn);
    let png = std::fs::read(torn.join("1.png")).unwrap();
    for i in 0..4 {
        std::fs::write(torn.join(format!("{i}.png")), &png[..png.len() / 2]).unwrap();
    }
    let nowhere = dir.path().join("nowhere");
    let metrics = dir.path().join("metrics");
    std::fs::create_dir(&metrics).unwrap();
    std::fs::write(metrics.join("metrics.jsonl"), "mine").unwrap();
    let fit = |config: &Path, data: &Path, extra: &[&str]| {
        let mut args = vec!["fit", "--config", text(config), "--data", text(data), "-o", text(&out)];
        args.extend(extra);
        run(&args)
    };
    let mut cases = vec![
        ("no config", fit(&nowhere, &data, &[]), "nowhere"),
        ("no data", fit(&good, &nowhere, &[]), "nowhere: not a folder"),
        ("from nothing", fit(&good, &data, &["--from", text(&nowhere)]), "nowhere"),
        ("no images", fit(&good, &empty, &[]), "no PNG or JPEG"),
        ("torn images", fit(&good, &torn, &[]), ".png: not a readable image"),
        (
            "unknown field",
            fit(&config("a.toml", "scale =", "scael ="), &data, &[]),
            "a.toml:17: unknown field `scael`",
        ),
        (
            "no width",
            fit(&config("b.toml", "width = 8", "width = 0"), &data, &[]),
            "b.toml:9: architecture.width: must be 1 to 1024",
        ),
        ("batch 0", fit(&config("c.toml", "batch = 2", "batch = 0"), &data, &[]), "denoising.batch"),
        ("sigma", fit(&config("d.toml", "[1, 70]", "[70, 1]"), &data, &[]), "denoising.sigma"),
        ("NaN", fit(&config("e.toml", "[1, 70]", "[1, nan]"), &data, &[]), "denoising.sigma"),
        ("rate", fit(&config("f.toml", "4e-3", "nan"), &data, &[]), "learning_rate"),
        ("device", fit(&good, &data, &["--device", "tpu"]), "expected `cpu`"),
        (
            "another's metrics",
            run(&["fit", "--config", text(&good), "--data", text(&data), "-o", text(&metrics)]),
            "metrics.jsonl: there already",
        ),
        (
            "eq. 9 without noise",
            run(&["adversarial", text(&empty), "--data", text(&data), "-o", text(&out), "--sigma", "0"]),
            "--sigma",
        ),
        (
            "no classes to predict",
            run(&["eval", "../models/zoo/photo-fast", "--data", text(&data), "--predictions", text(&out)]),
            "--predictions: ../models/zoo/photo-fast does not classify",
        ),
        ("no checkpoint", run(&["eval", text(&nowhere), "--data", text(&data)]), "nowhere"),
        ("nothing to resume", run(&["resume", text(&empty)]), "config.toml"),
        ("sigma < 0", run(&["eval", text(&empty), "--data", text(&data), "--sigma=-1"]), "from 0 to 1000"),
        (
            "sigma NaN",
            run(&["eval", text(&empty), "--data", text(&data), "--sigma", "nan"]),
            "from 0 to 1000",
        ),
        (
            "half",
            run(&["eval", text(&empty), "--data", text(&data), "--held-out", "0.6"]),
            "above 0 and up to 0.5",
        ),
        ("no command", run(&[]), "Usage"),
    ];
    let classifier = config("g.toml", "[denoising]", "[classification]");
    cases.push(("no classes", fit(&classifier, &data, &[]), "class folders"));
    let conditional = config("h.toml", "[denoising]", "[denoising]\ntarget = \"conditional\"");
    cases.push((
        "no class to condition on",
        fit(&conditional, &data, &[]),
        "denoising.target needs images in class",
    ));
    if !tch::Cuda::is_available() {
        cases.push(("no CUDA", fit(&good, &data, &["--device", "cuda:0"]), "no CUDA"));
    }
    for (name, output, expected) in cases {
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{name}: {stderr}");
        assert!(stderr.contains(expected), "{name}: {stderr}");
        assert!(!stderr.contains("panicked"), "{name}: {stderr}");
        assert!(output.stdout.is_empty() && !out.exists(), "{name}: output was left");
    }
    assert!(run(&["--version"]).status.success() && run(&["--help"]).status.success());
    for command in ["fit", "resume", "eval"].iter().chain(&STUDIES).chain(&["theory", "table"]) {
        assert!(run(&[command, "--help"]).status.success(), "{command}");
    }
}

/// The studies of checkpoints.
const STUDIES: [&str; 7] = ["jacobian", "attack", "adversarial", "linearity", "generalize", "sample", "ood"];

/// What a study leaves, that a second run adds to it without computing it again, and what it says of
/// unusable inputs.
#[test]
fn studies_leave_tables_and_plots_and_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (config, data, run_dir) =
        (dir.path().join("tiny.toml"), dir.path().join("photos"), dir.path().join("run"));
    std::fs::write(&config, CONFIG).unwrap();
    photographs(&data);
    let fit =
        ["fit", "--config", text(&config), "--data", text(&data), "-o", text(&run_dir), "--threads", "1"];
    assert!(run(&fit).status.success());
    let checkpoint = run_dir.join("checkpoint");
    let study = |name: &str, extra: &[&str]| {
        let out = dir.path().join(name);
        let mut args =
            vec![name, text(&checkpoint), "--data", text(&data), "-o", text(&out), "--threads", "1"];
        args.extend(extra);
        let output = run(&args);
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned(), out)
    };
    let rows = |out: &Path, name: &str| {
        let text = std::fs::read(out.join(format!("{name}.json"))).unwrap();
        serde_json::from_slice::<serde_json::Value>(&text).unwrap()["rows"].as_array().unwrap().clone()
    };

    let (done, stderr, out) = study("generalize", &["--sigma", "25"]);
    assert!(done, "{stderr}");
    let first = rows(&out, "generalize");
    assert!(first[0]["noisy"].as_f64().unwrap() > 15.0 && out.join("generalize.png").is_file());
    // A row that was there stays as it is, even if it is wrong: it is not computed again.
    let path = out.join("generalize.json");
    let json = std::fs::read_to_string(&path).unwrap();
    let noisy = first[0]["noisy"].to_string();
    std::fs::write(&path, json.replace(&noisy, "1.5")).unwrap();
    assert!(study("generalize", &["--sigma", "25,100"]).0);
    let second = rows(&out, "generalize");
    assert_eq!((second.len(), second[0]["noisy"].as_f64()), (2, Some(1.5)));
    assert_eq!(
        (second[0]["in_training_range"].as_bool(), second[1]["in_training_range"].as_bool()),
        (Some(true), Some(false))
    );
    let (done, stderr, _) = study("generalize", &["--images", "2"]);
    assert!(!done && stderr.contains("other settings"), "{stderr}");
    // A photograph of another name: these are not the images of the rows that are there.
    let (was, other) = (data.join("0.png"), data.join("other.png"));
    std::fs::rename(&was, &other).unwrap();
    let (done, stderr, _) = study("generalize", &["--sigma", "25"]);
    assert!(!done && stderr.contains("or images"), "{stderr}");
    std::fs::rename(&other, &was).unwrap();

    for (name, extra) in [
        ("jacobian", &["--steps", "20", "--images", "1"][..]),
        ("linearity", &["--sigma", "0,25"]),
        // More than there are photographs.
        ("sample", &["--steps", "3", "--each", "6"]),
        ("ood", &["--sigma", "0"]),
    ] {
        let (done, stderr, out) = study(name, extra);
        assert!(done && !rows(&out, name).is_empty(), "{name}: {stderr}");
    }
    for name in ["attack", "adversarial"] {
        let (done, stderr, _) = study(name, &[]);
        assert!(!done && stderr.contains("needs a network that classifies"), "{name}: {stderr}");
    }

    // A second network of the same name, and a folder named like a source.
    let same = [text(&checkpoint), "--sigma", "25"];
    let (done, stderr, _) = study("generalize", &same);
    assert!(!done && stderr.contains("are named tiny"), "{stderr}");
    let noise = dir.path().join("noise");
    photographs(&noise);
    let (done, stderr, _) = study("ood", &["--sigma", "0", "--other", text(&noise)]);
    assert!(!done && stderr.contains("are named noise"), "{stderr}");

    // Other images by the name of those that have rows.
    let views = ["a", "b"].map(|place| dir.path().join(place).join("views"));
    views.iter().for_each(|folder| photographs(folder));
    let ood = |folder: &Path| study("ood", &["--sigma", "0", "--other", text(folder)]);
    let (done, stderr, out) = ood(&views[0]);
    let first = rows(&out, "ood");
    assert!(done && first.len() == 5, "{stderr}");
    assert!(ood(&views[1]).0, "the same names, wherever they are");
    std::fs::rename(views[1].join("0.png"), views[1].join("other.png")).unwrap();
    let (done, stderr, _) = ood(&views[1]);
    assert!(!done && stderr.contains("rows of other images by the name views"), "{stderr}");
    assert_eq!(rows(&out, "ood"), first);

    // Another network by the name of the one that has rows.
    let trained = CONFIG.replace("steps = 4", "steps = 5");
    std::fs::write(run_dir.join("config.toml"), trained).unwrap();
    assert!(run(&["resume", text(&run_dir)]).status.success());
    for name in ["generalize", "jacobian", "linearity", "sample", "ood"] {
        let (done, stderr, _) = study(
            name,
            match name {
                "jacobian" => &["--steps", "20", "--images", "1"],
                "sample" => &["--steps", "3", "--each", "6"],
                _ => &[],
            },
        );
        assert!(!done && stderr.contains("rows of another tiny, of other steps"), "{name}: {stderr}");
    }

    let out = dir.path().join("table");
    let table = ["table", text(&checkpoint), "-o", text(&out)];
    assert!(String::from_utf8_lossy(&run(&table).stderr).contains("--record"));
    let eval = ["eval", text(&checkpoint), "--data", text(&data), "--record", "stripes", "--threads", "1"];
    assert!(run(&eval).status.success() && run(&table).status.success());
    let rows = rows(&out, "table");
    assert_eq!((rows.len(), rows[7]["data"].as_str()), (8, Some("stripes")));

    let out = dir.path().join("theory");
    let theory = ["theory", "-o", text(&out), "--samples", "100", "--repeats", "20"];
    assert!(run(&theory).status.success());
    for file in ["constants.md", "errors.json", "error.png", "scaled-error.png", "figure1.png"] {
        assert!(out.join(file).is_file(), "{file}");
    }
}

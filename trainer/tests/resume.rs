//! A resumed run goes on as if it had never stopped, bit for bit.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed")]

mod common;

use common::{ARCHITECTURE, architecture, images, place, steps};
use gradresnet_models::{Array, Checkpoint, Task};
use gradresnet_train::config::Config;
use gradresnet_train::fit::fit;
use gradresnet_train::run::{CHECKPOINT, CONFIG, Origin, Run, Step};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// Every kind of state: both rules, an average, running statistics, both objectives, every augmentation.
const CASES: [(&str, &str, &str); 4] = [
    (
        "denoising, Muon, bfloat16, average",
        "group",
        r#"
[denoising]
batch = 2
size = 8
sigma = [1, 70]
weight_power = 1.0
augment = { flip = true, turn = true }

[optimizer]
muon = { learning_rate = 0.02 }
adamw = { learning_rate = 4e-3 }
clip = 1.0
warmup = 2
average = 0.99
"#,
    ),
    (
        "joint, both targets, a schedule, mixed, AdamW, batch norm",
        "batch",
        r#"
[denoising]
batch = 2
size = 8
sigma = [1, 100]
target = "both"
weight = 3.0
# From where the run is stopped.
schedule = [{ from_step = 3, batch = 3, size = 4 }]

[classification]
batch = 3
size = 8
sigma = [0, 20]
augment = { resized_crop = true }
mix = 0.5

[optimizer]
adamw = { learning_rate = 4e-3, weight_decay = 0.01 }
"#,
    ),
    (
        "classification, Muon, bfloat16",
        "homogeneous",
        r#"
[classification]
batch = 4
size = 8
sigma = [0, 20]
augment = { padding = 2 }

[optimizer]
muon = { learning_rate = 0.02, weight_decay = 0.01 }
adamw = { learning_rate = 4e-3 }
"#,
    ),
    (
        "JEM",
        "group",
        r#"
[classification]
batch = 3
size = 8
sigma = [3.825, 3.825]

[jem]
batch = 3
size = 8
sigma = [3.825, 3.825]
weight = 0.5
buffer = 4
steps = 3

[optimizer]
adamw = { learning_rate = 1e-4 }
"#,
    ),
];

const STEPS: u64 = 7;
const STOP: u64 = 3;

/// A config of a network with group norm that trains on all images, with these objectives and this optimiser.
fn without_held_out(rest: &str) -> String {
    let architecture = architecture("group", false);
    format!("name = \"t\"\ndata = \"none\"\nsteps = {STEPS}\nheld_out = 0.0\n{architecture}{rest}")
}

/// With two threads, batches of the first and the third case are cut into two parts. On a processor without bfloat16,
/// cases that name it compute in float32.
#[test]
fn losses_and_parameters_after_a_resume_are_those_of_an_uninterrupted_run() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    images(&data);
    let cases = CASES.iter().flat_map(|case| [1, 2].map(|threads| (threads, case)));
    for (threads, (name, norm, rest)) in cases {
        // A thread that has not asked for its number before would be given what another test has set.
        tch::get_num_threads();
        tch::set_num_threads(threads);
        let text = format!(
            "name = \"t\"\ndata = \"none\"\nsteps = {STEPS}\nheld_out = 0.0\nprecision = \"{}\"\n{}{rest}",
            if name.contains("bfloat16") { "bfloat16" } else { "float32" },
            architecture(norm, name.starts_with("JEM"))
        );
        let config = Config::parse(&text).unwrap();
        let start = || Run::start(config.clone(), place(&data), "test".into(), None).unwrap();

        let (whole, stopped) = (dir.path().join("whole"), dir.path().join("stopped"));
        let mut run = start();
        let expected = steps(&mut run, STEPS);
        run.checkpoint(&whole).unwrap();

        let mut run = start();
        let mut found = steps(&mut run, STOP);
        run.checkpoint(&stopped).unwrap();
        std::fs::write(stopped.join(CONFIG), &text).unwrap();
        // What is done after the checkpoint is lost and done again.
        steps(&mut run, 1);
        drop(run);
        let mut run = Run::resume(&stopped, |state| Ok(place(&state.data))).unwrap();
        assert_eq!(run.steps(), STOP);
        found.extend(steps(&mut run, STEPS - STOP));
        run.checkpoint(&stopped).unwrap();

        assert_eq!(found, expected, "{name}");
        let factor = |term: &str| match term {
            "denoising" => config.denoising.as_ref().map_or(1.0, |d| d.weight),
            "jem" => config.jem.as_ref().map_or(1.0, |j| j.weight),
            _ => 1.0,
        };
        for step in &expected {
            let of = |(name, term): &(&str, f64)| factor(name) * term;
            let sum: f64 = step.terms.iter().map(of).sum();
            // Rounding of a sum of two or three in float32.
            assert!((step.loss - sum).abs() < 1e-6 * sum.abs(), "{name}: {step:?}");
        }
        assert!(expected.iter().any(|s| s.loss != expected[0].loss), "{name}: nothing was trained");
        let read = |dir: &Path| Checkpoint::read(&dir.join(CHECKPOINT)).unwrap();
        let (whole, stopped) = (read(&whole), read(&stopped));
        assert_eq!(whole.parameters, stopped.parameters, "{name}");
        assert_eq!(whole.golden, stopped.golden, "{name}");
        assert_eq!(stopped.spec.provenance.unwrap().steps, STEPS);
    }
}

fn origin(checkpoint: &Checkpoint) -> Origin<'_> {
    Origin { path: Path::new("before"), checkpoint }
}

/// Without an average and JEM's samples, only the momentum is lost with the optimiser's state.
#[test]
fn a_run_from_a_checkpoint_goes_on_at_its_step_with_a_new_optimiser() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    images(&data);
    let text = without_held_out(&CASES[0].2.replace("average = 0.99\n", ""));
    let config = Config::parse(&text).unwrap();
    let start = |from: Option<&_>| Run::start(config.clone(), place(&data), "test".into(), from.map(origin));

    let (uninterrupted, short) = (dir.path().join("uninterrupted"), dir.path().join("short"));
    let mut run = start(None).unwrap();
    steps(&mut run, STOP);
    run.checkpoint(&uninterrupted).unwrap();
    let read = |dir: &Path| Checkpoint::read(&dir.join(CHECKPOINT)).unwrap();
    let mut from = read(&uninterrupted);
    from.spec.provenance.as_mut().unwrap().cpu_hours = 2.0;
    let expected = steps(&mut run, STEPS - STOP);

    let mut run = start(Some(&from)).unwrap();
    assert_eq!(run.steps(), STOP);
    let found = steps(&mut run, 1);
    assert_eq!(found[0].loss, expected[0].loss, "the same weights see the same batch");
    // A warm-up of two steps begins again, beneath the schedule of the whole run.
    assert!((found[0].rate / expected[0].rate - 1.0 / 3.0).abs() < 1e-12);
    run.checkpoint(&short).unwrap();
    std::fs::write(short.join(CONFIG), &text).unwrap();
    let rest = steps(&mut run, STEPS - STOP - 1);
    assert_eq!(rest.last().unwrap().rate, expected.last().unwrap().rate);
    assert_ne!(rest.last().unwrap().loss, expected.last().unwrap().loss);
    assert!(read(&short).spec.provenance.unwrap().cpu_hours >= 2.0);

    // Its own state can be resumed exactly.
    let mut run = Run::resume(&short, |state| Ok(place(&state.data))).unwrap();
    assert_eq!(steps(&mut run, STEPS - STOP - 1), rest);

    run.checkpoint(&short).unwrap();
    let finished = read(&short);
    let refused = |run: anyhow::Result<Run>| format!("{:#}", run.unwrap_err());
    let error = refused(start(Some(&finished)));
    assert!(error.starts_with("cannot go on from before: it is at step 7 already"), "{error}");
    assert!(error.contains("raise"), "{error}");
    // What is wrong with the data is not said of the checkpoint.
    let nowhere = place(Path::new("nowhere"));
    let error = refused(Run::start(config.clone(), nowhere, "test".into(), Some(origin(&from))));
    assert!(error.starts_with("nowhere"), "{error}");
    // The published average goes on, and its origin is recorded.
    let averaged = Config::parse(&text.replace("[optimizer]", "[optimizer]\naverage = 0.5")).unwrap();
    let averaged = Config { data: "others".into(), ..averaged };
    let run = Run::start(averaged.clone(), place(&data), "test".into(), Some(origin(&from))).unwrap();
    run.checkpoint(&short).unwrap();
    let written = read(&short);
    assert_eq!(written.parameters, from.parameters);
    assert_eq!(written.spec.provenance.as_ref().unwrap().data, "none; then others");
    // A second leg on the same images does not name them twice.
    let run = Run::start(averaged, place(&data), "test".into(), Some(origin(&written))).unwrap();
    run.checkpoint(&short).unwrap();
    assert_eq!(read(&short).spec.provenance.unwrap().data, "none; then others");

    let mut other = from.clone();
    other.spec.classes = vec!["a".into(), "b".into()];
    assert!(refused(start(Some(&other))).contains("it has 2 classes"));
}

const DENOISING: &str = "[denoising]\nbatch = 2\nsize = 8\nsigma = [1, 70]\n";
const CLASSIFICATION: &str = "[classification]\nbatch = 3\nsize = 8\nsigma = [0, 20]\n";

/// The text of a config with these objectives, AdamW and a long average.
fn averaged(objectives: &[&str]) -> String {
    let objectives = objectives.concat();
    without_held_out(&format!(
        "{objectives}[optimizer]\nadamw = {{ learning_rate = 4e-3 }}\naverage = 0.9995\n"
    ))
}

/// One term of a step's loss, without its factor.
fn term(step: &Step, wanted: &str) -> f64 {
    step.terms.iter().find(|(name, _)| *name == wanted).unwrap().1
}

/// A denoiser goes on as a joint network: its parameters stay, and the head is new.
#[test]
fn a_denoiser_learns_classes_from_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    images(&data);
    let joint = averaged(&[DENOISING, CLASSIFICATION]);
    let (alone, both) = (Config::parse(&averaged(&[DENOISING])).unwrap(), Config::parse(&joint).unwrap());
    let start = |config: &Config, command: &str, from: Option<&_>| {
        Run::start(config.clone(), place(&data), command.into(), from.map(origin))
    };
    let written = |run: &Run| {
        run.checkpoint(dir.path()).unwrap();
        Checkpoint::read(&dir.path().join(CHECKPOINT)).unwrap()
    };

    let mut run = start(&alone, "denoise", None).unwrap();
    steps(&mut run, STOP);
    let from = written(&run);

    let mut run = start(&both, "classify", Some(&from)).unwrap();
    assert_eq!(run.steps(), STOP);
    let mut grown = written(&run);
    assert_eq!((grown.spec.task, grown.spec.image_size), (Task::Joint, Some(8)));
    assert_eq!(grown.spec.classes, ["cat", "dog"]);
    let provenance = grown.spec.provenance.unwrap();
    assert_eq!((provenance.data.as_str(), provenance.command.as_str()), ("none", "denoise; then classify"));
    let head = grown.parameters.remove("head.weight").unwrap();
    assert!(head.to_f64().iter().all(|v| *v == 0.0));
    assert_eq!(grown.parameters, from.parameters);

    let first = steps(&mut run, 1);
    // What is published denoises the first batch of both, and of two classes both are as likely.
    let denoising_only = steps(&mut start(&alone, "denoise", Some(&from)).unwrap(), 1);
    let (found, expected) = (term(&first[0], "denoising"), term(&denoising_only[0], "denoising"));
    // Rounding in float32: batches may be cut into other parts.
    assert!((found - expected).abs() < 1e-6 * expected, "{found}, {expected}");
    assert!((term(&first[0], "classification") - 2f64.ln()).abs() < 1e-6);

    // The average forgets the head of zeros as fast as that of a new run forgets its start: to a tenth in one step.
    let published = written(&run);
    let saved = dir.path().join(CHECKPOINT).join("optimizer.safetensors");
    let (raw, _) = gradresnet_models::tensors::read(&saved).unwrap();
    for (mean, raw) in
        published.parameters["head.weight"].to_f64().iter().zip(raw["raw.head.weight"].to_f64())
    {
        assert!(raw != 0.0 && (mean - 0.9 * raw).abs() < 1e-6 * raw.abs(), "{mean}, {raw}");
    }
    // Its own state can be resumed exactly.
    std::fs::write(dir.path().join(CONFIG), &joint).unwrap();
    let expected = steps(&mut run, STEPS - STOP - 1);
    let mut run = Run::resume(dir.path(), |state| Ok(place(&state.data))).unwrap();
    assert_eq!(steps(&mut run, STEPS - STOP - 1), expected);

    // Classes are neither dropped, nor gained by a run that goes on.
    let error = format!("{:#}", start(&alone, "denoise", Some(&published)).unwrap_err());
    assert!(error.contains("has 2 classes") && error.contains("[classification]"), "{error}");
    let run = start(&alone, "denoise", None).unwrap();
    run.checkpoint(dir.path()).unwrap();
    let error = Run::resume(dir.path(), |state| Ok(place(&state.data))).unwrap_err();
    assert!(format!("{error:#}").contains("fit --from"), "{error:#}");
}

/// A classifier's log p(y) was never trained, so its score starts as small as a random network's.
#[test]
fn a_classifier_learns_to_denoise() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    images(&data);
    let start = |objectives: &[&str], from: Option<&_>| {
        let config = Config::parse(&averaged(objectives)).unwrap();
        Run::start(config, place(&data), "test".into(), from.map(origin)).unwrap()
    };
    let mut run = start(&[CLASSIFICATION], None);
    steps(&mut run, STOP);
    run.checkpoint(dir.path()).unwrap();
    let mut from = Checkpoint::read(&dir.path().join(CHECKPOINT)).unwrap();
    // As after a long training, in which nothing but weight decay and the features move the score.
    let energy = from.parameters["energy.weight"].to_f64().iter().map(|v| 100.0 * *v as f32).collect();
    let shape = from.parameters["energy.weight"].shape().to_vec();
    from.parameters.insert("energy.weight".into(), Array::f32(&shape, energy).unwrap());

    let mut run = start(&[CLASSIFICATION, DENOISING], Some(&from));
    // At 1 nothing is learnt yet; a score a hundredfold as large would be at thousands.
    let loss = term(&steps(&mut run, 1)[0], "denoising");
    assert!((0.7..1.3).contains(&loss), "{loss}");
}

#[test]
fn a_run_that_diverges_says_so_and_keeps_its_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    images(&data);
    let case = CASES[3].2.replace("1e-4", "10.0").replace("steps = 3", "steps = 3\nstep_size = 1e3");
    let text = format!(
        "name = \"t\"\ndata = \"none\"\nsteps = 100\nheld_out = 0.0\n{}{case}",
        architecture("none", true)
    );
    let mut run = Run::start(Config::parse(&text).unwrap(), place(&data), "test".into(), None).unwrap();
    let run_dir = dir.path().join("run");
    run.checkpoint(&run_dir).unwrap();
    let checkpoint = Checkpoint::read(&run_dir.join(CHECKPOINT)).unwrap();
    let stop = AtomicBool::new(false);
    let error = fit(&mut run, &run_dir, &stop).unwrap_err().to_string();
    assert!(error.contains("diverged") && error.contains("jem.steps"), "{error}");
    assert_eq!(Checkpoint::read(&run_dir.join(CHECKPOINT)).unwrap(), checkpoint);
}

/// Held-out images that cannot be read cost no step, and once they can, no validation.
#[test]
fn a_validation_that_fails_comes_after_the_checkpoint_and_is_done_again() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    images(&data);
    let text = format!(
        "name = \"t\"\ndata = \"none\"\nsteps = {STEPS}\nvalidate_every = {STOP}\nheld_out = 0.25\n{}{}",
        architecture("group", false),
        CASES[0].2
    );
    let (run_dir, stop) = (dir.path().join("run"), AtomicBool::new(false));
    std::fs::create_dir(&run_dir).unwrap();
    std::fs::write(run_dir.join(CONFIG), &text).unwrap();
    let mut run = Run::start(Config::parse(&text).unwrap(), place(&data), "test".into(), None).unwrap();
    let torn = ["cat/3.png", "dog/3.png"].map(|name| data.join(name));
    let sound = torn.each_ref().map(|path| std::fs::read(path).unwrap());
    for path in &torn {
        std::fs::write(path, "no image").unwrap();
    }
    let error = format!("{:#}", fit(&mut run, &run_dir, &stop).unwrap_err());
    assert!(error.contains("3.png: not a readable image"), "{error}");
    let checkpoint = Checkpoint::read(&run_dir.join(CHECKPOINT)).unwrap();
    assert_eq!(checkpoint.spec.provenance.unwrap().steps, STOP);

    for (path, sound) in torn.iter().zip(sound) {
        std::fs::write(path, sound).unwrap();
    }
    for _ in 0..2 {
        let mut run = Run::resume(&run_dir, |state| Ok(place(&state.data))).unwrap();
        fit(&mut run, &run_dir, &stop).unwrap();
        let metrics = std::fs::read_to_string(run_dir.join("metrics.jsonl")).unwrap();
        let lines = metrics.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let validated = lines.filter(|line| line.get("held_out/psnr_25").is_some());
        let steps: Vec<_> = validated.map(|line| line["step"].as_u64().unwrap()).collect();
        // Each once, at the end too.
        assert_eq!(steps, [STOP, 2 * STOP, STEPS]);
    }
}

#[test]
fn what_is_published_is_the_average_of_the_weights() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    images(&data);
    let text = without_held_out(&CASES[0].2.replace("average = 0.99", "average = 0.5"));
    let mut run = Run::start(Config::parse(&text).unwrap(), place(&data), "test".into(), None).unwrap();
    let mut checkpoint = |taken| {
        steps(&mut run, taken);
        run.checkpoint(dir.path()).unwrap();
        Checkpoint::read(&dir.path().join(CHECKPOINT)).unwrap().parameters
    };
    let (start, average) = (checkpoint(0), checkpoint(1));
    let path = dir.path().join(CHECKPOINT).join("optimizer.safetensors");
    let (saved, _) = gradresnet_models::tensors::read(&path).unwrap();
    for (name, start) in &start {
        let raw = saved[&format!("raw.{name}")].to_f64();
        // The memory of the first step is shortened from a half to a tenth.
        let expected = start.to_f64().into_iter().zip(raw).map(|(start, raw)| start + 0.9 * (raw - start));
        for (found, expected) in average[name].to_f64().into_iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{name}: {found}, not {expected}");
        }
    }
}

/// The message of an interrupted run is that its checkpoint is there.
#[test]
fn a_run_that_is_stopped_loses_no_step() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    images(&data);
    let text = without_held_out(CASES[0].2);
    let start = || Run::start(Config::parse(&text).unwrap(), place(&data), "test".into(), None).unwrap();
    let expected = steps(&mut start(), STEPS).last().unwrap().loss;
    let (run_dir, mut run) = (dir.path().join("run"), start());
    std::fs::create_dir(&run_dir).unwrap();
    std::fs::write(run_dir.join(CONFIG), &text).unwrap();
    let (stop, go_on) = (AtomicBool::new(true), AtomicBool::new(false));
    let error = fit(&mut run, &run_dir, &stop).unwrap_err().to_string();
    assert!(error.contains("stopped after step 1"), "{error}");
    // The images have moved meanwhile.
    let moved = dir.path().join("moved");
    std::fs::rename(&data, &moved).unwrap();
    let mut run = Run::resume(&run_dir, |_| Ok(place(&moved))).unwrap();
    assert_eq!(run.steps(), 1);
    fit(&mut run, &run_dir, &go_on).unwrap();
    let metrics = std::fs::read_to_string(run_dir.join("metrics.jsonl")).unwrap();
    let lines = metrics.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let losses: Vec<_> =
        lines.map(|line| (line["step"].as_u64().unwrap(), line["train/loss"].as_f64().unwrap())).collect();
    assert_eq!(losses.iter().map(|(step, _)| *step).collect::<Vec<_>>(), (1..=STEPS).collect::<Vec<_>>());
    assert_eq!(losses.last().unwrap().1, expected);
}

#[test]
fn a_checkpoint_of_another_network_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    images(&data);
    let text = |width: usize| {
        let architecture =
            ARCHITECTURE.replace("NORM", "none").replace("width = 8", &format!("width = {width}"));
        format!("name = \"t\"\ndata = \"none\"\nsteps = 2\n{architecture}{}", CASES[2].2)
    };
    let run_dir = dir.path().join("run");
    let config = Config::parse(&text(8)).unwrap();
    Run::start(config, place(&data), "test".into(), None).unwrap().checkpoint(&run_dir).unwrap();
    std::fs::write(run_dir.join(CONFIG), text(16)).unwrap();
    let error = format!("{:#}", Run::resume(&run_dir, |s| Ok(place(&s.data))).unwrap_err());
    assert!(error.contains("its architecture is not that of the config"), "{error}");

    std::fs::write(run_dir.join(CONFIG), text(8)).unwrap();
    // The optimiser's file is untrusted too.
    let path = run_dir.join(CHECKPOINT).join("optimizer.safetensors");
    let sound = std::fs::read(&path).unwrap();
    let (tensors, _) = gradresnet_models::tensors::parse(&sound).unwrap();
    let name = tensors.keys().next().unwrap();
    let mut changed = tensors.clone();
    let shape = changed[name].shape().to_vec();
    let count = shape.iter().product();
    changed.insert(name.clone(), Array::f32(&shape, vec![f32::NAN; count]).unwrap());
    std::fs::write(&path, gradresnet_models::tensors::serialise(&changed, &BTreeMap::new()).unwrap())
        .unwrap();
    let error = format!("{:#}", Run::resume(&run_dir, |s| Ok(place(&s.data))).unwrap_err());
    assert!(error.contains("optimizer.safetensors") && error.contains("not finite"), "{error}");
    std::fs::write(&path, sound).unwrap();

    // So is the state: it neither begins after itself nor goes on beyond the end.
    let path = run_dir.join(CHECKPOINT).join("state.json");
    let sound = std::fs::read_to_string(&path).unwrap();
    for (field, changed, reason) in [
        ("\"first_step\": 0", "\"first_step\": 1", "state.json: damaged"),
        ("\"step\": 0", "\"step\": 3", "has taken 3 steps, more than"),
    ] {
        assert!(sound.contains(field), "{sound}");
        std::fs::write(&path, sound.replace(field, changed)).unwrap();
        let error = format!("{:#}", Run::resume(&run_dir, |s| Ok(place(&s.data))).unwrap_err());
        assert!(error.contains(reason), "{error}");
    }
    std::fs::write(&path, sound).unwrap();

    // The data may have gone, or have changed.
    std::fs::rename(data.join("dog"), data.join("eel")).unwrap();
    let error = format!("{:#}", Run::resume(&run_dir, |s| Ok(place(&s.data))).unwrap_err());
    assert!(error.contains("not the images that the run began with (8 then, 8 now"), "{error}");
    std::fs::remove_dir_all(&data).unwrap();
    let error = format!("{:#}", Run::resume(&run_dir, |s| Ok(place(&s.data))).unwrap_err());
    assert!(error.contains("--data") && error.contains("not a folder"), "{error}");
}

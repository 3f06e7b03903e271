//! One training run: its state, its steps, its checkpoints.

mod origin;
mod plans;

pub use origin::Origin;
pub(crate) use origin::then;

use crate::config::{Config, Precision};
use crate::data::{Images, Listing, Loader, Split};
use crate::device::{name, precision_on};
use crate::evaluate::{Evaluation, Options, evaluate};
use crate::golden::golden;
use crate::jem::Replay;
use crate::nets::{Network, Phase};
use crate::objective;
use crate::optim::Optimizer;
use crate::parallel::{Batches, Loss, Workers};
use anyhow::{Context, Result, ensure};
pub use gradresnet_models::checkpoint::CHECKPOINT;
use gradresnet_models::checkpoint::check_parameters;
use gradresnet_models::staged::read_bounded;
use gradresnet_models::{Array, Checkpoint, Provenance, Spec, tensors};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// Name of the config in a run's folder.
pub const CONFIG: &str = "config.toml";
const STATE: &str = "state.json";
const OPTIMIZER: &str = "optimizer.safetensors";
/// The state is a command or two, some paths and numbers.
const MAX_STATE_BYTES: u64 = 1 << 20;
/// AdamW's two moments and the weights behind an average are twelve bytes a parameter, where the parameters' own file may
/// have eight, and JEM's samples at most 1 GiB.
const MAX_OPTIMIZER_BYTES: u64 = 2 * tensors::MAX_TENSOR_BYTES;
/// Prefix, in the optimiser's file, of the weights that an average is kept of.
const RAW: &str = "raw.";

/// Root mean square of σ·∇log p at the start: from a larger one, training may not leave the plateau at loss 1
/// (`docs/training.md`).
const INITIAL_SCORE: f64 = 0.1;

/// A loss beyond this means nothing any more; JEM's authors stop there too.
const DIVERGED: f64 = 1e8;

/// Most held-out images that a validation looks at, and the side of what it sees of them.
const VALIDATION_IMAGES: usize = 256;
const VALIDATION_CROP: usize = 128;

/// Where the images are and where the tensors live.
#[derive(Clone, Debug)]
pub struct Place {
    /// Training images.
    pub data: PathBuf,
    /// Device of the network.
    pub device: Device,
    /// Threads of the computation, if they were chosen; kept for `resume`.
    pub threads: Option<u16>,
    /// Threads that decode and augment, for each objective.
    pub loader_threads: usize,
}

/// What `state.json` says: enough, with the tensors, to go on exactly.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Steps taken.
    pub step: u64,
    /// Training images, as given at the start.
    pub data: PathBuf,
    /// The step that it began at, with a new optimiser: 0, or that of the checkpoint it began from.
    #[serde(default)]
    pub first_step: u64,
    /// What the checkpoint that it began from was trained on, in words.
    #[serde(default)]
    pub data_before: Option<String>,
    /// The command that made the checkpoint it began from.
    #[serde(default)]
    pub command_before: Option<String>,
    /// CPU time so far, in seconds.
    pub cpu_seconds: f64,
    /// The images that it began with; absent if an earlier version wrote the state.
    #[serde(default)]
    pub images: Option<Listing>,
    /// Where it computes; absent if an earlier version wrote the state.
    #[serde(default)]
    pub device: Option<String>,
    /// With how many threads, if they were chosen.
    #[serde(default)]
    pub threads: Option<u16>,
    /// The command that started the run.
    pub command: String,
}

/// A run between two steps.
#[derive(Debug)]
pub struct Run {
    config: Config,
    spec: Spec,
    place: Place,
    state: State,
    precision: Precision,
    /// CPU time of this process when the run was opened, in seconds.
    cpu_start: f64,
    net: Network,
    /// Moving average of the weights, where the config asks for one.
    average: Option<Network>,
    optimizer: Optimizer,
    workers: Workers,
    held_out: Images,
    denoising: Option<Loader>,
    classification: Option<Loader>,
    jem: Option<(Loader, Replay)>,
}

/// What one step found.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The sum of the terms, each with its factor.
    pub loss: f64,
    /// The terms of the loss by name, without their factors.
    pub terms: Vec<(&'static str, f64)>,
    /// Images that it took, over all terms.
    pub images: usize,
    /// Norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// Factor of the learning rates.
    pub rate: f64,
}

impl Run {
    /// Starts a run from random parameters, or from those of a checkpoint. From a checkpoint it goes on
    /// at its step and its CPU time, with the batches and the learning rates that the config has from there on;
    /// the optimiser is new, so the warm-up is done again. Where an average of the weights is kept, the
    /// checkpoint has only that, and training goes on from it; JEM's samples start anew. A denoiser without classes gains
    /// those that the config trains, with a head of zeros; a classifier without an energy may learn one.
    ///
    /// # Errors
    /// If the data or the checkpoint does not fit the config, or the checkpoint is past its last step.
    pub fn start(config: Config, place: Place, command: String, from: Option<Origin>) -> Result<Run> {
        let images = Images::open(&place.data, Split::Train)?;
        let spec = fitting_spec(&config, &images, &place.data)?;
        let listing = images.listing();
        let (train, held_out) = images.hold_out(config.held_out);
        let train = Arc::new(train);
        let mut state = State {
            step: 0,
            data: place.data.clone(),
            first_step: 0,
            data_before: None,
            command_before: None,
            cpu_seconds: 0.0,
            images: Some(listing),
            device: Some(name(place.device)),
            threads: place.threads,
            command,
        };
        let net = match from {
            Some(from) => {
                if let Some(provenance) = &from.checkpoint.spec.provenance {
                    state.step = provenance.steps;
                    state.first_step = provenance.steps;
                    state.cpu_seconds = provenance.cpu_hours * 3600.0;
                    state.data_before = Some(provenance.data.clone());
                    state.command_before = Some(provenance.command.clone());
                }
                from.network(&config, &spec, place.device)?
            }
            None => {
                let (a, classes) = (&spec.architecture, spec.classes.len());
                Network::random(a, classes, config.seed, Kind::Float, place.device)
            }
        };
        if !from.is_some_and(|from| from.checkpoint.spec.has_energy())
            && net.parameter(objective::GAIN).is_some()
            && let Some(plan) = plans::denoising(&config)
        {
            let batch = Loader::start(train.clone(), plan, 0, 1).next_batch()?.to_device(place.device);
            objective::initialise_gain(&net, &batch, INITIAL_SCORE)?;
        }
        let average = config.optimizer.average.map(|_| net.copy());
        let optimizer = Optimizer::new(config.optimizer.clone(), net.list(), place.device);
        let replay = replay(&config, place.device);
        Run::assemble(config, spec, place, state, (net, average, optimizer, replay), (train, held_out))
    }

    /// Goes on from the checkpoint in a run's folder. `place` may overrule where the data is, and where to compute.
    ///
    /// The steps that follow are those of an uninterrupted run, bit for bit, if the device, the processor, the number
    /// of threads and libtorch are the same.
    ///
    /// # Errors
    /// If there is no checkpoint, it does not fit the run's config or the data, or the images are not those that the
    /// run began with.
    pub fn resume(dir: &Path, place: impl FnOnce(&State) -> Result<Place>) -> Result<Run> {
        let config = Config::read(&dir.join(CONFIG))?;
        let folder = dir.join(CHECKPOINT);
        let path = folder.join(STATE);
        ensure!(path.exists(), "{}: no checkpoint of an unfinished run", path.display());
        let text = read_bounded(&path, MAX_STATE_BYTES)?;
        let mut state: State = serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
        let State { step, first_step, .. } = state;
        ensure!(first_step <= step, "{}: damaged: at step {step}, from step {first_step}", path.display());
        ensure!(
            step <= config.steps,
            "{}: the run has taken {step} steps, more than the `steps` of its {CONFIG}, {}; raise that",
            dir.display(),
            config.steps
        );
        let checkpoint = Checkpoint::read(&folder)?;
        let path = folder.join(OPTIMIZER);
        let (saved, _) = tensors::read_within(&path, MAX_OPTIMIZER_BYTES)?;

        let place = place(&state).with_context(|| folder.join(STATE).display().to_string())?;
        (state.device, state.threads) = (Some(name(place.device)), place.threads);
        let images = Images::open(&place.data, Split::Train)
            .context("the training images of this run; if they have moved, say where with --data")?;
        if let Some(listing) = &state.images {
            // An image's place in the list says whether it is held out.
            ensure!(
                *listing == images.listing(),
                "{}: these are not the images that the run began with ({} then, {} now, or other names). Put them back, or \
                 begin a new run from its checkpoint with `gradresnet-train fit --from {}`",
                place.data.display(),
                listing.count,
                images.len(),
                folder.display()
            );
        }
        let spec = fitting_spec(&config, &images, &place.data)?;
        let published =
            origin::trained(&checkpoint, &spec, place.device).context(folder.display().to_string())?;
        let (net, average) = match config.optimizer.average {
            Some(_) => {
                let raw = |(name, array): (&String, &Array)| {
                    Some((name.strip_prefix(RAW)?.to_string(), array.clone()))
                };
                let raw = saved.iter().filter_map(raw).collect();
                check_parameters(&spec, &raw).with_context(|| path.display().to_string())?;
                let net = origin::network(&spec, &raw, place.device).context(path.display().to_string())?;
                (net, Some(published))
            }
            None => (published, None),
        };
        let mut optimizer = Optimizer::new(config.optimizer.clone(), net.list(), place.device);
        optimizer.load(&saved).with_context(|| path.display().to_string())?;
        let mut replay = replay(&config, place.device);
        if let Some(replay) = &mut replay {
            replay.load(&saved).with_context(|| path.display().to_string())?;
        }
        let (train, held_out) = images.hold_out(config.held_out);
        let images = (Arc::new(train), held_out);
        Run::assemble(config, spec, place, state, (net, average, optimizer, replay), images)
    }

    fn assemble(
        config: Config,
        spec: Spec,
        place: Place,
        state: State,
        (net, average, optimizer, replay): (Network, Option<Network>, Optimizer, Option<Replay>),
        (train, held_out): (Arc<Images>, Images),
    ) -> Result<Run> {
        let loader = |plan| Loader::start(train.clone(), plan, state.step, place.loader_threads);
        let precision = precision_on(place.device, config.precision);
        Ok(Run {
            workers: Workers::new(&spec.architecture, &config, place.device)?,
            precision,
            denoising: plans::denoising(&config).map(loader),
            classification: plans::classification(&config).map(loader),
            jem: plans::jem(&config).map(loader).zip(replay),
            cpu_start: cpu_seconds(),
            config,
            spec,
            place,
            state,
            net: net.convolve_in(precision.kind()),
            average,
            optimizer,
            held_out,
        })
    }

    /// The run's config.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What convolutions compute in: the config's precision, or what this device does well.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Steps taken so far.
    pub fn steps(&self) -> u64 {
        self.state.step
    }

    /// The step that it began at.
    pub fn first_step(&self) -> u64 {
        self.state.first_step
    }

    /// The network that is evaluated and shipped: the average of the weights, if one is kept.
    pub fn published(&self) -> &Network {
        self.average.as_ref().unwrap_or(&self.net)
    }

    /// One step of the optimiser on the weighted sum of the objectives (eq. 13).
    ///
    /// # Errors
    /// If an image cannot be read, or if the loss or its gradient is not finite; what is trained is unchanged then.
    pub fn step(&mut self) -> Result<Step> {
        let (device, step) = (self.place.device, self.state.step);
        let next = |loader: &mut Loader| anyhow::Ok(loader.next_batch()?.to_device(device));
        let batches = Batches {
            denoising: self.denoising.as_mut().map(next).transpose()?,
            classification: self.classification.as_mut().map(next).transpose()?,
            jem: match &mut self.jem {
                Some((loader, replay)) => {
                    let log_p = |image: &Tensor| objective::log_p(&self.net, image, Phase::Evaluation);
                    let samples = replay.sample(step, log_p)?;
                    Some((next(loader)?, samples))
                }
                None => None,
            },
        };
        let images = batches.images();
        let names: Vec<&str> = self.optimizer.names().collect();
        let Loss { value: loss, terms, gradients } =
            self.workers.loss(batches, &self.net, &self.config, &names)?;
        ensure!(loss.is_finite() && loss.abs() < DIVERGED, self.divergence(&format!("the loss is {loss}")));
        let parameters: Vec<&Tensor> = names.iter().filter_map(|name| self.net.parameter(name)).collect();
        let first_step = self.state.first_step;
        let rate = self.config.optimizer.rate(step, first_step, self.config.steps);
        let gradient_norm = self.optimizer.step(&parameters, &gradients, rate, step - first_step);
        ensure!(
            gradient_norm.is_finite(),
            self.divergence(&format!("the norm of the gradient is {gradient_norm}"))
        );
        if let (Some(average), Some(decay)) = (&self.average, self.config.optimizer.average) {
            // Early on, the average would remember little but the start: shorten its memory.
            let steps = (step - first_step) as f64;
            let decay = decay.min((1.0 + steps) / (10.0 + steps));
            average.move_towards(&self.net, 1.0 - decay);
        }
        self.state.step += 1;
        Ok(Step { loss, terms, images, gradient_norm, rate })
    }

    fn divergence(&self, sign: &str) -> String {
        let known = " (the likelihood by sampling is known for it; more jem.steps help)";
        format!(
            "step {}: training has diverged, {sign}{}; lower the learning rates or clip the gradient ([optimizer] in \
             {CONFIG}). The last checkpoint is as it was",
            self.state.step + 1,
            if self.jem.is_some() { known } else { "" }
        )
    }

    /// Measures the published network on some of the held-out images; `None` if none are held out.
    ///
    /// # Errors
    /// If an image cannot be read.
    pub fn validate(&self) -> Result<Option<Evaluation>> {
        if self.held_out.is_empty() {
            return Ok(None);
        }
        let options = Options {
            sigmas: vec![15.0, 25.0, 50.0],
            limit: Some(VALIDATION_IMAGES),
            crop: Some(VALIDATION_CROP),
            kind: Kind::Float,
            device: self.place.device,
        };
        // In float32, as for everyone who loads the checkpoint.
        let net = self.published().copy().convolve_in(Kind::Float);
        let (evaluation, _) = evaluate(&net, &self.spec, &self.held_out, &options, |_| ())?;
        Ok(Some(evaluation))
    }

    /// Writes the checkpoint in a run's folder, where it is swapped with the one before: the published network with its
    /// golden values, and what [`Run::resume`] needs.
    ///
    /// # Errors
    /// If it cannot be written, or a parameter is not finite.
    pub fn checkpoint(&self, dir: &Path) -> Result<()> {
        let mut state = self.state.clone();
        state.cpu_seconds += cpu_seconds() - self.cpu_start;
        let mut spec = self.spec.clone();
        spec.provenance = Some(Provenance {
            data: then(state.data_before.as_deref(), &self.config.data),
            steps: state.step,
            seed: self.config.seed,
            cpu_hours: (state.cpu_seconds / 36.0).round() / 100.0,
            command: then(state.command_before.as_deref(), &state.command),
            versions: BTreeMap::from([("gradresnet-train".into(), env!("CARGO_PKG_VERSION").into())]),
        });
        let parameters = self.published().to_tensors();
        let golden = golden(&spec, &parameters);
        let staged = Checkpoint { spec, parameters, golden }.stage(&dir.join(CHECKPOINT))?;
        let mut saved = self.optimizer.to_tensors();
        if let Some((_, replay)) = &self.jem {
            saved.extend(replay.to_tensors());
        }
        if self.average.is_some() {
            let raw = self.net.to_tensors().into_iter();
            saved.extend(raw.map(|(name, array)| (format!("{RAW}{name}"), array)));
        }
        staged.write(OPTIMIZER, &tensors::serialise(&saved, &BTreeMap::new())?)?;
        staged.write(STATE, &serde_json::to_vec_pretty(&state)?)?;
        staged.commit(true)?;
        Ok(())
    }
}

/// The spec of the model that `config` trains on `images`.
fn fitting_spec(config: &Config, images: &Images, data: &Path) -> Result<Spec> {
    if let Some(what) = config.needs_classes() {
        ensure!(
            images.classes().len() >= 2,
            "{}: {what} needs images in class folders, at least two",
            data.display()
        );
    }
    let spec = config.spec(images.classes().to_vec());
    spec.validate().with_context(|| format!("the classes of {}", data.display()))?;
    Ok(spec)
}

fn replay(config: &Config, device: Device) -> Option<Replay> {
    Some(Replay::new(config.jem.clone()?, plans::replay_seed(config), device))
}

/// CPU time of this process, all threads, in seconds.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

//! What a study looks at: a network behind a narrow interface, and images for it.

use super::report::Report;
use crate::convert::sum;
use crate::data::images::{Images, Pixels, Split};
use crate::device::Machine;
pub use crate::nets::gradient;
use crate::nets::{Network, Output, Phase, objective};
use anyhow::{Context, Result, bail, ensure};
use gradresnet_models::{Checkpoint, Graph, Spec};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

/// A model of log p(y) and log p(c|y), or of a part of that. All that the studies need of a network.
pub trait Model {
    /// log p(y) `[N]` and logits `[N,C]` of images `[N,3,H,W]` in image units, differentiable in them.
    fn forward(&self, image: &Tensor) -> Output;

    /// ∇_y [log p(y) + Σ_c a_c log p(c|y)] at `image` `[N,3,H,W]`, which requires a gradient; `class_weights`
    /// a `[N,C]`, absent meaning zero. It can be differentiated again if `differentiable`.
    ///
    /// # Errors
    /// Without an energy.
    fn score(&self, image: &Tensor, class_weights: Option<&Tensor>, differentiable: bool) -> Result<Tensor> {
        let objective =
            objective(&self.forward(image), class_weights).context("a network without an energy")?;
        Ok(gradient(&objective, image, differentiable))
    }

    /// D(y), `[N,3,H,W]`: y + σ² times the score (eq. 7), or what a direct denoiser says; `sigma` in image
    /// units.
    ///
    /// # Errors
    /// If it does not denoise.
    fn denoise(&self, noisy: &Tensor, sigma: f64, class_weights: Option<&Tensor>) -> Result<Tensor> {
        let noisy = noisy.detach().set_requires_grad(true);
        let score = self.score(&noisy, class_weights, false)?;
        Ok((noisy + score * (sigma * sigma)).detach())
    }

    /// Logits `[N,C]`, not differentiable; `None` without classes.
    fn logits(&self, image: &Tensor) -> Option<Tensor> {
        tch::no_grad(|| self.forward(image).logits)
    }
}

impl Model for Network {
    fn forward(&self, image: &Tensor) -> Output {
        self.density(image, Phase::Evaluation)
    }

    fn denoise(&self, noisy: &Tensor, sigma: f64, class_weights: Option<&Tensor>) -> Result<Tensor> {
        let level = Tensor::full([noisy.size()[0]], sigma, (noisy.kind(), noisy.device()));
        self.outputs(noisy, &level, class_weights).denoised.context("a network that does not denoise")
    }
}

/// What a study asks of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// log p(y).
    Energy,
    /// log p(c|y).
    Logits,
    /// D(y).
    Denoiser,
}

impl Need {
    fn is_met(self, spec: &Spec) -> bool {
        match self {
            Need::Energy => spec.has_energy(),
            Need::Logits => !spec.classes.is_empty(),
            Need::Denoiser => Graph::Denoiser.is_of(spec),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Need::Energy => "models log p(y)",
            Need::Logits => "classifies",
            Need::Denoiser => "denoises",
        }
    }
}

/// A checkpoint with its network.
pub struct Subject {
    /// What it is.
    pub spec: Spec,
    /// What it computes.
    pub net: Box<dyn Model>,
    /// Element type of the computation.
    pub kind: Kind,
    /// Where it computes.
    pub device: Device,
    /// Norm of all its parameters.
    pub norm: f64,
}

impl Subject {
    /// Reads the checkpoint in `dir`.
    ///
    /// # Errors
    /// If it cannot be read or lacks a parameter.
    pub fn read(dir: &Path, kind: Kind, device: Device) -> Result<Subject> {
        let Checkpoint { spec, parameters, .. } = Checkpoint::read(dir)?;
        let net = Network::from_tensors(&spec.architecture, spec.classes.len(), &parameters, kind, device)
            .with_context(|| format!("{}: parameters are missing", dir.display()))?;
        let squares = parameters.values().flat_map(|p| p.to_f64()).map(|v| v * v);
        let norm = squares.sum::<f64>().sqrt();
        Ok(Subject { spec, net: Box::new(net), kind, device, norm })
    }

    /// What a row's key says of the network: two with the same key are the same.
    pub fn key(&self) -> String {
        let (steps, seed) = self.spec.provenance.as_ref().map_or((0, 0), |p| (p.steps, p.seed));
        // The norm tells apart runs from one checkpoint that saw different images.
        format!("{}, {steps} steps, seed {seed}, weights of norm {:.6}", self.spec.name, self.norm)
    }

    /// One-hot class weights `[N,C]` for classes `[N]`, times `strength`.
    pub fn class_weights(&self, classes: &Tensor, strength: f64) -> Tensor {
        classes.one_hot(self.spec.classes.len() as i64).to_kind(self.kind) * strength
    }
}

/// Arguments that the studies of networks share.
#[derive(clap::Args, Debug)]
pub struct Inputs {
    /// Folders of checkpoints; each gets rows of its own
    #[arg(required = true, value_name = "CHECKPOINT")]
    checkpoints: Vec<PathBuf>,
    /// Images; of data with a training and a test half, the test half
    #[arg(long)]
    data: PathBuf,
    /// Folder for the results, made if missing; a second run goes on where the first stopped
    #[arg(short, long)]
    pub output: PathBuf,
    #[command(flatten)]
    machine: Machine,
}

impl Inputs {
    /// The networks and the images.
    ///
    /// # Errors
    /// If a checkpoint or the images cannot be read, or a network is not of the kind that is needed.
    pub fn open(&self, kind: Kind, needs: &[Need]) -> Result<(Vec<Subject>, Images)> {
        let (device, _) = self.machine.prepare();
        let subjects: Vec<Subject> =
            self.checkpoints.iter().map(|dir| Subject::read(dir, kind, device)).collect::<Result<_>>()?;
        for (subject, dir) in subjects.iter().zip(&self.checkpoints) {
            if let Some(unmet) = needs.iter().find(|need| !need.is_met(&subject.spec)) {
                let (family, name) = (subject.spec.architecture.family(), unmet.name());
                bail!("{}: this needs a network that {name}, and this {family} does not", dir.display());
            }
        }
        for (i, subject) in subjects.iter().enumerate() {
            // Pictures and curves are told apart by name.
            ensure!(
                subjects[..i].iter().all(|other| other.spec.name != subject.spec.name),
                "two of the checkpoints are named {}; give them different folders of results, or different names in their \
                 configs",
                subject.spec.name
            );
        }
        Ok((subjects, Images::open(&self.data, Split::Test)?))
    }

    /// The report `name` of `subjects` in the folder of results.
    ///
    /// # Errors
    /// Those of [`Report::open`], and if it has rows of another network by the name of one of them: tables, curves and
    /// pictures could not tell them apart.
    pub fn report<T: Serialize + DeserializeOwned>(
        &self,
        name: &str,
        settings: &Value,
        subjects: &[Subject],
    ) -> Result<Report<T>> {
        let report = Report::open(&self.output, name, settings)?;
        for subject in subjects {
            let (name, own) = (&subject.spec.name, format!("{}/", subject.key()));
            let named =
                |key: &str| key.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with(", "));
            ensure!(
                report.keyed().all(|(key, _)| !named(key) || key.starts_with(&own)),
                "{}: it has rows of another {name}, of other steps or weights; choose another folder",
                self.output.display()
            );
        }
        Ok(report)
    }

    /// What a report's settings say of the images: the folder's name, and how many there are of which names, but not
    /// what is in them.
    pub fn data_settings(&self, images: &Images) -> Value {
        let name = self.data.file_name().unwrap_or_default().to_string_lossy();
        json!({ "name": name, "listing": images.listing() })
    }
}

/// Pixels that go through a network together.
const PIXELS_AT_ONCE: i64 = 1 << 16;

/// Images of one size.
#[derive(Debug)]
pub struct Batch {
    /// `[N,3,H,W]` in image units.
    pub images: Tensor,
    /// `[N]`, if the images have the classes of the network.
    pub classes: Option<Tensor>,
}

impl Batch {
    /// `count` images (fewer if there are not so many), spread evenly over the set; their centres, if they
    /// differ in size or have sides that the network cannot take.
    ///
    /// # Errors
    /// If one cannot be read or is too small for the network.
    pub fn spread(images: &Images, count: usize, subject: &Subject) -> Result<Batch> {
        let count = count.min(images.len());
        let chosen: Vec<usize> = (0..count).map(|i| i * images.len() / count).collect();
        let planes: Vec<Tensor> =
            chosen.iter().map(|&i| Ok(planes_of(&*images.pixels(i)?))).collect::<Result<_>>()?;
        let stride = subject.spec.architecture.stride() as i64;
        let side = |dimension: usize| {
            planes.iter().map(|p| p.size()[dimension]).min().unwrap_or(0) / stride * stride
        };
        let (height, width) = (side(1), side(2));
        ensure!(
            height > 0 && width > 0,
            "an image of --data is smaller than {stride} pixels, the stride of the network"
        );
        let centres: Vec<Tensor> = planes
            .iter()
            .map(|p| {
                let (top, left) = ((p.size()[1] - height) / 2, (p.size()[2] - width) / 2);
                p.narrow(1, top, height).narrow(2, left, width)
            })
            .collect();
        let known = images.have_classes_of(&subject.spec);
        let classes: Option<Vec<i64>> =
            known.then(|| chosen.iter().map(|&i| images.class(i).map(|c| c as i64)).collect()).flatten();
        Ok(Batch {
            images: Tensor::stack(&centres, 0).to_kind(subject.kind).to_device(subject.device),
            classes: classes.map(|c| Tensor::from_slice(&c).to_device(subject.device)),
        })
    }

    /// The classes `[N]`.
    ///
    /// # Errors
    /// If the images do not have those of the network.
    pub fn require_classes(&self, subject: &Subject) -> Result<&Tensor> {
        self.classes.as_ref().with_context(|| {
            let name = &subject.spec.name;
            format!(
                "the images do not have the classes of {name}; --data names a folder with one folder for each"
            )
        })
    }

    /// Parts that fit through the network together, with the index of their first image.
    pub fn parts(&self) -> Vec<(i64, Batch)> {
        let size = self.images.size();
        let length = (PIXELS_AT_ONCE / (size[2] * size[3])).max(1);
        let part = |start: i64| {
            let length = length.min(size[0] - start);
            Batch {
                images: self.images.narrow(0, start, length),
                classes: self.classes.as_ref().map(|c| c.narrow(0, start, length)),
            }
        };
        (0..size[0]).step_by(length as usize).map(|start| (start, part(start))).collect()
    }

    /// The images with noise of deviation `sigma` (image units), which is the same at every level but for
    /// its scale; `first` is the index of the first image.
    pub fn noisy(&self, sigma: f64, first: i64) -> Tensor {
        &self.images + noise_like(&self.images, 0, first as u64) * sigma
    }
}

/// An image as `[3,H,W]` in image units.
pub fn planes_of(pixels: &Pixels) -> Tensor {
    let size = [pixels.height as i64, pixels.width as i64, 3];
    Tensor::from_slice(&pixels.rgb).view(size).permute([2, 0, 1]).to_kind(Kind::Float) / 255.0
}

/// Standard normal numbers of the shape and type of `like`, given by `seed` and `stream` alone.
pub fn noise_like(like: &Tensor, seed: u64, stream: u64) -> Tensor {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream);
    let values: Vec<f32> = StandardNormal.sample_iter(rng).take(like.numel()).collect();
    Tensor::from_slice(&values).reshape(like.size()).to_kind(like.kind()).to_device(like.device())
}

/// Euclidean norm of each image, `[N]`.
pub fn norms(images: &Tensor) -> Tensor {
    images.flatten(1, -1).norm_scalaropt_dim(2.0, [1i64].as_slice(), false)
}

/// How many of the logits `[N,C]` are largest at `classes` `[N]`.
pub fn correct(logits: &Tensor, classes: &Tensor) -> f64 {
    sum(&logits.argmax(1, false).eq_tensor(classes))
}

/// A noise level or a strength on the command line.
///
/// # Errors
/// If it is not a number from 0 to 1000.
pub fn bounded(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(s) if (0.0..=1000.0).contains(&s) => Ok(s),
        _ => Err("expected a number from 0 to 1000".into()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// log p(y) = −½‖A y‖² and logits B y: everything about it has a closed form.
    pub struct Quadratic {
        pub a: Tensor,
        pub b: Tensor,
    }

    impl Quadratic {
        pub fn random(pixels: i64, classes: i64) -> Quadratic {
            let empty = |rows| Tensor::zeros([rows, pixels], (Kind::Double, Device::Cpu));
            Quadratic { a: noise_like(&empty(pixels), 1, 0) * 0.3, b: noise_like(&empty(classes), 1, 1) }
        }
    }

    impl Model for Quadratic {
        fn forward(&self, image: &Tensor) -> Output {
            let flat = image.flatten(1, -1);
            let log_p = flat.matmul(&self.a.tr()).square().sum_dim_intlist(1, false, Kind::Double) * -0.5;
            Output { log_p: Some(log_p), logits: Some(flat.matmul(&self.b.tr())) }
        }
    }

    /// Flat grey ½ under noise of a level that the model is not told, as a network is not: it reads it off
    /// the spread of the image.
    pub struct Blind;

    impl Model for Blind {
        fn forward(&self, image: &Tensor) -> Output {
            // The score of −(n/2) log Σ(y − ½)² is −(y − ½)/s², s² the mean square.
            let squares = (image - 0.5).square().flatten(1, -1).sum_dim_intlist(1, false, image.kind());
            let n = image.numel() as f64 / image.size()[0] as f64;
            Output { log_p: Some(squares.log() * (-0.5 * n)), logits: None }
        }
    }

    #[test]
    fn denoising_is_one_step_along_the_score() {
        let net = Quadratic::random(12, 3);
        let noisy = noise_like(&Tensor::zeros([2, 3, 2, 2], (Kind::Double, Device::Cpu)), 2, 0);
        let flat = noisy.flatten(1, -1);
        let expected = &flat - flat.matmul(&net.a.tr()).matmul(&net.a) * 0.25;
        let denoised = net.denoise(&noisy, 0.5, None).unwrap().flatten(1, -1);
        assert!((denoised - &expected).abs().max().double_value(&[]) < 1e-12);

        // ∇ log p(c|y) of a linear classifier is row c of B less the mean row under p(c|y).
        let weights = Tensor::from_slice(&[1i64, 0]).one_hot(3).to_kind(Kind::Double);
        let p = flat.matmul(&net.b.tr()).softmax(1, Kind::Double);
        let expected = expected + (&weights - p).matmul(&net.b) * 0.25;
        let denoised = net.denoise(&noisy, 0.5, Some(&weights)).unwrap().flatten(1, -1);
        assert!((denoised - expected).abs().max().double_value(&[]) < 1e-12);
    }
}

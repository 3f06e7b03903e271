//! How every image is denoised: what does not depend on the image, and one image.

use super::args::{Args, Sigma};
use super::report::Done;
use crate::cli::console::{Console, about, images as in_words};
use crate::cli::inputs::Job;
use crate::cli::workers::{self, Budget, with_reference};
use anyhow::{Context, Result, anyhow, ensure};
use gradresnet::engine::{EngineKind, Graph};
use gradresnet::psnr::of_pictures;
use gradresnet::{Encoding, ErrorKind, Picture, Session, Tiling, extensions};
use ndarray::Array2;
use std::path::{Path, PathBuf};

/// What is the same for every file.
pub struct Plan {
    session: Session,
    sigma: Sigma,
    strength: f32,
    /// `[1,C]`
    class_weights: Option<Array2<f32>>,
    tiling: Tiling,
    encoding: Encoding,
    reference: Option<PathBuf>,
    budget: Budget,
}

/// Tiles get the memory divided by this, images the rest.
const TILES: u64 = 2;

/// G times the one-hot vector of a class, `[1,C]`.
fn class_weights(session: &Session, class: &str, guidance: f32) -> Result<Array2<f32>> {
    let spec = session.spec();
    if spec.classes.is_empty() {
        return Err(gradresnet::Error::from(ErrorKind::NoClasses(spec.name.clone())).into());
    }
    let index = spec.class_index(class).ok_or_else(|| unknown_class(class, &spec.classes))?;
    let mut weights = Array2::zeros((1, spec.classes.len()));
    weights[[0, index]] = guidance;
    Ok(weights)
}

fn unknown_class(name: &str, classes: &[String]) -> anyhow::Error {
    let shown = classes.iter().take(20).cloned().collect::<Vec<_>>().join(", ");
    let more = if classes.len() > 20 { ", …" } else { "" };
    let known = format!("the model has {shown}{more}");
    gradresnet::Error::from(ErrorKind::UnknownClass { name: name.into(), known }).into()
}

impl Plan {
    pub fn new(args: &Args, jobs: usize) -> Result<Plan> {
        // Tiles have a thread each already: tract notices that, ONNX Runtime does not.
        let threads = match args.model.engine.engine {
            EngineKind::Tract => args.model.jobs.within(jobs),
            EngineKind::Ort => 1,
        };
        let session = args.model.open("photo", threads)?;
        let spec = session.spec();
        if !Graph::Denoiser.is_of(spec) {
            let (model, graph) = (spec.name.clone(), Graph::Denoiser.name());
            return Err(gradresnet::Error::from(ErrorKind::NoGraph { model, graph }).into());
        }
        ensure!(
            spec.architecture.takes_sigma() || matches!(args.sigma, Sigma::Auto) && args.strength == 1.0,
            "model `{}` finds the noise itself and takes no level: leave out --sigma and --strength",
            spec.name
        );
        let class = args.class.as_deref();
        let class_weights = class.map(|c| class_weights(&session, c, args.guidance)).transpose()?;
        if let Some(dir) = &args.reference {
            ensure!(dir.is_dir(), "{}: --reference must name a folder", dir.display());
        }
        let threads = rayon::current_num_threads();
        // Without a limit, tiles are the same on every engine, and so are the results.
        let tiling = match (args.tile, args.memory) {
            (Some(tile), _) => Tiling::new(tile, args.overlap)?,
            (None, Some(memory)) => {
                Tiling::within(memory / TILES, threads, session.bytes_per_pixel(Graph::Denoiser))
                    .context("--memory is too small (half of it is for tiles)")?
            }
            (None, None) => Tiling::default(),
        };
        Ok(Plan {
            session,
            sigma: args.sigma,
            strength: args.strength,
            class_weights,
            tiling,
            encoding: Encoding {
                format: args.format.format(),
                jpeg_quality: args.quality,
                metadata: !args.strip,
            },
            reference: args.reference.clone(),
            budget: args.memory.map_or_else(Budget::of_threads, |m| Budget::new(m - m / TILES)),
        })
    }

    /// Estimates the noise level that all files share, if asked to; notes one outside the model's range.
    pub fn settle_sigma(&mut self, jobs: &[&Job], console: &Console) {
        if let Sigma::Folder = self.sigma {
            let silent = Console::new(jobs.len(), true);
            let found = workers::map(jobs, &silent, |job| {
                let read = self.budget.read(&job.input.path, |header| Ok(with_reference(header.bytes, 0)));
                // Files that cannot be read are reported when denoised.
                let (_share, picture) = read.ok()?;
                Some(255.0 * self.session.estimate_noise(&picture).sigma)
            });
            let mut found: Vec<f32> = found.into_iter().flatten().collect();
            found.sort_by(f32::total_cmp);
            if let Some(median) = median(&found) {
                console.say(format!("σ = {median:.1}, the median of {}", in_words(found.len())));
                self.sigma = Sigma::Given(median);
            }
        }
        if let Sigma::Given(sigma) = self.sigma {
            let range = self.session.spec().sigma;
            let (min, max) = (255.0 * range.min, 255.0 * range.max);
            let removed = sigma * self.strength;
            if self.is_beyond(removed) || removed > 0.0 && f64::from(removed) < 0.999 * min {
                let name = &self.session.spec().name;
                console.say(format!("note: `{name}` was trained for noise levels from {min:.0} to {max:.0}"));
            }
        }
    }

    /// Whether a level, in 8-bit units, is above those that the model was trained for.
    fn is_beyond(&self, removed: f32) -> bool {
        let spec = self.session.spec();
        spec.architecture.takes_sigma() && f64::from(removed) > 1.001 * 255.0 * spec.sigma.max
    }

    /// Says how many images have noise of such a level.
    pub fn say_beyond(&self, images: usize, console: &Console) {
        let (name, max) = (&self.session.spec().name, 255.0 * self.session.spec().sigma.max);
        console.say(format!(
            "note: more noise than `{name}` was trained for, σ = {max:.0}: {}",
            in_words(images)
        ));
    }

    /// Returns `None` if [`Job::is_done`].
    pub fn denoise(&self, job: &Job) -> Result<Option<Done>> {
        if job.is_done() {
            return Ok(None);
        }
        let path = &job.input.path;
        let reference = self.reference.as_deref().map(|dir| find_reference(dir, &job.input.relative));
        let reference = reference.transpose().map_err(|e| about(path, e))?;
        let read = self.budget.read(path, |header| {
            let reference = reference.as_deref().map(Picture::header).transpose()?;
            Ok(with_reference(header.bytes, reference.map_or(0, |header| header.bytes)))
        });
        let (_share, mut picture) = read.map_err(|e| about(path, e))?;
        picture.ensure_fits(&self.encoding).map_err(|e| about(path, e))?;
        let (height, width) = picture.size();
        let clean = reference.as_deref().map(|reference| read_reference(reference, (height, width)));
        let clean = clean.transpose().map_err(|e| about(path, e))?;
        // The image tells how its channels share the noise, even where the level is given.
        let mut noise = self.session.estimate_noise(&picture);
        let beyond = matches!(self.sigma, Sigma::Auto) && self.is_beyond(255.0 * noise.sigma * self.strength);
        if let Sigma::Given(sigma) = self.sigma {
            noise.sigma = sigma / 255.0;
        }
        noise.strength = self.strength;
        let weights = self.class_weights.as_ref().map(|w| w.view());
        let denoised = self.session.denoise_picture(&mut picture, noise, weights, &self.tiling);
        denoised.map_err(|e| about(path, e))?;
        if !job.write(&picture, &self.encoding).map_err(|e| about(path, e))? {
            return Ok(None);
        }
        drop(picture);
        // Measured on the written file, with all that its format rounds or loses.
        let psnr = clean.map(|clean| of_pictures(&Picture::read(&job.output)?, &clean)).transpose()?;
        Ok(Some(Done { height, width, sigma: 255.0 * noise.sigma, beyond, psnr }))
    }
}

/// The median of values in order; of an even number of them, the mean of the middle two.
fn median(sorted: &[f32]) -> Option<f32> {
    let last = sorted.len().checked_sub(1)?;
    Some((sorted[last / 2] + sorted[sorted.len() / 2]) / 2.0)
}

/// The file in `dir` with the same relative path, whatever its extension.
pub fn find_reference(dir: &Path, relative: &Path) -> Result<PathBuf> {
    let place = dir.join(relative);
    let endings = extensions().flat_map(|ending| [ending.to_string(), ending.to_ascii_uppercase()]);
    let candidates = std::iter::once(place.clone()).chain(endings.map(|ending| place.with_extension(ending)));
    let mut existing = candidates.filter(|path| path.is_file());
    existing.next().ok_or_else(|| anyhow!("no reference with this name in {}", dir.display()))
}

/// A reference, which must have the size of its image.
fn read_reference(path: &Path, (height, width): (usize, usize)) -> Result<Picture> {
    let reference = Picture::read(path)?;
    let (h, w) = reference.size();
    ensure!((h, w) == (height, width), "{width}×{height} pixels, and {} has {w}×{h}", path.display());
    Ok(reference)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!([median(&[]), median(&[1.0]), median(&[1.0, 4.0])], [None, Some(1.0), Some(2.5)]);
        assert_eq!(median(&[1.0, 4.0, 5.0]), Some(4.0));
    }
}

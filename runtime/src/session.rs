//! A bundle on an engine: images in, answers out. Padding, tiles, batches and plans are handled here.

use crate::canvas::{self, Canvas};
use crate::engine::{Engine, Graph, Inputs, Outputs, Plan, Shape};
use crate::error::{ErrorKind, Result};
use crate::noise::clipping::Clipped;
use crate::noise::{self, Noise, Spread, whitening};
use crate::padding::{padded, window};
use crate::picture::Picture;
use crate::plans::Plans;
use crate::tiling::{Grid, Tiling};
use gradresnet_models::{Bundle, Spec};
use ndarray::{Array1, Array2, Array4, ArrayView2, ArrayView4, Axis, s};
use std::sync::Arc;

/// Largest image that is scored: scores are of whole images, and one of this size takes `photo` 19 GiB.
const MAX_WHOLE_PIXELS: usize = 1 << 24;

/// Pictures of at most this many pixels a side are padded to multiples of [`SMALL_STEP`], so that a folder of
/// crops needs few plans: at this size compiling takes longer than a run. The pad costs 0.01 to 0.03 dB.
const SMALL: usize = 128;
/// Smaller pictures, which cannot be reflected so far, are padded to the stride alone.
const SMALL_STEP: usize = 16;

/// A bundle on an engine. May be used from many threads at once; large images are spread over the
/// threads of the current rayon pool, and the result does not depend on their number.
pub struct Session {
    bundle: Bundle,
    engine: Arc<dyn Engine>,
    plans: Plans,
}

impl Session {
    /// Nothing is loaded yet: a plan is made when its shape first occurs.
    pub fn new(bundle: Bundle, engine: Arc<dyn Engine>) -> Session {
        Session { bundle, engine, plans: Plans::default() }
    }

    /// What the bundle says about itself.
    pub fn spec(&self) -> &Spec {
        self.bundle.spec()
    }

    /// The engine.
    pub fn engine(&self) -> &dyn Engine {
        self.engine.as_ref()
    }

    /// About how many bytes a graph takes for each pixel of an image or tile on this engine, for [`Tiling::within`] and
    /// for those who run several images at a time.
    pub fn bytes_per_pixel(&self, graph: Graph) -> u64 {
        let feature = self.engine.kind().bytes_per_feature(graph);
        (feature * self.spec().architecture.features_per_pixel()).ceil() as u64
    }

    /// Probabilities p(c|y) `[N,C]` of images `[N,3,H,W]` of any one size.
    ///
    /// # Errors
    /// [`ErrorKind::NoClasses`], [`ErrorKind::Input`], [`ErrorKind::NotFinite`], and those of
    /// [`Engine::compile`] and [`Plan::run`].
    pub fn classify(&self, images: ArrayView4<f32>) -> Result<Array2<f32>> {
        let Some(mut scores) = self.forward(images)?.logits else {
            return Err(ErrorKind::NoClasses(self.spec().name.clone()).into());
        };
        for mut row in scores.rows_mut() {
            let largest = row.fold(f32::NEG_INFINITY, |a, &b| a.max(b));
            row.mapv_inplace(|logit| (logit - largest).exp());
            let sum = row.sum();
            row.mapv_inplace(|e| e / sum);
        }
        Ok(scores)
    }

    /// Probabilities p(c|y) `[C]` of a picture at its own size, as [`Session::classify`]; one that is too large takes no
    /// memory for its pixels.
    ///
    /// # Errors
    /// Those of [`Session::classify`].
    pub fn classify_picture(&self, picture: &Picture) -> Result<Array1<f32>> {
        self.whole(1, picture.size())?;
        Ok(self.classify(picture.pixels().view().insert_axis(Axis(0)))?.index_axis_move(Axis(0), 0))
    }

    /// −log p(y) `[N]` in nats, without its constant (eq. 11), of whole images `[N,3,H,W]`; H·W in it is
    /// that of the padded image.
    ///
    /// # Errors
    /// [`ErrorKind::NoEnergy`], and as [`Session::classify`], except for classes.
    pub fn energy(&self, images: ArrayView4<f32>) -> Result<Vec<f32>> {
        let energy = self.forward(images)?.energy.filter(|_| self.spec().has_energy());
        energy.ok_or_else(|| ErrorKind::NoEnergy(self.spec().name.clone()).into())
    }

    /// −log p(y) of a picture, as [`Session::energy`]; one that is too large takes no memory for its pixels.
    ///
    /// # Errors
    /// Those of [`Session::energy`].
    pub fn energy_picture(&self, picture: &Picture) -> Result<f32> {
        self.whole(1, picture.size())?;
        Ok(self.energy(picture.pixels().view().insert_axis(Axis(0)))?[0])
    }

    /// The shape of images that are not cut into tiles.
    fn whole(&self, batch: usize, (height, width): (usize, usize)) -> Result<Shape> {
        let stride = self.spec().architecture.stride();
        let shape = Shape { batch, height: padded(height, stride), width: padded(width, stride) };
        if shape.height.saturating_mul(shape.width) > MAX_WHOLE_PIXELS {
            let cure = " where the image is not cut into tiles; scale it down";
            return Err(ErrorKind::TooLarge { height, width, limit: MAX_WHOLE_PIXELS, cure }.into());
        }
        Ok(shape)
    }

    fn forward(&self, images: ArrayView4<f32>) -> Result<Outputs> {
        let (batch, height, width) = size(images)?;
        let shape = self.whole(batch, (height, width))?;
        let images = pad(images, shape);
        self.plan(Graph::Forward, shape)?.run(&Inputs {
            image: images.view(),
            sigma: &[],
            class_weights: None,
        })
    }

    /// D(y) `[N,3,H,W]` of noisy images `[N,3,H,W]` (eq. 7): y + σ² ∇_y [log p(y) + Σ_c a_c log p(c|y)],
    /// with σ `[N]` and the class weights a `[N,C]`, zero if not given.
    ///
    /// The noise must be independent in the channels and not clipped; [`Session::denoise_picture`] takes other noise.
    ///
    /// A tile is denoised as an image of its own, so an image that is cut comes out slightly different
    /// from one that is not.
    ///
    /// # Errors
    /// [`ErrorKind::NoGraph`]; [`ErrorKind::Input`] for shapes that contradict one another, a σ that is negative or not
    /// finite, or class weights for a model without classes; [`ErrorKind::NotFinite`]; and those of
    /// [`Engine::compile`] and [`Plan::run`].
    pub fn denoise(
        &self,
        noisy: ArrayView4<f32>,
        sigma: &[f32],
        class_weights: Option<ArrayView2<f32>>,
        tiling: &Tiling,
    ) -> Result<Array4<f32>> {
        let (batch, height, width) = size(noisy)?;
        check_sigma(sigma, batch)?;
        let classes = self.spec().classes.len();
        let weights = self.class_weights(class_weights, batch)?;
        let weights = |images: std::ops::Range<usize>| (classes > 0).then(|| weights.slice(s![images, ..]));

        let grid = tiling.grid(height, width, self.spec().architecture.stride());
        let shape = Shape { batch, height: grid.rows.tile(), width: grid.columns.tile() };
        if grid.is_whole() {
            let padded = pad(noisy, shape);
            let sigma = self.wanted(sigma);
            let inputs = Inputs { image: padded.view(), sigma, class_weights: weights(0..batch) };
            let plan = self.plan_within(Graph::Denoiser, shape, tiling.kept_pixels())?;
            let denoised = denoised(plan.run(&inputs)?)?;
            return Ok(denoised.slice_move(s![.., .., ..height, ..width]));
        }
        let mut result = noisy.to_owned();
        for (n, mut image) in result.outer_iter_mut().enumerate() {
            let noise = Noise { sigma: sigma[n], spread: Spread::Independent, strength: 1.0 };
            self.denoise_tiles(&mut image, noise, None, weights(n..n + 1), &grid, tiling)?;
        }
        Ok(result)
    }

    /// Denoises a picture in place, as [`Session::denoise`] would, with memory for a band of tiles beside
    /// the picture; small pictures are padded to few sizes. If no sample lies beyond [0, 1], the noise that was clipped
    /// there is put back first. Wholly transparent colour stays as it is and does not affect what can be seen;
    /// transparency itself is kept. Grey pictures stay grey. Class weights are `[1,C]`.
    ///
    /// `noise` is what [`Session::estimate_noise`] finds, or that with another `sigma` or `strength`. With
    /// [`Spread::Grey`] a picture in colour loses its colour.
    ///
    /// After an error the picture may be half denoised.
    ///
    /// # Errors
    /// Those of [`Session::denoise`].
    pub fn denoise_picture(
        &self,
        picture: &mut Picture,
        noise: Noise,
        class_weights: Option<ArrayView2<f32>>,
        tiling: &Tiling,
    ) -> Result<()> {
        let (height, width) = picture.size();
        let stride = self.spec().architecture.stride();
        let small = height.max(width) <= SMALL && height.min(width) >= SMALL_STEP;
        let step = if small { SMALL_STEP.next_multiple_of(stride) } else { stride };
        let grid = tiling.grid(height, width, step);
        check_sigma(&[noise.removed().sigma], 1)?;
        let weights = self.class_weights(class_weights, 1)?;
        let weights = (!self.spec().classes.is_empty()).then_some(weights.view());
        let hidden = picture.cover_hidden();
        let clipped = Clipped::new(picture, noise);
        self.denoise_tiles(picture, noise.removed(), clipped, weights, &grid, tiling)?;
        picture.uncover(hidden);
        Ok(())
    }

    fn denoise_tiles(
        &self,
        canvas: &mut impl Canvas,
        noise: Noise,
        clipped: Option<Clipped>,
        class_weights: Option<ArrayView2<f32>>,
        grid: &Grid,
        tiling: &Tiling,
    ) -> Result<()> {
        let shape = Shape { batch: 1, height: grid.rows.tile(), width: grid.columns.tile() };
        let plan = self.plan_within(Graph::Denoiser, shape, tiling.kept_pixels())?;
        let shared = noise.shared_sigma();
        let sigma = shared.map_or(noise.sigma, whitening::channel_sigma);
        canvas::change(canvas, grid, |mut tile, place| {
            if let Some(clipped) = &clipped {
                clipped.restore(&mut tile, place);
            }
            if let Some(shared) = shared {
                whitening::add_color_noise(&mut tile, shared, place);
            }
            let image = tile.view().insert_axis(Axis(0));
            let outputs = plan.run(&Inputs { image, sigma: self.wanted(&[sigma]), class_weights })?;
            let mut tile = denoised(outputs)?.index_axis_move(Axis(0), 0);
            if noise.spread == Spread::Grey {
                whitening::average(&mut tile);
            }
            Ok(tile)
        })
    }

    /// Noise levels, if the denoiser takes them; a blind one finds them itself.
    fn wanted<'a>(&self, sigma: &'a [f32]) -> &'a [f32] {
        if self.spec().architecture.takes_sigma() { sigma } else { &[] }
    }

    /// Class weights `[N,C]`, zero if not given.
    fn class_weights(&self, given: Option<ArrayView2<f32>>, batch: usize) -> Result<Array2<f32>> {
        let classes = self.spec().classes.len();
        match given {
            Some(weights) if weights.dim() != (batch, classes) || classes == 0 => {
                Err(ErrorKind::Input(format!(
                    "class weights have shape {:?}, and this model takes {:?}",
                    weights.shape(),
                    [batch, classes]
                ))
                .into())
            }
            Some(weights) => Ok(weights.to_owned()),
            None => Ok(Array2::zeros((batch, classes))),
        }
    }

    /// Estimates the noise of a picture, at least the lowest level that the model was trained on; see
    /// [`noise::estimate`].
    pub fn estimate_noise(&self, picture: &Picture) -> Noise {
        noise::estimate(picture).at_least_of(self.spec().sigma)
    }

    /// The plan for a graph and a shape, from the cache or compiled now.
    ///
    /// # Errors
    /// Those of [`Engine::compile`].
    pub fn plan(&self, graph: Graph, shape: Shape) -> Result<Arc<dyn Plan>> {
        self.plan_within(graph, shape, Tiling::default().kept_pixels())
    }

    fn plan_within(&self, graph: Graph, shape: Shape, pixels: usize) -> Result<Arc<dyn Plan>> {
        self.plans.get((graph, shape), pixels, || self.engine.compile(&self.bundle, graph, shape))
    }
}

fn check_sigma(sigma: &[f32], batch: usize) -> Result<()> {
    if sigma.len() == batch && sigma.iter().all(|s| s.is_finite() && *s >= 0.0) {
        return Ok(());
    }
    let reason = format!("{batch} values of sigma are needed, each finite and at least 0");
    Err(ErrorKind::Input(reason).into())
}

/// N, H and W of images `[N,3,H,W]`.
fn size(images: ArrayView4<f32>) -> Result<(usize, usize, usize)> {
    match images.dim() {
        (n, 3, h, w) if n > 0 && h > 0 && w > 0 => Ok((n, h, w)),
        _ => Err(ErrorKind::Input(format!(
            "images have shape {:?}, and [N,3,H,W] is required, none of them 0",
            images.shape()
        ))
        .into()),
    }
}

fn pad(images: ArrayView4<f32>, shape: Shape) -> Array4<f32> {
    let Shape { batch, height, width } = shape;
    let mut padded = Array4::zeros((batch, 3, height, width));
    for (image, mut target) in images.outer_iter().zip(padded.outer_iter_mut()) {
        let (_, h, w) = image.dim();
        let whole = window((h, w), (height, width), 0..height, 0..width, |c, y, x| image[[c, y, x]]);
        target.assign(&whole);
    }
    padded
}

fn denoised(outputs: Outputs) -> Result<Array4<f32>> {
    outputs.denoised.ok_or_else(|| ErrorKind::Graph("the denoiser does not denoise".into()).into())
}

//! A bundle on an engine: images in, answers out. Padding, tiles, batches and plans are handled here.

use crate::engine::{Engine, Graph, Inputs, Outputs, Plan, Shape};
use crate::error::{ErrorKind, Result};
use crate::noise;
use crate::padding::{padded, window};
use crate::tiling::Tiling;
use gradresnet_models::{Bundle, Spec};
use ndarray::{Array2, Array4, ArrayView2, ArrayView3, ArrayView4, Axis, Zip, s};
use rayon::prelude::*;
use std::sync::{Arc, Mutex, PoisonError};

/// Plans that are kept, the latest used first. A folder of photographs has two sizes, a folder of
/// crops many, which do not come back.
const PLANS: usize = 8;

/// Largest image whose scores are computed: they are of whole images, at some 430 bytes a pixel (7 GiB).
const MAX_WHOLE_PIXELS: usize = 1 << 24;

/// A bundle on an engine. May be used from many threads at once; large images are spread over the
/// threads of the current rayon pool, and the result does not depend on their number.
pub struct Session {
    bundle: Bundle,
    engine: Arc<dyn Engine>,
    plans: Mutex<Vec<CachedPlan>>,
}

type CachedPlan = ((Graph, Shape), Arc<dyn Plan>);

impl Session {
    /// Nothing is loaded yet: a plan is made when its shape first occurs.
    pub fn new(bundle: Bundle, engine: Arc<dyn Engine>) -> Session {
        Session { bundle, engine, plans: Mutex::new(Vec::new()) }
    }

    /// What the bundle says about itself.
    pub fn spec(&self) -> &Spec {
        self.bundle.spec()
    }

    /// The engine.
    pub fn engine(&self) -> &dyn Engine {
        self.engine.as_ref()
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

    /// −log p(y) `[N]` in nats, without its constant (eq. 11), of whole images `[N,3,H,W]`; H·W in it is
    /// that of the padded image.
    ///
    /// # Errors
    /// As [`Session::classify`], except for classes.
    pub fn energy(&self, images: ArrayView4<f32>) -> Result<Vec<f32>> {
        Ok(self.forward(images)?.energy)
    }

    fn forward(&self, images: ArrayView4<f32>) -> Result<Outputs> {
        let (batch, height, width) = size(images)?;
        if height.saturating_mul(width) > MAX_WHOLE_PIXELS {
            let cure = " where the image is not cut into tiles; scale it down";
            return Err(ErrorKind::TooLarge { height, width, limit: MAX_WHOLE_PIXELS, cure }.into());
        }
        let stride = self.spec().architecture.stride();
        let shape = Shape { batch, height: padded(height, stride), width: padded(width, stride) };
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
    /// A tile is denoised as an image of its own, so an image that is cut comes out slightly different
    /// from one that is not.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] for shapes that contradict one another, a σ that is negative or not finite,
    /// or class weights for a model without classes; [`ErrorKind::NotFinite`]; and those of
    /// [`Engine::compile`] and [`Plan::run`].
    pub fn denoise(
        &self,
        noisy: ArrayView4<f32>,
        sigma: &[f32],
        class_weights: Option<ArrayView2<f32>>,
        tiling: &Tiling,
    ) -> Result<Array4<f32>> {
        let (batch, height, width) = size(noisy)?;
        if sigma.len() != batch || !sigma.iter().all(|s| s.is_finite() && *s >= 0.0) {
            let reason = format!("{batch} values of sigma are needed, each finite and at least 0");
            return Err(ErrorKind::Input(reason).into());
        }
        let classes = self.spec().classes.len();
        let weights = match class_weights {
            Some(weights) if weights.dim() != (batch, classes) || classes == 0 => {
                return Err(ErrorKind::Input(format!(
                    "class weights have shape {:?}, and this model takes {:?}",
                    weights.shape(),
                    [batch, classes]
                ))
                .into());
            }
            Some(weights) => weights.to_owned(),
            None => Array2::zeros((batch, classes)),
        };
        let weights = |images: std::ops::Range<usize>| (classes > 0).then(|| weights.slice(s![images, ..]));

        let grid = tiling.grid(height, width, self.spec().architecture.stride());
        let shape = Shape { batch, height: grid.rows.tile(), width: grid.columns.tile() };
        if grid.rows.len() * grid.columns.len() == 1 {
            let padded = pad(noisy, shape);
            let inputs = Inputs { image: padded.view(), sigma, class_weights: weights(0..batch) };
            let denoised = denoised(self.plan(Graph::Denoiser, shape)?.run(&inputs)?)?;
            return Ok(denoised.slice_move(s![.., .., ..height, ..width]));
        }

        let plan = self.plan(Graph::Denoiser, Shape { batch: 1, ..shape })?;
        let mut result = Array4::zeros(noisy.raw_dim());
        let tiles: Vec<(usize, usize)> = (0..grid.rows.len())
            .flat_map(|row| (0..grid.columns.len()).map(move |column| (row, column)))
            .collect();
        for (n, image) in noisy.outer_iter().enumerate() {
            let run = |&(row, column): &(usize, usize)| -> Result<Array4<f32>> {
                let padded = (grid.rows.padded(), grid.columns.padded());
                let tile = window(image, padded, grid.rows.range(row), grid.columns.range(column));
                denoised(plan.run(&Inputs {
                    image: tile.view().insert_axis(Axis(0)),
                    sigma: &sigma[n..=n],
                    class_weights: weights(n..n + 1),
                })?)
            };
            // A few tiles at a time bound the memory; adding them in order makes the sum the same for
            // any number of threads.
            for some in tiles.chunks(2 * rayon::current_num_threads()) {
                let done: Vec<Result<Array4<f32>>> = some.par_iter().map(run).collect();
                for (&(row, column), tile) in some.iter().zip(done) {
                    add_tile(
                        &mut result.index_axis_mut(Axis(0), n),
                        tile?.index_axis(Axis(0), 0),
                        (grid.rows.range(row).start, grid.columns.range(column).start),
                        (&grid.rows.weights(row), &grid.columns.weights(column)),
                    );
                }
            }
        }
        Ok(result)
    }

    /// Estimates σ of an image `[C,H,W]`, within the range that the model was trained on; see
    /// [`noise::estimate`].
    ///
    /// # Errors
    /// [`ErrorKind::NotFinite`].
    pub fn estimate_sigma(&self, image: ArrayView3<f32>) -> Result<f32> {
        let range = self.spec().sigma;
        Ok(noise::estimate(image)?.clamp(range.min as f32, range.max as f32))
    }

    /// The plan for a graph and a shape, from the cache or compiled now.
    ///
    /// # Errors
    /// Those of [`Engine::compile`].
    pub fn plan(&self, graph: Graph, shape: Shape) -> Result<Arc<dyn Plan>> {
        // Held while compiling: who needs the same plan meanwhile gets this one.
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(i) = plans.iter().position(|(key, _)| *key == (graph, shape)) {
            plans[..=i].rotate_right(1);
        } else {
            let plan: Arc<dyn Plan> = self.engine.compile(&self.bundle, graph, shape)?.into();
            plans.truncate(PLANS - 1);
            plans.insert(0, ((graph, shape), plan));
        }
        Ok(plans[0].1.clone())
    }
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
        target.assign(&window(image, (height, width), 0..height, 0..width));
    }
    padded
}

fn denoised(outputs: Outputs) -> Result<Array4<f32>> {
    outputs.denoised.ok_or_else(|| ErrorKind::Graph("the denoiser does not denoise".into()).into())
}

/// Adds a weighted tile to the image, without what hangs over the border.
fn add_tile(
    image: &mut ndarray::ArrayViewMut3<f32>,
    tile: ArrayView3<f32>,
    (top, left): (usize, usize),
    (rows, columns): (&[f32], &[f32]),
) {
    let (channels, height, width) = image.dim();
    let height = (height - top).min(rows.len());
    let width = (width - left).min(columns.len());
    for c in 0..channels {
        for (y, &row) in rows[..height].iter().enumerate() {
            Zip::from(image.slice_mut(s![c, top + y, left..left + width]))
                .and(tile.slice(s![c, y, ..width]))
                .and(&columns[..width])
                .for_each(|sum, &value, &weight| *sum += value * weight * row);
        }
    }
}

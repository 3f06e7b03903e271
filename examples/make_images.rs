//! Draws the example images: three scenes, clean and with noise.
//!
//! ```text
//! cargo run --release --example make_images [FOLDER]      # default: examples
//! ```
//!
//! writes `FOLDER/clean/*.png` and `FOLDER/noisy/*.png` (Gaussian noise of σ = 25 in 8-bit units). The
//! scenes are procedural and everything random is seeded, so that the files come out the same each time.

mod scenes;

use anyhow::{Context, Result};
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{Rgb, RgbImage};
use nalgebra::Vector3;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};
use rayon::prelude::*;
use scenes::Scene;
use std::path::Path;

const WIDTH: u32 = 384;
const HEIGHT: u32 = 256;
/// Samples per pixel along each axis.
const GRID: u32 = 6;
/// 8-bit units.
const SIGMA: f32 = 25.0;

const SCENES: [(&str, Scene); 3] = [
    ("lake", scenes::landscape::colour),
    ("table", scenes::still_life::colour),
    ("wall", scenes::wall::colour),
];

fn main() -> Result<()> {
    let folder = std::env::args_os().nth(1).unwrap_or_else(|| "examples".into());
    for (seed, (name, scene)) in SCENES.into_iter().enumerate() {
        let clean = render(scene);
        let noisy = add_noise(&clean, seed as u64);
        for (kind, picture) in [("clean", &clean), ("noisy", &noisy)] {
            let path = Path::new(&folder).join(kind).join(format!("{name}.png"));
            write(picture, &path).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

/// Every pixel is the mean of light over a jittered grid a little wider than itself, as behind a lens.
fn render(scene: Scene) -> RgbImage {
    let rows: Vec<Vec<Rgb<u8>>> = (0..HEIGHT)
        .into_par_iter()
        .map(|row| {
            let mut rng = ChaCha8Rng::seed_from_u64(u64::from(row));
            (0..WIDTH)
                .map(|column| {
                    let mut light = Vector3::zeros();
                    for i in 0..GRID * GRID {
                        let mut at = |pixel: u32, cell: u32| {
                            let inside = (cell as f32 + rng.random_range(0.0..1.0)) / GRID as f32;
                            (pixel as f32 + 0.5 + 1.2 * (inside - 0.5)) / HEIGHT as f32
                        };
                        let (x, y) = (at(column, i % GRID), at(row, i / GRID));
                        light += scene(x, y, &mut rng);
                    }
                    develop(light / (GRID * GRID) as f32)
                })
                .collect()
        })
        .collect();
    RgbImage::from_fn(WIDTH, HEIGHT, |x, y| rows[y as usize][x as usize])
}

/// Linear light to 8-bit sRGB, with a soft shoulder in place of clipping.
fn develop(light: Vector3<f32>) -> Rgb<u8> {
    let channel = |v: f32| {
        let v = v.max(0.0);
        let v = if v > 0.7 { 0.7 + 0.3 * (1.0 - (-(v - 0.7) / 0.3).exp()) } else { v };
        let v = if v <= 0.003_130_8 { 12.92 * v } else { 1.055 * v.powf(1.0 / 2.4) - 0.055 };
        (255.0 * v).round() as u8
    };
    Rgb([channel(light.x), channel(light.y), channel(light.z)])
}

fn add_noise(clean: &RgbImage, seed: u64) -> RgbImage {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut noisy = clean.clone();
    if let Ok(noise) = Normal::new(0.0, SIGMA) {
        for value in noisy.iter_mut() {
            *value = (f32::from(*value) + noise.sample(&mut rng)).round().clamp(0.0, 255.0) as u8;
        }
    }
    noisy
}

fn write(picture: &RgbImage, path: &Path) -> Result<()> {
    let mut bytes = Vec::new();
    let encoder = PngEncoder::new_with_quality(&mut bytes, CompressionType::Best, FilterType::Adaptive);
    picture.write_with_encoder(encoder)?;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    Ok(gradresnet_models::staged::write_file(path, &bytes)?)
}

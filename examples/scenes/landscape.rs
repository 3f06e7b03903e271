//! A mountain lake in the evening: clouds, ridges in haze, a row of firs, their reflection, a shore.

use super::{fractal, hash, mix, noise, rgb, smoothstep};
use nalgebra::Vector3;
use rand_chacha::ChaCha8Rng;

const SHORE: f32 = 0.60;
const SUN: (f32, f32) = (1.12, 0.33);

pub fn colour(x: f32, y: f32, _: &mut ChaCha8Rng) -> Vector3<f32> {
    let meadow = 0.93 - 0.10 * fractal(2.0 * x, 3.0, 5) - 0.10 * smoothstep(0.75, 0.0, x);
    if y > meadow {
        return ground(x, y, y - meadow);
    }
    if y > SHORE { water(x, y) } else { beyond(x, y) }
}

fn sky(x: f32, y: f32) -> Vector3<f32> {
    let base = mix(rgb(0.13, 0.28, 0.58), rgb(0.90, 0.66, 0.44), (y.max(0.0) / 0.5).powf(1.6));
    let distance = ((x - SUN.0).powi(2) + (y - SUN.1).powi(2)).sqrt();
    let base = base + rgb(1.0, 0.62, 0.28) * 0.55 * (-distance * 4.5).exp();
    // Clouds stretch with the distance to the horizon.
    let (u, v) = (1.9 * x / (0.72 - y), 1.6 / (0.72 - y));
    let density = |u, v| smoothstep(0.46, 0.72, fractal(u, v + 4.0, 7));
    let cover = density(u, v);
    let lit = 0.5 + 0.9 * (cover - density(u + 0.22, v + 0.12)).clamp(-0.4, 0.6);
    let cloud = mix(rgb(0.36, 0.34, 0.42), rgb(1.05, 0.86, 0.72), lit);
    mix(base, cloud, 0.85 * cover * smoothstep(0.5, 0.2, y))
}

/// What is above the far shore.
fn beyond(x: f32, y: f32) -> Vector3<f32> {
    if let Some(tree) = firs(x, y) {
        return tree;
    }
    // Height of the crest, relief, roughness, haze: from the nearest ridge to the farthest.
    let ridges = [(0.56, 0.16, 2.6, 0.10), (0.47, 0.34, 2.1, 0.30), (0.33, 0.52, 1.6, 0.42)];
    for (i, (base, relief, roughness, haze)) in ridges.into_iter().enumerate() {
        let lane = 31.0 * i as f32;
        let crest = base - relief * (fractal(roughness * x + lane, lane, 7) - 0.42);
        if y < crest {
            continue;
        }
        let height = |x: f32, y: f32| fractal(7.0 * x + lane, 11.0 * y, 6);
        let slope = 16.0 * (height(x, y) - height(x + 0.014, y - 0.004));
        let light = rgb(0.24, 0.26, 0.34) + rgb(1.0, 0.80, 0.58) * (0.42 + slope).clamp(0.0, 1.2);
        let rock = rgb(0.34, 0.29, 0.26);
        let forest = rgb(0.10, 0.17, 0.06);
        let snow = rgb(0.95, 0.90, 0.90);
        let depth = y - crest;
        let ground = mix(rock, forest, smoothstep(0.00, 0.07, depth + 0.16 * (height(x, y) - 0.5)));
        let ground = if i == 2 {
            mix(snow, ground, smoothstep(0.03, 0.10, depth + 0.30 * (height(x, y) - 0.5)))
        } else {
            ground
        };
        return mix(ground.component_mul(&light), rgb(0.50, 0.47, 0.52), haze * (0.7 + 2.0 * depth).min(1.3));
    }
    sky(x, y)
}

/// A fir on the far shore, if one stands here.
fn firs(x: f32, y: f32) -> Option<Vector3<f32>> {
    let cell = (x * 46.0).floor() as i32;
    for k in cell - 2..=cell + 2 {
        let middle = (k as f32 + 0.2 + 0.6 * hash(k, 1)) / 46.0;
        let grove = noise(2.2 * middle + 9.0, 5.0);
        let height = (0.02 + 0.15 * grove * grove) * (0.6 + 0.6 * hash(k, 2));
        let down = (y - (SHORE - height)) / height;
        if !(0.0..=1.0).contains(&down) {
            continue;
        }
        let boughs = 0.65 + 0.35 * (down * 9.0 + hash(k, 3)).fract();
        let ragged = 0.75 + 0.5 * noise(220.0 * x, 220.0 * y);
        let half = 0.19 * height * down * boughs * ragged;
        if (x - middle).abs() < half {
            let light = 0.35 + 0.8 * ((x - middle) / half * 0.5 + 0.5) * noise(170.0 * x, 130.0 * y);
            return Some(mix(rgb(0.045, 0.085, 0.035), rgb(0.13, 0.16, 0.06), hash(k, 4)) * light);
        }
    }
    None
}

fn water(x: f32, y: f32) -> Vector3<f32> {
    let depth = y - SHORE;
    // Ripples look flatter and finer towards the far shore.
    let near = 0.03 + depth;
    let swell = |x: f32| fractal(x * 1.1 / near, 2.2 / near, 4) - 0.5;
    let tilt = swell(x) * near;
    let mirrored = (SHORE - 0.9 * depth - 0.16 * tilt).clamp(0.0, SHORE - 0.001);
    let reflection = beyond(x + 0.03 * tilt, mirrored);
    let clear = 0.80 - 0.55 * smoothstep(0.05, 0.45, depth);
    let glint = smoothstep(0.20, 0.34, swell(x + 3.0)) * (-(x - SUN.0).abs() * 5.0).exp();
    mix(rgb(0.03, 0.07, 0.08), reflection, clear) + rgb(1.0, 0.75, 0.45) * 0.5 * glint
}

/// Grass with a few flowers and boulders.
fn ground(x: f32, y: f32, depth: f32) -> Vector3<f32> {
    for (cx, cy, radius) in [(0.20, 0.90, 0.075), (0.33, 0.955, 0.05), (1.30, 0.97, 0.06)] {
        let (dx, dy) = ((x - cx) / radius, (y - cy) / (0.72 * radius));
        let edge = 1.0 - 0.28 * (fractal(5.0 * dx + cx, 5.0 * dy, 4) - 0.5);
        let r2 = (dx * dx + dy * dy) / (edge * edge);
        if r2 < 1.0 {
            let normal = Vector3::new(dx, dy, (1.0 - r2).sqrt());
            let bump = fractal(60.0 * x, 60.0 * y, 5) - fractal(60.0 * x + 0.5, 60.0 * y - 0.4, 5);
            let light = (normal.dot(&Vector3::new(0.55, -0.65, 0.52)) + 1.4 * bump).max(0.0);
            let moss = smoothstep(0.5, 0.65, fractal(14.0 * x, 14.0 * y, 4) - 0.2 * dy);
            let stone = mix(rgb(0.30, 0.27, 0.25), rgb(0.14, 0.17, 0.06), moss);
            return stone.component_mul(&(rgb(0.22, 0.25, 0.33) + rgb(1.1, 0.85, 0.62) * light));
        }
    }
    // Blades: noise stretched upwards and bent by the wind.
    let bend = 0.03 * fractal(4.0 * x, 4.0 * y, 2);
    let blades = fractal(150.0 * (x + bend), 22.0 * y, 3);
    let patches = fractal(6.0 * x, 9.0 * y, 5);
    let grass = mix(rgb(0.05, 0.09, 0.02), rgb(0.34, 0.32, 0.09), 1.6 * blades - 0.45);
    let grass = mix(grass, rgb(0.32, 0.22, 0.08) * (0.4 + blades), smoothstep(0.5, 0.72, patches));
    let (i, j) = ((70.0 * x).floor(), (70.0 * y).floor());
    let (fx, fy) = (70.0 * x - i - 0.5, 70.0 * y - j - 0.5);
    let flower = hash(i as i32, j as i32) > 0.93 && fx * fx + fy * fy < 0.09;
    let petals = if hash(j as i32, i as i32) > 0.5 { rgb(0.85, 0.75, 0.80) } else { rgb(0.75, 0.45, 0.06) };
    let colour = if flower { petals } else { grass };
    colour * (0.55 + 0.45 * smoothstep(0.0, 0.05, depth)) * (0.7 + 0.5 * patches)
}

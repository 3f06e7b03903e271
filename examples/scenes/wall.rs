//! A brick wall in dappled light, with a tartan blanket hung over it: sharp edges and fine texture.

use super::{fractal, hash, mix, noise, rgb, smoothstep};
use nalgebra::Vector3;
use rand_chacha::ChaCha8Rng;

pub fn colour(x: f32, y: f32, _: &mut ChaCha8Rng) -> Vector3<f32> {
    // Sunlight through leaves: large soft spots.
    let leaves = smoothstep(0.40, 0.60, fractal(2.6 * x + 5.0, 2.6 * y, 4));
    let sun = rgb(1.15, 0.98, 0.76) * (0.20 + 1.05 * leaves) + rgb(0.16, 0.20, 0.27);
    match blanket(x, y) {
        Some(cloth) => cloth.component_mul(&sun),
        None => {
            // The blanket's shadow falls down and to the right, softer away from it.
            let inside = |dx: f32, dy: f32| f32::from(u8::from(blanket(x - dx, y - dy).is_some()));
            let shadow: f32 = (0..8).map(|i| inside(0.006 + 0.004 * i as f32, 0.01 + 0.004 * i as f32)).sum();
            bricks(x, y).component_mul(&sun) * (1.0 - 0.085 * shadow)
        }
    }
}

/// Of 12 rows, every other one is shifted by half a brick.
fn brick_at(x: f32, y: f32) -> (i32, i32, f32) {
    let row = (y * 12.0).floor();
    let along = x * 5.2 + 0.5 * (row as i32).rem_euclid(2) as f32;
    let column = along.floor();
    // Distance to the nearest joint, in picture heights; worn, so not quite straight.
    let wear = 0.006 * (fractal(34.0 * x, 34.0 * y, 3) - 0.5);
    let (fx, fy) = (along - column, y * 12.0 - row);
    let joint = (fx.min(1.0 - fx) / 5.2).min(fy.min(1.0 - fy) / 12.0) + wear;
    (column as i32, row as i32, joint)
}

fn height(x: f32, y: f32) -> f32 {
    let (column, row, joint) = brick_at(x, y);
    let face = smoothstep(0.004, 0.011, joint);
    let pits = smoothstep(0.62, 0.78, fractal(45.0 * x, 45.0 * y, 3));
    let tilt = (hash(column, row) - 0.5) * 0.25 * (y * 12.0).fract();
    face * (1.0 + tilt - 0.30 * pits) + 0.28 * fractal(85.0 * x, 85.0 * y, 4)
}

fn bricks(x: f32, y: f32) -> Vector3<f32> {
    let (column, row, joint) = brick_at(x, y);
    let step = 0.0022;
    let relief = height(x, y) - height(x - step, y - step);
    let light = (0.62 + 1.5 * relief).clamp(0.10, 1.6);
    let tone = hash(column, row + 50);
    let fired = mix(rgb(0.34, 0.095, 0.05), rgb(0.52, 0.22, 0.11), tone);
    let fired = if hash(column, row + 99) > 0.86 { mix(fired, rgb(0.10, 0.07, 0.075), 0.7) } else { fired };
    let mottled = fired * (0.65 + 0.7 * fractal(24.0 * x + 3.0 * tone, 24.0 * y, 5));
    let mortar = rgb(0.47, 0.43, 0.38) * (0.7 + 0.5 * noise(120.0 * x, 120.0 * y));
    let wall = mix(mortar, mottled, smoothstep(0.004, 0.008, joint));
    // Lime that rain has washed out.
    let lime = smoothstep(0.56, 0.80, fractal(3.0 * x, 1.4 * y + 20.0, 6));
    mix(wall, rgb(0.60, 0.57, 0.53), 0.5 * lime) * light
}

/// The blanket, if it hangs here.
fn blanket(x: f32, y: f32) -> Option<Vector3<f32>> {
    let fall = y - 0.10;
    // Folds widen downwards.
    let phase = 26.0 * (x - 1.05) / (0.7 + 0.5 * y) + 1.5 * noise(3.0 * x, 1.3 * y);
    let left = 0.74 - 0.05 * y + 0.012 * (9.0 * y).sin();
    let right = 1.36 + 0.04 * y + 0.010 * (11.0 * y + 1.0).sin();
    let bottom = 0.84 + 0.022 * phase.sin() + 0.01 * noise(9.0 * x, 0.0);
    let fringe = y - bottom;
    if !(left..right).contains(&x) || fall < 0.012 * (8.0 * x).sin() || fringe > 0.05 {
        return None;
    }
    if fringe > 0.0 {
        let strand = (x * 95.0 + 0.8 * noise(12.0 * x, 60.0 * y)).rem_euclid(1.0);
        return (strand < 0.45).then(|| rgb(0.42, 0.38, 0.28) * (0.6 + 0.8 * strand));
    }
    let shade = 0.62 + 0.34 * phase.cos() + 0.10 * (2.3 * phase).sin();
    // The cloth follows its folds.
    let (u, v) = (x + 0.012 * phase.sin(), y + 0.006 * phase.cos());
    let stripes = |t: f32| match t.rem_euclid(1.0) {
        t if t < 0.30 => rgb(0.30, 0.03, 0.035),
        t if t < 0.36 => rgb(0.65, 0.58, 0.40),
        t if t < 0.58 => rgb(0.025, 0.085, 0.06),
        t if t < 0.62 => rgb(0.62, 0.40, 0.05),
        t if t < 0.84 => rgb(0.025, 0.04, 0.13),
        _ => rgb(0.32, 0.04, 0.04),
    };
    // Twill: warp and weft alternate on diagonals about three pixels apart.
    let twill = 0.5 + 0.5 * (std::f32::consts::TAU * (64.0 * u + 64.0 * v)).sin();
    let cloth = mix(stripes(4.3 * u), stripes(4.3 * v), 0.25 + 0.5 * twill);
    let wool = 0.75 + 0.5 * fractal(90.0 * u, 90.0 * v, 3);
    Some(cloth * shade * wool * (0.85 + 0.3 * twill))
}

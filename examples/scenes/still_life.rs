//! A still life, ray-traced: fruit, a ball of marble and one of glazed pottery on a checked cloth over a
//! wooden table, in front of plaster, under a lamp wide enough for soft shadows.

use super::{fractal, hash, mix, noise, rgb, smoothstep};
use nalgebra::Vector3;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

type V = Vector3<f32>;

struct Ball {
    centre: V,
    radius: f32,
    surface: fn(V) -> V,
    /// Share of the light that is mirrored when seen head on.
    gloss: f32,
}

const BALLS: [Ball; 6] = [
    Ball { centre: V::new(-1.45, 0.80, 0.35), radius: 0.80, surface: apple, gloss: 0.05 },
    Ball { centre: V::new(0.15, 0.55, -0.55), radius: 0.55, surface: marble, gloss: 0.06 },
    Ball { centre: V::new(1.65, 0.95, 0.75), radius: 0.95, surface: glaze, gloss: 0.09 },
    Ball { centre: V::new(-0.62, 0.34, -1.35), radius: 0.34, surface: orange, gloss: 0.02 },
    Ball { centre: V::new(1.15, 0.30, -1.25), radius: 0.30, surface: plum, gloss: 0.04 },
    Ball { centre: V::new(0.25, 0.62, 1.65), radius: 0.62, surface: orange, gloss: 0.02 },
];

const LAMP: V = V::new(-3.2, 5.2, -3.4);
const LAMP_RADIUS: f32 = 0.9;
const WALL: f32 = 3.6;

pub fn colour(x: f32, y: f32, rng: &mut ChaCha8Rng) -> V {
    let eye = V::new(0.1, 2.3, -6.2);
    let (u, v) = (x - 0.75, 0.5 - y);
    // Looking a little downwards.
    let direction = V::new(u, v * 0.965 - 0.26, 1.45 + v * 0.26).normalize();
    trace(eye, direction, 2, rng)
}

fn trace(from: V, direction: V, depth: u32, rng: &mut ChaCha8Rng) -> V {
    let hit = nearest(from, direction);
    let (distance, normal, surface, gloss) = match hit {
        Some((distance, ball)) => {
            let normal = (from + direction * distance - ball.centre) / ball.radius;
            (distance, normal, (ball.surface)(normal), ball.gloss)
        }
        None => {
            let table = if direction.y < -1e-4 { -from.y / direction.y } else { f32::INFINITY };
            let wall = if direction.z > 1e-4 { (WALL - from.z) / direction.z } else { f32::INFINITY };
            if table.min(wall) > 60.0 {
                return rgb(0.20, 0.22, 0.26);
            }
            let at = from + direction * table.min(wall);
            if table < wall {
                (table, V::y(), table_top(at.x, at.z), 0.012)
            } else {
                (wall, -V::z(), plaster(at.x, at.y), 0.0)
            }
        }
    };
    let at = from + direction * distance + normal * 1e-3;
    let lamp = LAMP + LAMP_RADIUS * V::from_fn(|_, _| rng.random_range(-1.0..1.0));
    let to_lamp = lamp - at;
    let towards = to_lamp.normalize();
    let shadowed = nearest(at, towards).is_some();
    let direct = if shadowed { 0.0 } else { 46.0 * normal.dot(&towards).max(0.0) / to_lamp.norm_squared() };
    let sky = rgb(0.21, 0.24, 0.30) * (0.65 + 0.35 * normal.y) * openness(at, normal);
    let mut light = surface.component_mul(&(rgb(1.0, 0.90, 0.74) * direct + sky));
    if gloss > 0.0 {
        let half = (towards - direction).normalize();
        if !shadowed {
            light += rgb(1.0, 0.93, 0.8) * 14.0 * gloss * normal.dot(&half).max(0.0).powi(160);
        }
        if depth > 0 {
            let facing = (1.0 + direction.dot(&normal)).clamp(0.0, 1.0);
            let mirrored = direction - normal * (2.0 * direction.dot(&normal));
            light += trace(at, mirrored, depth - 1, rng) * (gloss + (1.0 - gloss) * 0.7 * facing.powi(5));
        }
    }
    light
}

fn nearest(from: V, direction: V) -> Option<(f32, &'static Ball)> {
    let mut best = None;
    for ball in &BALLS {
        let to = ball.centre - from;
        let along = to.dot(&direction);
        let discriminant = ball.radius * ball.radius - to.norm_squared() + along * along;
        if discriminant > 0.0 {
            let distance = along - discriminant.sqrt();
            if distance > 1e-3 && best.is_none_or(|(d, _)| distance < d) {
                best = Some((distance, ball));
            }
        }
    }
    best
}

/// How much of the sky a point sees past the balls: dark where things touch.
fn openness(at: V, normal: V) -> f32 {
    BALLS.iter().fold(1.0, |open, ball| {
        let to = ball.centre - at;
        let d2 = to.norm_squared().max(ball.radius * ball.radius);
        let hidden = normal.dot(&to.normalize()).max(0.0) * ball.radius * ball.radius / d2;
        open * (1.0 - 0.85 * hidden)
    })
}

fn around(n: V) -> (f32, f32) {
    (n.x.atan2(-n.z), n.y)
}

fn apple(n: V) -> V {
    let (angle, height) = around(n);
    let streaks = fractal(9.0 * angle, 1.6 * height, 4);
    let blush = smoothstep(0.25, 0.7, streaks + 0.35 * n.x);
    let skin = mix(rgb(0.50, 0.42, 0.07), rgb(0.46, 0.03, 0.025), blush);
    let speck = smoothstep(0.80, 0.86, noise(26.0 * angle, 26.0 * height));
    mix(skin, rgb(0.66, 0.55, 0.30), 0.7 * speck)
}

fn marble(n: V) -> V {
    let (angle, height) = around(n);
    let veins = (7.0 * height + 3.0 * angle + 9.0 * fractal(2.0 * angle, 2.0 * height, 6)).sin().abs();
    mix(rgb(0.13, 0.15, 0.17), rgb(0.72, 0.70, 0.66), smoothstep(0.0, 0.35, veins))
}

fn glaze(n: V) -> V {
    let (angle, height) = around(n);
    let wobble = 0.02 * fractal(5.0 * angle, 3.0, 3);
    let band = ((height + wobble) * 3.2).rem_euclid(1.0);
    let zigzag = ((angle * 4.0).rem_euclid(1.0) - 0.5).abs();
    let blue = mix(rgb(0.02, 0.07, 0.24), rgb(0.04, 0.16, 0.38), fractal(6.0 * angle, 6.0 * height, 5));
    let cream = rgb(0.68, 0.62, 0.48);
    if band < 0.12 || (band - 0.3 - 0.7 * zigzag).abs() < 0.07 { cream } else { blue }
}

fn orange(n: V) -> V {
    let (angle, height) = around(n);
    let pores = noise(38.0 * angle, 38.0 * height);
    mix(rgb(0.80, 0.30, 0.02), rgb(0.52, 0.15, 0.01), smoothstep(0.55, 0.9, pores))
}

fn plum(n: V) -> V {
    let (angle, height) = around(n);
    let bloom = fractal(4.0 * angle, 4.0 * height, 5);
    mix(rgb(0.06, 0.015, 0.08), rgb(0.20, 0.16, 0.30), smoothstep(0.4, 0.75, bloom))
}

fn table_top(x: f32, z: f32) -> V {
    // The cloth lies at an angle and ends in a hem.
    let (s, c) = 0.42f32.sin_cos();
    let (u, v) = (x * c + z * s, z * c - x * s);
    if u > -2.5 && u < 2.0 && v > -1.9 && v < 1.5 {
        let dark = |t: f32| (t * 2.2).rem_euclid(1.0) < 0.5;
        let thread =
            0.80 + 0.20 * ((60.0 * u).sin() * (60.0 * v).sin()) + 0.25 * (noise(40.0 * u, 40.0 * v) - 0.5);
        let checked = match (dark(u), dark(v)) {
            (true, true) => rgb(0.06, 0.13, 0.26),
            (false, false) => rgb(0.74, 0.71, 0.64),
            _ => rgb(0.30, 0.36, 0.45),
        };
        let hem = [u + 2.5, 2.0 - u, v + 1.9, 1.5 - v].into_iter().fold(1.0, f32::min);
        let folds = 0.92 + 0.16 * (fractal(1.1 * u, 1.1 * v, 3) - 0.5);
        return if hem < 0.07 { rgb(0.70, 0.66, 0.58) * thread } else { checked * thread * folds };
    }
    let plank = (x * 0.9).floor() as i32;
    let gap = (x * 0.9).rem_euclid(1.0);
    let grain = fractal(22.0 * x + 2.0 * noise(0.6 * z, x), 0.9 * z + 13.0 * hash(plank, 0), 5);
    let rings = (46.0 * fractal(1.5 * x + 7.0 * hash(plank, 5), 0.35 * z, 3)).sin();
    let wood = mix(rgb(0.17, 0.075, 0.03), rgb(0.42, 0.22, 0.09), grain + 0.15 * rings);
    wood * (0.8 + 0.4 * hash(plank, 2)) * smoothstep(0.0, 0.03, gap.min(1.0 - gap))
}

fn plaster(x: f32, y: f32) -> V {
    let stain = fractal(0.7 * x, 0.7 * y + 8.0, 6);
    let rough = fractal(9.0 * x, 9.0 * y, 5) - fractal(9.0 * x + 0.3, 9.0 * y + 0.3, 5);
    mix(rgb(0.30, 0.36, 0.30), rgb(0.46, 0.47, 0.38), 1.4 * stain - 0.2) * (1.0 + 0.9 * rough)
}

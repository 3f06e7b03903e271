//! What the scenes are made of: smooth noise at every scale, and colours.

pub mod landscape;
pub mod still_life;
pub mod wall;

use nalgebra::Vector3;
use rand_chacha::ChaCha8Rng;

/// Linear light at (x, y): x from 0 to 1.5 rightwards, y from 0 to 1 downwards. The generator is for
/// what is sampled, such as points of a lamp.
pub type Scene = fn(f32, f32, &mut ChaCha8Rng) -> Vector3<f32>;

pub fn rgb(r: f32, g: f32, b: f32) -> Vector3<f32> {
    Vector3::new(r, g, b)
}

pub fn mix(a: Vector3<f32>, b: Vector3<f32>, t: f32) -> Vector3<f32> {
    a + (b - a) * t.clamp(0.0, 1.0)
}

/// 0 below `from`, 1 above `to`, smooth between; falling if `from` is the larger.
pub fn smoothstep(from: f32, to: f32, x: f32) -> f32 {
    let t = ((x - from) / (to - from)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// A number in [0, 1) that depends on two integers.
pub fn hash(x: i32, y: i32) -> f32 {
    let mut h = (x as u32).wrapping_mul(0x9E37_79B1) ^ (y as u32).wrapping_mul(0x85EB_CA77);
    h = (h ^ (h >> 15)).wrapping_mul(0x2C1B_3C6D);
    h = (h ^ (h >> 12)).wrapping_mul(0x297A_2D39);
    (h ^ (h >> 15)) as f32 / 4_294_967_808.0
}

/// Smooth noise in [0, 1] with features of about unit size.
pub fn noise(x: f32, y: f32) -> f32 {
    let (i, j) = (x.floor(), y.floor());
    let fade = |t: f32| t * t * t * (t * (t * 6.0 - 15.0) + 10.0);
    let (u, v) = (fade(x - i), fade(y - j));
    let (i, j) = (i as i32, j as i32);
    let row = |j| hash(i, j) + (hash(i + 1, j) - hash(i, j)) * u;
    row(j) + (row(j + 1) - row(j)) * v
}

/// Noise in [0, 1]; each octave halves size and amplitude, about as in photographs.
pub fn fractal(x: f32, y: f32, octaves: u32) -> f32 {
    let (mut sum, mut weight, mut amplitude, mut frequency) = (0.0, 0.0, 1.0, 1.0);
    for octave in 0..octaves {
        let shift = 17.3 * octave as f32;
        // Rotated a little each time, to hide the lattice.
        let (s, c) = (0.6 * octave as f32).sin_cos();
        sum += amplitude * noise((x * c - y * s) * frequency + shift, (x * s + y * c) * frequency - shift);
        weight += amplitude;
        amplitude *= 0.52;
        frequency *= 2.03;
    }
    sum / weight
}

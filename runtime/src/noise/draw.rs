//! Random numbers that belong to a place.

use std::f32::consts::TAU;

/// Candidates for a draw of [`normal_above`]; each is taken with probability ≥ ½.
const CANDIDATES: u64 = 24;

/// Two independent standard normal numbers (Box & Muller 1958), a function of `key`: a place, and whatever else
/// tells draws apart.
pub(super) fn normal_pair(key: [u64; 3]) -> [f32; 2] {
    let [radius, angle] = uniform_pair(key);
    let radius = (-2.0 * radius.ln()).sqrt();
    [radius * (TAU * angle).cos(), radius * (TAU * angle).sin()]
}

/// A standard normal number conditioned on being at least `least`, a function of the key (Robert 1995, "Simulation of
/// truncated normal variables").
pub(super) fn normal_above(least: f32, [y, x, kind]: [u64; 3]) -> f32 {
    let keys = (0..CANDIDATES).map(|i| [y, x, kind + (i << 32)]);
    let drawn = if least < 0.0 {
        keys.map(|key| normal_pair(key)[0]).find(|drawn| *drawn >= least)
    } else {
        // Exponential numbers from `least` on, thinned out to the normal density.
        let rate = 0.5 * (least + (least * least + 4.0).sqrt());
        keys.map(uniform_pair).find_map(|[a, b]| {
            let drawn = least - a.ln() / rate;
            (b <= (-0.5 * (drawn - rate).powi(2)).exp()).then_some(drawn)
        })
    };
    drawn.unwrap_or(least)
}

/// Two independent numbers, uniform in (0, 1] and in [0, 1).
fn uniform_pair(key: [u64; 3]) -> [f32; 2] {
    let first = mix(key.into_iter().fold(0, |state, part| mix(state) ^ part));
    let fraction = |bits: u64| bits as f32 / (1u64 << 24) as f32;
    [fraction((first >> 40) + 1), fraction(mix(first) >> 40)]
}

/// The step and the finalizer of SplitMix64 (Steele, Lea & Flood 2014).
fn mix(state: u64) -> u64 {
    let z = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_above_a_bound_have_the_moments_of_the_normal_distribution_there() {
        for least in [-3.0f32, -0.5, 0.0, 0.3, 2.0, 5.0] {
            let drawn: Vec<f64> =
                (0..200_000).map(|i| f64::from(normal_above(least, [i / 500, i % 500, 1]))).collect();
            assert!(drawn.iter().all(|v| *v >= f64::from(least)));
            let count = drawn.len() as f64;
            let mean = drawn.iter().sum::<f64>() / count;
            let variance = drawn.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count;
            // Mills' ratio gives both.
            let a = f64::from(least);
            let above = 0.5 * libm::erfc(a / 2f64.sqrt());
            let expected = (-0.5 * a * a).exp() / (2.0 * std::f64::consts::PI).sqrt() / above;
            let spread = 1.0 + a * expected - expected * expected;
            // Four standard errors of the mean; the variance's is below a hundredth of it.
            assert!(
                (mean - expected).abs() < 4.0 * (spread / count).sqrt(),
                "{mean}, not {expected}, above {a}"
            );
            assert!((variance / spread - 1.0).abs() < 0.04, "{variance}, not {spread}, above {a}");
        }
    }
}

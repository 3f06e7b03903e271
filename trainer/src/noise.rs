//! Distributions of the noise level.

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// σ = (√min + u(√max − √min))², u uniform in [0, 1] (section 3.3), in 8-bit units: a TOML pair
/// `[1, 70]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<f64>", into = "[f64; 2]")]
pub struct NoiseLevel {
    /// Smallest, in 8-bit units.
    pub min: f64,
    /// Largest, in 8-bit units.
    pub max: f64,
}

impl From<[f64; 2]> for NoiseLevel {
    fn from([min, max]: [f64; 2]) -> Self {
        NoiseLevel { min, max }
    }
}

/// A list of another length is refused; TOML would cut a longer one short.
impl TryFrom<Vec<f64>> for NoiseLevel {
    type Error = &'static str;

    fn try_from(list: Vec<f64>) -> Result<Self, Self::Error> {
        <[f64; 2]>::try_from(list).map(NoiseLevel::from).map_err(|_| "must be [min, max]")
    }
}

impl From<NoiseLevel> for [f64; 2] {
    fn from(level: NoiseLevel) -> Self {
        [level.min, level.max]
    }
}

impl NoiseLevel {
    /// One draw, in image units.
    pub fn sample(&self, rng: &mut impl Rng) -> f64 {
        let (a, b) = (self.min.sqrt(), self.max.sqrt());
        (a + rng.random_range(0.0..=1.0) * (b - a)).powi(2) / 255.0
    }

    /// E[σ^p] with σ in image units: with s = √σ uniform in [a, b], it is
    /// (b^{2p+1} − a^{2p+1}) / ((2p + 1)(b − a)).
    pub fn moment(&self, power: f64) -> f64 {
        let (a, b) = ((self.min / 255.0).sqrt(), (self.max / 255.0).sqrt());
        let n = 2.0 * power + 1.0;
        if b - a < 1e-12 { b.powf(2.0 * power) } else { (b.powf(n) - a.powf(n)) / (n * (b - a)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn moments_agree_with_draws() {
        let level = NoiseLevel { min: 1.0, max: 70.0 };
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(0);
        let draws: Vec<f64> = (0..200_000).map(|_| level.sample(&mut rng)).collect();
        assert!(draws.iter().all(|s| (1.0 / 255.0 - 1e-12..=70.0 / 255.0 + 1e-12).contains(s)));
        for power in [1.0, 2.0] {
            let mean = draws.iter().map(|s| s.powf(power)).sum::<f64>() / draws.len() as f64;
            // Relative standard error of these means is below 0.3 %.
            assert!((mean / level.moment(power) - 1.0).abs() < 0.01);
        }
        assert!((NoiseLevel { min: 25.0, max: 25.0 }.moment(2.0) - (25.0f64 / 255.0).powi(2)).abs() < 1e-12);
    }
}

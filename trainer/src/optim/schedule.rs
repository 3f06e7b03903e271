//! The learning rate over time.

/// Factor of the learning rate `step` steps (from 0) after the optimiser was new: a linear rise over `warmup` steps.
pub fn rise(step: u64, warmup: u64) -> f64 {
    (step.min(warmup) + 1) as f64 / (warmup + 1) as f64
}

/// Factor of the learning rate at `step` (from 0) of `steps`: 1 up to step `start`, then a half cosine down to 0.
pub fn cosine(step: u64, steps: u64, start: u64) -> f64 {
    let progress = step.saturating_sub(start) as f64 / steps.saturating_sub(start).max(1) as f64;
    0.5 * (1.0 + (std::f64::consts::PI * progress.min(1.0)).cos())
}

#[cfg(test)]
mod tests {
    use super::{cosine, rise};

    #[test]
    fn rises_to_one_and_falls_to_zero() {
        let rate = |step| rise(step, 10) * cosine(step, 100, 10);
        let rates: Vec<f64> = (0..=100).map(rate).collect();
        assert!(rates[..=10].windows(2).all(|w| w[0] < w[1]) && rates[0] > 0.0);
        assert!(rates[10..].windows(2).all(|w| w[0] > w[1]));
        assert_eq!((rates[10], rates[100]), (1.0, 0.0));
        assert!((cosine(55, 100, 10) - 0.5).abs() < 1e-12);
        assert_eq!(rise(0, 0) * cosine(0, 0, 0), 1.0);
    }
}

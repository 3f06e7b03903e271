//! MixUp (Zhang et al. 2017) and CutMix (Yun et al. 2019): each image of a batch is mixed with the one before
//! it, the first with the last, and its label likewise.
//!
//! As in torchvision's `RandomChoice([MixUp, CutMix])` with the defaults: either of the two for a whole
//! batch, with one λ, uniform in [0, 1] (a Beta distribution with α = 1).

use super::Region;
use rand::{Rng, RngExt};
use tch::Tensor;

/// How one batch is mixed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mixture {
    /// λ of each image, and 1 − λ of the other.
    MixUp(f64),
    /// A part of each image is cut out, and the other shows through.
    CutMix(Region),
}

impl Mixture {
    /// One at random, for images of `size`×`size`.
    pub fn sample(size: usize, rng: &mut impl Rng) -> Mixture {
        let lambda: f64 = rng.random();
        if rng.random() {
            Mixture::MixUp(lambda)
        } else {
            let centre = (rng.random_range(0..size), rng.random_range(0..size));
            Mixture::CutMix(hole(centre, lambda, size))
        }
    }

    /// The images `[N,3,S,S]`, mixed.
    pub fn images(&self, images: &Tensor) -> Tensor {
        let others = images.roll([1], [0]);
        match *self {
            Mixture::MixUp(lambda) => others.lerp(images, lambda),
            Mixture::CutMix(region) => {
                let part = |t: &Tensor| {
                    t.narrow(2, region.top as i64, region.height as i64).narrow(
                        3,
                        region.left as i64,
                        region.width as i64,
                    )
                };
                let mixed = images.copy();
                part(&mixed).copy_(&part(&others));
                mixed
            }
        }
    }

    /// The labels `[N,C]` of mixed images of `size`×`size`: in CutMix the weights are the areas, so that a
    /// hole across the border counts for what is left of it.
    pub fn labels(&self, labels: &Tensor, size: usize) -> Tensor {
        let own = match *self {
            Mixture::MixUp(lambda) => lambda,
            Mixture::CutMix(hole) => 1.0 - (hole.height * hole.width) as f64 / (size * size) as f64,
        };
        labels.roll([1], [0]).lerp(labels, own)
    }
}

/// A square of the fraction 1 − λ of the area about `centre` (row, column), cut at the borders.
fn hole(centre: (usize, usize), lambda: f64, size: usize) -> Region {
    let half = (0.5 * (1.0 - lambda).sqrt() * size as f64) as usize;
    let range = |at: usize| (at.saturating_sub(half), (at + half).min(size));
    let ((top, bottom), (left, right)) = (range(centre.0), range(centre.1));
    Region { top, left, height: bottom - top, width: right - left }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use tch::{Device, Kind};

    /// Three images of the values 1, 2 and 3, and the label of each.
    fn batch(size: i64) -> (Tensor, Tensor) {
        let values = Tensor::from_slice(&[1f32, 2.0, 3.0]).view([3, 1, 1, 1]);
        (values.expand([3, 3, size, size], false).copy(), Tensor::eye(3, (Kind::Float, Device::Cpu)))
    }

    fn values(tensor: &Tensor) -> Vec<f32> {
        Vec::try_from(tensor.reshape([-1])).unwrap()
    }

    #[test]
    fn mixup_weighs_images_and_labels_alike() {
        let (images, labels) = batch(1);
        let mixture = Mixture::MixUp(0.75);
        // 0.75 of 1, 2, 3 and 0.25 of 3, 1, 2.
        let mixed = values(&mixture.images(&images).select(1, 0));
        assert_eq!(mixed, [1.5, 1.75, 2.75]);
        let expected = [0.75, 0.0, 0.25, 0.25, 0.75, 0.0, 0.0, 0.25, 0.75];
        assert_eq!(values(&mixture.labels(&labels, 1)), expected);
    }

    #[test]
    fn cutmix_shows_the_other_image_in_the_hole_and_counts_what_shows() {
        // λ = 3/4 of 8×8: 4×4 about (4, 5); about (0, 7), 2 rows and 3 columns of it are inside.
        let inside = Region { top: 2, left: 3, height: 4, width: 4 };
        let corner = Region { top: 0, left: 5, height: 2, width: 3 };
        assert_eq!((hole((4, 5), 0.75, 8), hole((0, 7), 0.75, 8)), (inside, corner));
        // Nothing is cut at λ = 1, all at λ = 0 in the centre.
        assert_eq!(hole((3, 3), 1.0, 8).height, 0);
        assert_eq!(hole((4, 4), 0.0, 8), Region { top: 0, left: 0, height: 8, width: 8 });

        let (images, labels) = batch(8);
        let mixture = Mixture::CutMix(corner);
        let mixed = mixture.images(&images);
        assert_eq!(values(&mixed.select(0, 0).select(0, 2).select(0, 1)), [1., 1., 1., 1., 1., 3., 3., 3.]);
        assert_eq!(values(&mixed.select(0, 0).select(0, 2).select(0, 2)), [1.0; 8]);
        let weights = values(&mixture.labels(&labels, 8).select(0, 0));
        assert_eq!(weights, [1.0 - 6.0 / 64.0, 0.0, 6.0 / 64.0]);
    }

    /// The mean of a mixed image tells each one's share, whatever was drawn.
    #[test]
    fn labels_are_the_shares_of_the_images() {
        let (images, labels) = batch(9);
        let classes = Tensor::from_slice(&[1f32, 2.0, 3.0]);
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let (mut mixups, draws) = (0.0, 2000);
        let mut own = 0.0;
        for _ in 0..draws {
            let mixture = Mixture::sample(9, &mut rng);
            let shares = mixture.images(&images).mean_dim([1i64, 2, 3].as_slice(), false, None::<Kind>);
            let labels = mixture.labels(&labels, 9);
            let error = (labels.mv(&classes) - shares).abs().max().double_value(&[]);
            assert!(error < 1e-5, "{mixture:?}: {error}");
            if matches!(mixture, Mixture::MixUp(_)) {
                mixups += 1.0;
                own += labels.double_value(&[0, 0]);
            }
        }
        // Half of the batches, and a uniform λ; five standard errors of each mean.
        assert!((mixups / f64::from(draws) - 0.5f64).abs() < 5.0 * 0.5 / f64::from(draws).sqrt());
        assert!((own / mixups - 0.5f64).abs() < 5.0 * (1.0f64 / 12.0 / mixups).sqrt());
    }
}

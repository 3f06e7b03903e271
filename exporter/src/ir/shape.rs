//! Sizes of tensors: fixed, or symbolic in the batch and in the height and width of the image.

/// Extent of one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dim {
    /// Known.
    Fixed(usize),
    /// N.
    Batch,
    /// H divided by this number; H is a multiple of it.
    Height(usize),
    /// W divided by this number; W is a multiple of it.
    Width(usize),
}

/// Extents of all axes.
pub type Shape = Vec<Dim>;

impl Dim {
    /// The number, if it is known.
    pub fn fixed(self) -> Option<usize> {
        match self {
            Dim::Fixed(n) => Some(n),
            _ => None,
        }
    }

    /// The extent after a convolution of this stride with same padding.
    pub fn divided(self, stride: usize) -> Option<Dim> {
        match self {
            Dim::Fixed(n) => n.is_multiple_of(stride).then(|| Dim::Fixed(n / stride)),
            Dim::Height(by) => Some(Dim::Height(by * stride)),
            Dim::Width(by) => Some(Dim::Width(by * stride)),
            Dim::Batch => None,
        }
    }

    /// The extent after the transpose of such a convolution.
    pub fn multiplied(self, stride: usize) -> Option<Dim> {
        match self {
            Dim::Fixed(n) => Some(Dim::Fixed(n * stride)),
            Dim::Height(by) => by.is_multiple_of(stride).then(|| Dim::Height(by / stride)),
            Dim::Width(by) => by.is_multiple_of(stride).then(|| Dim::Width(by / stride)),
            Dim::Batch => None,
        }
    }
}

/// The shape of an element-wise operation: axes are aligned at the end, and an extent of 1 stretches.
pub fn broadcast(a: &[Dim], b: &[Dim]) -> Result<Shape, String> {
    let rank = a.len().max(b.len());
    let at = |s: &[Dim], i: usize| (i + s.len()).checked_sub(rank).map_or(Dim::Fixed(1), |j| s[j]);
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y => Ok(x),
            (x, Dim::Fixed(1)) => Ok(x),
            (Dim::Fixed(1), y) => Ok(y),
            _ => Err(format!("{a:?} and {b:?} do not broadcast")),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_of_one_stretch_and_others_must_agree() {
        let image = [Dim::Batch, Dim::Fixed(8), Dim::Height(2), Dim::Width(2)];
        let gain = [Dim::Fixed(1), Dim::Fixed(8), Dim::Fixed(1), Dim::Fixed(1)];
        assert_eq!(broadcast(&image, &gain).unwrap(), image);
        assert_eq!(broadcast(&gain[1..], &image).unwrap(), image);
        assert_eq!(broadcast(&[], &image).unwrap(), image);
        let other = [Dim::Batch, Dim::Fixed(8), Dim::Height(1), Dim::Width(2)];
        assert!(broadcast(&image, &other).is_err());
    }
}

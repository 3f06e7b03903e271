//! Dense float64 tensors in row-major order.

/// Values with their shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    values: Vec<f64>,
}

impl Tensor {
    /// A tensor; `None` unless the shape holds exactly `values`.
    pub fn new(shape: Vec<usize>, values: Vec<f64>) -> Option<Tensor> {
        (shape.iter().product::<usize>() == values.len()).then_some(Tensor { shape, values })
    }

    /// A tensor of rank 0.
    pub fn scalar(value: f64) -> Tensor {
        Tensor { shape: Vec::new(), values: vec![value] }
    }

    /// A tensor whose element at each index is `f` of that index.
    pub fn from_fn(shape: &[usize], mut f: impl FnMut(&[usize]) -> f64) -> Tensor {
        let mut index = vec![0; shape.len()];
        let count = shape.iter().product();
        let mut values = Vec::with_capacity(count);
        for _ in 0..count {
            values.push(f(&index));
            for axis in (0..shape.len()).rev() {
                index[axis] += 1;
                if index[axis] < shape[axis] {
                    break;
                }
                index[axis] = 0;
            }
        }
        Tensor { shape: shape.to_vec(), values }
    }

    /// Extent of each axis.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// `f` of each element.
    pub fn map(&self, f: impl Fn(f64) -> f64) -> Tensor {
        Tensor { shape: self.shape.clone(), values: self.values.iter().map(|&x| f(x)).collect() }
    }

    /// The same elements in another shape; `None` if it holds more or fewer.
    pub fn reshaped(&self, shape: Vec<usize>) -> Option<Tensor> {
        Tensor::new(shape, self.values.clone())
    }

    /// Position of the element for `index` into a shape that this one broadcasts to: axes are aligned at
    /// the end, and those of extent 1 stay at 0.
    fn position(&self, index: &[usize]) -> usize {
        let skip = index.len() - self.shape.len();
        self.shape
            .iter()
            .zip(&index[skip..])
            .fold(0, |at, (&extent, &i)| at * extent + if extent == 1 { 0 } else { i })
    }

    /// The element at `index` after broadcasting, as in [`Tensor::zip`].
    pub fn at(&self, index: &[usize]) -> f64 {
        self.values[self.position(index)]
    }

    /// `f` of this and another tensor, element by element, broadcasting.
    pub fn zip(&self, other: &Tensor, f: impl Fn(f64, f64) -> f64) -> Tensor {
        if self.shape == other.shape {
            let values = self.values.iter().zip(&other.values).map(|(&a, &b)| f(a, b)).collect();
            return Tensor { shape: self.shape.clone(), values };
        }
        let rank = self.shape.len().max(other.shape.len());
        let at = |s: &[usize], i: usize| (i + s.len()).checked_sub(rank).map_or(1, |j| s[j]);
        let shape: Vec<usize> = (0..rank).map(|i| at(&self.shape, i).max(at(&other.shape, i))).collect();
        Tensor::from_fn(&shape, |index| f(self.at(index), other.at(index)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zip_broadcasts_like_numpy() {
        let a = Tensor::new(vec![2, 1, 2], vec![1.0, 2.0, 3.0, 4.0]).unwrap();
        let b = Tensor::new(vec![3, 1], vec![10.0, 20.0, 30.0]).unwrap();
        let sum = a.zip(&b, |x, y| x + y);
        assert_eq!(sum.shape(), [2, 3, 2]);
        assert_eq!(sum.values()[..6], [11.0, 12.0, 21.0, 22.0, 31.0, 32.0]);
        assert_eq!(Tensor::scalar(1.0).zip(&b, |x, y| x - y).values(), [-9.0, -19.0, -29.0]);
    }
}

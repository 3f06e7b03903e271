//! Products of a short block of output channels with long runs of pixels: every multiply-add is one of the
//! processor's widest vectors.

use pulp::{Simd, WithSimd};

/// Output channels in a block.
pub(super) const BLOCK: usize = 4;
/// Runs of pixels are multiples of this: the widest vector.
pub(super) const LANES: usize = 16;

/// For each channel of a block, `length` sums (a multiple of [`LANES`]): its bias plus, for every tap, its weight times
/// the `length` pixels of `image` from the tap's offset on. `sums` holds the channels one after another.
///
/// Run by `simd.vectorize`, it is a function of its own: within a larger one the sums may be kept in memory, which
/// takes twice the time.
pub(super) struct Product<'a, T> {
    pub(super) image: &'a [f32],
    pub(super) taps: T,
    pub(super) bias: [f32; BLOCK],
    pub(super) sums: &'a mut [f32],
    pub(super) length: usize,
}

impl<T: Iterator<Item = (usize, [f32; BLOCK])> + Clone> WithSimd for Product<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        // With a block's sums, six vectors of pixels fill 32 registers, three fill 16.
        let mut at = 0;
        if S::REGISTER_COUNT >= 32 {
            at = self.runs::<S, 6>(simd, at);
        }
        at = self.runs::<S, 3>(simd, at);
        at = self.runs::<S, 2>(simd, at);
        self.runs::<S, 1>(simd, at);
    }
}

impl<T: Iterator<Item = (usize, [f32; BLOCK])> + Clone> Product<'_, T> {
    /// Does all whole runs of `R` vectors from `at` on. Returns where the rest begins.
    #[inline(always)]
    fn runs<S: Simd, const R: usize>(&mut self, simd: S, mut at: usize) -> usize {
        let run = R * S::F32_LANES;
        while at + run <= self.length {
            let image = &self.image[at..];
            let mut acc = [[simd.splat_f32s(0.0); R]; BLOCK];
            for (acc, bias) in acc.iter_mut().zip(self.bias) {
                *acc = [simd.splat_f32s(bias); R];
            }
            for (offset, weights) in self.taps.clone() {
                let pixels = S::as_simd_f32s(&image[offset..offset + run]).0;
                let Some(pixels) = pixels.first_chunk::<R>() else { continue };
                for (acc, weight) in acc.iter_mut().zip(weights) {
                    let weight = simd.splat_f32s(weight);
                    for (acc, pixels) in acc.iter_mut().zip(pixels) {
                        *acc = simd.mul_add_f32s(weight, *pixels, *acc);
                    }
                }
            }
            for (acc, sums) in acc.iter().zip(self.sums.chunks_exact_mut(self.length)) {
                S::as_mut_simd_f32s(&mut sums[at..at + run]).0.copy_from_slice(acc);
            }
            at += run;
        }
        at
    }
}

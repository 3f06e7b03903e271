//! Products of a short block of output channels with long runs of pixels: every multiply-add is one of the
//! processor's widest.

use pulp::Simd;

/// Output channels in a block.
pub(super) const BLOCK: usize = 4;
/// Runs of pixels are multiples of this: the widest vector.
pub(super) const LANES: usize = 16;

/// For each channel of a block and each of `length` pixels, a multiple of [`LANES`], its bias and the sum of its weights times
/// the pixels of `image` that begin at a tap's offset. `sums` has the channels one after another.
#[inline(always)]
pub(super) fn product<S: Simd>(
    simd: S,
    image: &[f32],
    taps: impl Iterator<Item = (usize, [f32; BLOCK])> + Clone,
    bias: [f32; BLOCK],
    sums: &mut [f32],
    length: usize,
) {
    // With the block, six vectors of pixels fill 32 registers and three fill 16.
    let mut at = 0;
    if S::REGISTER_COUNT >= 32 {
        at = runs::<S, 6>(simd, image, taps.clone(), bias, sums, length, at);
    }
    at = runs::<S, 3>(simd, image, taps.clone(), bias, sums, length, at);
    at = runs::<S, 2>(simd, image, taps.clone(), bias, sums, length, at);
    runs::<S, 1>(simd, image, taps, bias, sums, length, at);
}

/// As many runs of `R` vectors as there are from `at` on. Says where the rest begins.
#[inline(always)]
fn runs<S: Simd, const R: usize>(
    simd: S,
    image: &[f32],
    taps: impl Iterator<Item = (usize, [f32; BLOCK])> + Clone,
    bias: [f32; BLOCK],
    sums: &mut [f32],
    length: usize,
    mut at: usize,
) -> usize {
    let run = R * S::F32_LANES;
    while at + run <= length {
        let image = &image[at..];
        let mut acc = bias.map(|bias| [simd.splat_f32s(bias); R]);
        for (offset, weights) in taps.clone() {
            let pixels = S::as_simd_f32s(&image[offset..offset + run]).0;
            let Some(pixels) = pixels.first_chunk::<R>() else { continue };
            for (acc, weight) in acc.iter_mut().zip(weights) {
                let weight = simd.splat_f32s(weight);
                for (acc, pixels) in acc.iter_mut().zip(pixels) {
                    *acc = simd.mul_add_f32s(weight, *pixels, *acc);
                }
            }
        }
        for (acc, sums) in acc.iter().zip(sums.chunks_exact_mut(length)) {
            S::as_mut_simd_f32s(&mut sums[at..at + run]).0.copy_from_slice(acc);
        }
        at += run;
    }
    at
}

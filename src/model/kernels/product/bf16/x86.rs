//! The tile of bf16 in instructions of x86-64; the scalar twin is in the module above.

use std::arch::x86_64::{
    __m256bh, __m256i, __m512bh, __m512i, _mm256_mask_storeu_epi16, _mm512_cvtneps_pbh,
    _mm512_dpbf16_ps, _mm512_maskz_loadu_ps, _mm512_set1_epi32, _mm512_setzero_ps,
};
use std::{array, mem};

use super::Bf16;
use crate::model::kernels::product::x86::{by_height, store_512};
use crate::model::kernels::product::{PAIR, PANEL, ROWS, Rows};

/// # Safety
///
/// AVX-512 F, BW, VL and BF16; `rows` has room for the rows of `x`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) unsafe fn round_512(x: &[f32], inputs: usize, rows: &mut Rows) {
    let halves = rows.halves.chunks_exact_mut(rows.pairs);
    for (values, halves) in x.chunks_exact(inputs).zip(halves) {
        let out = halves.as_mut_ptr().cast::<i16>();
        for start in (0..inputs).step_by(16) {
            let mask = u16::MAX >> (16 - (inputs - start).min(16));
            // SAFETY: lanes outside `values` are masked, and a row of halves is at least as long.
            unsafe {
                let value = _mm512_maskz_loadu_ps(mask, values.as_ptr().add(start));
                let rounded = mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(value));
                _mm256_mask_storeu_epi16(out.add(start), mask, rounded);
            }
        }
    }
}

/// # Safety
///
/// AVX-512 F and BF16; `rows` was rounded for this weight, `out` fits both.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn bf16_512(weight: &Bf16, rows: &Rows, out: &mut [f32]) {
    let Bf16 { outputs, pairs, .. } = *weight;
    let count = out.len() / outputs;
    for panel in 0..outputs.div_ceil(PANEL) {
        // SAFETY: there are `2 × pairs` lines for each panel.
        let lines = unsafe { weight.panels.as_ptr().add(panel * pairs * 2) };
        let width = PANEL.min(outputs - panel * PANEL);
        let mut row = 0;
        while row < count {
            let height = ROWS.min(count - row);
            // SAFETY: rows `row..row + height` are inside both, and `width` columns inside `out`.
            unsafe {
                let x = (rows.halves.as_ptr().add(row * rows.pairs), rows.pairs);
                let out = (out.as_mut_ptr().add(row * outputs + panel * PANEL), outputs);
                by_height!(height, bf16_tile_512, (x, lines.cast(), pairs, out, width));
            }
            row += height;
        }
    }
}

/// # Safety
///
/// AVX-512 F and BF16; `R` rows of `pairs` at `x`, a panel at `lines`, `R` rows of `width` at `out`, each with its
/// stride.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn bf16_tile_512<const R: usize>(
    (x, x_stride): (*const [u16; PAIR], usize),
    mut lines: *const __m512bh,
    pairs: usize,
    (out, stride): (*mut f32, usize),
    width: usize,
) {
    let mut sums = [[_mm512_setzero_ps(); 2]; R];
    // SAFETY: the caller's.
    let x: [*const i32; R] = array::from_fn(|row| unsafe { x.add(row * x_stride) }.cast());
    for pair in 0..pairs {
        // SAFETY: the caller's.
        unsafe {
            let (left, right) = (*lines, *lines.add(1));
            lines = lines.add(2);
            for row in 0..R {
                let two = _mm512_set1_epi32(x[row].add(pair).read_unaligned());
                let two = mem::transmute::<__m512i, __m512bh>(two);
                sums[row][0] = _mm512_dpbf16_ps(sums[row][0], two, left);
                sums[row][1] = _mm512_dpbf16_ps(sums[row][1], two, right);
            }
        }
    }
    // SAFETY: the caller's.
    unsafe { store_512(sums, (out, stride), width) };
}

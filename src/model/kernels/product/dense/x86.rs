//! The tiles of f32 in instructions of x86-64; the scalar twin is in the module above.

use std::arch::x86_64::{
    _mm256_fmadd_ps, _mm256_load_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps,
    _mm512_fmadd_ps, _mm512_load_ps, _mm512_set1_ps, _mm512_setzero_ps,
};
use std::array;

use super::Panels;
use crate::model::kernels::product::x86::{by_height, store_512};
use crate::model::kernels::product::{PANEL, ROWS};

/// # Safety
///
/// AVX-512 F; everything is inside its slice, as [`super::multiply`] checks.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn dense_512(
    rows: usize,
    (x, x_stride): (&[f32], usize),
    panels: Panels<'_>,
    (out, out_stride): (&mut [f32], usize),
) {
    let Panels { lines, inputs, outputs } = panels;
    for panel in 0..outputs.div_ceil(PANEL) {
        // SAFETY: there are `2 × inputs` lines for each panel.
        let weights = unsafe { lines.as_ptr().add(panel * inputs * 2) }.cast::<f32>();
        let width = PANEL.min(outputs - panel * PANEL);
        let mut row = 0;
        while row < rows {
            let height = ROWS.min(rows - row);
            // SAFETY: rows `row..row + height` are inside both, and `width` columns inside `out`.
            unsafe {
                let x = (x.as_ptr().add(row * x_stride), x_stride);
                let out = (out.as_mut_ptr().add(row * out_stride + panel * PANEL), out_stride);
                by_height!(height, dense_tile_512, (x, weights, inputs, out, width));
            }
            row += height;
        }
    }
}

/// # Safety
///
/// AVX-512 F; `R` rows of `inputs` at `x`, a panel at `weights`, `R` rows of `width` at `out`, each with its stride.
#[target_feature(enable = "avx512f")]
unsafe fn dense_tile_512<const R: usize>(
    (x, x_stride): (*const f32, usize),
    weights: *const f32,
    inputs: usize,
    (out, stride): (*mut f32, usize),
    width: usize,
) {
    let mut sums = [[_mm512_setzero_ps(); 2]; R];
    // SAFETY: the caller's.
    let x: [*const f32; R] = array::from_fn(|row| unsafe { x.add(row * x_stride) });
    let mut weights = weights;
    for input in 0..inputs {
        // SAFETY: the caller's.
        unsafe {
            let left = _mm512_load_ps(weights);
            let right = _mm512_load_ps(weights.add(16));
            weights = weights.add(PANEL);
            for row in 0..R {
                let value = _mm512_set1_ps(*x[row].add(input));
                sums[row][0] = _mm512_fmadd_ps(value, left, sums[row][0]);
                sums[row][1] = _mm512_fmadd_ps(value, right, sums[row][1]);
            }
        }
    }
    // SAFETY: the caller's.
    unsafe { store_512(sums, (out, stride), width) };
}

/// # Safety
///
/// AVX2 and FMA; everything is inside its slice, as [`super::multiply`] checks.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn dense_256(
    rows: usize,
    (x, x_stride): (&[f32], usize),
    panels: Panels<'_>,
    (out, out_stride): (&mut [f32], usize),
) {
    let Panels { lines, inputs, outputs } = panels;
    for half in 0..outputs.div_ceil(16) {
        // SAFETY: half a panel begins 16 columns into its first line pair.
        let weights =
            unsafe { lines.as_ptr().cast::<f32>().add(half / 2 * inputs * PANEL + half % 2 * 16) };
        let width = 16.min(outputs - half * 16);
        let mut row = 0;
        while row < rows {
            let height = 6.min(rows - row);
            let mut tile = [[0.0_f32; 16]; 6];
            // SAFETY: rows `row..row + height` are inside `x`.
            unsafe {
                let x = (x.as_ptr().add(row * x_stride), x_stride);
                match height {
                    6 => dense_tile_256::<6>(x, weights, inputs, &mut tile),
                    5 => dense_tile_256::<5>(x, weights, inputs, &mut tile),
                    4 => dense_tile_256::<4>(x, weights, inputs, &mut tile),
                    3 => dense_tile_256::<3>(x, weights, inputs, &mut tile),
                    2 => dense_tile_256::<2>(x, weights, inputs, &mut tile),
                    _ => dense_tile_256::<1>(x, weights, inputs, &mut tile),
                }
            }
            for (place, values) in tile[..height].iter().enumerate() {
                out[(row + place) * out_stride + half * 16..][..width]
                    .copy_from_slice(&values[..width]);
            }
            row += height;
        }
    }
}

/// # Safety
///
/// AVX2 and FMA; `R` rows of `inputs` at `x`, half a panel at `weights`.
#[target_feature(enable = "avx2,fma")]
unsafe fn dense_tile_256<const R: usize>(
    (x, x_stride): (*const f32, usize),
    weights: *const f32,
    inputs: usize,
    out: &mut [[f32; 16]; 6],
) {
    let mut sums = [[_mm256_setzero_ps(); 2]; R];
    // SAFETY: the caller's.
    let x: [*const f32; R] = array::from_fn(|row| unsafe { x.add(row * x_stride) });
    let mut weights = weights;
    for input in 0..inputs {
        // SAFETY: the caller's.
        unsafe {
            let left = _mm256_load_ps(weights);
            let right = _mm256_load_ps(weights.add(8));
            weights = weights.add(PANEL);
            for row in 0..R {
                let value = _mm256_set1_ps(*x[row].add(input));
                sums[row][0] = _mm256_fmadd_ps(value, left, sums[row][0]);
                sums[row][1] = _mm256_fmadd_ps(value, right, sums[row][1]);
            }
        }
    }
    for row in 0..R {
        // SAFETY: a row of `out` is 16 wide.
        unsafe {
            _mm256_storeu_ps(out[row].as_mut_ptr(), sums[row][0]);
            _mm256_storeu_ps(out[row].as_mut_ptr().add(8), sums[row][1]);
        }
    }
}

//! The tiles of int8 in instructions of x86-64; the scalar twin is in the module above.
#![expect(clippy::needless_range_loop, reason = "rows are indexed in several arrays at once")]

use std::arch::x86_64::{
    __m256i, __m512i, __mmask16, _CMP_UNORD_Q, _mm256_add_epi32, _mm256_cmp_ps, _mm256_cvtepi32_ps,
    _mm256_cvtps_epi32, _mm256_extract_epi32, _mm256_load_si256, _mm256_loadu_ps,
    _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_max_epi32, _mm256_max_ps,
    _mm256_min_epi32, _mm256_min_ps, _mm256_movemask_ps, _mm256_mul_ps, _mm256_mullo_epi32,
    _mm256_or_ps, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps,
    _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_storeu_ps, _mm256_sub_epi32,
    _mm512_add_epi32, _mm512_cmpunord_ps_mask, _mm512_cvtepi32_ps, _mm512_cvtps_epi32,
    _mm512_dpbusd_epi32, _mm512_load_si512, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_mask_cvtepi32_storeu_epi8, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps,
    _mm512_max_epi32, _mm512_max_ps, _mm512_min_epi32, _mm512_min_ps, _mm512_mul_ps,
    _mm512_mullo_epi32, _mm512_reduce_max_ps, _mm512_reduce_min_ps, _mm512_set1_epi32,
    _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_sub_epi32,
};
use std::array;

use super::{Int8, MOST, fit, quantised};
use crate::model::kernels::product::x86::{by_height, masks};
use crate::model::kernels::product::{PANEL, ROWS, Rows};

/// # Safety
///
/// AVX-512 F; `rows` has room for the rows of `x`.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn quantise_512(x: &[f32], inputs: usize, rows: &mut Rows) {
    let Rows { bytes, stride, scales, zeros, .. } = rows;
    let rows = x.chunks_exact(inputs).zip(bytes.chunks_exact_mut(*stride));
    for ((values, bytes), (scale, zero)) in rows.zip(scales.iter_mut().zip(zeros)) {
        // Lanes behind the last value read as 0, which the range includes anyway.
        let block = |start: usize| {
            let mask = u16::MAX >> (16 - (inputs - start).min(16));
            // SAFETY: lanes outside `values` are masked.
            (mask, unsafe { _mm512_maskz_loadu_ps(mask, values.as_ptr().add(start)) })
        };
        let (mut low, mut high) = (_mm512_setzero_ps(), _mm512_setzero_ps());
        let mut broken = 0;
        for start in (0..inputs).step_by(16) {
            let value = block(start).1;
            broken |= _mm512_cmpunord_ps_mask(value, value);
            low = _mm512_min_ps(low, value);
            high = _mm512_max_ps(high, value);
        }
        let range = (_mm512_reduce_min_ps(low), _mm512_reduce_max_ps(high));
        let inverse = _mm512_set1_ps(fit(range, scale, zero));
        if broken != 0 {
            *scale = f32::NAN;
        }
        let (zero, most) = (_mm512_set1_epi32(*zero), _mm512_set1_epi32(MOST));
        for start in (0..inputs).step_by(16) {
            let (mask, value) = block(start);
            let nearest = _mm512_cvtps_epi32(_mm512_mul_ps(value, inverse));
            let byte = _mm512_max_epi32(_mm512_add_epi32(nearest, zero), _mm512_setzero_si512());
            let byte = _mm512_min_epi32(byte, most);
            // SAFETY: as above; a row of bytes is at least as long as one of values.
            unsafe {
                let out = bytes.as_mut_ptr().add(start).cast();
                _mm512_mask_cvtepi32_storeu_epi8(out, mask, byte);
            }
        }
    }
}

/// # Safety
///
/// AVX2; `rows` has room for the rows of `x`.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn quantise_256(x: &[f32], inputs: usize, rows: &mut Rows) {
    let Rows { bytes, stride, scales, zeros, .. } = rows;
    let rows = x.chunks_exact(inputs).zip(bytes.chunks_exact_mut(*stride));
    for ((values, bytes), (scale, zero)) in rows.zip(scales.iter_mut().zip(zeros)) {
        let (blocks, rest) = values.as_chunks::<8>();
        let (mut low, mut high) = (_mm256_setzero_ps(), _mm256_setzero_ps());
        let mut broken = _mm256_setzero_ps();
        for block in blocks {
            // SAFETY: a block is 8 long.
            let value = unsafe { _mm256_loadu_ps(block.as_ptr()) };
            broken = _mm256_or_ps(broken, _mm256_cmp_ps::<_CMP_UNORD_Q>(value, value));
            low = _mm256_min_ps(low, value);
            high = _mm256_max_ps(high, value);
        }
        let (mut lows, mut highs) = ([0.0_f32; 8], [0.0_f32; 8]);
        // SAFETY: both are 8 long.
        unsafe {
            _mm256_storeu_ps(lows.as_mut_ptr(), low);
            _mm256_storeu_ps(highs.as_mut_ptr(), high);
        }
        let low = lows.iter().chain(rest).copied().fold(0.0, f32::min);
        let high = highs.iter().chain(rest).copied().fold(0.0, f32::max);
        let inverse = fit((low, high), scale, zero);
        if _mm256_movemask_ps(broken) != 0 || rest.iter().any(|value| value.is_nan()) {
            *scale = f32::NAN;
        }
        let (by, shift) = (_mm256_set1_ps(inverse), _mm256_set1_epi32(*zero));
        let limit = _mm256_set1_epi32(MOST);
        // Bytes 0, 4, 8 and 12 of each half of a register, side by side.
        let pick = _mm256_set1_epi32(0x0c08_0400);
        for (block, bytes) in blocks.iter().zip(bytes.as_chunks_mut::<8>().0) {
            // SAFETY: a block is 8 long.
            let value = _mm256_mul_ps(unsafe { _mm256_loadu_ps(block.as_ptr()) }, by);
            let byte = _mm256_add_epi32(_mm256_cvtps_epi32(value), shift);
            let byte = _mm256_min_epi32(_mm256_max_epi32(byte, _mm256_setzero_si256()), limit);
            let packed = _mm256_shuffle_epi8(byte, pick);
            let (low, high) =
                (_mm256_extract_epi32::<0>(packed), _mm256_extract_epi32::<4>(packed));
            bytes[..4].copy_from_slice(&low.to_le_bytes());
            bytes[4..].copy_from_slice(&high.to_le_bytes());
        }
        for (byte, value) in bytes[blocks.len() * 8..].iter_mut().zip(rest) {
            *byte = quantised(*value, inverse, *zero);
        }
    }
}

/// # Safety
///
/// AVX-512 F, BW and VNNI; `rows` was quantised for this weight, `out` fits both.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) unsafe fn int8_vnni(weight: &Int8, rows: &Rows, out: &mut [f32]) {
    let outputs = weight.outputs;
    let count = out.len() / outputs;
    for panel in 0..outputs.div_ceil(PANEL) {
        let mut row = 0;
        while row < count {
            let height = ROWS.min(count - row);
            // SAFETY: the rows are inside `rows` and `out`.
            unsafe {
                let bytes = (rows.bytes.as_ptr().add(row * rows.stride), rows.stride);
                let out = out.as_mut_ptr().add(row * outputs + panel * PANEL);
                let scales = rows.scales.as_ptr().add(row);
                let zeros = rows.zeros.as_ptr().add(row);
                by_height!(height, int8_tile_vnni, (weight, panel, bytes, (scales, zeros), out));
            }
            row += height;
        }
    }
}

/// # Safety
///
/// As [`int8_vnni`], with `R` rows left.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn int8_tile_vnni<const R: usize>(
    weight: &Int8,
    panel: usize,
    (bytes, stride): (*const u8, usize),
    (scales, zeros): (*const f32, *const i32),
    out: *mut f32,
) {
    let Int8 { outputs, groups, .. } = *weight;
    let (mut lefts, mut rights) = ([_mm512_setzero_si512(); R], [_mm512_setzero_si512(); R]);
    // SAFETY: `panels` holds `2 × groups` lines for each panel.
    let mut lines = unsafe { weight.panels.as_ptr().add(panel * groups * 2) }.cast::<__m512i>();
    // SAFETY: the caller's.
    let rows: [*const i32; R] = array::from_fn(|row| unsafe { bytes.add(row * stride) }.cast());
    for group in 0..groups {
        // SAFETY: as above; a row has 4 bytes for each group.
        unsafe {
            let left = _mm512_load_si512(lines);
            let right = _mm512_load_si512(lines.add(1));
            lines = lines.add(2);
            for row in 0..R {
                let four = rows[row].add(group).read_unaligned();
                let values = _mm512_set1_epi32(four);
                lefts[row] = _mm512_dpbusd_epi32(lefts[row], values, left);
                rights[row] = _mm512_dpbusd_epi32(rights[row], values, right);
            }
        }
    }
    let width = PANEL.min(outputs - panel * PANEL);
    let masks = masks(width);
    let (first, fits) = (panel * PANEL, (scales, zeros));
    // SAFETY: the caller's.
    unsafe {
        int8_finish_512(weight, first, lefts, fits, out, masks[0]);
        if masks[1] != 0 {
            int8_finish_512(weight, first + 16, rights, fits, out.add(16), masks[1]);
        }
    }
}

/// Sums of `R` rows and 16 outputs, as f32. Called for each half: in a loop over both, they would live in memory.
///
/// # Safety
///
/// As [`int8_vnni`]; `out` is where column `first` begins, and its columns in `mask` are there.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn int8_finish_512<const R: usize>(
    weight: &Int8,
    first: usize,
    sums: [__m512i; R],
    (scales, zeros): (*const f32, *const i32),
    out: *mut f32,
    mask: __mmask16,
) {
    // SAFETY: scales and sums are whole panels long; rows and columns of `out` as the caller says.
    unsafe {
        let by_output = _mm512_loadu_ps(weight.scales.as_ptr().add(first));
        let weights = _mm512_loadu_si512(weight.sums.as_ptr().add(first).cast());
        for row in 0..R {
            let shift = _mm512_mullo_epi32(_mm512_set1_epi32(*zeros.add(row)), weights);
            let exact = _mm512_cvtepi32_ps(_mm512_sub_epi32(sums[row], shift));
            let scale = _mm512_mul_ps(_mm512_set1_ps(*scales.add(row)), by_output);
            _mm512_mask_storeu_ps(out.add(row * weight.outputs), mask, _mm512_mul_ps(exact, scale));
        }
    }
}

/// # Safety
///
/// AVX2; `rows` was quantised for this weight, whose values are at most [`super::NARROW`]; `out` fits both.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn int8_256(weight: &Int8, rows: &Rows, out: &mut [f32]) {
    let outputs = weight.outputs;
    let count = out.len() / outputs;
    for half in 0..outputs.div_ceil(16) {
        let mut row = 0;
        while row < count {
            let height = 4.min(count - row);
            // SAFETY: the rows are inside `rows` and `out`.
            unsafe {
                let bytes = (rows.bytes.as_ptr().add(row * rows.stride), rows.stride);
                let out = out.as_mut_ptr().add(row * outputs + half * 16);
                let fits = (rows.scales.as_ptr().add(row), rows.zeros.as_ptr().add(row));
                match height {
                    4 => int8_tile_256::<4>(weight, half, bytes, fits, out),
                    3 => int8_tile_256::<3>(weight, half, bytes, fits, out),
                    2 => int8_tile_256::<2>(weight, half, bytes, fits, out),
                    _ => int8_tile_256::<1>(weight, half, bytes, fits, out),
                }
            }
            row += height;
        }
    }
}

/// # Safety
///
/// As [`int8_256`], with `R` rows left; `half` counts half panels, `out` is where its first column begins.
#[target_feature(enable = "avx2,fma")]
unsafe fn int8_tile_256<const R: usize>(
    weight: &Int8,
    half: usize,
    (bytes, stride): (*const u8, usize),
    (scales, zeros): (*const f32, *const i32),
    out: *mut f32,
) {
    let Int8 { outputs, groups, .. } = *weight;
    let (panel, first) = (half / 2, half * 16);
    // SAFETY: `panels` holds `2 × groups` lines for each panel; the second half's are the odd ones.
    let line = unsafe { weight.panels.as_ptr().add(panel * groups * 2 + half % 2) };
    let mut line = line.cast::<__m256i>();
    let ones = _mm256_set1_epi16(1);
    // SAFETY: the caller's.
    let rows: [*const i32; R] = array::from_fn(|row| unsafe { bytes.add(row * stride) }.cast());
    let (mut lefts, mut rights) = ([_mm256_setzero_si256(); R], [_mm256_setzero_si256(); R]);
    for group in 0..groups {
        // SAFETY: as above; a row has 4 bytes for each group.
        unsafe {
            let (left, right) = (_mm256_load_si256(line), _mm256_load_si256(line.add(1)));
            line = line.wrapping_add(4);
            for row in 0..R {
                let values = _mm256_set1_epi32(rows[row].add(group).read_unaligned());
                let wide = _mm256_madd_epi16(_mm256_maddubs_epi16(values, left), ones);
                lefts[row] = _mm256_add_epi32(lefts[row], wide);
                let wide = _mm256_madd_epi16(_mm256_maddubs_epi16(values, right), ones);
                rights[row] = _mm256_add_epi32(rights[row], wide);
            }
        }
    }
    let width = 16.min(outputs - first);
    // SAFETY: the caller's.
    unsafe {
        int8_finish_256(weight, first, lefts, (scales, zeros), out, width);
        if 8 < width {
            int8_finish_256(weight, first + 8, rights, (scales, zeros), out.add(8), width - 8);
        }
    }
}

/// Sums of `R` rows and 8 outputs, as f32.
///
/// # Safety
///
/// As [`int8_256`]; `out` is where column `first` begins, and `width` columns are there.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn int8_finish_256<const R: usize>(
    weight: &Int8,
    first: usize,
    sums: [__m256i; R],
    (scales, zeros): (*const f32, *const i32),
    out: *mut f32,
    width: usize,
) {
    // SAFETY: scales and sums are whole panels long; rows and columns of `out` as the caller says.
    unsafe {
        let by_output = _mm256_loadu_ps(weight.scales.as_ptr().add(first));
        let weights = _mm256_loadu_si256(weight.sums.as_ptr().add(first).cast());
        for row in 0..R {
            let shift = _mm256_mullo_epi32(_mm256_set1_epi32(*zeros.add(row)), weights);
            let exact = _mm256_cvtepi32_ps(_mm256_sub_epi32(sums[row], shift));
            let scale = _mm256_mul_ps(_mm256_set1_ps(*scales.add(row)), by_output);
            let value = _mm256_mul_ps(exact, scale);
            let out = out.add(row * weight.outputs);
            if width < 8 {
                let mut rest = [0.0_f32; 8];
                _mm256_storeu_ps(rest.as_mut_ptr(), value);
                out.copy_from_nonoverlapping(rest.as_ptr(), width);
            } else {
                _mm256_storeu_ps(out, value);
            }
        }
    }
}

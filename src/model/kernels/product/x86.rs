//! What tiles of AVX-512 share.

#![expect(clippy::needless_range_loop, reason = "rows are indexed in several arrays at once")]

use std::arch::x86_64::{__m512, __mmask16, _mm512_mask_storeu_ps};

/// Calls `$tile::<N>` for the rows that are left, at most 12.
macro_rules! by_height {
    ($height:expr, $tile:ident, $arguments:tt) => {
        match $height {
            12 => $tile::<12> $arguments,
            11 => $tile::<11> $arguments,
            10 => $tile::<10> $arguments,
            9 => $tile::<9> $arguments,
            8 => $tile::<8> $arguments,
            7 => $tile::<7> $arguments,
            6 => $tile::<6> $arguments,
            5 => $tile::<5> $arguments,
            4 => $tile::<4> $arguments,
            3 => $tile::<3> $arguments,
            2 => $tile::<2> $arguments,
            _ => $tile::<1> $arguments,
        }
    };
}
pub(super) use by_height;

/// Which of 32 columns there are.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn masks(width: usize) -> [__mmask16; 2] {
    let of =
        |count: usize| u16::MAX.checked_shr(16 - u32::try_from(count).unwrap_or(0)).unwrap_or(0);
    [of(width.min(16)), of(width.saturating_sub(16))]
}

/// # Safety
///
/// AVX-512 F; `R` rows of `width` at `out`.
// Inlined, or the sums would live in memory while a tile is computed: that halved the speed once.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) unsafe fn store_512<const R: usize>(
    sums: [[__m512; 2]; R],
    (out, stride): (*mut f32, usize),
    width: usize,
) {
    let masks = masks(width);
    for row in 0..R {
        // SAFETY: the caller's; columns behind `width` are masked.
        unsafe {
            _mm512_mask_storeu_ps(out.add(row * stride), masks[0], sums[row][0]);
            if masks[1] != 0 {
                _mm512_mask_storeu_ps(out.add(row * stride + 16), masks[1], sums[row][1]);
            }
        }
    }
}

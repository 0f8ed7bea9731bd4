//! A panel's lanes in registers of x86-64. What the compiler makes of plain arrays is a tenth as fast.
//!
//! These are inlined into the functions that are compiled for the CPU's features, and called from nowhere else.

use std::arch::x86_64::{
    __m256d, __m512d, _mm256_fmadd_pd, _mm256_load_pd, _mm256_set1_pd, _mm256_setzero_pd,
    _mm256_storeu_pd, _mm512_fmadd_pd, _mm512_load_pd, _mm512_set1_pd, _mm512_setzero_pd,
    _mm512_storeu_pd,
};

use super::{Double, Lanes, PANEL, Row};

impl Lanes for [__m512d; 2] {
    #[inline(always)]
    fn zero() -> Self {
        // SAFETY: the caller was compiled for AVX-512 F, and the CPU was asked.
        unsafe { [_mm512_setzero_pd(); 2] }
    }

    #[inline(always)]
    fn load(row: &Row) -> Self {
        let (low, high) = row.0.split_at(8);
        // SAFETY: as above; each half is 64 bytes and aligned to them.
        unsafe { [_mm512_load_pd(low.as_ptr()), _mm512_load_pd(high.as_ptr())] }
    }

    #[inline(always)]
    fn plus(self, value: f64, weights: Self) -> Self {
        // SAFETY: as above.
        unsafe {
            let value = _mm512_set1_pd(value);
            [0, 1].map(|part| _mm512_fmadd_pd(value, weights[part], self[part]))
        }
    }

    #[inline(always)]
    fn store(self) -> [f64; PANEL] {
        let mut lanes = [0.0; PANEL];
        for (part, lanes) in self.iter().zip(lanes.as_chunks_mut::<8>().0) {
            // SAFETY: as above; there are 64 bytes.
            unsafe { _mm512_storeu_pd(lanes.as_mut_ptr(), *part) };
        }
        lanes
    }
}

impl Lanes for [__m256d; 4] {
    #[inline(always)]
    fn zero() -> Self {
        // SAFETY: the caller was compiled for AVX2 and FMA, and the CPU was asked.
        unsafe { [_mm256_setzero_pd(); 4] }
    }

    #[inline(always)]
    fn load(row: &Row) -> Self {
        let parts = row.0.as_chunks::<4>().0;
        // SAFETY: as above; each part is 32 bytes and aligned to them.
        [0, 1, 2, 3].map(|part| unsafe { _mm256_load_pd(parts[part].as_ptr()) })
    }

    #[inline(always)]
    fn plus(self, value: f64, weights: Self) -> Self {
        // SAFETY: as above.
        unsafe {
            let value = _mm256_set1_pd(value);
            [0, 1, 2, 3].map(|part| _mm256_fmadd_pd(value, weights[part], self[part]))
        }
    }

    #[inline(always)]
    fn store(self) -> [f64; PANEL] {
        let mut lanes = [0.0; PANEL];
        for (part, lanes) in self.iter().zip(lanes.as_chunks_mut::<4>().0) {
            // SAFETY: as above; there are 32 bytes.
            unsafe { _mm256_storeu_pd(lanes.as_mut_ptr(), *part) };
        }
        lanes
    }
}

impl Double {
    #[target_feature(enable = "avx512f,avx2,fma")]
    pub(super) fn avx512(&self, x: &[f64], out: &mut [f64]) {
        self.rows::<[__m512d; 2], 6>(x, out);
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn avx2(&self, x: &[f64], out: &mut [f64]) {
        self.rows::<[__m256d; 4], 2>(x, out);
    }
}

//! Each loop of `math`, compiled for what a CPU may have, and run as the one there is has it.

use super::level::{Level, detected, level};
use super::math;
use super::operands::{Head, Norm, Scratch};

/// Makes `name` run `math::name` compiled for the level in use; `name_at` runs it at a given one.
macro_rules! dispatch {
    ($(#[$doc:meta])* $name:ident, $at:ident, $module:ident, ($($arg:ident: $type:ty),* $(,)?)) => {
        $(#[$doc])*
        pub fn $name($($arg: $type),*) {
            $at(level(), $($arg),*);
        }

        #[cfg(target_arch = "x86_64")]
        mod $module {
            #[allow(unused_imports, clippy::allow_attributes, reason = "not every kernel takes them")]
            use crate::model::kernels::operands::{Head, Norm, Scratch};

            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            pub(super) fn avx512($($arg: $type),*) {
                super::math::$name::<true>($($arg),*);
            }

            #[target_feature(enable = "avx2,fma")]
            pub(super) fn avx2($($arg: $type),*) {
                super::math::$name::<true>($($arg),*);
            }
        }

        pub(super) fn $at(level: Level, $($arg: $type),*) {
            #[cfg(target_arch = "x86_64")]
            match level.min(detected()) {
                // SAFETY: `detected` has asked the CPU for exactly these features.
                Level::Bf16 | Level::Vnni | Level::Avx512 => {
                    return unsafe { $module::avx512($($arg),*) };
                }
                // SAFETY: as above.
                Level::Avx2 => return unsafe { $module::avx2($($arg),*) },
                Level::Portable => (),
            }
            #[cfg(not(target_arch = "x86_64"))]
            let _: Level = level;
            math::$name::<false>($($arg),*);
        }
    };
}

dispatch!(
    /// `x = gelu(x + bias)` by row, exact (by erf, not tanh). `x` is `[tokens, width]`, `bias` is `[width]`, f32.
    bias_gelu, bias_gelu_at, gelu_levels, (x: &mut [f32], bias: &[f32])
);
dispatch!(
    /// `x = norm(x + bias + residual)` by row. `x` and `residual` are `[tokens, hidden]`, `bias` is `[hidden]`, f32.
    add_norm, add_norm_at, norm_levels, (x: &mut [f32], residual: &[f32], bias: &[f32], norm: Norm<'_>)
);
dispatch!(
    /// `x = norm(x)` by row. `x` is `[tokens, hidden]`, f32.
    norm, norm_at, plain_norm_levels, (x: &mut [f32], norm: Norm<'_>)
);
dispatch!(
    /// `x += y + bias`, and `out = norm(x)`, by row. `x`, `y` and `out` are `[tokens, hidden]`, `bias` is `[hidden]`, f32.
    add_then_norm, add_then_norm_at, then_norm_levels,
    (x: &mut [f32], y: &[f32], bias: &[f32], norm: Norm<'_>, out: &mut [f32])
);
dispatch!(
    /// `out = gelu(x) × gate` by row, exact: a row of `x` is `[x, gate]`, each as wide as a row of `out`, f32.
    gelu_gate, gelu_gate_at, gate_levels, (x: &[f32], width: usize, out: &mut [f32])
);
dispatch!(
    /// Softmax of padded rows of scores, not yet divided by the sums, whose inverses it gives.
    softmax, softmax_at, softmax_levels, (rows: &mut [f32], length: usize, inverse: &mut [f32])
);
dispatch!(
    /// Adds a head's `[2 × reach + 1]` by distance to the padded rows of scores of the queries from `first` on.
    add_distances, add_distances_at, distances_levels,
    (rows: &mut [f32], length: usize, first: usize, distances: &[f32])
);
dispatch!(
    /// Queries, keys and values of a head into the scratch.
    load_head, load_head_at, head_levels, (head: Head<'_>, scratch: &mut Scratch)
);

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(in crate::model::kernels) fn values(length: usize) -> impl Strategy<Value = Vec<f32>> {
        prop::collection::vec(-4.0_f32..4.0, length)
    }

    pub(in crate::model::kernels) fn close(
        got: &[f32],
        expect: &[f32],
        tolerance: f32,
    ) -> Result<(), TestCaseError> {
        for (place, (got, expect)) in got.iter().zip(expect).enumerate() {
            prop_assert!((got - expect).abs() <= tolerance, "{place}: {got} and {expect}");
        }
        Ok(())
    }

    /// erf to 1e-8: its Maclaurin series, and ±1 beyond 4.
    fn erf(x: f64) -> f64 {
        if 4.0 < x.abs() {
            return x.signum();
        }
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            let n = f64::from(n);
            term *= -x * x / n;
            sum += term / (2.0 * n + 1.0);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    }

    #[expect(clippy::cast_possible_truncation, reason = "the expected value as f32")]
    fn gelu(x: f32) -> f32 {
        let x = f64::from(x);
        (0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2))) as f32
    }

    pub(in crate::model::kernels) const LEVELS: [Level; 3] =
        [Level::Portable, Level::Avx2, Level::Avx512];

    #[test]
    fn gelu_is_exact_far_from_zero() {
        for level in LEVELS {
            for x in [-40.0, -7.320_129, -5.5, -0.0, 0.0, 5.5, 7.320_129, 40.0] {
                let mut got = vec![x; 19];
                bias_gelu_at(level, &mut got, &[0.0; 19]);
                let expect = gelu(x);
                let close = got.iter().all(|got| (got - expect).abs() <= 1e-7 * x.abs().max(5.0));
                assert!(close, "{level:?}, {x}: {got:?}, not {expect}");
            }
        }
    }

    proptest! {
        #[test]
        fn gelu_is_exact(x in values(37), bias in values(37)) {
            let expect: Vec<f32> = x.iter().zip(&bias).map(|(x, b)| gelu(x + b)).collect();
            for level in LEVELS {
                let mut got = x.clone();
                bias_gelu_at(level, &mut got, &bias);
                close(&got, &expect, 2e-6)?;
            }
        }

        #[test]
        fn norm_has_mean_0_and_variance_1(
            (x, residual, bias) in (values(3 * 40), values(3 * 40), values(40)),
        ) {
            let (gamma, beta) = (vec![2.0; 40], vec![0.5; 40]);
            for level in LEVELS {
                let mut got = x.clone();
                let norm = Norm { gamma: &gamma, beta: &beta, eps: 1e-12 };
                add_norm_at(level, &mut got, &residual, &bias, norm);
                for row in got.chunks(40) {
                    let mean = row.iter().sum::<f32>() / 40.0;
                    let variance = row.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / 40.0;
                    prop_assert!((mean - 0.5).abs() < 1e-5 && (variance - 4.0).abs() < 1e-3);
                }
                let first = (x[0] + bias[0] + residual[0], x[1] + bias[1] + residual[1]);
                prop_assert!(first.1 <= first.0 || got[0] <= got[1], "order is kept");
            }
        }

        #[test]
        fn add_then_norm_is_a_sum_and_a_norm(
            (x, y, bias) in (values(3 * 40), values(3 * 40), values(40)),
        ) {
            let (gamma, beta) = (&bias[..], vec![0.5; 40]);
            let norm = Norm { gamma, beta: &beta, eps: 1e-5 };
            for level in LEVELS {
                let mut expect = x.clone();
                add_norm_at(level, &mut expect, &y, &bias, norm);
                let (mut sum, mut got) = (x.clone(), vec![f32::NAN; x.len()]);
                add_then_norm_at(level, &mut sum, &y, &bias, norm, &mut got);
                prop_assert_eq!(&got, &expect, "{:?}: the bits of the fused one", level);
                for (place, sum) in sum.iter().enumerate() {
                    prop_assert!((sum - (x[place] + y[place] + bias[place % 40])).abs() < 1e-5);
                }
            }
        }

        #[test]
        fn a_gate_multiplies(x in values(3 * 2 * 37)) {
            for level in LEVELS {
                let mut got = vec![f32::NAN; 3 * 37];
                gelu_gate_at(level, &x, 37, &mut got);
                for (row, got) in x.chunks(2 * 37).zip(got.chunks(37)) {
                    let (value, gate) = row.split_at(37);
                    let expect: Vec<f32> = value.iter().zip(gate).map(|(v, g)| gelu(*v) * g).collect();
                    close(got, &expect, 1e-5)?;
                }
            }
        }
    }
}

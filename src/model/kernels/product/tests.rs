use proptest::prelude::*;

use super::bf16::{from_bf16, to_bf16};
use super::int8::quantise;
use super::*;
use crate::model::kernels::Level;

const LEVELS: [Level; 5] = [Level::Portable, Level::Avx2, Level::Avx512, Level::Vnni, Level::Bf16];

/// Shapes with a rest in every dimension, and values for both matrices.
fn case() -> impl Strategy<Value = (usize, usize, usize, Vec<f32>, Vec<f32>)> {
    (1..30_usize, 1..70_usize, 1..80_usize).prop_flat_map(|(rows, inputs, outputs)| {
        let values = |length| prop::collection::vec(-3.0_f32..3.0, length);
        let (x, weight) = (values(rows * inputs), values(inputs * outputs));
        (Just(rows), Just(inputs), Just(outputs), x, weight)
    })
}

/// The product as it is defined, in f64.
fn reference(x: &[f32], weight: &[f32], inputs: usize) -> Vec<f64> {
    let dot = |x: &[f32], w: &[f32]| -> f64 {
        x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum()
    };
    x.chunks(inputs).flat_map(|x| weight.chunks(inputs).map(move |w| dot(x, w))).collect()
}

proptest! {
    #[test]
    fn dense_is_the_definition((rows, inputs, outputs, x, weight) in case()) {
        let packed = Dense::new(&weight, inputs, outputs);
        let expect = reference(&x, &weight, inputs);
        for level in LEVELS {
            let mut got = vec![f32::NAN; rows * outputs];
            packed.product_at(level, &x, &mut got);
            for (got, expect) in got.iter().zip(&expect) {
                prop_assert!((f64::from(*got) - expect).abs() < 1e-4, "{level:?}: {got} {expect}");
            }
            for row in 0..rows {
                let mut alone = vec![f32::NAN; outputs];
                packed.product_at(level, &x[row * inputs..][..inputs], &mut alone);
                prop_assert_eq!(&alone[..], &got[row * outputs..][..outputs], "row-independent");
            }
        }
    }

    #[test]
    fn double_is_the_definition((rows, inputs, outputs, x, weight) in case()) {
        let wide = |values: &[f32]| values.iter().map(|value| f64::from(*value) / 3.0).collect();
        let (x, weight): (Vec<f64>, Vec<f64>) = (wide(&x), wide(&weight));
        let bias: Vec<f64> = weight.iter().step_by(inputs).copied().collect();
        let packed = Double::new(&weight, bias.clone(), inputs);
        let expect = x.chunks(inputs).flat_map(|x| {
            weight.chunks(inputs).zip(&bias).map(move |(w, bias)| {
                (x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>() + bias, bias.abs())
            })
        });
        let expect: Vec<(f64, f64)> = expect.collect();
        for level in LEVELS {
            let got = packed.forward_at(level, &x);
            prop_assert_eq!(got.len(), rows * outputs);
            for (got, (expect, size)) in got.iter().zip(&expect) {
                prop_assert!((got - expect).abs() < 1e-13 * (1.0 + size), "{level:?}: {got} {expect}");
            }
            for row in 0..rows {
                let alone = packed.forward_at(level, &x[row * inputs..][..inputs]);
                prop_assert_eq!(&alone[..], &got[row * outputs..][..outputs], "row-independent");
            }
        }
    }

    /// Within what rounding may cost, and the same bits as the scalar twin: the sums are of integers.
    #[test]
    fn int8_is_close_and_its_scalar_twin((rows, inputs, outputs, x, weight) in case()) {
        let expect = reference(&x, &weight, inputs);
        for level in LEVELS {
            let packed = Int8::new_at(level, &weight, inputs, outputs);
            let mut got = vec![f32::NAN; rows * outputs];
            packed.product_at(level, &x, &mut got, &mut Rows::default());
            // Half a step of each factor, times the other's largest, a term: 8 bits of a row, 7 or 6 and a sign
            // of a weight.
            let step = 6.0 / 255.0 / 2.0 * 3.0 + 3.0 / 63.0 / 2.0 * 3.0 + 0.01;
            let tolerance = step * f64::from(u32::try_from(inputs).unwrap());
            for (got, expect) in got.iter().zip(&expect) {
                prop_assert!((f64::from(*got) - expect).abs() < tolerance, "{level:?}");
            }
            let (mut quantised, mut twin) = (Rows::default(), vec![f32::NAN; rows * outputs]);
            quantise(Level::Portable, &x, inputs, &mut quantised);
            packed.portable(&quantised, &mut twin);
            prop_assert_eq!(&got, &twin, "{:?} and its scalar twin", level);
        }
    }

    /// Both round to the same halves; the sums of exact products differ in how an instruction rounds them.
    #[test]
    fn bf16_is_the_definition_on_rounded_values((rows, inputs, outputs, x, weight) in case()) {
        let packed = Bf16::new(&weight, inputs, outputs);
        let halved = |values: &[f32]| -> Vec<f32> {
            values.iter().map(|value| from_bf16(to_bf16(*value))).collect()
        };
        let expect = reference(&halved(&x), &halved(&weight), inputs);
        let mut scratch = Rows::default();
        for level in LEVELS {
            let mut got = vec![f32::NAN; rows * outputs];
            // What an earlier product has left behind must not matter.
            scratch.halves.fill([to_bf16(f32::NAN); PAIR]);
            packed.product_at(level, &x, &mut got, &mut scratch);
            for (got, expect) in got.iter().zip(&expect) {
                prop_assert!((f64::from(*got) - expect).abs() < 1e-4, "{level:?}: {got} {expect}");
            }
            for row in 0..rows {
                let mut alone = vec![f32::NAN; outputs];
                packed.product_at(level, &x[row * inputs..][..inputs], &mut alone, &mut scratch);
                prop_assert_eq!(&alone[..], &got[row * outputs..][..outputs], "row-independent");
            }
        }
    }

    #[test]
    fn bf16_is_the_nearest(bits in any::<u32>()) {
        let value = f32::from_bits(bits);
        prop_assume!(value.is_normal() && value.abs() < 3e38);
        let rounded = to_bf16(value);
        let off = |half: u16| (f64::from(from_bf16(half)) - f64::from(value)).abs();
        prop_assert!(off(rounded) <= off(rounded + 1) && off(rounded) <= off(rounded - 1));
        let tie = bits & 0xffff == 0x8000;
        prop_assert!(!tie || rounded.is_multiple_of(2), "halves to even");
    }

    #[test]
    fn int8_is_row_independent((rows, inputs, outputs, x, weight) in case()) {
        for level in LEVELS {
            let packed = Int8::new_at(level, &weight, inputs, outputs);
            let mut got = vec![f32::NAN; rows * outputs];
            let mut scratch = Rows::default();
            packed.product_at(level, &x, &mut got, &mut scratch);
            for row in 0..rows {
                let mut alone = vec![f32::NAN; outputs];
                packed.product_at(level, &x[row * inputs..][..inputs], &mut alone, &mut scratch);
                prop_assert_eq!(&alone[..], &got[row * outputs..][..outputs]);
            }
        }
    }

    #[test]
    fn a_row_comes_back_within_half_a_step(x in prop::collection::vec(-9.0_f32..2.0, 1..50)) {
        let mut rows = Rows::default();
        quantise(Level::Portable, &x, x.len(), &mut rows);
        for (value, byte) in x.iter().zip(&rows.bytes) {
            let back = rows.scales[0] * f32::from(i16::try_from(i32::from(*byte) - rows.zeros[0]).unwrap());
            prop_assert!((value - back).abs() <= rows.scales[0] * 0.501, "{value} {back}");
        }
    }
}

/// A NaN that became a number would be a wrong answer that nothing refuses.
#[test]
fn a_nan_poisons_its_row_and_no_other() {
    for (inputs, place) in [(5, 0), (8, 7), (40, 3), (40, 39), (70, 65)] {
        let mut x = vec![0.5; 3 * inputs];
        x[inputs + place] = f32::NAN;
        let weight = vec![0.25; inputs * 20];
        for level in LEVELS {
            let mut out = [vec![0.0; 3 * 20], vec![0.0; 3 * 20], vec![0.0; 3 * 20]];
            let [f32, bf16, int8] = &mut out;
            let rows = &mut Rows::default();
            Dense::new(&weight, inputs, 20).product_at(level, &x, f32);
            Bf16::new(&weight, inputs, 20).product_at(level, &x, bf16, rows);
            Int8::new_at(level, &weight, inputs, 20).product_at(level, &x, int8, rows);
            for (kind, out) in out.iter().enumerate() {
                for (place, value) in out.iter().enumerate() {
                    let poisoned = place / 20 == 1;
                    assert_eq!(value.is_nan(), poisoned, "{level:?}, {inputs}, {kind}, {place}");
                }
            }
        }
    }
}

#[test]
fn rows_of_zeros_and_constants_are_products_too() {
    for value in [0.0, 1.0, -2.5] {
        let (x, weight) = (vec![value; 8], vec![0.5; 8 * 3]);
        let mut got = vec![f32::NAN; 3];
        Int8::new(&weight, 8, 3).product(&x, &mut got, &mut Rows::default());
        assert!(got.iter().all(|got| (got - value * 4.0).abs() < 0.05), "{value}: {got:?}");
    }
}

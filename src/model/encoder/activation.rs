//! What stands between the two dense layers of a block, by the names of transformers.

use candle_core::Tensor;

use crate::model::files::Error;
use crate::model::kernels;
use crate::model::scores::sigmoid;

/// A function of one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// Exact, by the error function.
    Gelu,
    /// By the hyperbolic tangent, as BERT's first code had it.
    GeluTanh,
    /// `x · sigmoid(1.702 x)`.
    GeluQuick,
    /// `max(x, 0)`.
    Relu,
    /// `x · sigmoid(x)`.
    Silu,
}

/// Names with what they mean.
const NAMES: [(&str, Activation); 10] = [
    ("gelu", Activation::Gelu),
    ("gelu_python", Activation::Gelu),
    ("gelu_new", Activation::GeluTanh),
    ("gelu_pytorch_tanh", Activation::GeluTanh),
    ("gelu_python_tanh", Activation::GeluTanh),
    ("gelu_fast", Activation::GeluTanh),
    ("quick_gelu", Activation::GeluQuick),
    ("relu", Activation::Relu),
    ("silu", Activation::Silu),
    ("swish", Activation::Silu),
];

impl Activation {
    /// What `key` of `config.json` names; [`Gelu`](Self::Gelu) where it is absent, as transformers has it.
    pub(in crate::model) fn named(key: &str, name: Option<&str>) -> Result<Self, Error> {
        let Some(name) = name else { return Ok(Self::Gelu) };
        let found = NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, activation)| *activation).ok_or_else(|| {
            let known = NAMES.map(|(name, _)| name).join(", ");
            Error::config("config.json", format!("{key} {name:?} is none of {known}"))
        })
    }

    /// `x = f(x + bias)` by row. `x` is `[rows, width]`, `bias` is `[width]`, f32.
    pub(in crate::model) fn apply(self, x: &mut [f32], bias: &[f32]) {
        if self == Self::Gelu {
            return kernels::bias_gelu(x, bias);
        }
        for row in x.chunks_exact_mut(bias.len()) {
            row.iter_mut().zip(bias).for_each(|(value, bias)| *value = self.of(*value + bias));
        }
    }

    /// `out = f(x) × gate` by row: a row of `x` is `[x, gate]`, each of `width` like a row of `out`, f32.
    pub(in crate::model) fn gate(self, x: &[f32], width: usize, out: &mut [f32]) {
        if self == Self::Gelu {
            return kernels::gelu_gate(x, width, out);
        }
        for (row, out) in x.chunks_exact(2 * width).zip(out.chunks_exact_mut(width)) {
            let (values, gates) = row.split_at(width);
            let pairs = values.iter().zip(gates);
            out.iter_mut()
                .zip(pairs)
                .for_each(|(out, (value, gate))| *out = self.of(*value) * gate);
        }
    }

    /// On a tensor.
    pub(in crate::model) fn tensor(self, x: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::Gelu => x.gelu_erf(),
            Self::GeluTanh => x.gelu(),
            Self::GeluQuick => x * candle_nn::ops::sigmoid(&(x * 1.702)?)?,
            Self::Relu => x.relu(),
            Self::Silu => x.silu(),
        }
    }

    fn of(self, x: f32) -> f32 {
        match self {
            Self::Gelu => {
                let mut one = [x];
                kernels::bias_gelu(&mut one, &[0.0]);
                one[0]
            }
            Self::GeluTanh => {
                let inner = x * 0.797_884_6 * (1.0 + 0.044_715 * x * x);
                0.5 * x * (1.0 + inner.tanh())
            }
            Self::GeluQuick => x * sigmoid(1.702 * x),
            Self::Relu => x.max(0.0),
            Self::Silu => x * sigmoid(x),
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn both_ways_of_computing_agree_and_are_the_definitions() {
        let x: Vec<f32> = (-80_i8..80).map(|step| f32::from(step) / 8.0).collect();
        let zeros = vec![0.0; x.len()];
        for (name, activation) in NAMES {
            assert_eq!(Activation::named("hidden_act", Some(name)).unwrap(), activation);
            let mut packed = x.clone();
            activation.apply(&mut packed, &zeros);
            let tensor = Tensor::new(&*x, &Device::Cpu).unwrap();
            let padded = activation.tensor(&tensor).unwrap().to_vec1::<f32>().unwrap();
            let close = packed.iter().zip(&padded).all(|(a, b)| (a - b).abs() < 2e-6);
            assert!(close, "{name}: {packed:?}, {padded:?}");
            let gated: Vec<f32> = x.iter().flat_map(|x| [*x, 2.0]).collect();
            let mut out = zeros.clone();
            activation.gate(&gated, 1, &mut out);
            let close = out.iter().zip(&packed).all(|(a, b)| (a - 2.0 * b).abs() < 4e-6);
            assert!(close, "{name}: {out:?}");
        }
        // torch: gelu_new, quick_gelu, silu of 1 and of -2.
        for (name, one, less) in [
            ("gelu_new", 0.841_192, -0.045_402_29),
            ("quick_gelu", 0.845_795_8, -0.064_341_38),
            ("silu", 0.731_058_6, -0.238_405_84),
            ("relu", 1.0, 0.0),
        ] {
            let activation = Activation::named("hidden_act", Some(name)).unwrap();
            assert!((activation.of(1.0) - one).abs() < 1e-6, "{name}");
            assert!((activation.of(-2.0) - less).abs() < 1e-6, "{name}: {}", activation.of(-2.0));
        }
        let said = Activation::named("hidden_act", Some("mish")).unwrap_err().to_string();
        assert!(said.contains("hidden_act \"mish\" is none of gelu, gelu_python"), "{said}");
    }
}

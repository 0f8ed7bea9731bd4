//! What the architectures share: dense layers, norms and attention on Candle's tensors, and their loading.

use std::cell::Cell;

use candle_core::{DType, Device, Result, Tensor};

use crate::model::files::Error;
use crate::model::weights::Weights;

use super::batch::Batch;

/// Puts a checkpoint's tensors on a device, and counts them.
pub(super) struct Loader<'a> {
    weights: &'a Weights,
    device: &'a Device,
    dtype: DType,
    bytes: Cell<u64>,
}

/// A dense layer.
#[derive(Debug)]
pub(super) struct Linear {
    /// `[inputs, outputs]`: a view of what is stored by output.
    weight: Tensor,
    /// `[outputs]`.
    bias: Option<Tensor>,
}

/// Layer norm over the last dimension.
#[derive(Debug)]
pub(super) struct Norm {
    gamma: Tensor,
    beta: Tensor,
    eps: f32,
}

impl<'a> Loader<'a> {
    pub(super) fn new(weights: &'a Weights, device: &'a Device, dtype: DType) -> Self {
        Self { weights, device, dtype, bytes: Cell::new(0) }
    }

    /// The file.
    pub(super) fn weights(&self) -> &Weights {
        self.weights
    }

    /// Bytes that were put on the device.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Values of `shape` on the device.
    pub(super) fn put(
        &self,
        name: &str,
        values: Vec<f32>,
        shape: &[usize],
    ) -> std::result::Result<Tensor, Error> {
        let bytes = values.len().saturating_mul(self.dtype.size_in_bytes());
        self.bytes.set(self.bytes.get().saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX)));
        Tensor::from_vec(values, shape, &Device::Cpu)
            .and_then(|tensor| tensor.to_dtype(self.dtype)?.to_device(self.device))
            .map_err(|error| Error::tensor(name, &format!("cannot be put on the device: {error}")))
    }

    /// A dense layer as transformers stores it: `weight` `[outputs, inputs]`, `bias` `[outputs]` where there is one.
    pub(super) fn linear(
        &self,
        name: &str,
        (inputs, outputs): (usize, usize),
        bias: bool,
    ) -> std::result::Result<Linear, Error> {
        let take = |suffix: &str, shape: &[usize]| {
            let name = format!("{name}.{suffix}");
            self.put(&name, self.weights.take(&name, shape)?, shape)
        };
        let weight = take("weight", &[outputs, inputs])?;
        let bias = bias.then(|| take("bias", &[outputs])).transpose()?;
        Linear::new(name, &weight, bias)
    }

    /// Queries, keys and values as one layer of `3 × hidden` outputs: of three tensors, or of one that holds them so.
    /// The scale of attention, 1/√(hidden / heads), is put into the queries' weights.
    pub(super) fn qkv(
        &self,
        names: &[String],
        (hidden, heads): (usize, usize),
        bias: bool,
    ) -> std::result::Result<Linear, Error> {
        let outputs = 3 * hidden / names.len().max(1);
        let (mut weight, mut biases) = (Vec::new(), Vec::new());
        for name in names {
            weight.append(&mut self.weights.take(&format!("{name}.weight"), &[outputs, hidden])?);
            if bias {
                biases.append(&mut self.weights.take(&format!("{name}.bias"), &[outputs])?);
            }
        }
        let width = u16::try_from(hidden / heads).unwrap_or(u16::MAX);
        let scale = f32::from(width).sqrt().recip();
        weight.iter_mut().take(hidden * hidden).for_each(|value| *value *= scale);
        biases.iter_mut().take(hidden).for_each(|value| *value *= scale);
        let name = names.first().map_or("", String::as_str);
        let weight = self.put(name, weight, &[3 * hidden, hidden])?;
        let bias = bias.then(|| self.put(name, biases, &[3 * hidden])).transpose()?;
        Linear::new(name, &weight, bias)
    }

    /// A norm over `size` values; where it has no bias, zeros stand in, which the fused kernel wants.
    pub(super) fn norm(
        &self,
        name: &str,
        size: usize,
        eps: f32,
        bias: bool,
    ) -> std::result::Result<Norm, Error> {
        let take = |suffix: &str| self.weights.take(&format!("{name}.{suffix}"), &[size]);
        let gamma = self.put(name, take("weight")?, &[size])?;
        let beta = if bias { take("bias")? } else { vec![0.0; size] };
        Ok(Norm { gamma, beta: self.put(name, beta, &[size])?, eps })
    }
}

impl Linear {
    fn new(name: &str, weight: &Tensor, bias: Option<Tensor>) -> std::result::Result<Self, Error> {
        let weight = weight.t().map_err(|error| Error::tensor(name, &error.to_string()))?;
        Ok(Self { weight, bias })
    }

    /// `[rows, inputs]` to `[rows, outputs]`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = x.matmul(&self.weight)?;
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }
}

impl Norm {
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        candle_nn::ops::layer_norm(x, &self.gamma, &self.beta, self.eps)
    }
}

/// Positions as rotations of queries and keys: `[longest, hidden / heads / 2]` each.
pub(super) struct Rotation {
    pub(super) cos: Tensor,
    pub(super) sin: Tensor,
}

/// Attention over `qkv` `[rows × longest, 3 × hidden]`, whose queries are scaled already; `mask` is added to the
/// scores `[rows, heads, longest, longest]`. Gives `[rows × longest, hidden]`.
pub(super) fn attention(
    qkv: &Tensor,
    batch: &Batch,
    heads: usize,
    mask: Option<&Tensor>,
    rotation: Option<&Rotation>,
) -> Result<Tensor> {
    let Batch { rows, longest, .. } = *batch;
    let hidden = qkv.dim(1)? / 3;
    let width = hidden / heads;
    // One copy for all three: products over heads want each head's rows together.
    let qkv =
        qkv.reshape((rows, longest, 3, heads, width))?.permute((2, 0, 3, 1, 4))?.contiguous()?;
    let part = |number: usize| qkv.get(number);
    let (q, k) = match rotation {
        Some(Rotation { cos, sin }) => {
            let both = qkv.narrow(0, 0, 2)?.reshape((2 * rows, heads, longest, width))?;
            let both = candle_nn::rotary_emb::rope(&both, cos, sin)?;
            (both.narrow(0, 0, rows)?, both.narrow(0, rows, rows)?)
        }
        None => (part(0)?, part(1)?),
    };
    let mut scores = q.matmul(&k.t()?)?;
    if let Some(mask) = mask {
        scores = scores.broadcast_add(mask)?;
    }
    let attended = candle_nn::ops::softmax_last_dim(&scores)?.matmul(&part(2)?)?;
    attended.transpose(1, 2)?.reshape((rows * longest, hidden))
}

//! A safetensors file, read tensor by tensor: a model is never twice in memory while it loads.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{DType, Device, Shape, Tensor, WithDType};
use candle_nn::VarBuilder;
use candle_nn::var_builder::SimpleBackend;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use super::artifact::{self, Error};

/// Bytes that are read and converted at once.
const CHUNK: usize = 1 << 18;

/// Longest header in bytes. Ten thousand tensors take one; the format allows 100 million, which would be ten times that
/// in memory.
const LONGEST_HEADER: u64 = 10 << 20;

/// Tensors by name, checked as they are taken.
#[derive(Debug)]
pub struct Weights {
    file: File,
    /// Where the first tensor begins.
    start: u64,
    tensors: Metadata,
    /// Whether a value that was taken is not 0.
    filled: AtomicBool,
}

impl Weights {
    /// Opens `model.safetensors` of a directory and checks its header against its length.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or is cut off or no safetensors file.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        const FILE: &str = "model.safetensors";
        let bad = |message: String| Error::Config { file: FILE.to_owned(), message };
        let read = |source| Error::read(FILE, source);
        let file = artifact::open(dir, FILE)?;
        let length = file.metadata().map_err(read)?.len();
        let mut size = [0; 8];
        if length < 8 {
            return Err(bad(format!("{length} bytes: not a safetensors file")));
        }
        file.read_exact_at(&mut size, 0).map_err(read)?;
        let start = u64::from_le_bytes(size).saturating_add(8);
        if length.min(LONGEST_HEADER) < start {
            return Err(bad(format!("a header of {start} bytes in a file of {length}")));
        }
        let mut header = vec![0; usize::try_from(start).unwrap_or(0)];
        file.read_exact_at(&mut header, 0).map_err(read)?;
        let tensors: Metadata = serde_json::from_slice(header.get(8..).unwrap_or_default())
            .map_err(|error| bad(format!("read its header: {error}")))?;
        let end = tensors.tensors().values().map(|info| info.data_offsets.1).max().unwrap_or(0);
        let wanted = start.saturating_add(u64::try_from(end).unwrap_or(u64::MAX));
        if wanted != length {
            return Err(bad(format!(
                "{length} bytes, the header says {wanted}: cut off or altered"
            )));
        }
        Ok(Self { file, start, tensors, filled: AtomicBool::new(false) })
    }

    /// A tensor's values, row-major, as f32.
    ///
    /// # Errors
    ///
    /// When it is missing, has another shape or no elements, is no float, or holds NaN or infinity.
    pub fn take(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, Error> {
        self.values(name, shape, |info| {
            if info.dtype == Dtype::F32 { self.floats(info) } else { self.others(info) }
        })
    }

    /// A tensor's values, row-major, as f64: those of every float as they are.
    ///
    /// # Errors
    ///
    /// As [`take`](Self::take).
    pub fn doubles(&self, name: &str, shape: &[usize]) -> Result<Vec<f64>, Error> {
        self.values(name, shape, |info| self.others(info))
    }

    fn values<T: WithDType>(
        &self,
        name: &str,
        shape: &[usize],
        read: impl FnOnce(&TensorInfo) -> std::io::Result<Vec<T>>,
    ) -> Result<Vec<T>, Error> {
        let fail = |message: String| Error::tensor(name, &message);
        let Some(info) = self.tensors.info(name) else {
            return Err(fail(format!("is missing; {}", self.nearby(name))));
        };
        if info.shape != shape {
            return Err(fail(format!("has shape {:?}, expected {shape:?}", info.shape)));
        }
        if shape.contains(&0) {
            return Err(fail(format!("has shape {shape:?}: no elements")));
        }
        if float(info.dtype).is_none() {
            return Err(fail(format!("is {:?}, expected a float", info.dtype)));
        }
        let values = read(info).map_err(|error| fail(format!("cannot be read: {error}")))?;
        if values.iter().any(|value| *value != T::zero()) {
            self.filled.store(true, Ordering::Relaxed);
        }
        match values.iter().position(|value| !value.to_f64().is_finite()) {
            Some(place) => Err(fail(format!("holds NaN or infinity at element {place}"))),
            None => Ok(values),
        }
    }

    /// Says that everything was taken.
    ///
    /// # Errors
    ///
    /// Where all of it was 0: a file that was made but never written, and a model that answers the same to everything.
    pub fn finish(self) -> Result<(), Error> {
        if self.filled.into_inner() {
            return Ok(());
        }
        let message = "every weight is 0: the file was never written, or the model never trained";
        Err(Error::config("model.safetensors", message))
    }

    /// A tensor in `dtype` on `device`, rounded once, on its way from the file.
    ///
    /// # Errors
    ///
    /// As [`take`](Self::take); and when the device has no memory for it.
    pub fn tensor(
        &self,
        name: &str,
        shape: &[usize],
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor, Error> {
        Tensor::from_vec(self.take(name, shape)?, shape, &Device::Cpu)
            .and_then(|tensor| tensor.to_dtype(dtype)?.to_device(device))
            .map_err(|error| Error::tensor(name, &format!("cannot be put on the device: {error}")))
    }

    /// These weights as Candle's own models take them: a name, a dot, a name. Nothing is mapped or unpickled, and
    /// each tensor is checked as in [`take`](Self::take).
    pub fn builder(&self, dtype: DType, device: &Device) -> VarBuilder<'_> {
        VarBuilder::from_backend(Box::new(self), dtype, device.clone())
    }

    /// A tensor's shape; `None` where there is none of this name.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.info(name).map(|info| &*info.shape)
    }

    /// Bytes of all its tensors as f32.
    pub fn bytes(&self) -> u64 {
        let elements = |info: &&TensorInfo| info.shape.iter().product::<usize>();
        let elements: usize = self.tensors.tensors().values().map(elements).sum();
        u64::try_from(elements).unwrap_or(u64::MAX).saturating_mul(4)
    }

    /// The elements of each tensor by its name, and whether they are f32 in the file.
    pub fn elements(&self) -> impl Iterator<Item = (String, u64, bool)> {
        self.tensors.tensors().into_iter().map(|(name, info)| {
            let elements: usize = info.shape.iter().product();
            (name, u64::try_from(elements).unwrap_or(u64::MAX), info.dtype == Dtype::F32)
        })
    }

    fn place(&self, info: &TensorInfo) -> (u64, usize) {
        let (start, end) = info.data_offsets;
        (self.start + u64::try_from(start).unwrap_or(u64::MAX), end - start)
    }

    fn floats(&self, info: &TensorInfo) -> std::io::Result<Vec<f32>> {
        let (mut at, mut left) = self.place(info);
        let mut values = Vec::with_capacity(left / 4);
        let mut bytes = vec![0; CHUNK.min(left)];
        while left != 0 {
            let chunk = &mut bytes[..CHUNK.min(left)];
            self.file.read_exact_at(chunk, at)?;
            values.extend(chunk.as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four)));
            at += u64::try_from(chunk.len()).unwrap_or(0);
            left -= chunk.len();
        }
        Ok(values)
    }

    fn others<T: WithDType>(&self, info: &TensorInfo) -> std::io::Result<Vec<T>> {
        let dtype = float(info.dtype).ok_or_else(|| std::io::Error::other("not a float"))?;
        let (at, length) = self.place(info);
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, at)?;
        Tensor::from_raw_buffer(&bytes, dtype, &info.shape, &Device::Cpu)
            .and_then(|tensor| tensor.to_dtype(T::DTYPE)?.flatten_all()?.to_vec1())
            .map_err(std::io::Error::other)
    }

    /// A tensor's name with the same end, to show what another layout calls it.
    fn nearby(&self, name: &str) -> String {
        let tail = name.rsplit('.').take(2).collect::<Vec<_>>();
        let tail = format!("{}.{}", tail.get(1).unwrap_or(&""), tail.first().unwrap_or(&""));
        let mut near: Vec<String> = self.tensors.tensors().into_keys().collect();
        near.retain(|key| key.ends_with(&tail));
        near.sort();
        match near.first() {
            Some(near) => format!("the nearest is {near:?}"),
            None => format!("there are {} others", self.tensors.tensors().len()),
        }
    }
}

/// What Candle calls a float of the file.
#[expect(clippy::wildcard_enum_match_arm, reason = "the format knows twenty kinds of numbers")]
fn float(dtype: Dtype) -> Option<DType> {
    match dtype {
        Dtype::F32 => Some(DType::F32),
        Dtype::F16 => Some(DType::F16),
        Dtype::BF16 => Some(DType::BF16),
        Dtype::F64 => Some(DType::F64),
        _ => None,
    }
}

impl SimpleBackend for &Weights {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _init: candle_nn::Init,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        self.tensor(name, shape.dims(), dtype, device).map_err(candle_core::Error::wrap)
    }

    fn get_unchecked(
        &self,
        name: &str,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        let shape = self.shape(name).unwrap_or_default();
        self.tensor(name, shape, dtype, device).map_err(candle_core::Error::wrap)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.shape(name).is_some()
    }
}

//! Safetensors files, read tensor by tensor: a model is never twice in memory while it loads.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{DType, Device, Shape, Tensor, WithDType};
use candle_nn::VarBuilder;
use candle_nn::var_builder::SimpleBackend;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::Deserialize;

use super::files::{self, Error};

/// Bytes that are read and converted at once.
const CHUNK: usize = 1 << 18;

/// Longest header in bytes. Ten thousand tensors take one; the format allows 100 million, which would be ten times that
/// in memory.
const LONGEST_HEADER: u64 = 10 << 20;

/// Most files that the weights of one model are in.
const MOST_SHARDS: usize = 256;

/// The file of weights, where there is one.
pub const FILE: &str = "model.safetensors";

/// Which file holds which tensor, where there are several.
pub const INDEX: &str = "model.safetensors.index.json";

/// Tensors by name, checked as they are taken.
#[derive(Debug)]
pub struct Weights {
    shards: Vec<Shard>,
    tensors: HashMap<String, Held>,
    /// Whether a value that was taken is not 0.
    filled: AtomicBool,
}

/// A file of tensors.
#[derive(Debug)]
struct Shard {
    file: File,
    /// Where the first tensor begins.
    start: u64,
}

/// A tensor.
#[derive(Debug)]
struct Held {
    shard: usize,
    info: TensorInfo,
    /// Whether something asked for its values.
    taken: AtomicBool,
}

/// What [`INDEX`] says.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// What transformers 5 calls a tensor of `ViT` in memory.
fn in_memory(name: &str) -> Option<String> {
    const PARTS: [(&str, &str); 6] = [
        ("attention.attention.query", "attention.q_proj"),
        ("attention.attention.key", "attention.k_proj"),
        ("attention.attention.value", "attention.v_proj"),
        ("attention.output.dense", "attention.o_proj"),
        ("intermediate.dense", "mlp.fc1"),
        ("output.dense", "mlp.fc2"),
    ];
    let (layer, part) = name.strip_prefix("vit.encoder.layer.")?.split_once('.')?;
    let (part, end) = part.rsplit_once('.')?;
    let newer = PARTS.iter().find(|(older, _)| *older == part).map_or(part, |(_, newer)| newer);
    Some(format!("vit.layers.{layer}.{newer}.{end}"))
}

impl Weights {
    /// Opens the weights of a directory: [`FILE`], or else the files that [`INDEX`] names. Each header is checked
    /// against its file's length.
    ///
    /// # Errors
    ///
    /// When one cannot be read, or is cut off or no safetensors file; when two hold the same tensor.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        Self::open_in(dir, "")
    }

    /// As [`open`](Self::open), for a folder in the directory.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_in(dir: &Path, folder: &str) -> Result<Self, Error> {
        let name = |file: &str| files::within(folder, file);
        let files: BTreeSet<String> =
            if !files::present(dir, &name(FILE)) && files::present(dir, &name(INDEX)) {
                let index: Index = files::json(dir, &name(INDEX))?;
                index.weight_map.into_values().map(|file| name(&file)).collect()
            } else {
                BTreeSet::from([name(FILE)])
            };
        if files.is_empty() || MOST_SHARDS < files.len() {
            let message = format!("names {} files, not 1 to {MOST_SHARDS}", files.len());
            return Err(Error::config(&name(INDEX), message));
        }
        let (mut shards, mut tensors) = (Vec::new(), HashMap::new());
        for file in &files {
            let (shard, metadata) = Shard::open(dir, file)?;
            for (name, info) in metadata.tensors() {
                let held =
                    Held { shard: shards.len(), info: info.clone(), taken: AtomicBool::new(false) };
                if tensors.insert(name.clone(), held).is_some() {
                    let message = format!("tensor {name:?} is in another file too");
                    return Err(Error::config(file, message));
                }
            }
            shards.push(shard);
        }
        Ok(Self { shards, tensors, filled: AtomicBool::new(false) })
    }

    /// A tensor by its name. Checkpoints from before 2018 call the two of a `LayerNorm` gamma and beta; some are saved
    /// with the names that transformers 5 has in memory.
    fn find(&self, name: &str) -> Option<&Held> {
        let older = || {
            let (start, end) = name.rsplit_once("LayerNorm.")?;
            let end = match end {
                "weight" => "gamma",
                "bias" => "beta",
                _ => return None,
            };
            self.tensors.get(&format!("{start}LayerNorm.{end}"))
        };
        self.tensors.get(name).or_else(older).or_else(|| self.tensors.get(&in_memory(name)?))
    }

    /// A tensor's values, row-major, as f32.
    ///
    /// # Errors
    ///
    /// When it is missing, has another shape or no elements, is no float, or holds NaN or infinity.
    pub fn take(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, Error> {
        self.values(name, shape, |held| {
            if held.info.dtype == Dtype::F32 { self.floats(held) } else { self.others(held) }
        })
    }

    /// A tensor's values, row-major, as f64: those of every float as they are.
    ///
    /// # Errors
    ///
    /// As [`take`](Self::take).
    pub fn doubles(&self, name: &str, shape: &[usize]) -> Result<Vec<f64>, Error> {
        self.values(name, shape, |held| self.others(held))
    }

    fn values<T: WithDType>(
        &self,
        name: &str,
        shape: &[usize],
        read: impl FnOnce(&Held) -> std::io::Result<Vec<T>>,
    ) -> Result<Vec<T>, Error> {
        let fail = |message: String| Error::tensor(name, &message);
        let Some(held) = self.find(name) else {
            return Err(fail(format!("is missing; {}", self.nearby(name))));
        };
        held.taken.store(true, Ordering::Relaxed);
        let info = &held.info;
        if info.shape != shape {
            return Err(fail(format!("has shape {:?}, expected {shape:?}", info.shape)));
        }
        if shape.contains(&0) {
            return Err(fail(format!("has shape {shape:?}: no elements")));
        }
        if float(info.dtype).is_none() {
            return Err(fail(format!("is {:?}, expected a float", info.dtype)));
        }
        let values = read(held).map_err(|error| fail(format!("cannot be read: {error}")))?;
        if values.iter().any(|value| *value != T::zero()) {
            self.filled.store(true, Ordering::Relaxed);
        }
        match values.iter().position(|value| !value.to_f64().is_finite()) {
            Some(place) => Err(fail(format!("holds NaN or infinity at element {place}"))),
            None => Ok(values),
        }
    }

    /// Says that everything was taken, and gives the names of what was not, sorted.
    ///
    /// # Errors
    ///
    /// Where all of it was 0: a file that was made but never written, and a model that answers the same to everything.
    pub fn finish(self) -> Result<Vec<String>, Error> {
        if !self.filled.into_inner() {
            let message =
                "every weight is 0: the file was never written, or the model never trained";
            return Err(Error::config(FILE, message));
        }
        let left = self.tensors.into_iter().filter(|(_, held)| !held.taken.load(Ordering::Relaxed));
        let mut left: Vec<String> = left.map(|(name, _)| name).collect();
        left.sort();
        Ok(left)
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
        self.find(name).map(|held| &*held.info.shape)
    }

    /// The names of all tensors, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Bytes of all its tensors as f32.
    pub fn bytes(&self) -> u64 {
        self.elements()
            .fold(0, |sum, (_, elements, _)| sum.saturating_add(elements.saturating_mul(4)))
    }

    /// The elements of each tensor by its name, and whether they are f32 in the file.
    pub fn elements(&self) -> impl Iterator<Item = (&str, u64, bool)> {
        self.tensors.iter().map(|(name, Held { info, .. })| {
            let elements = info.shape.iter().fold(1_usize, |all, side| all.saturating_mul(*side));
            (&**name, u64::try_from(elements).unwrap_or(u64::MAX), info.dtype == Dtype::F32)
        })
    }

    /// A tensor's file, where it begins there, and its bytes.
    fn place(&self, held: &Held) -> (&File, u64, usize) {
        let Shard { file, start } = &self.shards[held.shard];
        let (first, end) = held.info.data_offsets;
        (file, start + u64::try_from(first).unwrap_or(u64::MAX), end - first)
    }

    fn floats(&self, held: &Held) -> std::io::Result<Vec<f32>> {
        let (file, mut at, mut left) = self.place(held);
        let mut values = Vec::with_capacity(left / 4);
        let mut bytes = vec![0; CHUNK.min(left)];
        while left != 0 {
            let chunk = &mut bytes[..CHUNK.min(left)];
            file.read_exact_at(chunk, at)?;
            values.extend(chunk.as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four)));
            at += u64::try_from(chunk.len()).unwrap_or(0);
            left -= chunk.len();
        }
        Ok(values)
    }

    fn others<T: WithDType>(&self, held: &Held) -> std::io::Result<Vec<T>> {
        let dtype = float(held.info.dtype).ok_or_else(|| std::io::Error::other("not a float"))?;
        let (file, at, length) = self.place(held);
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, at)?;
        Tensor::from_raw_buffer(&bytes, dtype, &held.info.shape, &Device::Cpu)
            .and_then(|tensor| tensor.to_dtype(T::DTYPE)?.flatten_all()?.to_vec1())
            .map_err(std::io::Error::other)
    }

    /// A tensor's name with the same end, to show what another layout calls it.
    fn nearby(&self, name: &str) -> String {
        let tail = name.rsplit('.').take(2).collect::<Vec<_>>();
        let tail = format!("{}.{}", tail.get(1).unwrap_or(&""), tail.first().unwrap_or(&""));
        match self.names().filter(|key| key.ends_with(&tail)).min() {
            Some(near) => format!("the nearest is {near:?}"),
            None => format!("there are {} others", self.tensors.len()),
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

impl Shard {
    /// Opens a file of tensors and checks its header against its length.
    fn open(dir: &Path, name: &str) -> Result<(Self, Metadata), Error> {
        let bad = |message: String| Error::config(name, message);
        let read = |source| Error::read(name, source);
        let file = files::open(dir, name)?;
        let length = file.metadata().map_err(read)?.len();
        let mut size = [0; 8];
        if length < 8 {
            return Err(bad(format!("{length} bytes: not a safetensors file")));
        }
        file.read_exact_at(&mut size, 0).map_err(read)?;
        let start = u64::from_le_bytes(size).saturating_add(8);
        if length.min(LONGEST_HEADER) < start {
            let mut first = vec![0; usize::try_from(length.min(256)).unwrap_or(0)];
            file.read_exact_at(&mut first, 0).map_err(read)?;
            if let Some(why) = files::pointer(&first) {
                return Err(bad(why));
            }
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
        Ok((Self { file, start }, tensors))
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

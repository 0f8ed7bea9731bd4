//! Where a model computes: devices opened, Candle's errors sorted, one model on several devices.
//!
//! A device that is asked for and cannot be had is an error that says what to do, never a fallback.

use std::cell::OnceCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, TryLockError};

use candle_core::{DType, Device};

use super::kernels::{self, Level};
use super::{Memory, files};
use crate::answer::Refused;
use crate::config::{Place, Precision};

/// Why a device cannot be used, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

impl From<Error> for files::Error {
    fn from(error: Error) -> Self {
        Self::Unsupported(error.0)
    }
}

/// Opens a place's devices, in order.
///
/// # Errors
///
/// The first that is absent, or whose kind is not in this build.
pub fn open(place: &Place) -> Result<Vec<Device>, Error> {
    match place {
        Place::Cpu => Ok(vec![Device::Cpu]),
        Place::Cuda(ordinals) => {
            let open = |ordinal: &usize| {
                // Not `new_cuda`: on the default stream, tensors that pass between threads are unordered.
                let open = || Device::new_cuda_with_stream(*ordinal);
                one(&format!("cuda:{ordinal}"), "cuda", cfg!(feature = "cuda"), open)
            };
            ordinals.iter().map(open).collect()
        }
        Place::Metal(ordinal) => {
            let open = || Device::new_metal(*ordinal);
            one(&format!("metal:{ordinal}"), "metal", cfg!(feature = "metal"), open)
                .map(|device| vec![device])
        }
    }
}

/// What a model on Candle's tensors computes in here. `auto` is bf16 on a GPU, f32 on the CPU.
///
/// # Errors
///
/// A precision that this device has no fast products for.
pub fn dtype(place: &Place, precision: Precision) -> Result<DType, Error> {
    let fail = |why: &str| Err(Error(format!("model.device: {place}: {why}")));
    match (place, precision) {
        (_, Precision::F32) | (Place::Cpu, Precision::Auto) => Ok(DType::F32),
        (Place::Cpu, Precision::Bf16 | Precision::F16 | Precision::Int8) => {
            fail("Candle has fast products in f32 only for CPUs; set model.precision: f32")
        }
        (Place::Cuda(_) | Place::Metal(_), Precision::Bf16 | Precision::Auto) => Ok(DType::BF16),
        (Place::Cuda(_) | Place::Metal(_), Precision::F16) => Ok(DType::F16),
        (Place::Cuda(_) | Place::Metal(_), Precision::Int8) => fail(
            "precision int8 is for the CPU: Candle has no int8 products for GPUs; set \
             model.precision: bf16",
        ),
    }
}

/// What `model.precision` is to a forward of our own on this CPU; `None`: `auto`.
///
/// # Errors
///
/// A precision that this CPU has no fast products for.
pub fn packed(precision: Precision) -> Result<Option<kernels::Precision>, Error> {
    match precision {
        Precision::F32 => Ok(Some(kernels::Precision::F32)),
        Precision::Int8 => Ok(Some(kernels::Precision::Int8)),
        Precision::Auto => Ok(None),
        Precision::Bf16 if kernels::level() == Level::Bf16 => Ok(Some(kernels::Precision::Bf16)),
        Precision::Bf16 => Err(Error(
            "model.device: cpu: precision bf16 is fast only on CPUs with AVX512_BF16 (AMD Zen 4, Intel Cooper Lake and \
             Sapphire Rapids, and later), and this has none; set model.precision: f32, int8 or auto"
                .to_owned(),
        )),
        Precision::F16 => Err(Error(
            "model.device: cpu: precision f16 is for GPUs; set model.precision: f32, int8 or auto".to_owned(),
        )),
    }
}

fn one(
    name: &str,
    feature: &str,
    built: bool,
    open: impl FnOnce() -> candle_core::Result<Device>,
) -> Result<Device, Error> {
    if !built {
        return Err(Error(format!(
            "model.device: {name}: this build has no {feature}; build with `cargo build --release --features \
             {feature}`, or set model.device: cpu"
        )));
    }
    // cudarc panics when one of its libraries is missing.
    let why = match catch_unwind(AssertUnwindSafe(open)) {
        Ok(Ok(device)) => return Ok(device),
        Ok(Err(error)) => first_line(&error.to_string()),
        Err(panic) => panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .map_or_else(|| "the driver's bindings panicked".to_owned(), first_line),
    };
    let look = if feature == "cuda" {
        "see whether `nvidia-smi` lists it and libcublas and libcurand are on the library path"
    } else {
        "see whether `system_profiler SPDisplaysDataType` lists it"
    };
    Err(Error(format!("open model.device {name}: {why}; {look}, or set model.device: cpu")))
}

/// Without the backtrace that Candle appends.
fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// What Candle's error means for the batch that it refused.
pub fn refused(error: &candle_core::Error) -> Refused {
    sorted(&error.to_string())
}

/// By text: the kinds of the error stand behind a box, and are there in a build with the feature only.
fn sorted(text: &str) -> Refused {
    const MEMORY: [&str; 4] = [
        "CUDA_ERROR_OUT_OF_MEMORY",
        "CUBLAS_STATUS_ALLOC_FAILED",
        "kIOGPUCommandBufferCallbackErrorOutOfMemory",
        "Insufficient Memory",
    ];
    const LOST: [&str; 5] =
        ["CUDA_ERROR_", "CUBLAS_STATUS_", "CURAND_STATUS_", "NVRTC_ERROR_", "Command buffer had"];
    let message = first_line(text);
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if has(&MEMORY) {
        Refused::OutOfMemory(message)
    } else if has(&LOST) {
        Refused::DeviceLost(message)
    } else {
        Refused::Batch(message)
    }
}

/// The memory of the device with the least left; `None` where that is the process's own.
pub fn least(devices: &[Device]) -> Option<Memory> {
    devices.iter().filter_map(memory).min_by_key(|memory| memory.free)
}

/// What the driver says; `None` for the CPU and for Metal, which shares the machine's memory.
pub fn memory(device: &Device) -> Option<Memory> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(cuda) => {
            let (free, total) = cuda.cuda_stream().context().mem_get_info().ok()?;
            Some(Memory { free: u64::try_from(free).ok()?, total: u64::try_from(total).ok()? })
        }
        #[cfg(not(feature = "cuda"))]
        Device::Cuda(_) => None,
        Device::Cpu | Device::Metal(_) => None,
    }
}

/// One model, on each of several devices. A device serves one thread at a time: its libraries keep state by device,
/// and two forwards side by side would only share it.
#[derive(Debug)]
pub struct Replicas<T> {
    each: Vec<Mutex<T>>,
    next: AtomicUsize,
}

impl<T> Replicas<T> {
    /// Builds it on each device.
    ///
    /// # Errors
    ///
    /// The first that `build` gives.
    pub fn new<E>(
        devices: &[Device],
        build: impl FnMut(&Device) -> Result<T, E>,
    ) -> Result<Self, E> {
        let each = devices.iter().map(build).map(|built| built.map(Mutex::new));
        Ok(Self { each: each.collect::<Result<_, E>>()?, next: AtomicUsize::new(0) })
    }

    /// Runs on a device that is free; where none is, waits for one. Each in turn.
    ///
    /// # Panics
    ///
    /// When there is no device at all.
    pub fn with<R>(&self, run: impl FnOnce(&T) -> R) -> R {
        let first = self.next.fetch_add(1, Ordering::Relaxed) % self.each.len();
        let (before, after) = self.each.split_at(first);
        let free = after.iter().chain(before).find_map(|each| match each.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        });
        let wait = || self.each[first].lock().unwrap_or_else(PoisonError::into_inner);
        run(&free.unwrap_or_else(wait))
    }
}

thread_local! {
    static ALONE: OnceCell<Option<rayon::ThreadPool>> = const { OnceCell::new() };
}

/// Keeps on this thread, for its life, what Candle would spread over all cores.
///
/// Candle's CPU products and norms run on the rayon pool of the thread that calls them. A pool of one thread,
/// which is this one, makes them run here: a worker is one core, as for the packed models.
pub fn stay_on_this_thread() {
    ALONE.with(|alone| {
        // A thread that is in a pool already stays there.
        alone.get_or_init(|| {
            rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build().ok()
        });
    });
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_device_that_cannot_be_had_says_what_to_do() {
        let absent = |built, open: fn() -> candle_core::Result<Device>| {
            one("cuda:7", "cuda", built, open).unwrap_err().to_string()
        };
        let error = absent(false, || Ok(Device::Cpu));
        assert!(
            error.contains("--features cuda") && error.contains("model.device: cpu"),
            "{error}"
        );
        let error = absent(true, || Err(candle_core::Error::Msg("no such\nbacktrace".into())));
        assert!(error.contains("no such; see whether `nvidia-smi`"), "{error}");
        let error = absent(true, || panic!("Unable to dynamically load the \"cuda\" library"));
        assert!(
            error.contains("dynamically load") && error.contains("model.device: cpu"),
            "{error}"
        );
        if !cfg!(feature = "cuda") {
            let error = open(&Place::Cuda(vec![0])).unwrap_err().to_string();
            assert!(error.contains("--features cuda"), "{error}");
        }
        assert!(open(&Place::Cpu).unwrap()[0].is_cpu());
    }

    #[test]
    fn precisions_by_device() {
        let (cpu, cuda) = (Place::Cpu, Place::Cuda(vec![0]));
        for (place, precision, expect) in [
            (&cpu, Precision::F32, Ok(DType::F32)),
            (&cpu, Precision::Auto, Ok(DType::F32)),
            (&cpu, Precision::Bf16, Err("model.precision: f32")),
            (&cpu, Precision::F16, Err("model.precision: f32")),
            (&cpu, Precision::Int8, Err("model.precision: f32")),
            (&cuda, Precision::F32, Ok(DType::F32)),
            (&cuda, Precision::Auto, Ok(DType::BF16)),
            (&cuda, Precision::Bf16, Ok(DType::BF16)),
            (&cuda, Precision::F16, Ok(DType::F16)),
            (&cuda, Precision::Int8, Err("for the CPU")),
        ] {
            match (dtype(place, precision), expect) {
                (Ok(found), Ok(expect)) => assert_eq!(found, expect, "{place} {precision:?}"),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (found, expect) => panic!("{place} {precision:?}: {found:?}, not {expect:?}"),
            }
        }
    }

    /// The texts are those of cudarc 0.19 and candle 0.11.
    #[test]
    fn errors_are_sorted() {
        let lost = |text: &str| Refused::DeviceLost(text.to_owned());
        let memory = |text: &str| Refused::OutOfMemory(text.to_owned());
        let batch = |text: &str| Refused::Batch(text.to_owned());
        for (text, expect) in [
            (r#"DriverError(CUDA_ERROR_OUT_OF_MEMORY, "out of memory")"#, memory as fn(&str) -> _),
            ("CublasError(CUBLAS_STATUS_ALLOC_FAILED)", memory),
            (
                "Metal error Command buffer had following error: Insufficient Memory \
                 (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)",
                memory,
            ),
            (r#"DriverError(CUDA_ERROR_LAUNCH_FAILED, "unspecified launch failure")"#, lost),
            (r#"DriverError(CUDA_ERROR_ILLEGAL_ADDRESS, "an illegal memory access")"#, lost),
            (r#"DriverError(CUDA_ERROR_ECC_UNCORRECTABLE, "uncorrectable ECC error")"#, lost),
            (r#"DriverError(CUDA_ERROR_INVALID_PTX, "x") when loading layernorm"#, lost),
            ("CublasError(CUBLAS_STATUS_EXECUTION_FAILED)", lost),
            ("CublasError(CUBLAS_STATUS_NOT_INITIALIZED)", lost),
            ("CurandError(CURAND_STATUS_INITIALIZATION_FAILED)", lost),
            ("Metal error Command buffer had following error: Caused GPU Timeout Error", lost),
            ("unexpected rank, expected: 2, got: 3 ([1, 2, 3])", batch),
            ("shape mismatch in add, lhs: [1], rhs: [2]", batch),
            ("missing kernel 'bert'", batch),
        ] {
            assert_eq!(sorted(text), expect(text));
            assert_eq!(sorted(&format!("{text}\n   0: a::backtrace")), expect(text));
        }
        let wrapped = candle_core::Error::msg("DriverError(CUDA_ERROR_LAUNCH_TIMEOUT, \"x\")");
        assert!(matches!(refused(&wrapped), Refused::DeviceLost(_)));
        assert_eq!(super::memory(&Device::Cpu), None);
    }

    #[test]
    fn a_busy_device_is_passed_over() {
        let devices = [Device::Cpu, Device::Cpu, Device::Cpu];
        let mut number = 0;
        let replicas = Replicas::new(&devices, |_| {
            number += 1;
            Ok::<_, Error>(number)
        })
        .unwrap();
        let inside = replicas.with(|a| replicas.with(|b| replicas.with(|c| [*a, *b, *c])));
        let all: BTreeSet<i32> = inside.into_iter().collect();
        assert_eq!(all.len(), 3, "{inside:?}: each by another device");
    }

    #[test]
    fn a_worker_keeps_its_work() {
        let thread = || {
            stay_on_this_thread();
            stay_on_this_thread();
            let here = std::thread::current().id();
            let mut ran = [None; 64];
            rayon::scope(|scope| {
                for place in &mut ran {
                    scope.spawn(move |_| *place = Some(std::thread::current().id()));
                }
            });
            assert_eq!(ran, [Some(here); 64]);
            assert_eq!(rayon::current_num_threads(), 1);
        };
        let spawned = std::thread::Builder::new().name("alone".to_owned()).spawn(thread).unwrap();
        spawned.join().unwrap();
    }
}

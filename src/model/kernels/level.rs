//! What the CPU has, asked once.

use std::sync::OnceLock;

/// What the CPU has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing is assumed.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, BW, DQ, VL.
    Avx512,
    /// AVX-512 VNNI beside them: int8 products in one instruction.
    Vnni,
    /// `AVX512_BF16` beside that: bf16 products too. AMD Zen 4, Intel Cooper Lake and Sapphire Rapids, and later.
    Bf16,
}

impl Level {
    /// For people: the newest instructions that it uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "no vector instructions assumed",
            Self::Avx2 => "AVX2",
            Self::Avx512 => "AVX-512",
            Self::Vnni => "AVX-512 VNNI",
            Self::Bf16 => "AVX-512 VNNI BF16",
        }
    }
}

/// The level in use: the CPU's, or a lower one that the environment variable `TIDEMILL_CPU` names (`portable`, `avx2`,
/// `avx512`, `vnni`).
pub fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| {
        let most = match std::env::var("TIDEMILL_CPU").as_deref() {
            Ok("portable") => Level::Portable,
            Ok("avx2") => Level::Avx2,
            Ok("avx512") => Level::Avx512,
            Ok("vnni") => Level::Vnni,
            _ => Level::Bf16,
        };
        detected().min(most)
    })
}

#[cfg(target_arch = "x86_64")]
pub(super) fn detected() -> Level {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    let vnni = avx512 && avx2 && is_x86_feature_detected!("avx512vnni");
    if vnni && is_x86_feature_detected!("avx512bf16") {
        Level::Bf16
    } else if vnni {
        Level::Vnni
    } else if avx512 && avx2 {
        Level::Avx512
    } else if avx2 {
        Level::Avx2
    } else {
        Level::Portable
    }
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn detected() -> Level {
    Level::Portable
}

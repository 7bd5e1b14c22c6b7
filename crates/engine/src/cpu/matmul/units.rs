//! Which unit serves: the best that the machine has, chosen when the program runs.

use std::sync::LazyLock;

use crate::precision::Precision;

/// A unit that this machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitName {
    /// Single precision by AMX tiles, each number in three parts.
    F32Amx,
    /// Single precision by AVX-512.
    F32Avx512,
    /// Single precision by AVX2 and FMA.
    F32Avx2,
    /// Single precision on any machine.
    F32Portable,
    /// Each number in three parts on any machine, for tests of the parts alone.
    #[cfg(test)]
    F32PartsPortable,
    /// bf16 by AMX tiles.
    Bf16Amx,
    /// bf16 by AVX-512-BF16.
    Bf16Avx512,
    /// bf16 on any machine.
    Bf16Portable,
}

/// Runs an expression with `U` the unit of that name.
macro_rules! with_unit {
    ($name:expr, $unit:ident => $body:expr) => {
        match $name {
            #[cfg(target_arch = "x86_64")]
            $crate::cpu::matmul::UnitName::F32Amx => {
                type $unit = $crate::cpu::matmul::bf16x3::InParts<$crate::cpu::matmul::bf16::Amx>;
                $body
            }
            #[cfg(test)]
            $crate::cpu::matmul::UnitName::F32PartsPortable => {
                type $unit = $crate::cpu::matmul::bf16x3::InParts<$crate::cpu::matmul::bf16::Portable>;
                $body
            }
            #[cfg(target_arch = "x86_64")]
            $crate::cpu::matmul::UnitName::F32Avx512 => {
                type $unit = $crate::cpu::matmul::single_precision::Avx512;
                $body
            }
            #[cfg(target_arch = "x86_64")]
            $crate::cpu::matmul::UnitName::F32Avx2 => {
                type $unit = $crate::cpu::matmul::single_precision::Avx2;
                $body
            }
            #[cfg(target_arch = "x86_64")]
            $crate::cpu::matmul::UnitName::Bf16Amx => {
                type $unit = $crate::cpu::matmul::bf16::Amx;
                $body
            }
            #[cfg(target_arch = "x86_64")]
            $crate::cpu::matmul::UnitName::Bf16Avx512 => {
                type $unit = $crate::cpu::matmul::bf16::Avx512;
                $body
            }
            $crate::cpu::matmul::UnitName::Bf16Portable => {
                type $unit = $crate::cpu::matmul::bf16::Portable;
                $body
            }
            _ => {
                type $unit = $crate::cpu::matmul::single_precision::Portable;
                $body
            }
        }
    };
}
pub(crate) use with_unit;

impl UnitName {
    /// The best unit for a precision.
    pub fn best(precision: Precision) -> Self {
        static BEST: LazyLock<[UnitName; 2]> = LazyLock::new(|| [best_single_precision(), best_half_width()]);
        match precision {
            Precision::F32 => BEST[0],
            Precision::Bf16 => BEST[1],
        }
    }

    /// The best unit in single precision.
    pub fn single_precision() -> Self {
        UnitName::best(Precision::F32)
    }

    /// The unit for what is multiplied within a head: too short for parts to bring what they cost.
    pub fn within_heads(self) -> Self {
        if self == UnitName::F32Amx { UnitName::F32Avx512 } else { self }
    }

    /// What reports call it.
    pub fn describe(self) -> &'static str {
        match self {
            UnitName::F32Amx => "f32 by AMX, in three parts",
            UnitName::F32Avx512 => "f32 by AVX-512",
            UnitName::F32Avx2 => "f32 by AVX2",
            UnitName::F32Portable => "f32",
            #[cfg(test)]
            UnitName::F32PartsPortable => "f32, in three parts",
            UnitName::Bf16Amx => "bf16 by AMX",
            UnitName::Bf16Avx512 => "bf16 by AVX-512-BF16",
            UnitName::Bf16Portable => "bf16, emulated",
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn best_single_precision() -> UnitName {
    if best_half_width() == UnitName::Bf16Amx {
        UnitName::F32Amx
    } else if is_x86_feature_detected!("avx512f") {
        UnitName::F32Avx512
    } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        UnitName::F32Avx2
    } else {
        UnitName::F32Portable
    }
}

#[cfg(target_arch = "x86_64")]
fn best_half_width() -> UnitName {
    // Operands of the tiles, too, are rounded and packed by AVX-512. What has its bf16 has its other four parts as well.
    let others = is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512cd")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    if !is_x86_feature_detected!("avx512bf16") || !others {
        UnitName::Bf16Portable
    } else if has_amx_bf16() && may_use_tiles() {
        UnitName::Bf16Amx
    } else {
        UnitName::Bf16Avx512
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn best_single_precision() -> UnitName {
    UnitName::F32Portable
}

#[cfg(not(target_arch = "x86_64"))]
fn best_half_width() -> UnitName {
    UnitName::Bf16Portable
}

/// CPUID, leaf 7: bit 22 of EDX is AMX-BF16, bit 24 AMX-TILE.
#[cfg(target_arch = "x86_64")]
fn has_amx_bf16() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    let both = 1 << 22 | 1 << 24;
    __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & both == both
}

/// Linux lends a process the tiles' state when it asks (`arch_prctl`, `ARCH_REQ_XCOMP_PERM`).
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn may_use_tiles() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: the call takes numbers alone, and only grants.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

#[cfg(all(target_arch = "x86_64", not(target_os = "linux")))]
fn may_use_tiles() -> bool {
    false
}

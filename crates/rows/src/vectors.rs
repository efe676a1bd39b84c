//! Which vector instructions the kernels of our own use.

use std::sync::OnceLock;

/// The widest vector instructions of this processor, up to those that `ATEN_CPU_CAPABILITY` allows.
///
/// The environment variable is libtorch's, for its own kernels: `default` is none beyond what every
/// processor has, `avx2` is AVX2 with FMA. With it one machine stands in for another, ours included.
/// The instructions change no result, only the time that it takes.
pub fn vectors() -> pulp::Arch {
    static VECTORS: OnceLock<pulp::Arch> = OnceLock::new();
    *VECTORS.get_or_init(|| up_to(std::env::var("ATEN_CPU_CAPABILITY").ok().as_deref()))
}

#[cfg(target_arch = "x86_64")]
fn up_to(capability: Option<&str>) -> pulp::Arch {
    use pulp::{Arch, x86::V3};
    match capability {
        Some("default") => Arch::Scalar,
        Some("avx2") => V3::try_new().map_or(Arch::Scalar, Arch::V3),
        _ => Arch::new(),
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn up_to(_: Option<&str>) -> pulp::Arch {
    pulp::Arch::new()
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use pulp::Arch;

    use super::*;

    #[test]
    fn a_capability_takes_wider_instructions_away_and_adds_none() {
        assert!(matches!(up_to(Some("default")), Arch::Scalar));
        assert!(!matches!(up_to(Some("avx2")), Arch::V4(_)));
        let all = std::mem::discriminant(&Arch::new());
        for capability in [None, Some("avx512"), Some("no such thing")] {
            assert_eq!(std::mem::discriminant(&up_to(capability)), all);
        }
    }
}

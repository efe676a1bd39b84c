//! How libtorch computes on GPUs, for which `tch` has no call.
#![allow(unsafe_code)]

use std::ffi::c_void;

use crate::ffi;

/// Choices between speed, precision and repeatability on GPUs. CPUs have none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compute {
    /// Whether the same inputs give the same bits: kernels that depend on the order of threads are
    /// replaced, or refused where there is no other, and cuDNN does not search for its fastest.
    pub deterministic: bool,
    /// Whether factors of f32 products and convolutions may be rounded to TF32.
    pub tf32: bool,
}

impl Compute {
    /// Has libtorch compute so from now on, on every GPU of this process. To be called before the first
    /// of them is used.
    ///
    /// # Errors
    ///
    /// libtorch's words if it refuses.
    pub fn set(self) -> Result<(), String> {
        // SAFETY: it takes two numbers, changes settings of libtorch, and `take` owns what it gives.
        let result =
            unsafe { ffi::take(ffi::pfc_compute_set(self.deterministic.into(), self.tf32.into())) };
        result.map_err(|failure| failure.message)
    }
}

/// The CUDA stream, a `CUstream`, that libtorch's operations of this thread on GPU `index` go to; null is
/// the default one. `None` where there is no GPU of that number, or no CUDA in libtorch.
///
/// The stream lives as long as the process.
pub fn current_stream(index: usize) -> Option<*mut c_void> {
    let mut stream = std::ptr::null_mut();
    let index = i32::try_from(index).ok()?;
    // SAFETY: `out` points to a live pointer, and `take` owns what the function gives.
    unsafe { ffi::take(ffi::pfc_current_stream(index, &raw mut stream)) }.ok()?;
    Some(stream)
}

#[cfg(test)]
mod tests {
    use tch::Tensor;

    use super::*;

    /// Of two numbers for one place the order of threads decides which stays, on a CPU as well, so that
    /// libtorch refuses the operation where the same bits are asked for.
    #[test]
    fn what_depends_on_the_order_of_threads_is_refused_where_the_same_bits_are_asked_for() {
        let put = || {
            let index = Tensor::from_slice(&[1i64, 1]);
            Tensor::zeros([2], tch::kind::FLOAT_CPU).f_put_(
                &index,
                &Tensor::from_slice(&[1f32, 2.0]),
                false,
            )
        };
        let set = |deterministic| Compute { deterministic, tf32: false }.set().unwrap();
        let _ = put().unwrap();
        set(true);
        let error = put().unwrap_err().to_string();
        assert!(error.contains("deterministic"), "{error}");
        set(false);
        let _ = put().unwrap();
    }

    #[test]
    fn a_gpu_that_is_not_there_has_no_stream() {
        assert_eq!(current_stream(usize::MAX), None);
        if !tch::Cuda::is_available() {
            assert_eq!(current_stream(0), None);
        }
    }
}

//! How exact f32 is on GPUs.

#![allow(unsafe_code)]

use tch::TchError;

use crate::ffi;

/// Says whether GPUs may round the factors of f32 products and convolutions to the 10 bits of TF32, from now
/// on and in the whole process. libtorch begins with yes for convolutions and no for products; a CPU has no
/// TF32.
///
/// # Errors
///
/// libtorch's words if it refuses.
pub fn allow_tf32(is_allowed: bool) -> Result<(), TchError> {
    // SAFETY: it takes a number and changes settings of libtorch, and `take` owns what it gives.
    unsafe { ffi::take(ffi::pfc_autograd_allow_tf32(is_allowed.into())) }.map_err(TchError::Torch)
}

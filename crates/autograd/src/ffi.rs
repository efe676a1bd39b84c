//! The functions of `cpp/bridge.cpp`, where each is described. Tensors are pointers to `at::Tensor`,
//! which `torch-sys` calls `C_tensor`.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_void};

use torch_sys::C_tensor;

/// The gradient of an operator, as functions that libtorch calls.
#[repr(C)]
pub struct PfcGradient {
    pub context: *mut c_void,
    pub apply: unsafe extern "C" fn(
        *mut c_void,
        *mut C_tensor,
        i32,
        *mut *mut C_tensor,
        usize,
    ) -> *mut c_char,
    pub drop: unsafe extern "C" fn(*mut c_void),
}

unsafe extern "C" {
    pub fn pfc_autograd_record(
        output: *mut C_tensor,
        inputs: *const *mut C_tensor,
        n_inputs: usize,
        gradient: *const PfcGradient,
    ) -> *mut c_char;
    pub fn pfc_autograd_parallel_for(
        n: i64,
        context: *mut c_void,
        body: unsafe extern "C" fn(*mut c_void, i64, i64),
    ) -> *mut c_char;
    fn pfc_autograd_text_free(text: *mut c_char);
}

/// Takes over what a function of the bridge gave back.
///
/// # Safety
///
/// `text` comes from a function of the bridge and is used nowhere else.
pub unsafe fn take(text: *mut c_char) -> Result<(), String> {
    if text.is_null() {
        return Ok(());
    }
    // SAFETY: the text ends in a zero byte and lives until it is freed, which happens below.
    let message = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
    // SAFETY: the caller hands over the only pointer.
    unsafe { pfc_autograd_text_free(text) };
    Err(message)
}

//! The functions of `cpp/operators.cpp`, `cpp/lists.cpp` and `cpp/packages.cpp`, where each is described. Tensors are
//! pointers to `at::Tensor`, which `torch-sys` calls `C_tensor`.

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

/// How `lists::sgd` moves weights.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub struct Sgd {
    /// Learning rate.
    pub lr: f64,
    /// Share of the velocity that is kept, more than 0.
    pub momentum: f64,
    /// Share of the weight that is added to the gradient.
    pub weight_decay: f64,
}

/// How `lists::adamw` moves weights.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub struct Adamw {
    /// Learning rate.
    pub lr: f64,
    /// Share of the mean of gradients that is kept.
    pub beta1: f64,
    /// Share of the mean of their squares that is kept.
    pub beta2: f64,
    /// Decay: weights lose `lr` times this share of themselves.
    pub weight_decay: f64,
    /// Added to the divisor.
    pub eps: f64,
}

/// A package that the bridge has loaded.
#[repr(C)]
pub struct PfcPackage {
    _opaque: [u8; 0],
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
    pub fn pfc_autograd_allow_tf32(is_allowed: i32) -> *mut c_char;
    pub fn pfc_lists_change(
        op: i32,
        targets: *const *mut C_tensor,
        sources: *const *mut C_tensor,
        n: usize,
        number: f64,
    ) -> *mut c_char;
    pub fn pfc_lists_norms(
        tensors: *const *mut C_tensor,
        n: usize,
        norms: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub fn pfc_lists_sgd(
        weights: *const *mut C_tensor,
        gradients: *const *mut C_tensor,
        velocities: *const *mut C_tensor,
        n: usize,
        sgd: *const Sgd,
    ) -> *mut c_char;
    pub fn pfc_lists_adamw(
        weights: *const *mut C_tensor,
        gradients: *const *mut C_tensor,
        means: *const *mut C_tensor,
        squares: *const *mut C_tensor,
        n_steps: *mut C_tensor,
        n: usize,
        adamw: *const Adamw,
    ) -> *mut c_char;
    pub fn pfc_package_load(
        path: *const c_char,
        device: i32,
        package: *mut *mut PfcPackage,
    ) -> *mut c_char;
    pub fn pfc_package_run(
        package: *mut PfcPackage,
        inputs: *const *mut C_tensor,
        n_inputs: usize,
        outputs: *mut *mut C_tensor,
        n_outputs: usize,
    ) -> *mut c_char;
    pub fn pfc_package_free(package: *mut PfcPackage);
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

//! The values that ranks give each other, as libtorch asks for them.

#![allow(unsafe_code)]

use std::{
    ffi::{CStr, CString, c_char, c_void},
    slice,
    time::Duration,
};

use crate::{
    ffi::{Fail, PfcValues, Receive},
    liveness::Values,
};

/// Functions of C that work on `values`; whoever takes them calls `drop` in the end.
pub(super) fn functions_of(values: Values) -> PfcValues {
    let context = Box::into_raw(Box::new(values)).cast();
    PfcValues { context, set, get, has, drop: drop_values }
}

/// # Safety
///
/// `context` comes from [`functions_of`], and `key` ends in a zero byte; both live through the call.
unsafe fn given<'a>(context: *mut c_void, key: *const c_char) -> (&'a Values, String) {
    // SAFETY: as the caller says.
    unsafe { (&*context.cast::<Values>(), CStr::from_ptr(key).to_string_lossy().into_owned()) }
}

unsafe extern "C" fn set(context: *mut c_void, key: *const c_char, value: *const u8, size: usize) {
    // SAFETY: as `PfcValues` has it.
    let (values, key) = unsafe { given(context, key) };
    let value = match size {
        0 => Vec::new(),
        // SAFETY: the caller gives `size` bytes.
        _ => unsafe { slice::from_raw_parts(value, size) }.to_vec(),
    };
    values.set(key, value);
}

unsafe extern "C" fn get(
    context: *mut c_void,
    key: *const c_char,
    timeout_ms: i64,
    target: *mut c_void,
    receive: Receive,
    fail: Fail,
) {
    // SAFETY: as `PfcValues` has it.
    let (values, key) = unsafe { given(context, key) };
    // 0 is libtorch's word for no timeout.
    let timeout = match u64::try_from(timeout_ms) {
        Ok(0) | Err(_) => Duration::from_secs(3600),
        Ok(timeout_ms) => Duration::from_millis(timeout_ms),
    };
    match values.get(&key, timeout) {
        // SAFETY: it copies the bytes.
        Ok(value) => unsafe { receive(target, value.as_ptr(), value.len()) },
        Err(reason) => {
            let reason = CString::new(reason.replace('\0', " ")).unwrap_or_default();
            // SAFETY: it copies the text.
            unsafe { fail(target, reason.as_ptr()) };
        }
    }
}

unsafe extern "C" fn has(context: *mut c_void, key: *const c_char) -> i32 {
    // SAFETY: as `PfcValues` has it.
    let (values, key) = unsafe { given(context, key) };
    values.has(&key).into()
}

unsafe extern "C" fn drop_values(context: *mut c_void) {
    // SAFETY: it comes from `functions_of` and is used no more.
    drop(unsafe { Box::from_raw(context.cast::<Values>()) });
}

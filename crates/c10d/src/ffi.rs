//! The functions of `cpp/bridge.h`, where each is described, and sockets that are inherited.
//!
//! Every function that returns a `PfcFailure` pointer returns null if it did not fail; [`take`] makes a
//! `Result` of it. A handle that a function puts into `out` belongs to the caller, who gives it to the
//! `_free` function of its type once. Tensors are pointers to `at::Tensor`.

#![allow(unsafe_code)]

use std::{
    ffi::{CStr, c_char, c_void},
    io,
    net::TcpListener,
    os::fd::{BorrowedFd, FromRawFd},
};

use rustix::{io::FdFlags, net::sockopt};

/// Declares types that are only ever pointed at.
macro_rules! opaque {
    ($($name:ident),*) => {
        $(
            #[repr(C)]
            pub struct $name {
                _private: [u8; 0],
            }
        )*
    };
}

opaque!(PfcStore, PfcGroup, PfcWork, PfcReducer, PfcFailure);

/// How the store of `torchrun`'s agent is reached.
#[repr(C)]
pub struct PfcStoreSpec {
    pub host: *const c_char,
    pub port: u16,
    pub timeout_ms: i64,
    pub prefix: *const c_char,
}

/// Takes a value.
pub type Receive = unsafe extern "C" fn(*mut c_void, *const u8, usize);
/// Takes the reason why there is no value.
pub type Fail = unsafe extern "C" fn(*mut c_void, *const c_char);

/// The values that ranks give each other, as functions that libtorch calls.
#[repr(C)]
pub struct PfcValues {
    pub context: *mut c_void,
    pub set: unsafe extern "C" fn(*mut c_void, *const c_char, *const u8, usize),
    pub get: unsafe extern "C" fn(*mut c_void, *const c_char, i64, *mut c_void, Receive, Fail),
    pub has: unsafe extern "C" fn(*mut c_void, *const c_char) -> i32,
    pub drop: unsafe extern "C" fn(*mut c_void),
}

/// How a group is opened.
#[repr(C)]
pub struct PfcGroupSpec {
    pub rank: i32,
    pub world: i32,
    pub timeout_ms: i64,
    pub interfaces: *const c_char,
    pub hostname: *const c_char,
    pub with_nccl: i32,
}

/// `PFC_PENDING` of the header.
pub const PENDING: i32 = 1;

unsafe extern "C" {
    pub fn pfc_compute_set(deterministic: i32, tf32: i32) -> *mut PfcFailure;
    pub fn pfc_current_stream(index: i32, out: *mut *mut c_void) -> *mut PfcFailure;

    pub fn pfc_failure_timed_out(failure: *const PfcFailure) -> i32;
    pub fn pfc_failure_message(failure: *const PfcFailure) -> *const c_char;
    pub fn pfc_failure_free(failure: *mut PfcFailure);

    pub fn pfc_silence();

    pub fn pfc_store_open(spec: *const PfcStoreSpec, out: *mut *mut PfcStore) -> *mut PfcFailure;
    pub fn pfc_store_set(
        store: *mut PfcStore,
        key: *const c_char,
        value: *const c_char,
    ) -> *mut PfcFailure;
    pub fn pfc_store_get(
        store: *mut PfcStore,
        key: *const c_char,
        out: *mut *mut c_char,
    ) -> *mut PfcFailure;
    pub fn pfc_store_free(store: *mut PfcStore);
    pub fn pfc_text_free(text: *mut c_char);

    pub fn pfc_group_open(
        values: *const PfcValues,
        spec: *const PfcGroupSpec,
        out: *mut *mut PfcGroup,
    ) -> *mut PfcFailure;
    pub fn pfc_group_abort(group: *mut PfcGroup) -> *mut PfcFailure;
    pub fn pfc_group_free(group: *mut PfcGroup);

    pub fn pfc_all_reduce(
        group: *mut PfcGroup,
        tensor: *mut c_void,
        reduce: i32,
        out: *mut *mut PfcWork,
    ) -> *mut PfcFailure;
    pub fn pfc_all_gather(
        group: *mut PfcGroup,
        output: *mut c_void,
        input: *mut c_void,
        out: *mut *mut PfcWork,
    ) -> *mut PfcFailure;
    pub fn pfc_reduce_scatter(
        group: *mut PfcGroup,
        output: *mut c_void,
        input: *mut c_void,
        out: *mut *mut PfcWork,
    ) -> *mut PfcFailure;
    pub fn pfc_broadcast(
        group: *mut PfcGroup,
        tensor: *mut c_void,
        root: i32,
        out: *mut *mut PfcWork,
    ) -> *mut PfcFailure;
    pub fn pfc_barrier(group: *mut PfcGroup, out: *mut *mut PfcWork) -> *mut PfcFailure;

    pub fn pfc_work_wait(work: *mut PfcWork, timeout_ms: i64, state: *mut i32) -> *mut PfcFailure;
    pub fn pfc_work_order(work: *mut PfcWork) -> *mut PfcFailure;
    pub fn pfc_work_free(work: *mut PfcWork);

    pub fn pfc_reducer_new(
        group: *mut PfcGroup,
        parameters: *const *mut c_void,
        n_parameters: usize,
        bucket_bytes: i64,
        out: *mut *mut PfcReducer,
    ) -> *mut PfcFailure;
    pub fn pfc_reducer_begin(reducer: *mut PfcReducer) -> *mut PfcFailure;
    pub fn pfc_reducer_backward(
        reducer: *mut PfcReducer,
        objective: *mut c_void,
    ) -> *mut PfcFailure;
    pub fn pfc_reducer_finish(reducer: *mut PfcReducer, received: *mut u8) -> *mut PfcFailure;
    pub fn pfc_reducer_free(reducer: *mut PfcReducer);

    pub fn pfc_nccl_available() -> i32;
    pub fn pfc_device_id(index: i32, out: *mut *mut c_char) -> *mut PfcFailure;
}

/// What libtorch threw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub timed_out: bool,
    pub message: String,
}

impl Failure {
    pub fn new(message: String) -> Failure {
        Failure { timed_out: false, message }
    }
}

/// Takes over a listening socket that this process has inherited under the number `fd`.
///
/// # Errors
///
/// `fd` is not open, or is no socket that listens.
pub fn adopt_listener(fd: i32) -> io::Result<TcpListener> {
    let is_plain = fd > 2;
    if !is_plain {
        return Err(io::Error::other(format!("descriptor {fd} is no inherited socket")));
    }
    // SAFETY: it is only asked about here, and an unused number is answered with an error.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    let listens = sockopt::socket_acceptconn(borrowed).unwrap_or(false);
    if !listens {
        return Err(io::Error::other(format!("descriptor {fd} is no socket that listens")));
    }
    // The children of this process have no business with it.
    rustix::io::fcntl_setfd(borrowed, FdFlags::CLOEXEC)?;
    // SAFETY: it is open, and whoever set the variable that names it left it for this.
    Ok(unsafe { TcpListener::from_raw_fd(fd) })
}

/// Takes over what a function of the bridge gave back.
///
/// # Safety
///
/// `failure` comes from a function of the bridge and is used nowhere else.
pub unsafe fn take(failure: *mut PfcFailure) -> Result<(), Failure> {
    if failure.is_null() {
        return Ok(());
    }
    // SAFETY: a failure is live until it is freed, which happens below, and its message ends in a
    // zero byte.
    let (timed_out, message) = unsafe {
        let message = CStr::from_ptr(pfc_failure_message(failure)).to_string_lossy().into_owned();
        (pfc_failure_timed_out(failure) == 1, message)
    };
    // SAFETY: the caller hands over the only pointer.
    unsafe { pfc_failure_free(failure) };
    Err(Failure { timed_out, message: tidy(&message) })
}

/// The first line, without the place in libtorch's or Gloo's sources that it begins with.
fn tidy(message: &str) -> String {
    let line = message.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("no reason");
    let rest = match line.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some((place, rest)) if place.contains(".cc:") || place.contains(".cpp:") => rest,
        _ => line,
    };
    rest.trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_one_line_without_a_place_in_foreign_sources() {
        let gloo = "[../third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer \
                    [127.0.0.1]:4711. This means\nmore";
        assert_eq!(tidy(gloo), "Connection closed by peer [127.0.0.1]:4711. This means");
        assert_eq!(tidy("\n plain.\n"), "plain");
        assert_eq!(tidy(""), "no reason");
    }
}

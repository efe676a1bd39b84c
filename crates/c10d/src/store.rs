//! The key-value store that ranks meet at.

#![allow(unsafe_code)]

use std::{
    ffi::{CStr, CString},
    ptr,
    time::Duration,
};

use crate::{
    Rendezvous,
    ffi::{self, Failure, PfcStore},
};

/// libtorch's `TCPStore`, that of rank 0 or of `torchrun`.
///
/// It is for meeting alone: where the server is gone, every call first asks the name server what its
/// address is called, which may take longer than the group's timeout.
#[derive(Debug)]
pub(crate) struct Store {
    raw: *mut PfcStore,
}

// SAFETY: the object has no home thread, and locks itself.
unsafe impl Send for Store {}
// SAFETY: as above.
unsafe impl Sync for Store {}

impl Store {
    /// Connects, and serves the others if this is the rank that does.
    pub(crate) fn open(place: &Rendezvous, timeout: Duration) -> Result<Store, Failure> {
        let host = c_string(&place.host)?;
        let prefix = c_string(&format!("pfc/{}", place.attempt))?;
        let spec = ffi::PfcStoreSpec {
            host: host.as_ptr(),
            port: place.port,
            listen_fd: place.listen_fd.filter(|_| place.serves()).unwrap_or(-1),
            is_server: place.serves().into(),
            world: place.world as u32,
            timeout_ms: milliseconds(timeout),
            prefix: prefix.as_ptr(),
        };
        let mut raw = ptr::null_mut();
        // SAFETY: the spec and its texts outlive the call.
        unsafe { ffi::take(ffi::pfc_store_open(&raw const spec, &raw mut raw)) }?;
        Ok(Store { raw })
    }

    pub(crate) fn set(&self, key: &CStr, value: &str) -> Result<(), Failure> {
        let value = c_string(value)?;
        // SAFETY: the handle is live and both texts end in a zero byte.
        unsafe { ffi::take(ffi::pfc_store_set(self.raw, key.as_ptr(), value.as_ptr())) }
    }

    /// Waits for the key to be set.
    pub(crate) fn get(&self, key: &CStr) -> Result<String, Failure> {
        let mut text = ptr::null_mut();
        // SAFETY: the handle is live and `text` outlives the call.
        unsafe { ffi::take(ffi::pfc_store_get(self.raw, key.as_ptr(), &raw mut text)) }?;
        // SAFETY: the bridge ends the text in a zero byte, and this is its only owner.
        unsafe {
            let owned = CStr::from_ptr(text).to_string_lossy().into_owned();
            ffi::pfc_text_free(text);
            Ok(owned)
        }
    }

    pub(crate) fn raw(&self) -> *mut PfcStore {
        self.raw
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: this is its only owner.
        unsafe { ffi::pfc_store_free(self.raw) };
    }
}

pub(crate) fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

pub(crate) fn c_string(text: &str) -> Result<CString, Failure> {
    let fail = |_| Failure { timed_out: false, message: format!("{text:?} holds a zero byte") };
    CString::new(text).map_err(fail)
}

//! The key-value store of `torchrun`'s agent, at which ranks learn the port of rank 0.

#![allow(unsafe_code)]

use std::{
    ffi::{CStr, CString},
    ptr,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use super::Rendezvous;
use crate::{
    C10dError,
    ffi::{self, Failure, PfcStore},
    patience::Patience,
};

/// A connection to the store, a `TCPStore` of libtorch.
///
/// libtorch reads from it without a deadline, so that every call is made in a thread of its own. Where
/// no answer comes the thread is left behind: the process is about to end then.
#[derive(Debug)]
pub(crate) struct Agent {
    place: Rendezvous,
    raw: Arc<Raw>,
}

#[derive(Debug)]
struct Raw(*mut PfcStore);

// SAFETY: the object has no home thread, and locks itself.
unsafe impl Send for Raw {}
// SAFETY: as above.
unsafe impl Sync for Raw {}

impl Agent {
    /// Connects.
    pub(crate) fn open(place: &Rendezvous, patience: Patience) -> Result<Agent, C10dError> {
        let (host, port) = (place.host.clone(), place.port);
        // A store lives through all attempts of a run.
        let prefix = format!("pfc/{}", place.attempt);
        let timeout_ms = milliseconds(patience.left());
        let open = move || {
            let (host, prefix) = (c_string(&host)?, c_string(&prefix)?);
            let spec = ffi::PfcStoreSpec {
                host: host.as_ptr(),
                port,
                timeout_ms,
                prefix: prefix.as_ptr(),
            };
            let mut raw = ptr::null_mut();
            // SAFETY: the spec and its texts outlive the call.
            unsafe { ffi::take(ffi::pfc_store_open(&raw const spec, &raw mut raw)) }?;
            Ok(Raw(raw))
        };
        let raw = Arc::new(by(place, patience, open)?);
        Ok(Agent { place: place.clone(), raw })
    }

    /// Sets a value.
    pub(crate) fn set(&self, key: &str, value: &str, patience: Patience) -> Result<(), C10dError> {
        let (raw, key, value) = (Arc::clone(&self.raw), key.to_owned(), value.to_owned());
        by(&self.place, patience, move || {
            let (key, value) = (c_string(&key)?, c_string(&value)?);
            // SAFETY: the handle is live and both texts end in a zero byte.
            unsafe { ffi::take(ffi::pfc_store_set(raw.0, key.as_ptr(), value.as_ptr())) }
        })
    }

    /// Waits for a value to be set.
    pub(crate) fn get(&self, key: &str, patience: Patience) -> Result<String, C10dError> {
        let (raw, key) = (Arc::clone(&self.raw), key.to_owned());
        by(&self.place, patience, move || {
            let (key, mut text) = (c_string(&key)?, ptr::null_mut());
            // SAFETY: the handle is live and `text` outlives the call.
            unsafe { ffi::take(ffi::pfc_store_get(raw.0, key.as_ptr(), &raw mut text)) }?;
            // SAFETY: the bridge ends the text in a zero byte, and this is its only owner.
            unsafe {
                let owned = CStr::from_ptr(text).to_string_lossy().into_owned();
                ffi::pfc_text_free(text);
                Ok(owned)
            }
        })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // SAFETY: this is its only owner.
        unsafe { ffi::pfc_store_free(self.0) };
    }
}

/// Runs `call` in a thread, for as long as there is time.
fn by<T: Send + 'static>(
    place: &Rendezvous,
    patience: Patience,
    call: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, C10dError> {
    let (give, done) = mpsc::channel();
    let run = move || {
        // Nobody may be waiting any more.
        let _ = give.send(call());
    };
    let thread = thread::Builder::new().name("agent".to_owned()).spawn(run);
    thread.map_err(|error| place.refused(format!("no thread to ask the agent in: {error}")))?;
    // A moment longer than libtorch's own timeout, so that it gets to say why.
    let deadline = patience.deadline + Duration::from_secs(1);
    match (Patience { deadline, ..patience }).receive(place.rank, &done)? {
        Some(Ok(value)) => Ok(value),
        Some(Err(failure)) => Err(place.refused(format!(
            "the store of torchrun's agent, which TORCHELASTIC_USE_AGENT_STORE says is there: {}",
            failure.message
        ))),
        None => Err(place.refused(
            "what listens there does not answer as the store of torchrun's agent, which \
             TORCHELASTIC_USE_AGENT_STORE says it is"
                .to_owned(),
        )),
    }
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn c_string(text: &str) -> Result<CString, Failure> {
    CString::new(text).map_err(|_| Failure::new(format!("{text:?} holds a zero byte")))
}

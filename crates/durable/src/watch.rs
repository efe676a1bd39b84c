//! What is done to names and what is made safe, told to a test that replays power cuts.
//!
//! Where nobody watches, telling costs a look at a flag.

use std::{
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// Something that was done, on any thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done<'a> {
    /// A name was made, changed or removed, or something was written to a file.
    Changed(&'a Path),
    /// The bytes of a file survive a power cut.
    Synced(&'a Path),
    /// So do the names in a folder.
    NamesSynced(&'a Path),
}

type Watcher = Box<dyn FnMut(Done<'_>) + Send>;

static IS_WATCHED: AtomicBool = AtomicBool::new(false);
static WATCHER: Mutex<Option<Watcher>> = Mutex::new(None);

/// Has all that is done from now on in this process told to `watcher`, or to nobody.
pub fn watch(watcher: Option<Watcher>) {
    IS_WATCHED.store(watcher.is_some(), Ordering::SeqCst);
    *WATCHER.lock().unwrap_or_else(PoisonError::into_inner) = watcher;
}

/// Tells the watcher, if there is one; for whoever changes names by other ways than this crate.
pub fn tell(done: Done<'_>) {
    if !IS_WATCHED.load(Ordering::Relaxed) {
        return;
    }
    if let Some(watcher) = &mut *WATCHER.lock().unwrap_or_else(PoisonError::into_inner) {
        watcher(done);
    }
}

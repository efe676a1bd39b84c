//! Reading rows of files ahead.

use std::{fs::File, num::NonZeroU64, sync::Arc, thread::JoinHandle};

use rustix::fs::{Advice, fadvise};

/// A thread that tells the system which rows will be needed.
#[derive(Debug, Default)]
pub(super) struct Prefetch {
    running: Option<JoinHandle<()>>,
}

impl Prefetch {
    /// Has the system read rows into memory, in the background.
    ///
    /// * `starts`: where in the file each row begins
    pub fn read(&mut self, file: Arc<File>, starts: Vec<u64>, row_bytes: usize) {
        if self.running.as_ref().is_some_and(|running| !running.is_finished()) {
            // The disk is behind as it is.
            return;
        }
        let len = NonZeroU64::new(row_bytes as u64);
        let read = move || {
            for start in starts {
                // It is advice: where the system does not take it, the row is read when touched.
                let _ = fadvise(&*file, start, len, Advice::WillNeed);
            }
        };
        self.running = std::thread::Builder::new().name("prefetch".to_owned()).spawn(read).ok();
    }
}

impl Drop for Prefetch {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            let _ = running.join();
        }
    }
}

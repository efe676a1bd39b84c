//! What the readers of files have in common: where they were opened, and with how many threads.

use std::{path::PathBuf, thread};

use pyo3::{prelude::*, types::PyDict};

use crate::failure::Failure;

/// How a reader was opened, and so how a copy of it in another process is.
#[derive(Debug)]
pub struct Opened {
    /// The file or folder.
    pub path: PathBuf,
    /// Threads that decode a batch; as many as suit the process where none are stated.
    threads: Option<usize>,
}

impl Opened {
    /// # Errors
    ///
    /// For no threads at all.
    pub fn new(path: PathBuf, threads: Option<usize>) -> Result<Opened, Failure> {
        match threads {
            Some(0) => Err(Failure::value("0 threads", "give 1 or more, or None")),
            _ => Ok(Opened { path, threads }),
        }
    }

    /// Threads to decode with: as stated, else one in a process that another one started to help it, and one per
    /// core elsewhere.
    pub fn threads(&self, py: Python<'_>) -> PyResult<usize> {
        match self.threads {
            Some(threads) => Ok(threads),
            None if is_worker(py)? => Ok(1),
            None => Ok(thread::available_parallelism().map_or(1, |n| n.get())),
        }
    }

    /// The named arguments that a copy is opened with.
    pub fn named<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let named = PyDict::new(py);
        named.set_item("threads", self.threads)?;
        Ok(named)
    }
}

/// Whether Python's multiprocessing started this process.
fn is_worker(py: Python<'_>) -> PyResult<bool> {
    let parent = py.import("multiprocessing")?.call_method0("parent_process")?;
    Ok(!parent.is_none())
}

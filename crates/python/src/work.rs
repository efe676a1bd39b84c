//! Work without the interpreter's lock: threads of this process, panics, and Ctrl-C.

use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    process,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use crossbeam_channel::{RecvTimeoutError, bounded};
use pyo3::{PyErr, PyResult, Python};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::failure::Failure;

/// Between two looks at whether Ctrl-C was pressed.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Those that most work shares.
static SHARED: Threads = Threads::new(0);

/// Threads of this process. One that was forked gets threads of its own: those of its parent are not in it, and
/// would be waited for without end.
#[derive(Debug)]
pub struct Threads {
    /// 0 for one per core.
    n_threads: usize,
    /// The threads, and the process that they are of.
    pool: Mutex<Option<(u32, Arc<ThreadPool>)>>,
}

impl Threads {
    /// `n_threads` threads, or one per core if it is 0, which are started when they are first needed.
    pub const fn new(n_threads: usize) -> Threads {
        Threads { n_threads, pool: Mutex::new(None) }
    }

    fn pool(&self) -> Result<Arc<ThreadPool>, Failure> {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, pool)) = &*pool
            && *of == process::id()
        {
            return Ok(Arc::clone(pool));
        }
        let name = |i| format!("pfc {i}");
        let built = ThreadPoolBuilder::new().num_threads(self.n_threads).thread_name(name).build();
        let built = Arc::new(built.map_err(|error| no_threads(&error))?);
        // The parent's is not dropped, since that would wait for threads that are not there.
        mem::forget(pool.replace((process::id(), Arc::clone(&built))));
        Ok(built)
    }

    /// Runs short work on the threads, while other Python threads run.
    ///
    /// # Errors
    ///
    /// The work's own; a panic is one too.
    pub fn released<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce() -> Result<T, Failure> + Send,
    ) -> PyResult<T> {
        let pool = self.pool()?;
        Ok(py.detach(|| caught(|| pool.install(work)))?)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        let pool = self.pool.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((of, pool)) = pool
            && of != process::id()
        {
            mem::forget(pool);
        }
    }
}

/// Whether somebody asked the work to end.
#[derive(Debug, Default)]
pub struct Stop(AtomicBool);

impl Stop {
    /// Whether to end.
    pub fn is_set(&self) -> bool {
        self.0.load(Relaxed)
    }

    /// Asks the work to end.
    pub fn set(&self) {
        self.0.store(true, Relaxed);
    }

    /// The error that ends work which was asked to; nobody sees it.
    ///
    /// # Errors
    ///
    /// If it is set.
    pub fn check(&self) -> Result<(), Failure> {
        match self.is_set() {
            true => Err(Failure::other("interrupted", "start it again")),
            false => Ok(()),
        }
    }
}

/// Runs short work on the threads that most work shares, while other Python threads run.
///
/// # Errors
///
/// As [`Threads::released`].
pub fn released<T: Send>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<T, Failure> + Send,
) -> PyResult<T> {
    SHARED.released(py, work)
}

/// As [`released`], on the calling thread: for work that is too little to be handed on.
///
/// # Errors
///
/// As [`released`].
pub fn inline<T: Send>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<T, Failure> + Send,
) -> PyResult<T> {
    Ok(py.detach(|| caught(work))?)
}

/// As [`released`], for long work, which Ctrl-C ends: `work` is told through [`Stop`], and the
/// exception that the signal's handler raised comes out.
///
/// # Errors
///
/// As [`released`].
pub fn interruptible<T: Send>(
    py: Python<'_>,
    work: impl FnOnce(&Stop) -> Result<T, Failure> + Send,
) -> PyResult<T> {
    let pool = SHARED.pool()?;
    let stop = Stop::default();
    let (done, is_done) = bounded(1);
    let work = || {
        let result = caught(|| pool.install(|| work(&stop)));
        // The receiver outlives this thread.
        let _ = done.send(());
        result
    };
    py.detach(|| {
        thread::scope(|scope| {
            let worker = scope.spawn(work);
            let mut interrupted: Option<PyErr> = None;
            while let Err(RecvTimeoutError::Timeout) = is_done.recv_timeout(LOOK_EVERY) {
                if interrupted.is_none()
                    && let Err(error) = Python::attach(|py| py.check_signals())
                {
                    stop.set();
                    interrupted = Some(error);
                }
            }
            let result = worker.join().unwrap_or_else(|_| Err(fault_of_ours("a thread ended")));
            match interrupted {
                Some(error) => Err(error),
                None => Ok(result?),
            }
        })
    })
}

/// Makes an error of a panic: none goes on into Python.
///
/// # Errors
///
/// The work's own.
pub fn caught<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(fault_of_ours(text.unwrap_or("a panic without a message")))
    })
}

/// What the system says when it starts no more threads.
pub fn no_threads(error: &dyn std::error::Error) -> Failure {
    Failure::other(
        format!("the system grants no threads: {error}"),
        "use fewer processes, or raise the limit (`ulimit -u`)",
    )
}

fn fault_of_ours(what: &str) -> Failure {
    Failure::other(
        format!("internal error: {what}"),
        "this is a fault of pfc: please report it with the call that led to it",
    )
}

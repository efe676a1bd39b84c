//! A group of ranks and the exchanges between them.

#![allow(unsafe_code)]

use std::{
    ffi::{CStr, c_void},
    ptr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use tch::Tensor;

use crate::{
    C10dError, Rendezvous,
    ffi::{self, Failure, PfcFailure, PfcGroup, PfcWork},
    liveness::{Liveness, MEETING},
    store::{Store, c_string, milliseconds},
};

/// How long a wait goes on before it looks whether another rank has given up.
const SLICE: Duration = Duration::from_millis(250);
/// How much longer than libtorch's own timeout a wait goes on, so that libtorch gets to say why.
const GRACE: Duration = Duration::from_secs(5);

/// How a group is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupOptions {
    /// How long ranks wait for each other, in the beginning and in every operation.
    pub timeout: Duration,
    /// Whether tensors on CUDA devices can be exchanged too.
    pub nccl: bool,
}

/// How numbers of several ranks become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduce {
    /// Added. The order is libtorch's: equal on all ranks, and in every run of as many of them.
    Sum,
    /// The largest; with a NaN among them, unspecified.
    Max,
}

/// Whether NCCL was built in and there is a GPU.
#[must_use]
pub fn nccl_available() -> bool {
    // SAFETY: it takes nothing and only asks.
    unsafe { ffi::pfc_nccl_available() == 1 }
}

/// One rank's membership of a group.
///
/// Tensors are exchanged by the backend of their device. Shapes and types have to be equal on all
/// ranks unless something else is said.
#[derive(Debug)]
pub struct ProcessGroup {
    place: Rendezvous,
    timeout: Duration,
    /// Locked while an operation is started: c10d numbers them without a lock of its own.
    group: Mutex<Group>,
    liveness: Liveness,
    /// Set by the first failure: an operation may then be under way for ever.
    broken: AtomicBool,
}

#[derive(Debug)]
struct Group(*mut PfcGroup);

// SAFETY: it points at an object that any thread may use, one at a time.
unsafe impl Send for Group {}

impl ProcessGroup {
    /// Meets the other ranks, and waits for all of them.
    ///
    /// # Errors
    ///
    /// [`C10dError::Rendezvous`] if they are not all there within the timeout,
    /// [`C10dError::Aborted`] and [`C10dError::Gone`] if one of those that came is lost meanwhile.
    pub fn join(place: &Rendezvous, options: GroupOptions) -> Result<ProcessGroup, C10dError> {
        let refused = |Failure { message, .. }: Failure| place.refused(message);
        let store = Arc::new(Store::open(place, options.timeout).map_err(refused)?);
        let liveness = Liveness::join(place, &store, options.timeout)?;
        match open_group(place, options, store, &liveness) {
            Ok(group) => Ok(ProcessGroup {
                place: place.clone(),
                timeout: options.timeout,
                group: Mutex::new(group),
                liveness,
                broken: AtomicBool::new(false),
            }),
            Err(error) => {
                liveness.abort(&error.to_string());
                Err(error)
            }
        }
    }

    /// Number of this rank, from 0.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.place.rank
    }

    /// Number of ranks, at least 1.
    #[must_use]
    pub fn world(&self) -> usize {
        self.place.world
    }

    /// This process's place among the ranks.
    #[must_use]
    pub fn place(&self) -> &Rendezvous {
        &self.place
    }

    /// Joins `tensor` with those of the other ranks, element by element.
    ///
    /// # Errors
    ///
    /// [`C10dError`] if a rank is gone, has given up or does not come in time, here and below.
    pub fn all_reduce(&self, tensor: Tensor, reduce: Reduce) -> Result<Tensor, C10dError> {
        self.start_all_reduce(tensor, reduce)?.wait()
    }

    /// Begins [`all_reduce`](ProcessGroup::all_reduce). Leave the tensor's memory alone until the
    /// wait is over.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn start_all_reduce(
        &self,
        tensor: Tensor,
        reduce: Reduce,
    ) -> Result<Pending<'_>, C10dError> {
        let mut output = tensor.contiguous();
        let (pointer, code) = (raw(&mut output), i32::from(reduce == Reduce::Max));
        self.start("all-reduce", output, |group, work| {
            // SAFETY: `pointer` is the output's, which outlives the work.
            unsafe { ffi::pfc_all_reduce(group, pointer, code, work) }
        })
    }

    /// The tensors of all ranks in rank order, stacked along the first axis: `[B, …]` on each rank
    /// becomes `[W·B, …]`.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn all_gather(&self, tensor: &Tensor) -> Result<Tensor, C10dError> {
        let mut input = tensor.contiguous();
        let mut shape = input.size();
        let first = shape.first_mut().expect("a tensor to gather has a first axis");
        *first *= self.world() as i64;
        let mut output = Tensor::empty(&shape, (input.kind(), input.device()));
        let (into, from) = (raw(&mut output), raw(&mut input));
        let pending = self.start("all-gather", output, |group, work| {
            // SAFETY: both tensors outlive the work.
            unsafe { ffi::pfc_all_gather(group, into, from, work) }
        })?;
        pending.wait()
    }

    /// This rank's part of the sum of all ranks' tensors: `[W·B, …]` on each rank becomes `[B, …]`.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn reduce_scatter(&self, tensor: &Tensor) -> Result<Tensor, C10dError> {
        let mut input = tensor.contiguous();
        let mut shape = input.size();
        let first = shape.first_mut().expect("a tensor to scatter has a first axis");
        *first /= self.world() as i64;
        let mut output = Tensor::empty(&shape, (input.kind(), input.device()));
        let (into, from) = (raw(&mut output), raw(&mut input));
        let pending = self.start("reduce-scatter", output, |group, work| {
            // SAFETY: both tensors outlive the work.
            unsafe { ffi::pfc_reduce_scatter(group, into, from, work) }
        })?;
        pending.wait()
    }

    /// Rank `root`'s tensor, on every rank; the others give one of its shape.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn broadcast(&self, tensor: &Tensor, root: usize) -> Result<Tensor, C10dError> {
        // A copy of its own, as a clone of the handle would be overwritten under its other owner.
        let mut output = tensor.contiguous().copy();
        let (pointer, root) = (raw(&mut output), root as i32);
        let pending = self.start("broadcast", output, |group, work| {
            // SAFETY: `pointer` is the output's, which outlives the work.
            unsafe { ffi::pfc_broadcast(group, pointer, root, work) }
        })?;
        pending.wait()
    }

    /// Waits until every rank has come here.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn barrier(&self) -> Result<(), C10dError> {
        let nothing = Tensor::new();
        let pending = self.start("barrier", nothing, |group, work| {
            // SAFETY: the handle is live.
            unsafe { ffi::pfc_barrier(group, work) }
        })?;
        pending.wait().map(drop)
    }

    /// Every rank's bytes, in rank order; their lengths may differ. In host memory.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn all_gather_bytes(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, C10dError> {
        let lengths = self.all_gather(&Tensor::from_slice(&[bytes.len() as i64]))?;
        let lengths = Vec::<i64>::try_from(&lengths).expect("a vector of 64-bit integers");
        let longest = lengths.iter().copied().max().unwrap_or(0) as usize;
        if longest == 0 {
            return Ok(vec![Vec::new(); self.world()]);
        }
        let mut padded = bytes.to_vec();
        padded.resize(longest, 0);
        let all = self.all_gather(&Tensor::from_slice(&padded))?;
        let all = Vec::<u8>::try_from(&all).expect("a vector of bytes");
        let parts = all.chunks_exact(longest).zip(lengths);
        Ok(parts.map(|(part, length)| part[..length as usize].to_vec()).collect())
    }

    /// Asks whether another rank has given up or is gone, without waiting for anyone.
    ///
    /// # Errors
    ///
    /// [`C10dError::Aborted`] and [`C10dError::Gone`].
    pub fn check(&self) -> Result<(), C10dError> {
        self.lost("the next exchange").map_or(Ok(()), Err)
    }

    /// Tells the other ranks that this one cannot go on, and why: their operations then fail with
    /// [`C10dError::Aborted`]. Of several ranks that give up, the first one is told of.
    ///
    /// Rank 0, through which the others hear of it, stays up to three seconds until they have.
    ///
    /// Returns false if another rank gave up before, whose reason is then the one to be read.
    pub fn abort(&self, reason: &str) -> bool {
        self.broken.store(true, Ordering::Relaxed);
        let is_own = self.liveness.abort(reason);
        let group = self.lock();
        // SAFETY: the handle is live. It may fail where there is nothing to end.
        let _ = unsafe { ffi::take(ffi::pfc_group_abort(group.0)) };
        is_own
    }

    /// Whether a rank has given up or is gone, and so `operation` cannot end.
    fn lost(&self, operation: &'static str) -> Option<C10dError> {
        self.liveness.news().map(|news| news.error(operation, self.rank()))
    }

    fn start(
        &self,
        operation: &'static str,
        output: Tensor,
        begin: impl FnOnce(*mut PfcGroup, *mut *mut PfcWork) -> *mut PfcFailure,
    ) -> Result<Pending<'_>, C10dError> {
        let mut work = ptr::null_mut();
        let failure = begin(self.lock().0, &raw mut work);
        // SAFETY: it comes from the bridge.
        match unsafe { ffi::take(failure) } {
            Ok(()) => Ok(Pending { group: self, operation, work, output, started: Instant::now() }),
            Err(failure) => Err(self.explain(operation, failure)),
        }
    }

    /// Which rank is gone or gave up first, if one has; else libtorch's own reason.
    pub(crate) fn explain(&self, operation: &'static str, failure: Failure) -> C10dError {
        self.broken.store(true, Ordering::Relaxed);
        let rank = self.rank();
        if failure.timed_out {
            let timeout = self.timeout;
            return self.lost(operation).unwrap_or(C10dError::TimedOut {
                rank,
                operation,
                timeout,
            });
        }
        match self.liveness.awaited_news() {
            Some(news) => news.error(operation, rank),
            None => C10dError::Failed { rank, operation, cause: failure.message },
        }
    }

    /// Runs `body` with the raw group while no other operation can be started.
    pub(crate) fn with_group<T>(&self, body: impl FnOnce(*mut PfcGroup) -> T) -> T {
        body(self.lock().0)
    }

    fn lock(&self) -> MutexGuard<'_, Group> {
        // The handle is never changed, so that a panic elsewhere leaves it as it was.
        self.group.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        // Gloo's destructor waits for what is under way, which after a failure may never end. The
        // process is about to end then, and takes the connections with it.
        if self.broken.load(Ordering::Relaxed) {
            return;
        }
        // SAFETY: this is its last user.
        unsafe { ffi::pfc_group_free(self.lock().0) };
    }
}

/// An operation under way.
#[derive(Debug)]
#[must_use = "an operation has to be waited for"]
pub struct Pending<'a> {
    group: &'a ProcessGroup,
    operation: &'static str,
    work: *mut PfcWork,
    output: Tensor,
    started: Instant,
}

impl Pending<'_> {
    /// Waits for the operation to end, and gives back its result.
    ///
    /// # Errors
    ///
    /// [`C10dError`] if a rank is gone, has given up or does not come in time.
    pub fn wait(self) -> Result<Tensor, C10dError> {
        loop {
            let mut state = 0;
            // SAFETY: the work is live until this is dropped.
            let failure =
                unsafe { ffi::pfc_work_wait(self.work, SLICE.as_millis() as i64, &raw mut state) };
            // SAFETY: it comes from the bridge.
            if let Err(failure) = unsafe { ffi::take(failure) } {
                return Err(self.group.explain(self.operation, failure));
            }
            if state != ffi::PENDING {
                return Ok(self.output.shallow_clone());
            }
            if let Some(lost) = self.group.lost(self.operation) {
                self.group.broken.store(true, Ordering::Relaxed);
                return Err(lost);
            }
            if self.started.elapsed() > self.group.timeout + GRACE {
                let failure = Failure { timed_out: true, message: String::new() };
                return Err(self.group.explain(self.operation, failure));
            }
        }
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        // SAFETY: this is its only owner; libtorch keeps what it still needs.
        unsafe { ffi::pfc_work_free(self.work) };
    }
}

/// The `at::Tensor*` of a tensor.
pub(crate) fn raw(tensor: &mut Tensor) -> *mut c_void {
    tensor.as_mut_ptr().cast()
}

/// Opens the backends, which has all ranks connect with each other. In a thread, so that the wait for
/// a rank that is gone ends; libtorch would wait until the timeout.
fn open_group(
    place: &Rendezvous,
    options: GroupOptions,
    store: Arc<Store>,
    liveness: &Liveness,
) -> Result<Group, C10dError> {
    let (give, opened) = mpsc::channel();
    let owned = place.clone();
    let open = move || {
        // If nobody waits any more, the group is left open: the process is about to end.
        let _ = give.send(open_backends(&owned, options, &store));
    };
    let thread = std::thread::Builder::new().name("rendezvous".to_owned());
    thread.spawn(open).map_err(|error| place.refused(error.to_string()))?;
    loop {
        match opened.recv_timeout(SLICE) {
            Ok(Ok(group)) => return Ok(group),
            // The ranks that wait for another one fail too; that one is the reason.
            Ok(Err(failure)) => {
                let news = liveness.awaited_news();
                let own = || place.refused(failure.message);
                return Err(news.map_or_else(own, |news| news.error(MEETING, place.rank)));
            }
            Err(RecvTimeoutError::Timeout) => {
                if let Some(news) = liveness.news() {
                    return Err(news.error(MEETING, place.rank));
                }
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Err(place.refused("the thread that meets the others panicked".to_owned()));
            }
        }
    }
}

fn open_backends(
    place: &Rendezvous,
    options: GroupOptions,
    store: &Store,
) -> Result<Group, Failure> {
    let interfaces = std::env::var("GLOO_SOCKET_IFNAME").ok().filter(|names| !names.is_empty());
    let interfaces = interfaces.map(|names| c_string(&names)).transpose()?;
    // The machine's own name may lead nowhere; ranks on one machine do not need it.
    let hostname = place.is_on_one_machine().then_some(c"127.0.0.1");
    let spec = ffi::PfcGroupSpec {
        rank: place.rank as i32,
        world: place.world as i32,
        timeout_ms: milliseconds(options.timeout),
        interfaces: interfaces.as_deref().map_or(ptr::null(), CStr::as_ptr),
        hostname: hostname.map_or(ptr::null(), CStr::as_ptr),
        with_nccl: options.nccl.into(),
    };
    let mut group = ptr::null_mut();
    // SAFETY: the store is live; the spec and its texts outlive the call.
    unsafe { ffi::take(ffi::pfc_group_open(store.raw(), &raw const spec, &raw mut group)) }?;
    Ok(Group(group))
}

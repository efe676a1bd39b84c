//! A group of ranks and the exchanges between them.

#![allow(unsafe_code)]

use std::{
    ffi::{CStr, CString, c_void},
    ptr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tch::Tensor;

use crate::{
    C10dError, Rendezvous,
    ffi::{self, Failure, PfcFailure, PfcGroup, PfcStore, PfcWork},
};

/// How long a wait goes on before it looks whether another rank has given up.
const SLICE: Duration = Duration::from_millis(250);
/// How long rank 0 stays for the others to read why a rank gave up.
const LINGER: Duration = Duration::from_secs(3);
/// How much longer than libtorch's own timeout a wait goes on, so that libtorch gets to say why.
const GRACE: Duration = Duration::from_secs(5);

const ABORTED: &CStr = c"aborted";
const ABORT_SEEN: &CStr = c"abort-seen";

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
    handles: Mutex<Handles>,
    /// Set by the first failure: an operation may then be under way for ever.
    broken: AtomicBool,
    abort_seen: AtomicBool,
}

#[derive(Debug)]
struct Handles {
    store: *mut PfcStore,
    group: *mut PfcGroup,
}

// SAFETY: both handles point at objects that any thread may use, one at a time.
unsafe impl Send for Handles {}

impl ProcessGroup {
    /// Meets the other ranks, and waits for all of them.
    ///
    /// # Errors
    ///
    /// [`C10dError::Rendezvous`] if they are not all there within the timeout.
    pub fn join(place: &Rendezvous, options: GroupOptions) -> Result<ProcessGroup, C10dError> {
        let fail = |Failure { message, .. }: Failure| C10dError::Rendezvous {
            rank: place.rank,
            world: place.world,
            address: place.address(),
            cause: message,
        };
        let store = open_store(place, options).map_err(fail)?;
        let group = match open_group(place, options, store) {
            Ok(group) => group,
            Err(failure) => {
                // SAFETY: nobody else has it.
                unsafe { ffi::pfc_store_free(store) };
                return Err(fail(failure));
            }
        };
        Ok(ProcessGroup {
            place: place.clone(),
            timeout: options.timeout,
            handles: Mutex::new(Handles { store, group }),
            broken: AtomicBool::new(false),
            abort_seen: AtomicBool::new(false),
        })
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

    /// Asks whether another rank has given up, without waiting for anyone.
    ///
    /// # Errors
    ///
    /// [`C10dError::Aborted`].
    pub fn check(&self) -> Result<(), C10dError> {
        self.aborted().map_or(Ok(()), Err)
    }

    /// Tells the other ranks that this one can not go on, and why: their operations then fail with
    /// [`C10dError::Aborted`]. Of several ranks that give up, the first one is told of.
    ///
    /// Rank 0, where the others ask, stays up to three seconds for them to come and read it.
    ///
    /// Returns whether this rank was the first.
    pub fn abort(&self, reason: &str) -> bool {
        self.broken.store(true, Ordering::Relaxed);
        let text = format!("{} {}", self.rank(), reason.replace('\0', " "));
        let text = CString::new(text).unwrap_or_default();
        let mut was_first = 0;
        let told = self.with_store(|store| {
            let (key, value, first) = (ABORTED.as_ptr(), text.as_ptr(), &raw mut was_first);
            // SAFETY: the handle is live, both texts end in a zero byte, and `was_first` outlives
            // the call.
            unsafe { ffi::take(ffi::pfc_store_set_once(store, key, value, first)) }
        });
        if told.is_ok() && self.place.serves() {
            self.linger();
        }
        let handles = self.lock();
        // SAFETY: the handle is live. It may fail where there is nothing to end.
        let _ = unsafe { ffi::take(ffi::pfc_group_abort(handles.group)) };
        was_first == 1
    }

    fn linger(&self) {
        let started = Instant::now();
        let own_view = i64::from(self.abort_seen.load(Ordering::Relaxed));
        while started.elapsed() < LINGER {
            match self.count_seen(0) {
                Ok(n_seen) if n_seen - own_view < self.world() as i64 - 1 => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                _ => return,
            }
        }
    }

    /// Adds to the number of ranks that know of an abort, and gives it back.
    fn count_seen(&self, amount: i64) -> Result<i64, Failure> {
        self.with_store(|store| {
            let mut count = 0;
            // SAFETY: the handle is live and `count` outlives the call.
            let failure =
                unsafe { ffi::pfc_store_add(store, ABORT_SEEN.as_ptr(), amount, &raw mut count) };
            // SAFETY: it comes from the bridge.
            unsafe { ffi::take(failure) }.map(|()| count)
        })
    }

    /// Whether a rank has given up.
    fn aborted(&self) -> Option<C10dError> {
        let text = self.with_store(|store| {
            let mut text = ptr::null_mut();
            // SAFETY: the handle is live and `text` outlives the call.
            let failure = unsafe { ffi::pfc_store_peek(store, ABORTED.as_ptr(), &raw mut text) };
            // SAFETY: it comes from the bridge.
            unsafe { ffi::take(failure) }?;
            if text.is_null() {
                return Ok(None);
            }
            // SAFETY: the bridge ends the text in a zero byte, and this is its only owner.
            let owned = unsafe {
                let owned = CStr::from_ptr(text).to_string_lossy().into_owned();
                ffi::pfc_text_free(text);
                owned
            };
            Ok::<_, Failure>(Some(owned))
        });
        let text = text.ok().flatten()?;
        if !self.abort_seen.swap(true, Ordering::Relaxed) {
            let _ = self.count_seen(1);
        }
        let (by, reason) = text.split_once(' ')?;
        Some(C10dError::Aborted { by: by.parse().ok()?, reason: reason.to_owned() })
    }

    fn start(
        &self,
        operation: &'static str,
        output: Tensor,
        begin: impl FnOnce(*mut PfcGroup, *mut *mut PfcWork) -> *mut PfcFailure,
    ) -> Result<Pending<'_>, C10dError> {
        let mut work = ptr::null_mut();
        let failure = begin(self.lock().group, &raw mut work);
        // SAFETY: it comes from the bridge.
        match unsafe { ffi::take(failure) } {
            Ok(()) => Ok(Pending { group: self, operation, work, output, started: Instant::now() }),
            Err(failure) => Err(self.explain(operation, failure)),
        }
    }

    /// The reason of the rank that gave up first, if one has; else libtorch's own.
    pub(crate) fn explain(&self, operation: &'static str, failure: Failure) -> C10dError {
        self.broken.store(true, Ordering::Relaxed);
        let rank = self.rank();
        self.aborted().unwrap_or(if failure.timed_out {
            C10dError::TimedOut { rank, operation, timeout: self.timeout }
        } else {
            C10dError::Failed { rank, operation, cause: failure.message }
        })
    }

    /// Runs `body` with the raw group while no other operation can be started.
    pub(crate) fn with_group<T>(&self, body: impl FnOnce(*mut PfcGroup) -> T) -> T {
        body(self.lock().group)
    }

    fn with_store<T>(&self, body: impl FnOnce(*mut PfcStore) -> T) -> T {
        body(self.lock().store)
    }

    fn lock(&self) -> MutexGuard<'_, Handles> {
        // The handles are never changed, so that a panic elsewhere leaves them as they were.
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        // Gloo's destructor waits for what is under way, which after a failure may never end. The
        // process is about to end then, and takes the connections with it.
        if self.broken.load(Ordering::Relaxed) {
            return;
        }
        let handles = self.lock();
        // SAFETY: this is the last user of both.
        unsafe {
            ffi::pfc_group_free(handles.group);
            ffi::pfc_store_free(handles.store);
        }
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
            if let Some(aborted) = self.group.aborted() {
                self.group.broken.store(true, Ordering::Relaxed);
                return Err(aborted);
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

fn open_store(place: &Rendezvous, options: GroupOptions) -> Result<*mut PfcStore, Failure> {
    let host = c_string(&place.host)?;
    let prefix = c_string(&format!("pfc/{}", place.attempt))?;
    let spec = ffi::PfcStoreSpec {
        host: host.as_ptr(),
        port: place.port,
        listen_fd: place.listen_fd.filter(|_| place.serves()).unwrap_or(-1),
        is_server: place.serves().into(),
        world: place.world as u32,
        timeout_ms: milliseconds(options.timeout),
        prefix: prefix.as_ptr(),
    };
    let mut store = ptr::null_mut();
    // SAFETY: the spec and its texts outlive the call.
    unsafe { ffi::take(ffi::pfc_store_open(&raw const spec, &raw mut store)) }.map(|()| store)
}

fn open_group(
    place: &Rendezvous,
    options: GroupOptions,
    store: *mut PfcStore,
) -> Result<*mut PfcGroup, Failure> {
    let interfaces = std::env::var("GLOO_SOCKET_IFNAME").ok().filter(|names| !names.is_empty());
    let interfaces = interfaces.map(|names| c_string(&names)).transpose()?;
    // The machine's own name may lead nowhere; ranks on one machine do not need it.
    let hostname = (place.local_world == place.world).then_some(c"127.0.0.1");
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
    unsafe { ffi::take(ffi::pfc_group_open(store, &raw const spec, &raw mut group)) }
        .map(|()| group)
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn c_string(text: &str) -> Result<CString, Failure> {
    let fail = |_| Failure { timed_out: false, message: format!("{text:?} holds a zero byte") };
    CString::new(text).map_err(fail)
}

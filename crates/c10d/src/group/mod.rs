//! A group of ranks and the collectives among them.

#![allow(unsafe_code)]

mod store;

use std::{
    ffi::{CStr, CString, c_void},
    fs,
    net::{IpAddr, Ipv4Addr},
    ptr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tch::Tensor;

use crate::{
    C10dError, Rendezvous,
    ffi::{self, Failure, PfcFailure, PfcGroup, PfcWork},
    liveness::{GroupFailure, Liveness, Values},
    patience::{ASKED_TO_STOP, MEETING, SLICE},
};

/// The longest pause between two looks at an operation on a GPU, and the first one.
const PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_micros(20));
/// How much longer than libtorch's own timeout a wait goes on, so that libtorch gets to say why.
const GRACE: Duration = Duration::from_secs(5);
/// Threads of a group: those of Gloo, of this crate, and one of autograd.
const THREADS: usize = 8;
/// Files that a process of libtorch opens beside two sockets for each rank.
const FILES: u64 = 24;

/// How a group is made.
#[derive(Debug, Clone, Copy)]
pub struct GroupOptions {
    /// How long ranks wait for each other, in the beginning and in every operation.
    pub timeout: Duration,
    /// Whether collectives take tensors on CUDA devices too.
    pub nccl: bool,
    /// Whether this program was asked to stop, by a signal for example: then it waits for no other rank.
    pub asked_to_stop: fn() -> bool,
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

/// The identity of CUDA device `index`, the same for all processes that see the card, whatever number
/// they know it by.
///
/// # Errors
///
/// libtorch's own words if there is no such device or NCCL was not built in.
pub fn device_id(index: usize) -> Result<String, String> {
    let index = i32::try_from(index).map_err(|error| error.to_string())?;
    let mut text = ptr::null_mut();
    // SAFETY: `text` outlives the call.
    let found = unsafe { ffi::take(ffi::pfc_device_id(index, &raw mut text)) };
    found.map_err(|failure| failure.message)?;
    // SAFETY: the bridge ends the text in a zero byte, and this is its only owner.
    unsafe {
        let owned = CStr::from_ptr(text).to_string_lossy().into_owned();
        ffi::pfc_text_free(text);
        Ok(owned)
    }
}

/// One rank's membership of a group, which may be its only one.
///
/// The backend of a tensor's device carries out its collectives. Shapes and types have to be equal on all
/// ranks unless something else is said.
#[derive(Debug)]
pub struct ProcessGroup {
    place: Rendezvous,
    timeout: Duration,
    asked_to_stop: fn() -> bool,
    /// Whether a wait ends as soon as the program is asked to stop.
    stops_in_operations: AtomicBool,
    group: Arc<Group>,
    /// Locked while an operation is started: c10d numbers them without a lock of its own.
    starting: Mutex<()>,
    liveness: Liveness,
    /// Set by the first failure: an operation may then be under way for ever.
    broken: AtomicBool,
}

/// The group of libtorch, which is shut down with its last owner.
#[derive(Debug)]
struct Group(*mut PfcGroup);

// SAFETY: it points at an object that has no home thread.
unsafe impl Send for Group {}
// SAFETY: operations are started under a lock, and `abort` may be called at any time.
unsafe impl Sync for Group {}

impl Group {
    /// Ends what is under way on GPUs.
    fn abort(&self) {
        // SAFETY: the handle is live. It may fail where there is nothing to end.
        let _ = unsafe { ffi::take(ffi::pfc_group_abort(self.0)) };
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // SAFETY: this is its last user.
        unsafe { ffi::pfc_group_free(self.0) };
    }
}

impl ProcessGroup {
    /// Meets the other ranks, and waits for all of them.
    ///
    /// # Errors
    ///
    /// [`C10dError::Rendezvous`] if they are not all there within the timeout or do not belong
    /// together, [`C10dError::Aborted`] and [`C10dError::Gone`] if one of those that came is lost
    /// meanwhile, [`C10dError::Files`] and [`C10dError::Threads`] if this process may not open as many
    /// sockets or start as many threads.
    pub fn join(place: &Rendezvous, options: GroupOptions) -> Result<ProcessGroup, C10dError> {
        if std::env::var_os("TORCH_CPP_LOG_LEVEL").is_none() {
            // SAFETY: it sets a number.
            unsafe { ffi::pfc_silence() };
        }
        allow_files(place.world)?;
        allow_threads()?;
        let liveness = Liveness::join(place, options.timeout, options.asked_to_stop)?;
        let group = match open_group(place, options, &liveness) {
            Ok(group) => Arc::new(group),
            Err(error) => {
                match &error {
                    C10dError::Stopped { .. } => liveness.abort(ASKED_TO_STOP),
                    error => liveness.abort(&error.to_string()),
                };
                return Err(error);
            }
        };
        // A rank that is lost ends what the GPUs wait in, where this process hears of nothing.
        let weak = Arc::downgrade(&group);
        liveness.on_news(move || {
            if let Some(group) = weak.upgrade() {
                group.abort();
            }
        });
        Ok(ProcessGroup {
            place: place.clone(),
            timeout: options.timeout,
            asked_to_stop: options.asked_to_stop,
            stops_in_operations: AtomicBool::new(true),
            group,
            starting: Mutex::new(()),
            liveness,
            broken: AtomicBool::new(false),
        })
    }

    /// Meets the other ranks for no other purpose than to tell them that this one cannot take part, and
    /// why: they would wait for it until the timeout. On rank 0 that takes until all have come.
    ///
    /// Returns the first rank that gave up, whose reason is the one to be read; this one also if the
    /// ranks did not meet.
    pub fn decline(place: &Rendezvous, options: GroupOptions, reason: &str) -> usize {
        match Liveness::join(place, options.timeout, options.asked_to_stop) {
            Ok(liveness) => liveness.abort(reason),
            Err(C10dError::Aborted { by, .. }) => by,
            Err(_) => place.rank,
        }
    }

    /// From now on a program that is asked to stop does so between operations, as ranks agree to: no wait
    /// ends early any more.
    pub fn stop_between_operations(&self) {
        self.stops_in_operations.store(false, Ordering::Relaxed);
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
    /// becomes `[W·B, …]`. On a GPU nobody waits for it, as with [`Pending::in_order`].
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
        pending.in_order()
    }

    /// This rank's part of the sum of all ranks' tensors: `[W·B, …]` on each rank becomes `[B, …]`. On a GPU
    /// nobody waits for it, as with [`Pending::in_order`].
    ///
    /// # Errors
    ///
    /// As above.
    pub fn reduce_scatter(&self, tensor: &Tensor) -> Result<Tensor, C10dError> {
        self.start_reduce_scatter(tensor)?.in_order()
    }

    /// Begins [`reduce_scatter`](ProcessGroup::reduce_scatter).
    ///
    /// # Errors
    ///
    /// As above.
    pub fn start_reduce_scatter(&self, tensor: &Tensor) -> Result<Pending<'_>, C10dError> {
        let mut input = tensor.contiguous();
        let mut shape = input.size();
        let first = shape.first_mut().expect("a tensor to scatter has a first axis");
        *first /= self.world() as i64;
        let mut output = Tensor::empty(&shape, (input.kind(), input.device()));
        let (into, from) = (raw(&mut output), raw(&mut input));
        self.start("reduce-scatter", output, |group, work| {
            // SAFETY: the output outlives the work, which holds a reference to the input.
            unsafe { ffi::pfc_reduce_scatter(group, into, from, work) }
        })
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
        let nothing = Tensor::empty([0], (tch::Kind::Uint8, tch::Device::Cpu));
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

    /// Refuses a GPU that two ranks share, on every rank. All ranks call it.
    ///
    /// * `device`: [`device_id`] of this rank's GPU; `None` on a CPU
    ///
    /// # Errors
    ///
    /// [`C10dError::SharedDevice`], or as above.
    pub fn check_devices(&self, device: Option<&str>) -> Result<(), C10dError> {
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let own = format!("{}\n{}", host.trim(), device.unwrap_or_default());
        let all = self.all_gather_bytes(own.as_bytes())?;
        let all: Vec<_> = all.iter().map(|text| String::from_utf8_lossy(text)).collect();
        let places: Vec<(&str, &str)> =
            all.iter().map(|text| text.split_once('\n').unwrap_or((text, ""))).collect();
        first_shared(&places).map_or(Ok(()), Err)
    }

    /// Tells the other ranks that this one cannot go on, and why: their operations then fail with
    /// [`C10dError::Aborted`]. Of several ranks that give up, the first one is told of.
    ///
    /// Rank 0, through which the others hear of it, stays up to three seconds until they have.
    ///
    /// Returns the first rank that gave up, whose reason is the one to be read.
    pub fn abort(&self, reason: &str) -> usize {
        self.mark_broken();
        let first = self.liveness.abort(reason);
        self.group.abort();
        first
    }

    /// Notes that an operation may be under way for ever.
    pub(crate) fn mark_broken(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    /// Whether a rank has given up or is gone, and so `operation` cannot end.
    fn lost(&self, operation: &'static str) -> Option<C10dError> {
        self.liveness.news().map(|news| news.error(operation, self.rank(), self.timeout))
    }

    /// An error if the program was asked to stop and waits for nothing any more.
    fn check_stop(&self, operation: &'static str) -> Result<(), C10dError> {
        if self.stops_in_operations.load(Ordering::Relaxed) && (self.asked_to_stop)() {
            self.mark_broken();
            return Err(C10dError::Stopped { rank: self.rank(), operation });
        }
        Ok(())
    }

    fn start(
        &self,
        operation: &'static str,
        output: Tensor,
        begin: impl FnOnce(*mut PfcGroup, *mut *mut PfcWork) -> *mut PfcFailure,
    ) -> Result<Pending<'_>, C10dError> {
        let mut work = ptr::null_mut();
        let failure = self.with_group(|group| begin(group, &raw mut work));
        // SAFETY: it comes from the bridge.
        match unsafe { ffi::take(failure) } {
            Ok(()) => Ok(Pending { group: self, operation, work, output, started: Instant::now() }),
            Err(failure) => Err(self.explain(operation, failure)),
        }
    }

    /// Which rank is gone or gave up first, or has not come, if one has; else libtorch's own reason.
    pub(crate) fn explain(&self, operation: &'static str, failure: Failure) -> C10dError {
        self.mark_broken();
        let (rank, timeout) = (self.rank(), self.timeout);
        if failure.timed_out {
            let late = || self.liveness.late().error(operation, rank, timeout);
            return self.lost(operation).unwrap_or_else(late);
        }
        match self.liveness.awaited_news() {
            Some(news) => news.error(operation, rank, timeout),
            None => C10dError::Failed { rank, operation, cause: failure.message },
        }
    }

    /// Runs `body`, which all ranks come to, with the raw group, while no other operation can be
    /// started.
    pub(crate) fn with_group<T>(&self, body: impl FnOnce(*mut PfcGroup) -> T) -> T {
        let _starting = self.lock();
        self.liveness.count();
        body(self.group.0)
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        // It guards nothing that a panic could leave half-changed.
        self.starting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        // Gloo's destructor waits for what is under way, which after a failure may never end. The
        // process is about to end then, and takes the connections with it.
        if self.broken.load(Ordering::Relaxed) {
            std::mem::forget(Arc::clone(&self.group));
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
        let is_on_device = self.output.device().is_cuda();
        let (longest, mut pause) = PAUSE;
        while !self.wait_for(SLICE)? {
            if let Some(lost) = self.group.lost(self.operation) {
                self.group.mark_broken();
                return Err(lost);
            }
            self.group.check_stop(self.operation)?;
            if self.started.elapsed() > self.group.timeout + GRACE {
                let failure = Failure { timed_out: true, message: String::new() };
                return Err(self.group.explain(self.operation, failure));
            }
            if is_on_device {
                thread::sleep(pause);
                pause = longest.min(2 * pause);
            }
        }
        Ok(self.output.shallow_clone())
    }

    /// Has what this thread hands to the GPU from now on come after the operation, and gives back its result:
    /// the host does not wait. Of a rank that is gone the host learns when it waits for something else. On a
    /// CPU this is [`wait`](Pending::wait).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn in_order(self) -> Result<Tensor, C10dError> {
        if !self.output.device().is_cuda() {
            return self.wait();
        }
        // SAFETY: the work is live until this is dropped, and `take` owns what comes from the bridge.
        let ordered = unsafe { ffi::take(ffi::pfc_work_order(self.work)) };
        ordered.map_err(|failure| self.group.explain(self.operation, failure))?;
        Ok(self.output.shallow_clone())
    }

    /// Whether the operation has ended within `slice`, which one on a GPU does not wait for.
    fn wait_for(&self, slice: Duration) -> Result<bool, C10dError> {
        let mut state = 0;
        // SAFETY: the work is live until this is dropped.
        let failure =
            unsafe { ffi::pfc_work_wait(self.work, slice.as_millis() as i64, &raw mut state) };
        // SAFETY: it comes from the bridge.
        let waited = unsafe { ffi::take(failure) };
        waited.map_err(|failure| self.group.explain(self.operation, failure))?;
        Ok(state != ffi::PENDING)
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

/// The first two ranks that share a GPU; `places` holds host and device of each rank.
fn first_shared(places: &[(&str, &str)]) -> Option<C10dError> {
    for (second, (host, device)) in places.iter().enumerate() {
        let before = &places[..second];
        let first = before.iter().position(|(_, other)| !device.is_empty() && other == device);
        if let Some(first) = first {
            let (device, host) = ((*device).to_owned(), (*host).to_owned());
            return Some(C10dError::SharedDevice { first, second, device, host });
        }
    }
    None
}

/// Sees to it that this process may open the sockets of a group of `world` ranks: raises its limit as
/// far as the system lets it.
fn allow_files(world: usize) -> Result<(), C10dError> {
    // Where the system does not say how many are open, it is the three that every process has.
    let n_open = fs::read_dir("/proc/self/fd").map_or(3, Iterator::count) as u64;
    let needed = n_open + FILES + 2 * world as u64;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|limit| limit >= needed) {
        return Ok(());
    }
    if maximum.is_none_or(|limit| limit >= needed)
        && setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum }).is_ok()
    {
        return Ok(());
    }
    Err(C10dError::Files { world, needed, limit: current.unwrap_or_default() })
}

/// Makes sure that this process may start the threads that a group needs: libtorch may hang where it
/// gets some of them and not all.
fn allow_threads() -> Result<(), C10dError> {
    let (keep, kept) = mpsc::channel::<()>();
    let kept = Mutex::new(kept);
    thread::scope(|scope| {
        let started = (0..THREADS).try_for_each(|_| {
            // Each lives until the last was started.
            let wait = || {
                let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                let _ = kept.recv();
            };
            thread::Builder::new().spawn_scoped(scope, wait).map(drop)
        });
        drop(keep);
        started.map_err(|error| C10dError::Threads { needed: THREADS, cause: error.to_string() })
    })
}

/// Opens the backends, which has all ranks connect with each other. In a thread, so that the wait for
/// a rank that is gone ends; libtorch would wait until the timeout.
fn open_group(
    place: &Rendezvous,
    options: GroupOptions,
    liveness: &Liveness,
) -> Result<Group, C10dError> {
    let (give, opened) = mpsc::channel();
    let (owned, values) = (place.clone(), liveness.values());
    let address = liveness.own_address();
    let open = move || {
        // If nobody waits any more, the group is left open: the process is about to end.
        let _ = give.send(open_backends(&owned, options, values, address));
    };
    let thread = thread::Builder::new().name("rendezvous".to_owned());
    thread.spawn(open).map_err(|error| place.refused(error.to_string()))?;
    let deadline = Instant::now() + options.timeout + GRACE;
    let of_news = |news: GroupFailure| news.error(MEETING, place.rank, options.timeout);
    loop {
        match opened.recv_timeout(SLICE) {
            Ok(Ok(group)) => return Ok(group),
            // The ranks that wait for another one fail too; that one is the reason.
            Ok(Err(failure)) => {
                let own = || place.refused(failure.message);
                return Err(liveness.awaited_news().map_or_else(own, of_news));
            }
            Err(RecvTimeoutError::Timeout) => {
                if let Some(news) = liveness.news() {
                    return Err(of_news(news));
                }
                if (options.asked_to_stop)() {
                    return Err(C10dError::Stopped { rank: place.rank, operation: MEETING });
                }
                if Instant::now() > deadline {
                    let seconds = options.timeout.as_secs_f64();
                    let text = format!("no connections between all ranks within {seconds} s");
                    return Err(place.refused(text));
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
    values: Values,
    address: Option<IpAddr>,
) -> Result<Group, Failure> {
    let interfaces = std::env::var("GLOO_SOCKET_IFNAME").ok().filter(|names| !names.is_empty());
    let interfaces = interfaces.map(CString::new).transpose();
    let interfaces =
        interfaces.map_err(|_| Failure::new("GLOO_SOCKET_IFNAME holds a zero byte".to_owned()))?;
    // The machine's own name may lead nowhere; without an address libtorch looks it up.
    let address = match place.is_on_one_machine() {
        true => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        false => address,
    };
    let hostname = address.and_then(|address| CString::new(address.to_string()).ok());
    let spec = ffi::PfcGroupSpec {
        rank: place.rank as i32,
        world: place.world as i32,
        timeout_ms: i64::try_from(options.timeout.as_millis()).unwrap_or(i64::MAX),
        interfaces: interfaces.as_deref().map_or(ptr::null(), CStr::as_ptr),
        hostname: hostname.as_deref().map_or(ptr::null(), CStr::as_ptr),
        with_nccl: options.nccl.into(),
    };
    let functions = store::functions_of(values);
    let mut group = ptr::null_mut();
    // SAFETY: the functions, the spec and its texts outlive the call, which copies the first.
    unsafe {
        ffi::take(ffi::pfc_group_open(&raw const functions, &raw const spec, &raw mut group))
    }?;
    Ok(Group(group))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ranks_on_one_gpu_are_named_and_nothing_else_is_refused() {
        for (places, expected) in [
            (vec![("a", "GPU-1"), ("a", "GPU-2"), ("b", "GPU-3")], None),
            (vec![("a", ""), ("a", ""), ("b", "")], None),
            (vec![("a", "GPU-1")], None),
            (
                vec![("a", "GPU-1"), ("a", "GPU-2"), ("a", "GPU-2"), ("a", "GPU-1")],
                Some("rank 1 and rank 2 both use GPU-2 of a"),
            ),
        ] {
            let found = first_shared(&places).map(|error| error.to_string());
            assert_eq!(found.as_deref(), expected, "{places:?}");
        }
    }
}

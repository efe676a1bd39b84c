//! Ends of a program that no code of ours decides on.
//!
//! An allocation that is refused ends a process with `abort`, in Rust as in C++ where nothing catches
//! `bad_alloc`; OpenMP's library calls `exit(1)` where it cannot start a thread; and a file that is mapped as
//! memory and cannot be read ends a process by `SIGBUS`. Exit codes 134 and 135 tell a user nothing, and 1 says
//! that the program ran and found faults. All these ends become exit code 2 here, with a way out. What else
//! aborts does so as before.
#![allow(unsafe_code)] // Allocators, handlers of signals and those of `exit` are unsafe by nature.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    ptr,
    sync::{
        Once,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use signal_hook::{
    consts::{SIGABRT, SIGBUS},
    low_level,
};

/// Whether the program is still at work, so that only its own code knows how it ends.
static IS_RUNNING: AtomicBool = AtomicBool::new(false);
/// Whether Rust's allocator was refused memory.
static WAS_REFUSED: AtomicBool = AtomicBool::new(false);

const NO_MEMORY: &str = "error: memory ran out\n\nhint: give the program more memory (`ulimit -v` shows a \
    bound, and a job may have its own), end other programs, or use fewer threads; whatever has its final \
    name is whole\n";
const UNREADABLE_MAP: &str = "error: a file that is used as memory cannot be read or written: its disk fails or \
    is full, or another program cut it short\n\nhint: the system's log (`dmesg`) may name the disk, and \
    `pfc-ingest verify` finds what is damaged in a data set; then run the same command again: whatever has its \
    final name is whole\n";
const EXIT_OF_OTHERS: &str = "error: a library ended the program: its reason is above\n\nhint: if it could \
    not start a thread, `ulimit -u` and `ulimit -v` show the bounds, and fewer threads need less \
    (`OMP_NUM_THREADS` or, where there is one, `--threads`)\n";

/// A program between its arguments and its exit code.
pub(crate) struct Running;

impl Running {
    /// From now on `exit`, a file in memory that cannot be read and, where memory has run out, `abort` end with
    /// exit code 2.
    pub(crate) fn begin() -> Running {
        static INSTALL: Once = Once::new();
        INSTALL.call_once(|| {
            // SAFETY: `on_abort` does only what a handler of a signal may: it loads an atomic, makes
            // system calls, and ends the process or returns.
            let _ = unsafe { low_level::register(SIGABRT, on_abort) };
            // SAFETY: `on_bus_error` makes a system call and ends the process.
            let _ = unsafe { low_level::register(SIGBUS, on_bus_error) };
            // SAFETY: `on_exit` has the signature that `atexit` takes and unwinds nowhere.
            let _ = unsafe { libc::atexit(on_exit) };
        });
        IS_RUNNING.store(true, SeqCst);
        Running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        IS_RUNNING.store(false, SeqCst);
    }
}

/// Ends the process without a word, as code that knows why does.
pub fn leave(exit_code: u8) -> ! {
    IS_RUNNING.store(false, SeqCst);
    std::process::exit(exit_code.into())
}

/// If it returns, `abort` goes on and ends the process by the signal.
fn on_abort() {
    if WAS_REFUSED.load(SeqCst) || is_memory_short() {
        end_with(NO_MEMORY);
    }
}

/// Threads of the program read mapped files alone in a way that can end so.
fn on_bus_error() {
    end_with(UNREADABLE_MAP);
}

extern "C" fn on_exit() {
    if IS_RUNNING.load(SeqCst) {
        end_with(EXIT_OF_OTHERS);
    }
}

fn end_with(text: &str) -> ! {
    // SAFETY: the bytes are there for as long as the call takes. Where nobody reads standard error, the
    // exit code is all that is left to say.
    let _ = unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
    low_level::exit(2)
}

/// Whether the system refuses a little memory.
fn is_memory_short() -> bool {
    /// About what threads and their stacks take as they start.
    const BYTES: usize = 256 << 20;
    let (protection, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping at a place of the system's choice touches no memory that is in use.
    let place = unsafe { libc::mmap(ptr::null_mut(), BYTES, protection, flags, -1, 0) };
    if place == libc::MAP_FAILED {
        return true;
    }
    // SAFETY: it is the mapping that was just made, and nobody else knows of it.
    let _ = unsafe { libc::munmap(place, BYTES) };
    false
}

/// The system's allocator, which also notes that it refused.
struct Noting;

#[global_allocator]
static ALLOCATOR: Noting = Noting;

fn noted(place: *mut u8) -> *mut u8 {
    if place.is_null() {
        WAS_REFUSED.store(true, SeqCst);
    }
    place
}

// SAFETY: every call is handed on as it is to the system's allocator, which keeps the contract.
unsafe impl GlobalAlloc for Noting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the same contract.
        noted(unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        noted(unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, n_bytes: usize) -> *mut u8 {
        // SAFETY: as above.
        noted(unsafe { System.realloc(place, layout, n_bytes) })
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(place, layout) }
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt, process::Command};

    use super::*;

    /// Runs `end` in a program of its own; gives its exit code, or its signal below 0, and what it said.
    fn ends(name: &str, limit: &str, end: impl FnOnce()) -> (i32, String) {
        let name = format!("ending::tests::{name}");
        if pfc_testing::is_again(&name) {
            let running = Running::begin();
            end();
            drop(running);
            std::process::exit(0);
        }
        let again = pfc_testing::again(&name);
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("{limit} exec \"$@\"")).arg("sh");
        shell.arg(again.get_program()).args(again.get_args());
        shell.envs(again.get_envs().filter_map(|(key, value)| Some((key, value?))));
        let output = shell.output().unwrap();
        let code = output.status.code().or(output.status.signal().map(|signal| -signal));
        (code.unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    #[test]
    fn an_allocation_that_is_refused_ends_with_an_error_and_a_way_out() {
        // More than addresses can tell apart, so that no machine has it.
        let end = || drop(std::hint::black_box(Vec::<u8>::with_capacity(1 << 60)));
        let (code, said) =
            ends("an_allocation_that_is_refused_ends_with_an_error_and_a_way_out", "", end);
        assert_eq!(code, 2, "{said}");
        assert!(said.ends_with(NO_MEMORY), "{said}");
    }

    #[test]
    fn an_abort_where_memory_is_short_ends_so_too() {
        // As an exception of C++ that nothing catches: Rust's allocator was not asked.
        let name = "an_abort_where_memory_is_short_ends_so_too";
        let (code, said) = ends(name, "ulimit -v 250000;", || std::process::abort());
        assert_eq!(code, 2, "{said}");
        assert!(said.ends_with(NO_MEMORY), "{said}");
    }

    #[test]
    fn an_abort_for_another_reason_stays_one() {
        let name = "an_abort_for_another_reason_stays_one";
        let (code, said) = ends(name, "ulimit -c 0;", || std::process::abort());
        assert_eq!(code, -SIGABRT, "{said}");
        assert!(!said.contains("error:"), "{said}");
    }

    #[test]
    fn a_mapped_file_that_is_cut_short_ends_with_an_error_and_a_way_out() {
        use std::{fs, os::fd::AsRawFd};
        let end = || {
            let path = std::env::temp_dir().join(format!("pfc-ending-{}", std::process::id()));
            fs::write(&path, [7_u8; 4096]).unwrap();
            let file = fs::File::options().read(true).write(true).open(&path).unwrap();
            fs::remove_file(&path).unwrap();
            let (protection, flags) = (libc::PROT_READ, libc::MAP_SHARED);
            // SAFETY: a new mapping, which nothing else knows of.
            let place = unsafe {
                libc::mmap(ptr::null_mut(), 4096, protection, flags, file.as_raw_fd(), 0)
            };
            assert_ne!(place, libc::MAP_FAILED);
            file.set_len(0).unwrap();
            // SAFETY: the address is that of the mapping; reading it is the fault that is looked for.
            std::hint::black_box(unsafe { ptr::read_volatile(place.cast::<u8>()) });
        };
        let name = "a_mapped_file_that_is_cut_short_ends_with_an_error_and_a_way_out";
        let (code, said) = ends(name, "ulimit -c 0;", end);
        assert_eq!(code, 2, "{said}");
        assert!(said.ends_with(UNREADABLE_MAP), "{said}");
    }

    #[test]
    fn an_exit_of_a_library_is_not_taken_for_findings() {
        let name = "an_exit_of_a_library_is_not_taken_for_findings";
        let (code, said) = ends(name, "", || std::process::exit(1));
        assert_eq!(code, 2, "{said}");
        assert!(said.ends_with(EXIT_OF_OTHERS), "{said}");
    }

    #[test]
    fn a_program_that_ends_by_itself_keeps_its_exit_code() {
        let (code, said) = ends("a_program_that_ends_by_itself_keeps_its_exit_code", "", || {});
        assert_eq!((code, said.contains("error:")), (0, false), "{said}");
    }

    #[test]
    fn a_program_may_leave_without_a_word() {
        let (code, said) = ends("a_program_may_leave_without_a_word", "", || leave(7));
        assert_eq!((code, said.contains("error:")), (7, false), "{said}");
    }
}

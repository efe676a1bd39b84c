//! Which faults are the machine's and which are those of what is read, and panics of libraries that
//! are turned into errors.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    fmt, io,
    panic::{self, AssertUnwindSafe, PanicHookInfo},
    sync::Once,
};

/// Whether an error of reading one file is a fault of the machine, and not of that file: descriptors
/// or memory have run out, a disk or the network fails, a time limit has passed. The same file may be
/// read later, so nobody may conclude that it is missing or damaged.
///
/// The other errors are facts about the file: it is not there, may not be read, is a folder, has an
/// impossible name, or holds bytes that make no sense to its reader.
pub fn is_of_system(error: &io::Error) -> bool {
    use io::ErrorKind::*;
    match error.kind() {
        NotFound | PermissionDenied | InvalidData | InvalidInput | UnexpectedEof | IsADirectory
        | NotADirectory | InvalidFilename => false,
        // Readers of formats make errors of their own, which have no code of the system.
        Other => error.raw_os_error().is_some(),
        _ => !is_link_loop(error),
    }
}

/// Whether a library's message says that memory, or the threads that need some, cannot be had.
pub fn says_no_memory(message: &str) -> bool {
    let signs = [
        "out of memory",
        "can't allocate memory",
        "Cannot allocate memory",
        "not enough memory",
        "bad_alloc",
        "Failed to allocate memory",
        "pthread_create failed",
        "Resource temporarily unavailable",
    ];
    signs.iter().any(|sign| message.contains(sign))
}

#[cfg(target_os = "linux")]
fn is_link_loop(error: &io::Error) -> bool {
    rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::LOOP)
}

#[cfg(not(target_os = "linux"))]
fn is_link_loop(_: &io::Error) -> bool {
    false
}

/// A panic that was caught.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Panic {
    /// What it said.
    pub message: String,
    /// File and line of the code.
    pub place: String,
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Panic { message, place } = self;
        write!(f, "it is damaged: its reader gave up at {place}: {message}")
    }
}

thread_local! {
    /// Whether this thread is inside of [`catch`].
    static IS_CAUGHT: Cell<bool> = const { Cell::new(false) };
    /// Where the last caught panic of this thread began.
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs `work`, which must leave nothing half-changed behind, and makes an error of a panic in it.
/// Nothing is printed; panics elsewhere are printed as before.
///
/// # Errors
///
/// [`Panic`] if `work` panicked.
pub fn catch<R>(work: impl FnOnce() -> R) -> Result<R, Panic> {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| match IS_CAUGHT.get() {
            true => note_place(info),
            false => before(info),
        }));
    });
    let outer = IS_CAUGHT.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    IS_CAUGHT.set(outer);
    result.map_err(|payload| Panic { message: message(&*payload), place: PLACE.take() })
}

fn note_place(info: &PanicHookInfo<'_>) {
    let place = info.location().map(|place| {
        let file = place.file().rsplit(['/', '\\']).take(3).collect::<Vec<_>>();
        let file: Vec<&str> = file.into_iter().rev().collect();
        format!("{}:{}", file.join("/"), place.line())
    });
    PLACE.set(place.unwrap_or_default());
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no reason given").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_with_its_place_and_words() {
        let panic = catch(|| panic!("row {} of 3", 7)).unwrap_err();
        assert_eq!(panic.message, "row 7 of 3");
        assert!(panic.place.starts_with("durable/src/faults.rs:"), "{}", panic.place);
        assert_eq!(catch(|| 5), Ok(5));
    }

    #[test]
    fn catching_ends_with_the_innermost_caller() {
        let outer = catch(|| {
            assert!(catch(|| panic!("inner")).is_err());
            assert!(IS_CAUGHT.get());
            panic!("outer")
        });
        assert_eq!(outer.unwrap_err().message, "outer");
        assert!(!IS_CAUGHT.get());
    }

    #[test]
    fn every_way_of_saying_that_memory_ran_out_is_known() {
        for text in [
            "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate \
             memory: you tried to allocate 1638400000 bytes. Error code 12",
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79 GiB",
            "CUDA error: out of memory",
            "std::bad_alloc",
            "DefaultCPUAllocator: not enough memory: you tried to allocate 4611686018427387904 bytes.",
            "pthread_create failed, error code: 12 error msg: Cannot allocate memory",
            "bfc_arena.cc:376: Failed to allocate memory for requested buffer of size 6442450944",
        ] {
            assert!(says_no_memory(text), "{text}");
        }
        assert!(!says_no_memory("size mismatch"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn codes_of_the_system_are_told_from_facts_about_a_file() {
        use rustix::io::Errno;
        let of_system = [
            Errno::MFILE,
            Errno::NFILE,
            Errno::NOMEM,
            Errno::IO,
            Errno::STALE,
            Errno::AGAIN,
            Errno::TIMEDOUT,
            Errno::HOSTDOWN,
            Errno::NETUNREACH,
            Errno::NOTCONN,
            Errno::INTR,
            Errno::NXIO,
            Errno::NODEV,
            Errno::BADF,
            Errno::FBIG,
        ];
        for code in of_system {
            assert!(is_of_system(&code.into()), "{code}");
        }
        let of_file = [
            Errno::NOENT,
            Errno::ACCESS,
            Errno::PERM,
            Errno::NOTDIR,
            Errno::ISDIR,
            Errno::LOOP,
            Errno::NAMETOOLONG,
        ];
        for code in of_file {
            assert!(!is_of_system(&code.into()), "{code}");
        }
        for error in [io::Error::other("bad block"), io::ErrorKind::UnexpectedEof.into()] {
            assert!(!is_of_system(&error), "{error}");
        }
        assert!(is_of_system(&io::ErrorKind::OutOfMemory.into()));
    }
}

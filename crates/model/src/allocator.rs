//! Keeps freed memory for the next step instead of giving it back to the system.
#![allow(unsafe_code)]

use std::sync::Once;

/// Tells glibc's allocator never to return memory, once per process.
///
/// A training step frees and takes the same activations again and again. By default glibc maps
/// each large one afresh, and the kernel clears its pages: a quarter of the CPU time of a
/// MobileFaceNet step of 128 images. The process keeps the memory of its largest step.
pub(crate) fn keep_freed_memory() {
    static ONCE: Once = Once::new();
    ONCE.call_once(set);
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn set() {
    // SAFETY: mallopt takes two integers, locks the allocator itself and may be called at any time.
    // Its result is not needed: where a setting is refused, the default remains.
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, 0);
        libc::mallopt(libc::M_TRIM_THRESHOLD, -1);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn set() {}

//! What glibc's allocator does with freed memory: settings of a whole process, for programs to choose.
#![allow(unsafe_code)]

/// Tells glibc's allocator not to return memory by itself.
///
/// A training step frees and takes the same activations again and again. By default glibc maps
/// each large one afresh, and the kernel clears its pages: a quarter of the CPU time of a
/// MobileFaceNet step of 128 images. The process keeps the memory of its largest step until
/// [`give_back_freed_memory`].
///
/// It holds for the whole process, so programs call it as they start, and no library does.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt takes two integers, locks the allocator itself and may be called at any time.
    // Its result is not needed: where a setting is refused, the default remains.
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, 0);
        libc::mallopt(libc::M_TRIM_THRESHOLD, -1);
    }
}

/// Returns to the system what is free now, for instance after a checkpoint's copies were written.
pub fn give_back_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim takes a number of bytes to keep, locks the allocator itself and touches no
    // memory that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

//! Any bytes as a list of landmarks, by each order of numbers: images or an error.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static DIR: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a folder"));

fuzz_target!(|bytes: &[u8]| {
    pfc_sources::fuzzing::landmarks(bytes, DIR.path()).expect("a file in the temporary folder");
});

//! Any bytes as a Parquet or Arrow table: rows or an error, in memory bounded by the file.

#![no_main]

use std::{
    panic,
    sync::{LazyLock, Once},
};

use libfuzzer_sys::fuzz_target;

static DIR: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a folder"));
static QUIET: Once = Once::new();

fuzz_target!(|bytes: &[u8]| {
    // The fuzzer ends the process at any panic, but the reader catches those of the libraries that
    // it calls. Whatever gets past it still counts.
    QUIET.call_once(|| panic::set_hook(Box::new(|_| ())));
    pfc_sources::fuzzing::table(bytes, DIR.path()).expect("a file in the temporary folder");
});

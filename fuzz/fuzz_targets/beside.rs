//! Any bytes as the tables that say who is on images beside them: names, or none.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static DIR: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a folder"));

fuzz_target!(|bytes: &[u8]| {
    pfc_sources::fuzzing::beside(bytes, DIR.path()).expect("a file in the temporary folder");
});

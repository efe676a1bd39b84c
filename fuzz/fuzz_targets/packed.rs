//! Any bytes as a tar file that is compressed by gzip, zstd, bzip2 or xz: samples within what comes out, or an error.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static DIR: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a folder"));

fuzz_target!(|bytes: &[u8]| {
    pfc_sources::fuzzing::packed(bytes, DIR.path()).expect("a file in the temporary folder");
});

//! Any bytes as a zip archive: files within the bounds that are stated of them, or an error.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| pfc_sources::fuzzing::zip(bytes));

//! Any bytes as an LMDB file: images within the bytes, or an error.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| pfc_sources::fuzzing::lmdb(bytes));

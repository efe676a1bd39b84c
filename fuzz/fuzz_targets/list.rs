//! Any bytes as a list of images: images or an error, in memory bounded by a line.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| pfc_sources::fuzzing::list(bytes));

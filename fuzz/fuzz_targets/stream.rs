//! An index of MDS or LitData, a zero byte, and a file of samples: images within the bytes, or an error.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| pfc_sources::fuzzing::stream(bytes));

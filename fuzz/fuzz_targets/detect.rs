//! Outputs of detectors: any shapes and values give faces in reach or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| pfc_detect::fuzzing::read(bytes));

//! ONNX files: any bytes give a description of the input or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| pfc_onnx::fuzzing::look(bytes));

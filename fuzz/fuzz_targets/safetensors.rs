//! Safetensors: any bytes give tensors or an error, in memory bounded by the input.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pfc_model::tensors;

fuzz_target!(|bytes: &[u8]| {
    let path = std::env::temp_dir().join(format!("fuzz-{}.safetensors", std::process::id()));
    std::fs::write(&path, bytes).expect("the temporary folder can be written");
    if let Ok(tensors) = tensors::read(&path) {
        let n: usize = tensors.iter().map(|(_, tensor)| tensor.numel()).sum();
        assert!(n <= bytes.len(), "{n} numbers of a file of {} bytes", bytes.len());
    }
});

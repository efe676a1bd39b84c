//! PyTorch's state dicts: any bytes give tensors or an error, in memory bounded by the input.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use pfc_torchfile::{StateFile, is_torchscript};

fuzz_target!(|bytes: &[u8]| {
    is_torchscript(Cursor::new(bytes));
    let Ok(mut file) = StateFile::parse(Cursor::new(bytes)) else { return };
    for i in 0..file.tensors().len() {
        let n_bytes = file.tensors()[i].n_bytes();
        assert!(n_bytes <= bytes.len(), "{n_bytes} bytes of a file of {}", bytes.len());
        let mut out = vec![0; n_bytes];
        let _ = file.read(i, &mut out);
    }
});

//! PyTorch's state dicts: any bytes give tensors or an error, in memory bounded by the input.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use pfc_torchfile::{StateFile, is_torchscript};

fuzz_target!(|bytes: &[u8]| {
    is_torchscript(Cursor::new(bytes));
    let of_program = StateFile::parse_script(Cursor::new(bytes));
    for file in [StateFile::parse(Cursor::new(bytes)), of_program].into_iter().flatten() {
        check(file, bytes);
    }
});

fn check(mut file: StateFile<Cursor<&[u8]>>, bytes: &[u8]) {
    for i in 0..file.tensors().len() {
        let info = &file.tensors()[i];
        let (n_bytes, n_rows) = (info.n_bytes(), info.shape.first().copied().unwrap_or(0));
        assert!(n_bytes <= bytes.len(), "{n_bytes} bytes of a file of {}", bytes.len());
        let mut out = vec![0; n_bytes];
        let whole = file.read(i, &mut out).is_ok();
        if let Some(row_bytes) = n_bytes.checked_div(n_rows as usize) {
            // The last row alone is the end of the whole.
            let mut last = vec![0; row_bytes];
            let read = file.read_rows(i, n_rows - 1..n_rows, &mut last);
            assert!(!whole || read.is_err() || out.ends_with(&last));
        }
    }
}

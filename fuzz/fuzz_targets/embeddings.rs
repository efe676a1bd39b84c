//! Any bytes as a file of embeddings of each kind: rows of numbers, or an error.

#![no_main]

use std::{cell::OnceCell, panic, sync::Once};

use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

thread_local! {
    static DIR: OnceCell<TempDir> = const { OnceCell::new() };
}

static QUIET: Once = Once::new();

fuzz_target!(|data: &[u8]| {
    // The fuzzer ends the process at any panic, but the reader catches those of the libraries that
    // it calls. Whatever gets past it still counts.
    QUIET.call_once(|| panic::set_hook(Box::new(|_| ())));
    let Some((kind, bytes)) = data.split_first() else { return };
    DIR.with(|cell| {
        let dir = cell.get_or_init(|| tempfile::tempdir().expect("a temporary folder"));
        let ending = ["npy", "npz", "arrow", "safetensors"][usize::from(kind % 4)];
        pfc_embeddings::fuzzing::embeddings(bytes, ending, dir.path()).expect("a temporary folder");
    });
});

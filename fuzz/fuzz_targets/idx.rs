//! Any text as the index of a small `.rec` file, or of any: records or an error.
//!
//! The input is the index, and after a zero byte the `.rec` file if it is not to be the small one.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pfc_recordio::{MAGIC, RecordFile};

/// Two whole records and a split one; as many as fit on a screen.
fn small() -> Vec<u8> {
    let record = |kind: u32, payload: &[u8]| {
        let word = (kind << 29) | payload.len() as u32;
        [&MAGIC[..], &word.to_le_bytes(), payload].concat()
    };
    [record(0, &[0; 24]), record(0, &[0; 28]), record(1, &[0; 24]), record(3, b"rest")].concat()
}

fuzz_target!(|bytes: &[u8]| {
    let end = bytes.iter().position(|byte| *byte == 0);
    let (idx, rec) = match end {
        Some(end) => (&bytes[..end], bytes[end + 1..].to_vec()),
        None => (bytes, small()),
    };
    let Ok(file) = RecordFile::from_bytes(rec, Some(idx)) else { return };
    for position in 0..file.n_records() {
        let entry = file.entry(position).expect("below the number of records");
        if let Ok(record) = file.record(position) {
            assert_eq!((record.key, record.offset), (entry.key, entry.offset));
            assert!(file.by_key(entry.key).expect("it was read").is_some());
        }
    }
    file.images().for_each(drop);
    for identity in file.identities().flatten() {
        file.images_of(&identity).for_each(drop);
    }
});

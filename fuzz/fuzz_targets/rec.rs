//! Any bytes as a `.rec` file without an index: records or an error, in every way of reading.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pfc_recordio::RecordFile;

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = RecordFile::from_bytes(bytes.to_vec(), None) else { return };
    let mut held = 0;
    for record in file.records() {
        held += record.expect("an undamaged file was scanned").image.len();
    }
    assert!(held <= bytes.len(), "records of one file do not overlap");
    for face in file.images().flatten() {
        assert!(file.by_key(face.key).expect("it was read").is_some());
    }
    for identity in file.identities().flatten() {
        assert!(file.images_of(&identity).len() as u64 <= file.n_images());
    }
});

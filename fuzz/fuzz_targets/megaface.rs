//! MegaFace's feature files and lists: any bytes give numbers, names or an error.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use pfc_eval::megaface::{Gallery, ProbeList, feature, parse_noises};

fuzz_target!(|bytes: &[u8]| {
    let path = Path::new("list");
    if let Ok(values) = feature::decode(bytes) {
        assert_eq!(feature::decode(&feature::encode(&values)), Ok(values));
    }
    if let Ok(list) = ProbeList::parse(path, bytes) {
        assert!(list.identities.iter().all(|&person| (person as usize) < list.names.len()));
    }
    let _ = Gallery::parse(path, bytes);
    let _ = parse_noises(path, bytes);
});

//! Lists of pairs: any bytes give a list or an error, and every index of a list is in range.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use pfc_verify::pairs::PairList;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(list) = PairList::parse(Path::new("list"), bytes) {
        let n = list.images.len() as u32;
        assert!(list.pairs.iter().all(|pair| pair.left < n && pair.right < n));
    }
});

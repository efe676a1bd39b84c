//! Lists of pairs: any bytes give a list or an error, and every index of a list is in range.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use pfc_sources::list_text;
use pfc_verify::pairs::PairList;

fuzz_target!(|bytes: &[u8]| {
    // As they are, and as a file in any encoding is read.
    for text in [bytes.to_vec(), list_text(bytes.to_vec())] {
        if let Ok(list) = PairList::parse(Path::new("list"), &text) {
            let n = list.images.len() as u32;
            assert!(list.pairs.iter().all(|pair| pair.left < n && pair.right < n));
        }
    }
});

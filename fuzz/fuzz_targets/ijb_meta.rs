//! Lists of IJB-B and IJB-C, and labels of N:N: any bytes give a list or an error.
//!
//! The input is two files, one after the other, parted by a zero byte.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use pfc_eval::{
    ijb::{FaceList, PairList, SearchList, TemplateIndex},
    nn::Labels,
};

fuzz_target!(|bytes: &[u8]| {
    let path = Path::new("list");
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (first, second) = (&bytes[..end], bytes.get(end + 1..).unwrap_or_default());
    let index = match FaceList::parse((path, first), (path, second)) {
        Ok(list) => {
            assert_eq!(list.by_name().len(), list.names.len());
            TemplateIndex::new(list.templates())
        }
        Err(_) => TemplateIndex::new(vec![1, 2, 10]),
    };
    let n = index.len() as u32;
    if let Ok(list) = PairList::parse(path, second, &index) {
        assert!(list.pairs.iter().all(|&(a, b)| a < n && b < n));
    }
    if let Ok(list) = SearchList::parse(path, second, &index) {
        assert!(list.rows.iter().all(|&row| row < n));
    }
    if let Ok(labels) = Labels::parse(path, first) {
        assert_eq!(labels.identity.len(), labels.group.len());
    }
});

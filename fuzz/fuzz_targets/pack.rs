//! Verification packs: any bytes give a pack or an error, in memory bounded by the input.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pfc_binpack::Pack;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(pack) = Pack::parse(bytes) {
        assert_eq!(pack.images.len(), 2 * pack.same.len());
    }
});

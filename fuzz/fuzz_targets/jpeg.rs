//! JPEG headers and decoding into a buffer: an error or pixels, whatever the bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pfc_image::{ImageSize, decode_rgb, jpeg_header};

/// Larger images are only looked at, so that a run is not spent on them.
const SIDE_MAX: u16 = 256;

fuzz_target!(|data: &[u8]| {
    let Ok(size) = jpeg_header(data) else { return };
    if size.width > SIDE_MAX || size.height > SIDE_MAX {
        return;
    }
    let mut out = vec![0; size.rgb_bytes()];
    let _ = decode_rgb(data, size, &mut out);
    let other = ImageSize { width: size.width, height: size.height ^ 1 };
    let mut out = vec![0; other.rgb_bytes()];
    assert!(decode_rgb(data, other, &mut out).is_err());
});

//! Any bytes as a picture of any format, with what says how it is turned: pixels or an error.

#![no_main]

use std::{panic, sync::Once};

use libfuzzer_sys::fuzz_target;
use pfc_image::{Fit, ImageSize, Limits, decode, resize};

/// Larger pictures are only looked at, so that a run is not spent on them.
const LIMITS: Limits = Limits { pixels_max: 1 << 16 };

static QUIET: Once = Once::new();

fuzz_target!(|bytes: &[u8]| {
    // The fuzzer ends the process at any panic, but the reader catches those of the libraries that
    // it calls. Whatever gets past it still counts.
    QUIET.call_once(|| panic::set_hook(Box::new(|_| ())));
    let Ok(pixels) = decode(bytes, LIMITS) else { return };
    let n_bytes = pixels.width as usize * pixels.height as usize * pixels.channels.count();
    assert_eq!(pixels.data.len(), n_bytes);
    assert!(resize(pixels, ImageSize { width: 8, height: 8 }, Fit::Crop).is_ok());
});

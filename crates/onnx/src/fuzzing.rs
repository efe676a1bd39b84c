//! A door for the fuzzer to what reads foreign bytes.

use bytes::Bytes;

use crate::{InputOptions, file, recognise::recognise};

/// Decodes a model and looks for its input.
pub fn look(bytes: &[u8]) {
    if let Ok(model) = file::parse(Bytes::copy_from_slice(bytes)) {
        let _ = recognise(&model, &InputOptions::default());
    }
}

//! Bounds on what is decoded: its size, its memory, and what a decoder may do.

use std::hint::black_box;

use crate::ImageError;

/// How large an image may be.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Width times height at most, checked on the header before anything is decoded.
    pub pixels_max: u64,
}

impl Limits {
    /// What every program allows unless it is told otherwise: 50 million pixels.
    pub const DEFAULT: Limits = Limits { pixels_max: 50_000_000 };
}

impl Limits {
    /// Refuses dimensions beyond the limit.
    pub(crate) fn check(self, width: u64, height: u64) -> Result<(), ImageError> {
        let pixels_max = self.pixels_max;
        if width == 0 || height == 0 {
            return Err(ImageError::Corrupt(format!("the header says {width}x{height} pixels")));
        }
        if width.saturating_mul(height) > pixels_max {
            return Err(ImageError::TooManyPixels { width, height, pixels_max });
        }
        Ok(())
    }
}

/// Runs a decoder, which only reads the bytes it is given; its panic becomes an error.
pub(crate) fn caught<T>(decoder: impl FnOnce() -> Result<T, ImageError>) -> Result<T, ImageError> {
    pfc_durable::faults::catch(decoder)
        .unwrap_or_else(|panic| Err(ImageError::Corrupt(panic.to_string())))
}

/// Asks the system whether it would give so many bytes. Decoders end the whole process when memory is
/// refused to them, so that it is better refused here; small images are not worth the question.
///
/// # Errors
///
/// [`ImageError::Memory`].
pub(crate) fn has_memory(width: u32, height: u32, n_bytes: u64) -> Result<(), ImageError> {
    const ASKED_FOR_MIN: u64 = 4 << 20;
    if n_bytes < ASKED_FOR_MIN {
        return Ok(());
    }
    let mut room: Vec<u8> = Vec::new();
    let given = usize::try_from(n_bytes).is_ok_and(|n| room.try_reserve_exact(n).is_ok());
    // Unused memory must not be optimised away together with the question.
    black_box(&mut room);
    match given {
        true => Ok(()),
        false => Err(ImageError::Memory { width, height, bytes: n_bytes }),
    }
}

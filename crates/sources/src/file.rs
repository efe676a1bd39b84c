//! Image files read whole, within bounds.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use crate::reject::Reject;

/// Images beyond this are no face crops, and reading one would be felt.
pub const IMAGE_BYTES_MAX: u64 = 256 << 20;

/// The bytes of the file at `path`.
///
/// # Errors
///
/// [`Reject::Missing`], [`Reject::TooManyBytes`] or [`Reject::Unreadable`].
pub fn read_file(path: &Path) -> Result<Vec<u8>, Reject> {
    let file = match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(Reject::Missing),
        file => file?,
    };
    let size = file.metadata()?.len();
    check_size(size)?;
    let mut bytes = Vec::with_capacity(size as usize + 1);
    // The file may grow meanwhile; what is read stays bounded.
    file.take(IMAGE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Refuses sizes that no image has.
///
/// # Errors
///
/// [`Reject::TooManyBytes`].
pub fn check_size(bytes: u64) -> Result<(), Reject> {
    if bytes > IMAGE_BYTES_MAX {
        return Err(Reject::TooManyBytes { bytes, bytes_max: IMAGE_BYTES_MAX });
    }
    Ok(())
}

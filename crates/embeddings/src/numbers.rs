//! Numbers of a file as f32.

use std::{fs::File, io, os::unix::fs::FileExt};

use half::f16;

use super::layout::{Layout, Number};

/// Reads row `row` into `out`, which has the layout's `dim` numbers.
pub fn read_at(file: &File, layout: &Layout, row: u64, out: &mut [f32]) -> io::Result<()> {
    let row_bytes = layout.dim as u64 * layout.number.bytes();
    let mut bytes = vec![0; row_bytes as usize];
    // The layout was held against the size of the file, so this does not overflow.
    file.read_exact_at(&mut bytes, layout.start + row * row_bytes)?;
    convert(&bytes, layout.number, out);
    Ok(())
}

/// Little-endian numbers as f32.
pub fn convert(bytes: &[u8], number: Number, out: &mut [f32]) {
    match number {
        Number::F16 => fill(out, bytes.as_chunks().0, |b| f16::from_le_bytes(b).to_f32()),
        Number::F32 => fill(out, bytes.as_chunks().0, f32::from_le_bytes),
        Number::F64 => fill(out, bytes.as_chunks().0, |b| f64::from_le_bytes(b) as f32),
    }
}

fn fill<const N: usize>(out: &mut [f32], from: &[[u8; N]], number: impl Fn([u8; N]) -> f32) {
    out.iter_mut().zip(from).for_each(|(out, bytes)| *out = number(*bytes));
}

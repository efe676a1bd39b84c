//! Where the numbers lie in a file, and what they are as f32.

use std::{fs::File, io, os::unix::fs::FileExt};

use half::f16;

/// Numbers in an embedding at most.
pub const DIM_MAX: usize = 65_536;

/// What a number is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    F16,
    F32,
    F64,
}

impl Number {
    pub fn bytes(self) -> u64 {
        match self {
            Number::F16 => 2,
            Number::F32 => 4,
            Number::F64 => 8,
        }
    }
}

/// `rows` times `dim` little-endian numbers from `start` on, row by row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    pub start: u64,
    pub rows: u64,
    pub dim: usize,
    pub number: Number,
}

impl Layout {
    /// Where the numbers end; they were checked to lie within a file.
    pub fn end(&self) -> u64 {
        self.start + self.rows * self.dim as u64 * self.number.bytes()
    }

    /// Checks that the numbers lie within `file_bytes`.
    pub fn check(self, file_bytes: u64) -> Result<Layout, String> {
        if self.dim == 0 || self.dim > DIM_MAX {
            return Err(format!("rows of {} numbers; 1 to {} are read", self.dim, DIM_MAX));
        }
        let bytes = self.rows.checked_mul(self.dim as u64);
        let bytes = bytes.and_then(|n| n.checked_mul(self.number.bytes()));
        let end = bytes.and_then(|n| n.checked_add(self.start));
        match end {
            Some(end) if end <= file_bytes => Ok(self),
            _ => Err(format!(
                "{} rows of {} numbers do not fit into its {file_bytes} bytes",
                self.rows, self.dim
            )),
        }
    }
}

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

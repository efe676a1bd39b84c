//! The devkit's feature files: an `OpenCV` matrix of one column.

/// Rows, columns, bytes per row, type.
const HEADER_BYTES: usize = 16;
/// `OpenCV`'s code for one channel of f32.
const CV_32F: i32 = 5;
/// No embedding is near this size; a damaged header may be.
const DIM_MAX: usize = 1 << 16;

/// The embedding in a file: four little-endian int32 `(dim, 1, 4, 5)`, then `dim` float32.
///
/// # Errors
///
/// What is wrong with the bytes: another header, another size than the header says, or a number that
/// is not finite.
pub fn decode(bytes: &[u8]) -> Result<Vec<f32>, String> {
    let (header, body) = bytes
        .split_at_checked(HEADER_BYTES)
        .ok_or_else(|| format!("{} bytes are less than a header", bytes.len()))?;
    let word = |i: usize| {
        i32::from_le_bytes([header[4 * i], header[4 * i + 1], header[4 * i + 2], header[4 * i + 3]])
    };
    let (rows, columns, kind) = (word(0), word(1), word(3));
    // The devkit writes a column; a row holds the same numbers in the same order.
    let (dim, other) = if rows == 1 { (columns, rows) } else { (rows, columns) };
    if other != 1 || kind != CV_32F {
        return Err(format!(
            "its header says {rows} rows and {columns} columns of type {kind}, not one column of \
             float32 (type {CV_32F})"
        ));
    }
    let dim = usize::try_from(dim).ok().filter(|dim| (1..=DIM_MAX).contains(dim));
    let dim = dim.ok_or_else(|| format!("its header says {rows} numbers"))?;
    if body.len() != 4 * dim {
        return Err(format!("its header says {dim} numbers, but {} bytes follow", body.len()));
    }
    let values: Vec<f32> =
        body.as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect();
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(values),
        Some(i) => Err(format!("number {i} is {}", values[i])),
    }
}

/// The file of an embedding, as the devkit and the reference's tools read it.
pub fn encode(values: &[f32]) -> Vec<u8> {
    let header = [values.len() as i32, 1, 4, CV_32F];
    let mut bytes: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let bytes = encode(&[0.5, -1.0]);
        assert_eq!(bytes[..16], [2, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0]);
        assert_eq!(decode(&bytes), Ok(vec![0.5, -1.0]));
    }

    #[test]
    fn other_files_say_what_is_wrong() {
        let check = |bytes: &[u8], expected: &str| {
            let error = decode(bytes).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        let good = encode(&[0.5, -1.0]);
        check(&good[..10], "10 bytes are less than a header");
        check(&good[..20], "2 numbers, but 4 bytes follow");
        check(&encode(&[f32::NAN]), "number 0 is NaN");
        let with = |at: usize, word: i32| {
            let mut bytes = good.clone();
            bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
            bytes
        };
        check(&with(12, 6), "type 6");
        check(&with(4, 3), "2 rows and 3 columns");
        check(&with(0, -2), "-2 numbers");
        check(&with(0, i32::MAX), "2147483647 numbers");
    }

    proptest! {
        #[test]
        fn any_bytes_give_numbers_or_a_reason(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }
    }
}

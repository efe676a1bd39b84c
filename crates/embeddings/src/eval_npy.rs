//! NumPy's `.npy`: a magic, a version, a Python dictionary as text, the numbers.

use super::Tensor;

/// The one array of a file.
pub(super) fn tensor(bytes: &[u8]) -> Result<Tensor, String> {
    let rest = bytes.strip_prefix(b"\x93NUMPY").ok_or("it does not start as NumPy's files do")?;
    let (length, start) = match *rest {
        [1, _, a, b, ..] => (usize::from(u16::from_le_bytes([a, b])), 10),
        [2 | 3, _, a, b, c, d, ..] => (u32::from_le_bytes([a, b, c, d]) as usize, 12),
        _ => return Err("its format version is unknown or its header cut short".to_owned()),
    };
    let end = start + length;
    let header = bytes.get(start..end).ok_or("its header is cut short")?;
    let header = std::str::from_utf8(header).map_err(|_| "its header is no text")?;
    let descr = value(header, "descr").unwrap_or_default();
    if !matches!(descr, "'<f4'" | "'=f4'") {
        return Err(format!("its numbers are {descr}, and only '<f4' (float32) is read in place"));
    }
    let shape = shape(value(header, "shape").unwrap_or_default())?;
    if value(header, "fortran_order") != Some("False") && shape[0] > 1 && shape[1] > 1 {
        return Err("it is stored column by column: save it with numpy.ascontiguousarray".into());
    }
    let n_bytes = shape[0].checked_mul(shape[1]).and_then(|n| n.checked_mul(4));
    match n_bytes {
        Some(n_bytes) if n_bytes == bytes.len() - end => {
            Ok(Tensor { name: String::new(), shape, bytes: end..bytes.len() })
        }
        _ => Err(format!(
            "its header says {} rows of {} float32, but {} bytes follow",
            shape[0],
            shape[1],
            bytes.len() - end
        )),
    }
}

/// The text of a value of the dictionary: up to the comma, or for a tuple the parenthesis.
fn value<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = header.split_once(&format!("'{key}':"))?;
    let rest = rest.trim_start();
    let end = if rest.starts_with('(') { rest.find(')')? + 1 } else { rest.find([',', '}'])? };
    Some(rest[..end].trim())
}

fn shape(text: &str) -> Result<[usize; 2], String> {
    let inner = text.trim_start_matches('(').trim_end_matches(')');
    let sizes: Option<Vec<usize>> = inner
        .split(',')
        .map(str::trim)
        .filter(|size| !size.is_empty())
        .map(|size| size.parse().ok())
        .collect();
    match sizes.as_deref() {
        Some(&[n_rows, dim]) => Ok([n_rows, dim]),
        _ => Err(format!("its shape is {text}, and two dimensions are wanted: (rows, numbers)")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn npy(header: &str, body: &[u8]) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        [&bytes, header.as_bytes(), body].concat()
    }

    #[test]
    fn the_header_gives_shape_and_place() {
        let bytes = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n", &[0; 24]);
        let tensor = tensor(&bytes).unwrap();
        assert_eq!((tensor.shape, tensor.bytes.len()), ([2, 3], 24));
    }

    #[test]
    fn what_cannot_be_used_in_place_says_why() {
        let check = |header: &str, body: usize, expected: &str| {
            let error = tensor(&npy(header, &vec![0; body])).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check("{'descr': '<f8', 'shape': (1, 1), }", 8, "'<f8'");
        check("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 2), }", 16, "column");
        check("{'descr': '<f4', 'fortran_order': False, 'shape': (5,), }", 20, "two dimensions");
        check("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", 20, "20 bytes");
        let huge =
            "{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999999, 9999999999), }";
        check(huge, 0, "0 bytes");
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_array_or_a_reason(bytes: Vec<u8>, text in "[ -~]{0,90}") {
            let _ = tensor(&bytes);
            let _ = tensor(&npy(&text, &bytes));
        }
    }
}

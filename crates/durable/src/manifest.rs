//! JSON manifests that carry the checksum of their own text.
//!
//! A manifest lists the checksums of other files, but a flipped digit in the manifest itself would
//! often still be valid JSON. [`seal`] therefore appends a last field, `"checksum"`, which covers every
//! byte before it; [`check`] finds any changed byte. The file stays plain JSON for every other reader.

use std::borrow::Cow;

use xxhash_rust::xxh3::xxh3_128;

/// Name of the field that [`seal`] appends; a manifest has no other field of this name at its top level.
pub const FIELD: &str = "checksum";

/// What precedes the 32 hexadecimal digits of the checksum, and what follows them.
const BEFORE: &str = ",\n  \"checksum\": \"";
const AFTER: &str = "\"\n}\n";
const DIGITS: usize = 32;

/// What [`check`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seal {
    /// The checksum covers the text and matches it.
    Whole,
    /// There is none: an older version, or another program, wrote the text.
    Absent,
    /// A byte changed after the text was sealed, or the text was cut short.
    Broken,
}

/// The text of a manifest file: `json` with the checksum as its last field.
///
/// * `json`: an object with at least one field, indented, as `serde_json::to_string_pretty` gives it
///
/// # Panics
///
/// If `json` does not end in a closing brace after at least one field.
pub fn seal(json: &str) -> String {
    let body = json.trim_end().strip_suffix('}').map(str::trim_end);
    let body = body.filter(|body| body.len() > 1).expect("a manifest is an object with fields");
    let sum = xxh3_128(body.as_bytes());
    format!("{body}{BEFORE}{sum:032x}{AFTER}")
}

/// Whether `text` is what [`seal`] gave.
pub fn check(text: &[u8]) -> Seal {
    let tail_len = BEFORE.len() + DIGITS + AFTER.len();
    let Some(at) = text.len().checked_sub(tail_len) else { return absent_unless_named(text) };
    let (body, tail) = text.split_at(at);
    let digits =
        tail.strip_prefix(BEFORE.as_bytes()).and_then(|tail| tail.strip_suffix(AFTER.as_bytes()));
    match digits {
        Some(digits) if digits == format!("{:032x}", xxh3_128(body)).as_bytes() => Seal::Whole,
        Some(_) => Seal::Broken,
        None => absent_unless_named(text),
    }
}

/// The JSON that [`seal`] was given, without the checksum; text without a seal is given back as it is.
/// `None` for a broken seal.
pub fn unseal(text: &[u8]) -> Option<Cow<'_, [u8]>> {
    match check(text) {
        Seal::Whole => {
            let body = &text[..text.len() - BEFORE.len() - DIGITS - AFTER.len()];
            Some(Cow::Owned([body, b"\n}\n"].concat()))
        }
        Seal::Absent => Some(Cow::Borrowed(text)),
        Seal::Broken => None,
    }
}

/// A field of the right name without the right form around it was sealed once and changed since.
fn absent_unless_named(text: &[u8]) -> Seal {
    let name = b"\n  \"checksum\"";
    if text.windows(name.len()).any(|window| window == name) { Seal::Broken } else { Seal::Absent }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = "{\n  \"format\": 1,\n  \"data\": {\n    \"checksum\": \"ab\"\n  }\n}";

    #[test]
    fn a_sealed_manifest_is_whole_and_one_without_a_seal_is_told_apart() {
        let text = seal(JSON);
        assert_eq!(check(text.as_bytes()), Seal::Whole);
        assert_eq!(unseal(text.as_bytes()).unwrap().trim_ascii_end(), JSON.as_bytes());
        assert_eq!(unseal(text.replace("1", "2").as_bytes()), None);
        for other in [JSON, "{}", "", "{\n  \"format\": 1\n}\n"] {
            assert_eq!(check(other.as_bytes()), Seal::Absent, "{other}");
        }
    }

    #[test]
    fn no_changed_byte_leaves_a_manifest_whole() {
        let text = seal(JSON).into_bytes();
        for at in 0..text.len() {
            for flip in [0x01, 0x02, 0x04, 0x10, 0x20, 0x80] {
                let mut bytes = text.clone();
                bytes[at] ^= flip;
                assert_ne!(check(&bytes), Seal::Whole, "byte {at} ^ {flip}");
            }
            assert_ne!(check(&text[..at]), Seal::Whole, "cut at {at}");
        }
    }
}

//! JSON manifests that carry the checksum of their own text.
//!
//! A manifest lists the checksums of other files, but a flipped digit in the manifest itself would
//! often still be valid JSON. [`seal`] therefore makes the last field, `"checksum"`, of all text before
//! it; [`check`] finds any byte that was changed, added or removed since. The file stays plain JSON for
//! every other reader.

use serde::{Serialize, de::DeserializeOwned};
use xxhash_rust::xxh3::xxh3_128;

/// Begins the last field of a sealed manifest.
const SEAL_START: &str = ",\n  \"checksum\": \"xxh3-128:";
const SEAL_END: &str = "\"\n}\n";
/// Bytes in which the end of a file may differ from its seal and still be taken for a damaged one.
const DAMAGE_MAX: usize = 8;

/// What [`check`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seal {
    /// The text carries its checksum, and it is right.
    Whole,
    /// The text carries none, as earlier versions wrote it.
    Absent,
    /// A byte was changed, added or removed after the text was sealed, or it is no JSON object.
    Broken,
}

/// A JSON object as text for people whose last field, `checksum`, is XXH3-128 of all text before it.
///
/// # Panics
///
/// If `value` does not become a JSON object with a field, or has one called `checksum` itself.
pub fn seal<T: Serialize>(value: &T) -> Vec<u8> {
    let json = serde_json::to_string_pretty(value).expect("strings and numbers become JSON");
    let body = json.strip_suffix("\n}").expect("an object with fields ends so");
    assert!(!body.contains("\n  \"checksum\": "), "the field is the seal's");
    [body.as_bytes(), &seal_of(body.as_bytes())].concat()
}

/// Holds a text that [`seal`] may have made against the checksum that it carries.
pub fn check(text: &[u8]) -> Seal {
    let (body, end) = text.split_at(text.len().saturating_sub(seal_of(b"").len()));
    let expected = seal_of(body);
    if expected.len() == end.len() {
        match expected.iter().zip(end).filter(|(a, b)| a != b).count() {
            0 => return Seal::Whole,
            1..=DAMAGE_MAX => return Seal::Broken,
            // The checksum is another one, or there is none.
            _ => {}
        }
    }
    #[derive(serde::Deserialize)]
    struct Sealed {
        checksum: Option<serde::de::IgnoredAny>,
    }
    // Text that was edited still has the field, or its value.
    let has_field = serde_json::from_slice::<Sealed>(text).map_or(true, |s| s.checksum.is_some());
    let has_value = String::from_utf8_lossy(text).lines().any(|line| {
        let field = line.strip_prefix("  \"").and_then(|field| field.split_once("\": \""));
        field.is_some_and(|(_, value)| value.starts_with("xxh3-128:"))
    });
    if has_field || has_value { Seal::Broken } else { Seal::Absent }
}

/// What [`seal`] was given, also out of a text without a seal. The seal itself is no field of `T`, which may
/// refuse fields that it does not know.
///
/// # Errors
///
/// The text is no JSON object, or not that of a `T`.
pub fn parse<T: DeserializeOwned>(text: &[u8]) -> serde_json::Result<T> {
    let mut fields: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(text)?;
    fields.remove("checksum");
    T::deserialize(serde_json::Value::Object(fields))
}

fn seal_of(body: &[u8]) -> Vec<u8> {
    format!("{SEAL_START}{:032x}{SEAL_END}", xxh3_128(body)).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_carries_a_checksum_that_any_change_breaks() {
        let text = seal(&serde_json::json!({"format": 1, "names": ["a", "b"]}));
        assert_eq!(check(&text), Seal::Whole);
        let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert!(json["format"] == 1 && json["checksum"].is_string());
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut bytes = text.clone();
                bytes[at] ^= 1 << bit;
                assert_eq!(check(&bytes), Seal::Broken, "byte {at}, bit {bit}");
            }
            assert_eq!(check(&text[..at]), Seal::Broken, "cut at {at}");
            for bytes in
                [[&text[..at], b" ", &text[at..]].concat(), [&text[..at], &text[at + 1..]].concat()]
            {
                assert!(bytes == text || check(&bytes) == Seal::Broken, "edit at {at}");
            }
        }
    }

    #[test]
    fn what_was_sealed_comes_back_also_where_unknown_fields_are_refused() {
        #[derive(Debug, PartialEq, Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Strict {
            format: u64,
            share: f64,
        }
        let value = Strict { format: u64::MAX, share: 0.1 + 0.2 };
        assert_eq!(parse::<Strict>(&seal(&value)).unwrap(), value);
        assert_eq!(parse::<Strict>(&serde_json::to_vec(&value).unwrap()).unwrap(), value);
        assert!(parse::<Strict>(b"{\"format\": 1, \"share\": 1, \"other\": 1}").is_err());
        assert!(parse::<Strict>(b"[1]").is_err());
    }

    #[test]
    fn a_manifest_of_an_earlier_version_has_no_seal() {
        let old = b"{\n  \"format\": 1,\n  \"tool\": \"pfc-ingest 0.1.0, long enough for a seal of its own\"\n}\n";
        assert_eq!(check(old), Seal::Absent);
        assert_eq!(check(b"{}"), Seal::Absent);
        let nested = b"{\n  \"format\": 1,\n  \"data\": {\n    \"checksum\": \"ab\"\n  }\n}\n";
        assert_eq!(check(nested), Seal::Absent);
    }
}

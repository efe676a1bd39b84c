//! The one hash of the format: XXH3 with 128 bits, of images and of whole files.
//!
//! It finds accidents (flipped bits, truncation, two copies of one image), not attackers.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::Path,
    str::FromStr,
};

use pfc_durable::DurableError;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// XXH3-128 of `bytes` with seed 0; equal hashes mean equal images.
pub fn content_hash(bytes: &[u8]) -> u128 {
    xxh3_128(bytes)
}

/// Checksum of a whole file; in the manifest `"xxh3-128:"` and 32 lower-case hexadecimal digits,
/// as `xxhsum -H2` prints them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Checksum(pub u128);

const PREFIX: &str = "xxh3-128:";

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{:032x}", self.0)
    }
}

impl FromStr for Checksum {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Checksum, &'static str> {
        const WANTED: &str = "a checksum is `xxh3-128:` and 32 lower-case hexadecimal digits";
        let digits = text.strip_prefix(PREFIX).ok_or(WANTED)?;
        let is_hex = digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if digits.len() != 32 || !is_hex {
            return Err(WANTED);
        }
        u128::from_str_radix(digits, 16).map(Checksum).map_err(|_| WANTED)
    }
}

impl Serialize for Checksum {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Checksum {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Checksum, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// Counts and hashes what passes through to `inner`, so that no file is read again for its checksum.
pub struct HashingWriter<W> {
    inner: W,
    hasher: Box<Xxh3>,
    bytes: u64,
}

impl<W> fmt::Debug for HashingWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HashingWriter").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl<W: io::Write> HashingWriter<W> {
    /// Passes bytes on to `inner`, which may be [`io::sink`] to hash alone.
    pub fn new(inner: W) -> HashingWriter<W> {
        HashingWriter { inner, hasher: Box::new(Xxh3::new()), bytes: 0 }
    }

    /// What was written to, how many bytes passed, and their checksum.
    pub fn finish(self) -> (W, u64, Checksum) {
        (self.inner, self.bytes, Checksum(self.hasher.digest128()))
    }
}

impl<W: io::Write> io::Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Checksum of a file, read from start to end rather than mapped, so that a bad sector is an error
/// and not a signal. `on_progress` is told the bytes of each read.
///
/// # Errors
///
/// [`DurableError`] if the file cannot be read.
pub fn file_checksum(
    path: &Path,
    mut on_progress: impl FnMut(u64),
) -> Result<Checksum, DurableError> {
    let failed = |source| DurableError::at("read", path)(source);
    let mut file = File::open(path).map_err(failed)?;
    let mut hasher = Xxh3::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = match file.read(&mut buffer) {
            Ok(0) => return Ok(Checksum(hasher.digest128())),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(failed(e)),
        };
        hasher.update(&buffer[..n]);
        on_progress(n as u64);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// The published test vector of XXH3-128 for no input and seed 0.
    const OF_NOTHING: u128 = 0x99aa_06d3_0147_98d8_6001_c324_468d_497f;

    #[test]
    fn the_hash_of_nothing_is_the_published_one() {
        assert_eq!(content_hash(b""), OF_NOTHING);
        assert_eq!(Checksum(OF_NOTHING).to_string(), "xxh3-128:99aa06d3014798d86001c324468d497f");
    }

    #[test]
    fn hashing_while_writing_equals_hashing_at_once() {
        let bytes: Vec<u8> =
            (0..5_000u32).flat_map(|i| i.wrapping_mul(0x9e37).to_le_bytes()).collect();
        let mut writer = HashingWriter::new(Vec::new());
        for piece in bytes.chunks(777) {
            writer.write_all(piece).unwrap();
        }
        let (written, n_bytes, checksum) = writer.finish();
        assert_eq!(written, bytes);
        assert_eq!(n_bytes, bytes.len() as u64);
        assert_eq!(checksum, Checksum(content_hash(&bytes)));
    }

    #[test]
    fn a_checksum_survives_its_text_and_nothing_else_parses() {
        let checksum = Checksum(7);
        assert_eq!(checksum.to_string().parse(), Ok(checksum));
        for bad in ["", "7", "md5:7", "xxh3-128:7", "xxh3-128:+0000000000000000000000000000007"] {
            assert!(bad.parse::<Checksum>().is_err(), "{bad}");
        }
        let upper = checksum.to_string().replace('7', "A");
        assert!(upper.parse::<Checksum>().is_err());
    }
}

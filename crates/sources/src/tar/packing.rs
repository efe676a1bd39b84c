//! How a tar file is compressed, and what comes out.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
};

use bzip2::read::MultiBzDecoder;
use flate2::read::MultiGzDecoder;
use liblzma::{read::XzDecoder, stream};

use crate::{
    error::SourceError,
    spool::{EXPANSION_MAX, unpacked_max},
};

/// Memory that unpacking an xz file may take. `xz -9` needs 65 MiB; a header may ask for 4 GiB.
const XZ_MEMORY_MAX: u64 = 100 << 20;

/// How a file is compressed, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    Plain,
    Gzip,
    Zstd,
    Bzip2,
    Xz,
}

impl Packing {
    /// That of the file at `path`.
    pub fn of(path: &Path) -> Result<Packing, SourceError> {
        let mut head = Vec::with_capacity(6);
        let file = File::open(path).map_err(SourceError::at("open", path))?;
        file.take(6).read_to_end(&mut head).map_err(SourceError::at("read", path))?;
        Ok(match &head[..] {
            [0x1f, 0x8b, ..] => Packing::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Packing::Zstd,
            [b'B', b'Z', b'h', ..] => Packing::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0] => Packing::Xz,
            _ => Packing::Plain,
        })
    }

    /// What comes out of `file`, which is of so many bytes.
    pub fn unpacked(self, file: File, size: u64) -> io::Result<Box<dyn Read>> {
        let buffered = BufReader::with_capacity(1 << 16, file);
        let unpacked: Box<dyn Read> = match self {
            Packing::Plain => return Ok(Box::new(buffered)),
            Packing::Gzip => Box::new(MultiGzDecoder::new(buffered)),
            Packing::Zstd => Box::new(zstd::Decoder::with_buffer(buffered)?),
            Packing::Bzip2 => Box::new(MultiBzDecoder::new(buffered)),
            Packing::Xz => {
                let decoder =
                    stream::Stream::new_stream_decoder(XZ_MEMORY_MAX, stream::CONCATENATED)?;
                Box::new(XzDecoder::new_stream(buffered, decoder))
            }
        };
        Ok(Box::new(Bounded { unpacked, left: unpacked_max(size) }))
    }
}

/// Bytes that end with an error where they are more than a file can hold of images.
struct Bounded<R> {
    unpacked: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let n = self.unpacked.read(bytes)?;
        self.left = self.left.checked_sub(n as u64).ok_or_else(|| {
            let what = format!("it unpacks to more than {EXPANSION_MAX} times its size");
            io::Error::new(io::ErrorKind::InvalidData, what)
        })?;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_unpacks_to_more_than_its_bound_is_an_error() {
        let read = |left| {
            let mut bytes = Vec::new();
            let unpacked = io::repeat(0).take(1000);
            Bounded { unpacked, left }.read_to_end(&mut bytes).map(|n| n as u64)
        };
        assert_eq!(read(1000).unwrap(), 1000);
        let error = read(999).unwrap_err();
        assert_eq!(error.to_string(), "it unpacks to more than 100 times its size");
    }
}

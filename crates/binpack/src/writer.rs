//! Packs for others: a pickle of (list of bytes, list of bool), as Python's `pickle` loads it.

use std::io::{self, Write};

use pfc_pickle::op;

/// Python itself appends to a list in batches of so many items.
const BATCH_ITEMS: u64 = 1000;

/// Which Python is to load the pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// Python 3.4 and later: protocol 4, images as they are.
    #[default]
    Python3,
    /// Any Python: protocol 2, images as Latin-1 text in UTF-8, which takes half as much again.
    Any,
}

/// A pack being written, pair by pair; what is written is a whole pickle only after
/// [`finish`](PackWriter::finish).
///
/// Memory: one byte per pair, and in the dialect for any Python one image.
#[derive(Debug)]
pub struct PackWriter<W> {
    out: W,
    dialect: Dialect,
    same: Vec<bool>,
}

impl<W: Write> PackWriter<W> {
    /// Begins a pack.
    ///
    /// # Errors
    ///
    /// That of `out`.
    pub fn new(mut out: W, dialect: Dialect) -> io::Result<PackWriter<W>> {
        match dialect {
            Dialect::Python3 => out.write_all(&[op::PROTO, 4])?,
            Dialect::Any => {
                out.write_all(&[op::PROTO, 2])?;
                // The function and its second argument, remembered as 0 and 1.
                out.write_all(b"c_codecs\nencode\nq\x000")?;
                out.write_all(b"X\x06\x00\x00\x00latin1q\x010")?;
            }
        }
        out.write_all(&[op::EMPTY_LIST, op::MARK])?;
        Ok(PackWriter { out, dialect, same: Vec::new() })
    }

    /// Adds two encoded images and whether they show one person.
    ///
    /// # Errors
    ///
    /// That of `out`.
    pub fn push(&mut self, images: [&[u8]; 2], same: bool) -> io::Result<()> {
        let n_images = 2 * self.same.len() as u64;
        if n_images > 0 && n_images.is_multiple_of(BATCH_ITEMS) {
            self.out.write_all(&[op::APPENDS, op::MARK])?;
        }
        for image in images {
            self.image(image)?;
        }
        self.same.push(same);
        Ok(())
    }

    /// Number of pairs so far.
    pub fn n_pairs(&self) -> u64 {
        self.same.len() as u64
    }

    /// Ends the pickle with the labels.
    ///
    /// # Errors
    ///
    /// That of `out`.
    pub fn finish(mut self) -> io::Result<W> {
        let mut rest = vec![op::APPENDS, op::EMPTY_LIST, op::MARK];
        rest.extend(self.same.iter().map(|same| if *same { op::NEWTRUE } else { op::NEWFALSE }));
        rest.extend([op::APPENDS, op::TUPLE2, op::STOP]);
        self.out.write_all(&rest)?;
        Ok(self.out)
    }

    fn image(&mut self, image: &[u8]) -> io::Result<()> {
        if self.dialect == Dialect::Python3 {
            match u32::try_from(image.len()) {
                Ok(length) => self.counted(op::BINBYTES, &length.to_le_bytes(), image)?,
                Err(_) => {
                    let length = image.len() as u64;
                    self.counted(op::BINBYTES8, &length.to_le_bytes(), image)?;
                }
            }
            return Ok(());
        }
        let text: String = image.iter().map(|byte| char::from(*byte)).collect();
        let length = u32::try_from(text.len()).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidInput, "an image of more than 2 GiB")
        })?;
        self.out.write_all(&[op::BINGET, 0])?;
        self.counted(op::BINUNICODE, &length.to_le_bytes(), text.as_bytes())?;
        self.out.write_all(&[op::BINGET, 1, op::TUPLE2, op::REDUCE])
    }

    fn counted(&mut self, opcode: u8, length: &[u8], bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(&[opcode])?;
        self.out.write_all(length)?;
        self.out.write_all(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Pack;

    fn write(dialect: Dialect, pairs: &[([&[u8]; 2], bool)]) -> Vec<u8> {
        let mut writer = PackWriter::new(Vec::new(), dialect).unwrap();
        for (images, same) in pairs {
            writer.push(*images, *same).unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn a_pair_is_the_instructions_that_pythons_documentation_gives() {
        let bytes = write(Dialect::Python3, &[([b"a", b""], true)]);
        assert_eq!(bytes, b"\x80\x04](B\x01\0\0\0aB\0\0\0\0e](\x88e\x86.");
        let bytes = write(Dialect::Any, &[([b"\xff", b"b"], false)]);
        let expected = b"\x80\x02c_codecs\nencode\nq\x000X\x06\0\0\0latin1q\x010](\
            h\0X\x02\0\0\0\xc3\xbfh\x01\x86Rh\0X\x01\0\0\0bh\x01\x86Re](\x89e\x86.";
        assert_eq!(bytes, expected);
    }

    #[test]
    fn every_byte_value_and_more_than_one_batch_come_back() {
        let all: Vec<u8> = (0..=255).collect();
        let images: Vec<Vec<u8>> = (0..2400_usize).map(|i| all[i % 256..].to_vec()).collect();
        let same: Vec<bool> = (0..1200).map(|i| i % 3 == 0).collect();
        let pairs: Vec<([&[u8]; 2], bool)> = images
            .chunks(2)
            .zip(&same)
            .map(|(pair, same)| ([&pair[0][..], &pair[1][..]], *same))
            .collect();
        for dialect in [Dialect::Python3, Dialect::Any] {
            let pack = Pack::parse(&write(dialect, &pairs)).unwrap();
            assert!(pack.images == images && pack.same == same, "{dialect:?}");
        }
    }
}

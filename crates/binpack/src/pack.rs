//! A pack in memory, and the way from a pickle to it.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

use crate::{
    PackError, numpy,
    pickle::{Pickle, Value},
};

/// Ten times the largest published pack.
const PACK_BYTES_MAX: u64 = 4 << 30;

/// A pack in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pack {
    /// `[2·P]` encoded images.
    pub images: Vec<Vec<u8>>,
    /// `[P]` whether images 2i and 2i+1 show one person.
    pub same: Vec<bool>,
}

impl Pack {
    /// Reads a pack of any pickle protocol.
    ///
    /// # Errors
    ///
    /// [`PackError::Durable`], and [`PackError::NotAPack`] if the file is no pack.
    pub fn read(path: &Path) -> Result<Pack, PackError> {
        let bytes = read_regular_file(path)?;
        Pack::parse(&bytes).map_err(|reason| PackError::NotAPack { path: path.to_owned(), reason })
    }

    /// Parses the bytes of a pack.
    ///
    /// # Errors
    ///
    /// What is wrong with them.
    pub fn parse(bytes: &[u8]) -> Result<Pack, String> {
        let pickle = Pickle::parse(bytes).map_err(|error| error.to_string())?;
        let parts = pickle.items(pickle.root()).unwrap_or_default();
        let &[images, labels] = &parts[..] else {
            return Err("it does not hold (images, issame)".to_owned());
        };
        let images = pickle.items(images).ok_or("its images are no list")?;
        let same = labels_of(&pickle, labels)?;
        if images.len() != 2 * same.len() {
            let (n, m) = (images.len(), same.len());
            return Err(format!("{n} images for {m} labels; each pair has two images"));
        }
        if same.is_empty() {
            return Err("it holds no pair".to_owned());
        }
        let encoded = |(i, image): (usize, &Value<'_>)| {
            match image {
                Value::Array { dtype: numpy::Dtype::Byte, .. } | Value::Bytes(_) => {
                    pickle.bytes(image).map(<[u8]>::to_vec)
                }
                _ => None,
            }
            .ok_or_else(|| format!("image {i} is no byte string"))
        };
        let mut images = images.into_iter().enumerate();
        let images = images.by_ref().map(encoded).collect::<Result<_, _>>()?;
        Ok(Pack { images, same })
    }
}

/// Reads a file whole, refusing devices, pipes and absurd sizes.
fn read_regular_file(path: &Path) -> Result<Vec<u8>, PackError> {
    let refuse =
        |why: String| PackError::io("read", path)(io::Error::new(io::ErrorKind::InvalidInput, why));
    let metadata = fs::metadata(path).map_err(PackError::io("open", path))?;
    if !metadata.is_file() {
        return Err(refuse("it is no regular file".to_owned()));
    }
    if metadata.len() > PACK_BYTES_MAX {
        return Err(refuse(format!("{} bytes are more than {PACK_BYTES_MAX}", metadata.len())));
    }
    let file = File::open(path).map_err(PackError::io("open", path))?;
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    // The file may grow meanwhile; what is read stays bounded.
    file.take(PACK_BYTES_MAX).read_to_end(&mut bytes).map_err(PackError::io("read", path))?;
    Ok(bytes)
}

fn labels_of(pickle: &Pickle<'_>, labels: &Value<'_>) -> Result<Vec<bool>, String> {
    if let Value::Array { .. } = labels {
        let bytes = pickle.bytes(labels).unwrap_or_default();
        return bytes.iter().enumerate().map(|(i, &byte)| label(i, i64::from(byte))).collect();
    }
    let items = pickle.items(labels).ok_or("its labels are no list")?;
    let item = |(i, value): (usize, &Value<'_>)| match *value {
        Value::Bool(same) => Ok(same),
        Value::Int(number) => label(i, number),
        _ => Err(format!("label {i} is no boolean")),
    };
    items.into_iter().enumerate().map(item).collect()
}

fn label(i: usize, number: i64) -> Result<bool, String> {
    match number {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(format!("label {i} is {other}, neither 0 nor 1")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_refused(pickle: &[u8], expected: &str) {
        assert_eq!(Pack::parse(pickle).unwrap_err(), expected);
    }

    #[test]
    fn two_strings_and_a_label_are_a_pack() {
        let pack = Pack::parse(b"((U\x01aU\x01bl(I01\nlt.").unwrap();
        assert_eq!(pack, Pack { images: vec![b"a".to_vec(), b"b".to_vec()], same: vec![true] });
        assert_eq!(Pack::parse(b"((U\x01aU\x01bl(K\x00lt.").unwrap().same, [false]);
    }

    #[test]
    fn what_is_no_pack_is_said() {
        check_refused(b"N.", "it does not hold (images, issame)");
        check_refused(b"(N(lt.", "its images are no list");
        check_refused(b"((lNt.", "its labels are no list");
        check_refused(b"((l(lt.", "it holds no pair");
        check_refused(b"((U\x01al(I01\nlt.", "1 images for 1 labels; each pair has two images");
        check_refused(b"((U\x01aNl(I01\nlt.", "image 1 is no byte string");
        check_refused(b"((U\x01aU\x01bl(I7\nlt.", "label 0 is 7, neither 0 nor 1");
        check_refused(b"((U\x01aU\x01bl(Nlt.", "label 0 is no boolean");
    }
}

//! InsightFace's conventions: which records of a file are face images.

use std::{fmt, ops::Range};

use crate::{LABEL_EXACT_MAX, header::HeaderView, index::Index};

/// Which records are images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// All of them: `im2rec`, shuffled files, InsightFace's `SeqRecBuilder`.
    Sequential,
    /// Record 0 is empty but for its labels, which are the first key behind the images and the
    /// first behind the identities: `face2rec2`, as in MS1M and Glint360K, and InsightFace's `RecBuilder`.
    Identities {
        /// Keys of the images, from 1.
        images: Range<u64>,
        /// Keys of the records that hold the range of images of one identity each.
        identities: Range<u64>,
    },
}

/// The images of one identity, which follow each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityRange {
    /// Key of the record that holds the range.
    pub key: u64,
    /// Keys of the images.
    pub images: Range<u64>,
}

impl IdentityRange {
    /// Whether the bounds are surely those that were meant: float32 rounds odd keys above
    /// [`LABEL_EXACT_MAX`], and an image at a bound then lands in its neighbour's range. The class
    /// in the image's own record is not touched by that.
    pub fn is_exact(&self) -> bool {
        self.images.end < LABEL_EXACT_MAX
    }
}

/// Something about a file that does not keep it from being read, but that its user should know.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Note {
    /// Without an index and with ids that repeat, records were numbered by position.
    KeysArePositions,
    /// The number of images in record 0 was rounded by float32; the right one was found.
    CountRounded {
        /// The key in record 0.
        stored: u64,
        /// The key where the images really end.
        found: u64,
    },
    /// Keys of images are not in the index.
    ImagesMissing {
        /// How many.
        n_missing: u64,
        /// The lowest.
        first: u64,
    },
    /// The file goes on after the last record that the index lists.
    NotIndexed {
        /// Where that record ends.
        offset: u64,
        /// Bytes after it.
        bytes: u64,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::KeysArePositions => write!(
                f,
                "there is no .idx file and the records' ids repeat, so keys are positions in the \
                 file"
            ),
            Note::CountRounded { stored, found } => write!(
                f,
                "record 0 says that the images end at key {stored}, rounded by float32; they end \
                 at {found}"
            ),
            Note::ImagesMissing { n_missing, first } => write!(
                f,
                "{n_missing} images that record 0 announces are not in the index, the first is \
                 key {first}"
            ),
            Note::NotIndexed { offset, bytes } => write!(
                f,
                "the index ends at byte {offset} of the .rec file, {bytes} bytes before its end: \
                 it may be another file's"
            ),
        }
    }
}

/// Whether a record holds a range of keys instead of an image.
pub(crate) fn is_range(header: &HeaderView<'_>, payload: &[u8]) -> bool {
    header.is_array() && header.n_labels() >= 2 && payload.len() == header.image_start()
}

/// The whole numbers that float32 turns into `stored`, themselves included.
///
/// `None` where they are more than a search should go through: beyond 2^32.
pub(crate) fn rounded_from(stored: u64) -> Option<Range<u64>> {
    if stored > 1 << 32 {
        return None;
    }
    let float = stored as f32;
    let below = (float - float.next_down()) as u64 / 2;
    let above = (float.next_up() - float) as u64 / 2;
    Some(stored - below..stored + above + 1)
}

/// The images announced that are not in the index: how many, and the lowest.
pub(crate) fn missing(index: &Index, images: &Range<u64>) -> Option<Note> {
    let (start, end) = (index.rank(images.start), index.rank(images.end));
    let n_missing = images.end.saturating_sub(images.start) - (end - start) as u64;
    if n_missing == 0 {
        return None;
    }
    // Up to the first gap, keys run with the ranks.
    let in_step = |n: &usize| {
        index.by_rank(start + n).is_some_and(|entry| entry.key == images.start + *n as u64)
    };
    let (mut present, mut beyond) = (0, end - start);
    while present < beyond {
        let middle = present + (beyond - present) / 2;
        match in_step(&middle) {
            true => present = middle + 1,
            false => beyond = middle,
        }
    }
    Some(Note::ImagesMissing { n_missing, first: images.start + present as u64 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::IndexEntry;

    fn index(keys: &[u64]) -> Index {
        let entries = keys.iter().map(|key| IndexEntry { key: *key, offset: 0 }).collect();
        Index::scanned("a.rec".as_ref(), entries).unwrap().0
    }

    #[test]
    fn numbers_up_to_two_to_the_24_round_from_themselves_only() {
        assert_eq!(rounded_from(0), Some(0..1));
        assert_eq!(rounded_from(16_777_215), Some(16_777_215..16_777_216));
    }

    #[test]
    fn larger_numbers_round_from_their_odd_neighbours() {
        assert_eq!(rounded_from(16_777_216), Some(16_777_216..16_777_218));
        assert_eq!(rounded_from(17_091_658), Some(17_091_657..17_091_660));
        assert_eq!(rounded_from(1 << 33), None);
    }

    #[test]
    fn the_first_missing_image_is_named() {
        let note = |keys, images| missing(&index(keys), &images);
        assert_eq!(note(&[1, 2, 3, 9, 0], 1..4), None);
        let first_is = |first, n_missing| Some(Note::ImagesMissing { n_missing, first });
        assert_eq!(note(&[1, 2, 4, 9, 0], 1..6), first_is(3, 2));
        assert_eq!(note(&[2, 3], 1..4), first_is(1, 1));
        assert_eq!(note(&[1, 2], 1..u64::MAX), first_is(3, u64::MAX - 3));
        assert_eq!(note(&[], 1..3), first_is(1, 2));
    }
}

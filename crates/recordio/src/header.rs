//! The header at the beginning of a payload: MXNet's `IRHeader` and the labels after it.

use crate::Fault;

/// Counts, keys and classes up to this are stored exactly; float32 rounds larger odd numbers.
pub const LABEL_EXACT_MAX: u64 = 1 << 24;

/// Bytes of the fixed part: flag u32, label f32, id u64, id2 u64.
const FIXED_BYTES: usize = 24;

/// One number, or several: MXNet stores the two differently.
#[derive(Debug, Clone, PartialEq)]
pub enum Labels {
    /// The flag is 0 and the number is in the fixed part of the header.
    Scalar(f32),
    /// The flag is the number of labels, which follow the fixed part; at least one when read.
    Array(Vec<f32>),
}

impl Labels {
    /// All labels, one or more.
    pub fn as_slice(&self) -> &[f32] {
        match self {
            Labels::Scalar(label) => std::slice::from_ref(label),
            Labels::Array(labels) => labels,
        }
    }
}

/// What stands before the image in a record.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// The class, or whatever numbers the writer stored.
    pub labels: Labels,
    /// Usually the record's key.
    pub id: u64,
    /// Usually 0; any 64 bits.
    pub id2: u64,
}

impl Header {
    /// A header with one label, as `im2rec` writes it.
    pub fn scalar(label: f32, id: u64) -> Header {
        Header { labels: Labels::Scalar(label), id, id2: 0 }
    }

    /// A header with several labels.
    pub fn array(labels: impl Into<Vec<f32>>, id: u64) -> Header {
        Header { labels: Labels::Array(labels.into()), id, id2: 0 }
    }

    /// The number of labels that follow the fixed part: 0 for [`Labels::Scalar`].
    pub fn flag(&self) -> u32 {
        match &self.labels {
            Labels::Scalar(_) => 0,
            Labels::Array(labels) => labels.len() as u32,
        }
    }

    /// Bytes on disk, labels included.
    pub(crate) fn n_bytes(&self) -> u64 {
        match &self.labels {
            Labels::Scalar(_) => FIXED_BYTES as u64,
            Labels::Array(labels) => (FIXED_BYTES + 4 * labels.len()) as u64,
        }
    }

    /// Appends the bytes that MXNet's `pack` puts before the image.
    pub(crate) fn write_to(&self, out: &mut Vec<u8>) {
        let (scalar, array): (f32, &[f32]) = match &self.labels {
            Labels::Scalar(label) => (*label, &[]),
            Labels::Array(labels) => (0.0, labels),
        };
        out.extend_from_slice(&self.flag().to_le_bytes());
        out.extend_from_slice(&scalar.to_le_bytes());
        out.extend_from_slice(&self.id.to_le_bytes());
        out.extend_from_slice(&self.id2.to_le_bytes());
        array.iter().for_each(|label| out.extend_from_slice(&label.to_le_bytes()));
    }
}

/// The header of a payload, checked but not copied.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeaderView<'a> {
    scalar: f32,
    labels: &'a [[u8; 4]],
    pub(crate) id: u64,
    id2: u64,
}

impl<'a> HeaderView<'a> {
    pub(crate) fn parse(payload: &'a [u8]) -> Result<HeaderView<'a>, Fault> {
        let no_header = Fault::NoHeader { bytes: payload.len() as u64 };
        let (flag, rest) = payload.split_first_chunk().ok_or(no_header)?;
        let (scalar, rest) = rest.split_first_chunk().ok_or(no_header)?;
        let (id, rest) = rest.split_first_chunk().ok_or(no_header)?;
        let (id2, rest) = rest.split_first_chunk().ok_or(no_header)?;
        let n_labels = u32::from_le_bytes(*flag);
        let labels = (n_labels as usize)
            .checked_mul(4)
            .and_then(|bytes| rest.get(..bytes))
            .ok_or(Fault::LabelsCut { n_labels, left: rest.len() as u64 })?;
        Ok(HeaderView {
            scalar: f32::from_le_bytes(*scalar),
            labels: labels.as_chunks().0,
            id: u64::from_le_bytes(*id),
            id2: u64::from_le_bytes(*id2),
        })
    }

    pub(crate) fn is_array(&self) -> bool {
        !self.labels.is_empty()
    }

    pub(crate) fn n_labels(&self) -> usize {
        self.labels.len().max(1)
    }

    /// The labels in order; the scalar counts only where there is no array.
    pub(crate) fn labels(&self) -> impl Iterator<Item = f32> + use<'a> {
        let scalar = self.labels.is_empty().then_some(self.scalar);
        self.labels.iter().map(|bytes| f32::from_le_bytes(*bytes)).chain(scalar)
    }

    pub(crate) fn first_label(&self) -> f32 {
        self.labels.first().map_or(self.scalar, |bytes| f32::from_le_bytes(*bytes))
    }

    /// Where the image begins in the payload.
    pub(crate) fn image_start(&self) -> usize {
        FIXED_BYTES + 4 * self.labels.len()
    }

    pub(crate) fn to_header(self) -> Header {
        let labels = match self.is_array() {
            true => Labels::Array(self.labels().collect()),
            false => Labels::Scalar(self.scalar),
        };
        Header { labels, id: self.id, id2: self.id2 }
    }
}

/// The whole number that a label stands for, if it stands for one.
///
/// InsightFace drops fractions; a label with one is no class, so here it is none.
pub(crate) fn whole(label: f32) -> Option<u64> {
    // 2^64 and all above it would saturate; NaN fails every comparison.
    let fits = label >= 0.0 && label < u64::MAX as f32 && label.fract() == 0.0;
    fits.then_some(label as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scalar_label_is_in_the_fixed_part() {
        let mut bytes = Vec::new();
        Header { labels: Labels::Scalar(1.0), id: 2, id2: 3 }.write_to(&mut bytes);
        let expected = b"\0\0\0\0\0\0\x80\x3f\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0";
        assert_eq!(bytes, expected);
    }

    #[test]
    fn an_array_follows_the_fixed_part_and_its_scalar_is_zero() {
        let mut bytes = Vec::new();
        Header::array([1.0, 0.5], 7).write_to(&mut bytes);
        let expected =
            b"\x02\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x80\x3f\0\0\0\x3f";
        assert_eq!(bytes, expected);
        let view = HeaderView::parse(&bytes).unwrap();
        assert_eq!((view.first_label(), view.image_start()), (1.0, 32));
        assert_eq!(view.to_header(), Header::array([1.0, 0.5], 7));
    }

    #[test]
    fn a_short_payload_has_no_header() {
        assert_eq!(HeaderView::parse(&[0; 23]).unwrap_err(), Fault::NoHeader { bytes: 23 });
    }

    #[test]
    fn a_flag_beyond_the_payload_is_an_error_not_an_allocation() {
        let mut bytes = [0; 28];
        bytes[..4].fill(0xff);
        let fault = Fault::LabelsCut { n_labels: u32::MAX, left: 4 };
        assert_eq!(HeaderView::parse(&bytes).unwrap_err(), fault);
    }

    #[test]
    fn only_whole_numbers_from_zero_are_classes() {
        for (label, class) in [(0.0, Some(0)), (-0.0, Some(0)), (16_777_216.0, Some(1 << 24))] {
            assert_eq!(whole(label), class);
        }
        for label in [-1.0, 0.5, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 2e19, f32::MAX] {
            assert_eq!(whole(label), None, "{label}");
        }
    }
}

//! Whole face data sets in either of InsightFace's layouts.

use std::path::Path;

use pfc_durable::AtomicDir;

use crate::{Header, Property, RecordError, RecordWriter};

/// The second label of an image in a file with identity records: the face is aligned.
const ALIGNED: f32 = 1.0;

/// Which layout to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Images alone, keys from 0, one label each; what `im2rec` and shuffled files look like, and
    /// what NVIDIA DALI needs.
    Sequential,
    /// Images from key 1, then a record per identity, then record 0; what `face2rec2` writes and
    /// MS1M and Glint360K are.
    Identities,
}

/// What a [`FaceWriter`] wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Images.
    pub n_images: u64,
    /// Classes as in `property`: one more than the largest label.
    pub n_classes: u64,
    /// Identity records with a bound that float32 rounded, so that an image at that bound lies in a
    /// neighbour's range. Only readers of ranges see that: the image's own label is right.
    pub n_rounded_ranges: u64,
}

/// Writes a folder with `train.rec`, `train.idx` and `property`.
///
/// It gets its name once [`finish`](FaceWriter::finish)ed; dropped before, it leaves nothing. With
/// [`Style::Identities`] it keeps 8 bytes per identity in memory.
#[derive(Debug)]
pub struct FaceWriter {
    writer: RecordWriter,
    style: Style,
    height: u32,
    width: u32,
    n_images: u64,
    /// First key of each identity.
    starts: Vec<u64>,
    last_label: Option<u64>,
    label_max: Option<u64>,
}

impl FaceWriter {
    /// Starts the folder `dir`, which must be absent or empty, for images of one size in pixels.
    ///
    /// # Errors
    ///
    /// As [`RecordWriter::create`].
    pub fn create(
        dir: &Path,
        style: Style,
        height: u32,
        width: u32,
    ) -> Result<FaceWriter, RecordError> {
        Ok(FaceWriter::new(RecordWriter::create(dir)?, style, [height, width]))
    }

    /// Starts to fill a folder that was begun for it, with images of `[height, width]` pixels.
    ///
    /// # Errors
    ///
    /// [`RecordError::Durable`].
    pub fn fill(
        folder: AtomicDir,
        style: Style,
        size: [u32; 2],
    ) -> Result<FaceWriter, RecordError> {
        Ok(FaceWriter::new(RecordWriter::fill(folder)?, style, size))
    }

    fn new(writer: RecordWriter, style: Style, [height, width]: [u32; 2]) -> FaceWriter {
        FaceWriter {
            writer,
            style,
            height,
            width,
            n_images: 0,
            starts: Vec::new(),
            last_label: None,
            label_max: None,
        }
    }

    /// Appends an encoded image of a class; returns its key. The image's bytes are stored as is.
    ///
    /// # Errors
    ///
    /// [`RecordError::LabelRounds`]; [`RecordError::LabelOrder`] if the style is
    /// [`Style::Identities`] and the class is below the one before it; otherwise as
    /// [`RecordWriter::write`]. After an error but the last kind the writer goes on.
    pub fn push(&mut self, label: u64, image: &[u8]) -> Result<u64, RecordError> {
        let stored = label as f32;
        if !is_exact(label) {
            let (path, stored) = (self.writer.path().to_path_buf(), stored as u64);
            return Err(RecordError::LabelRounds { path, label, stored });
        }
        let key = match self.style {
            Style::Sequential => self.n_images,
            Style::Identities => self.n_images + 1,
        };
        let header = match self.style {
            Style::Sequential => Header::scalar(stored, key),
            Style::Identities => Header::array([stored, ALIGNED], key),
        };
        let previous = self.last_label.filter(|_| self.style == Style::Identities);
        if let Some(previous) = previous.filter(|previous| *previous > label) {
            let path = self.writer.path().to_path_buf();
            return Err(RecordError::LabelOrder { path, label, previous });
        }
        self.writer.write(key, &header, image)?;
        if self.style == Style::Identities && previous != Some(label) {
            self.starts.push(key);
        }
        self.n_images += 1;
        self.last_label = Some(label);
        self.label_max = self.label_max.max(Some(label));
        Ok(key)
    }

    /// The folder while it is being written: a file put there comes with the others.
    pub fn folder(&self) -> &Path {
        self.writer.folder()
    }

    /// Writes the identity records and record 0 if the style has them, and gives the folder its
    /// name.
    ///
    /// # Errors
    ///
    /// [`RecordError::CountRounds`], see [`check_counts`]; otherwise as [`RecordWriter::finish`].
    pub fn finish(mut self) -> Result<Written, RecordError> {
        let n_rounded_ranges = match self.style {
            Style::Sequential => 0,
            Style::Identities => self.write_identities()?,
        };
        let n_classes = self.label_max.map_or(0, |label| label + 1);
        let (height, width) = (self.height, self.width);
        self.writer.finish(Some(&Property { n_classes, height, width }))?;
        Ok(Written { n_images: self.n_images, n_classes, n_rounded_ranges })
    }

    fn write_identities(&mut self) -> Result<u64, RecordError> {
        let n_identities = self.starts.len() as u64;
        check_counts(self.n_images, n_identities)?;
        let images_end = self.n_images + 1;
        let ends = self.starts.iter().copied().skip(1).chain([images_end]);
        let mut n_rounded = 0;
        for ((key, start), end) in (images_end..).zip(&self.starts).zip(ends) {
            n_rounded += u64::from(!is_exact(*start) || !is_exact(end));
            self.writer.write(key, &Header::array([*start as f32, end as f32], key), b"")?;
        }
        let end = images_end + n_identities;
        self.writer.write(0, &Header::array([images_end as f32, end as f32], 0), b"")?;
        Ok(n_rounded)
    }
}

/// Whether so many images can be written with [`Style::Identities`]; ask before a long run.
///
/// Record 0 holds the number of images + 1, and that plus the number of identities, as float32:
/// above [`LABEL_EXACT_MAX`](crate::LABEL_EXACT_MAX) odd numbers do not fit, and a reader would lose an image or take an
/// identity record for one. Glint360K's are even. [`Style::Sequential`] has no such limit.
///
/// # Errors
///
/// [`RecordError::CountRounds`].
pub fn check_counts(n_images: u64, n_identities: u64) -> Result<(), RecordError> {
    let images_end = n_images.saturating_add(1);
    for key in [images_end, images_end.saturating_add(n_identities)] {
        if !is_exact(key) {
            let stored = key as f32 as u64;
            return Err(RecordError::CountRounds { n_images, n_identities, key, stored });
        }
    }
    Ok(())
}

fn is_exact(number: u64) -> bool {
    // 128 bits: in 64 the largest would come back by saturation.
    number as f32 as u128 == u128::from(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{IdentityRange, Layout, RecordPaths};

    fn writer(style: Style) -> (tempfile::TempDir, FaceWriter) {
        let parent = tempfile::tempdir().unwrap();
        let writer = FaceWriter::create(&parent.path().join("out"), style, 112, 96).unwrap();
        (parent, writer)
    }

    #[test]
    fn identities_get_a_range_each_and_record_0_the_bounds() {
        let (parent, mut writer) = writer(Style::Identities);
        for (label, image) in [(0, b"a"), (0, b"b"), (3, b"c")] {
            writer.push(label, image).unwrap();
        }
        let written = writer.finish().unwrap();
        assert_eq!(written, Written { n_images: 3, n_classes: 4, n_rounded_ranges: 0 });
        let paths = RecordPaths::find(&parent.path().join("out")).unwrap();
        let file = paths.open().unwrap();
        assert_eq!(file.layout(), &Layout::Identities { images: 1..4, identities: 4..6 });
        let identities: Vec<_> = file.identities().map(Result::unwrap).collect();
        assert_eq!(identities[0], IdentityRange { key: 4, images: 1..3 });
        assert_eq!(identities[1], IdentityRange { key: 5, images: 3..4 });
        assert_eq!(file.by_key(0).unwrap().unwrap().header, Header::array([4.0, 6.0], 0));
        let property = Property::open(&paths.property.unwrap()).unwrap();
        assert_eq!(property, Property { n_classes: 4, height: 112, width: 96 });
    }

    #[test]
    fn a_data_set_without_images_is_written_and_read() {
        for style in [Style::Sequential, Style::Identities] {
            let (parent, writer) = writer(style);
            writer.finish().unwrap();
            let file = RecordPaths::find(&parent.path().join("out")).unwrap().open().unwrap();
            assert_eq!((file.n_images(), file.n_identities(), file.notes()), (0, 0, &[][..]));
        }
    }

    #[test]
    fn a_label_that_float32_rounds_is_refused_and_the_writer_goes_on() {
        let (_parent, mut writer) = writer(Style::Sequential);
        let error = writer.push(16_777_217, b"").unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("label 16777217 cannot be stored: float32 makes it 16777216")
        );
        assert_eq!(writer.push(16_777_218, b"").unwrap(), 0);
        assert_eq!(writer.finish().unwrap().n_classes, 16_777_219);
    }

    #[test]
    fn the_largest_label_is_refused_like_any_that_rounds() {
        let (_parent, mut writer) = writer(Style::Sequential);
        assert!(writer.push(u64::MAX, b"").is_err());
    }

    #[test]
    fn classes_out_of_order_are_refused_only_with_identity_records() {
        let (_parent, mut in_order) = writer(Style::Identities);
        in_order.push(2, b"").unwrap();
        let error = in_order.push(1, b"").unwrap_err();
        assert!(error.to_string().ends_with("an image of class 1 after one of class 2"));
        assert_eq!(in_order.push(2, b"").unwrap(), 2);
        let (_parent, mut any_order) = writer(Style::Sequential);
        any_order.push(2, b"").unwrap();
        assert_eq!(any_order.push(1, b"").unwrap(), 1);
    }

    #[test]
    fn counts_that_record_0_cannot_hold_are_refused() {
        // Glint360K: 17091658 and 17451890 are even.
        check_counts(17_091_657, 360_232).unwrap();
        assert!(check_counts(17_091_656, 360_232).is_err());
        let error = check_counts(17_091_657, 360_233).unwrap_err().to_string();
        assert!(error.ends_with("float32 makes the key 17451891 into 17451892"), "{error}");
        assert!(check_counts(u64::MAX, u64::MAX).is_err());
    }
}

//! `train.rec`, `train.idx` and `property`, and who the labels are in `identities.tsv`.

use std::path::Path;

use pfc_durable::AtomicDir;
use pfc_recordio::{FaceWriter, RecordError, Style, check_counts};

use super::{Feed, Written, names};
use crate::IngestError;

/// Fills the folder `dir` and commits it.
///
/// # Errors
///
/// [`IngestError`], before anything is written if float32 cannot hold a label or count; nothing is
/// left behind.
pub fn write(feed: &Feed<'_>, dir: AtomicDir, style: Style) -> Result<Written, IngestError> {
    let out = &dir.target().path().to_path_buf();
    let labels = feed.labels()?;
    check_labels(out, labels.iter().copied())?;
    if style == Style::Identities {
        check_counts(feed.len() as u64, labels.len() as u64)?;
    }
    let size = feed.image_size();
    let mut writer = FaceWriter::fill(dir, style, [size.height.into(), size.width.into()])?;
    for item in feed.items() {
        let item = item?;
        writer.push(item.label.into(), item.face.image)?;
    }
    let named = feed.identities().filter(|(label, _)| labels.contains(label));
    names::write_table(&named.collect::<Vec<_>>(), writer.folder(), out)?;
    let written = writer.finish()?;
    let (files, bytes) = super::summary::measure(out)?;
    Ok(Written {
        images: written.n_images,
        identities: labels.len() as u64,
        files,
        bytes,
        rounded_ranges: written.n_rounded_ranges,
        ..Written::default()
    })
}

/// Refuses the first label that float32 would round to another.
fn check_labels(out: &Path, labels: impl Iterator<Item = u32>) -> Result<(), RecordError> {
    for label in labels.map(u64::from) {
        let stored = label as f32 as u64;
        if stored != label {
            return Err(RecordError::LabelRounds { path: out.join("train.rec"), label, stored });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_above_two_to_the_24_that_float32_rounds_is_refused() {
        let check = |labels: &[u32]| check_labels("rec".as_ref(), labels.iter().copied());
        check(&[0, 16_777_216, 16_777_218]).unwrap();
        let error = check(&[0, 16_777_217]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "rec/train.rec: label 16777217 cannot be stored: float32 makes it 16777216"
        );
        assert!(check(&[u32::MAX]).is_err());
    }
}

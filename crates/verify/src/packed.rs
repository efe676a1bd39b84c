//! The images of a list of pairs that are rows of a packed data set.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use pfc_findings::{FindingsError, Reading, View};
use pfc_image::has_image_extension;
use pfc_shard::{QualityTable, ShardError};

use crate::{VerifyError, pairs::ImageName};

/// The rows of a data set that a list names.
#[derive(Debug)]
pub struct Rows {
    root: PathBuf,
    pub(crate) view: View,
    /// By image: the place in the view.
    places: Vec<u64>,
}

impl Rows {
    /// Finds `images` in the data set at `root`, without the rows that decisions beside it leave out unless
    /// `reading` says so: by what a row is called there (its column `source`), with any extension where a
    /// list leaves that open or its name has none, or by the number of the row. Every row is looked at once.
    ///
    /// # Errors
    ///
    /// [`VerifyError::Dataset`], and [`VerifyError::MissingRows`].
    pub fn find(
        root: &Path,
        list: &Path,
        images: &[ImageName],
        reading: Reading,
    ) -> Result<Rows, VerifyError> {
        let view = View::open(root, reading)?;
        let mut places: Vec<Option<u64>> = vec![None; images.len()];
        let mut by_stem = places.clone();
        let wanted = |is_wanted: fn(&ImageName) -> bool| -> HashMap<&str, usize> {
            let of_kind = images.iter().enumerate().filter(|(_, image)| is_wanted(image));
            of_kind.map(|(i, image)| (image.path.as_str(), i)).collect()
        };
        // A number is that of a row.
        let is_open = |image: &ImageName| {
            let has_no_ending = !has_image_extension(image.path.as_ref());
            image.any_extension || has_no_ending && image.path.parse::<u64>().is_err()
        };
        let (exact, open) = (wanted(|image| !image.any_extension), wanted(is_open));
        for place in 0..view.len() {
            let face = view.get(place).map_err(FindingsError::from)?;
            let stem = face.source.rsplit_once('.').map_or(face.source, |(stem, _)| stem);
            if let Some(i) = exact.get(face.source) {
                places[*i].get_or_insert(place);
            }
            if let Some(i) = open.get(stem) {
                by_stem[*i].get_or_insert(place);
            }
        }
        for (place, by_stem) in places.iter_mut().zip(by_stem) {
            *place = place.or(by_stem);
        }
        for (place, image) in places.iter_mut().zip(images).filter(|(place, _)| place.is_none()) {
            *place = image.path.parse().ok().and_then(|row| view.place(row));
        }
        let mut missing = images.iter().zip(&places).filter(|(_, place)| place.is_none());
        let Some((first, _)) = missing.next() else {
            let places = places.into_iter().flatten().collect();
            return Ok(Rows { root: root.to_owned(), view, places });
        };
        Err(VerifyError::MissingRows {
            are_some_left_out: view.len() < view.dataset().len(),
            root: root.to_owned(),
            list: list.to_owned(),
            n_missing: 1 + missing.count(),
            n_images: images.len(),
            first: first.path.clone(),
            line: first.line,
        })
    }

    /// The encoded bytes of image `i`.
    ///
    /// # Errors
    ///
    /// [`VerifyError::Dataset`].
    pub fn read(&self, i: usize) -> Result<Vec<u8>, VerifyError> {
        Ok(self.view.get(self.places[i]).map_err(FindingsError::from)?.image.to_vec())
    }

    /// The values of a measure of `pfc-ingest quality`, by image; NaN where it is not known.
    ///
    /// # Errors
    ///
    /// [`VerifyError::Dataset`] if the data set has no such measure, or it cannot be read.
    pub fn quality(&self, column: &str) -> Result<Vec<f32>, VerifyError> {
        let of_shard = |error: ShardError| VerifyError::from(FindingsError::from(error));
        let table = QualityTable::open(&self.root).map_err(of_shard)?;
        let missing = || of_shard(ShardError::NotMeasured { dir: self.root.clone() });
        let values = table.ok_or_else(missing)?.column(column).map_err(of_shard)?;
        let of_image =
            |place: &u64| values.get(self.view.row(*place) as usize).copied().unwrap_or(f32::NAN);
        Ok(self.places.iter().map(of_image).collect())
    }

    /// What image `i` is called, and whom it shows.
    ///
    /// # Errors
    ///
    /// [`VerifyError::Dataset`].
    pub fn names(&self, i: usize) -> Result<(String, String), VerifyError> {
        let face = self.view.get(self.places[i]).map_err(FindingsError::from)?;
        Ok((face.source.to_owned(), self.view.people().name(face.label).to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use pfc_findings::{Action, Decision, DecisionLog, RunInfo};
    use pfc_image::{ImageSize, Pixels, Quality, encode_jpeg};
    use pfc_shard::{DEFAULT_SHARD_BYTES, DatasetSpec, DatasetWriter, Face};

    use super::*;
    use crate::{Opening, PairsSet, PeopleFrom};

    /// Three images of two people.
    fn pack(dir: &Path) {
        let spec = DatasetSpec {
            image_size: ImageSize::FACE,
            seed: 1,
            shard_bytes: DEFAULT_SHARD_BYTES,
            sources: vec!["faces".into()],
            tool: "test".into(),
            arguments: Vec::new(),
            lineage: Vec::new(),
        };
        let mut writer = DatasetWriter::create(dir, spec).unwrap();
        for (i, (label, source)) in
            [(0, "Ann/Ann_0001.jpg"), (0, "Ann/Ann_0002.png"), (1, "Bob/Bob_0001.jpg")]
                .iter()
                .enumerate()
        {
            let pixels = Pixels::grey(112, 112, vec![40 * i as u8; 112 * 112]);
            let jpeg = encode_jpeg(&pixels, 90).unwrap();
            let face = Face::new(&jpeg, *label, source, ImageSize::FACE, Quality::default());
            writer.push(face).unwrap();
        }
        writer.finish(["Ann", "Bob"].into_iter().collect()).unwrap();
    }

    fn open(dir: &Path, pairs: &str) -> Result<PairsSet, VerifyError> {
        let list = dir.join("pairs.txt");
        std::fs::write(&list, pairs).unwrap();
        PairsSet::open(&dir.join("data"), &list, Opening::default())
    }

    /// Has row 1 dropped by a person.
    fn decide(dir: &Path) {
        let mut log = DecisionLog::open(dir).unwrap();
        let info = RunInfo {
            dataset: log.dataset(),
            tool: "test".into(),
            command: "review".into(),
            arguments: Vec::new(),
            notes: serde_json::Value::Null,
        };
        log.append(&info, &[Decision::new(1, 0, Action::Drop, "blurred")]).unwrap();
    }

    #[test]
    fn a_row_that_a_decision_leaves_out_is_missing_unless_the_set_is_read_as_packed() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        pack(&data);
        decide(&data);
        let error = open(dir.path(), "0,1,1\n0,2,0\n").unwrap_err();
        let left_out =
            matches!(error, VerifyError::MissingRows { are_some_left_out: true, line: 1, .. });
        assert!(left_out, "{error}");
        let list = dir.path().join("pairs.txt");
        let opening = Opening { reading: Reading::AsPacked, ..Opening::default() };
        let packed = PairsSet::open(&data, &list, opening).unwrap();
        assert_eq!((packed.n_pairs(), packed.notice("--as-packed")), (2, None));
        let decided = open(dir.path(), "0,2,0\n2,0,0\n").unwrap();
        assert_eq!(
            decided.notice("--as-packed").unwrap(),
            "1 of 3 rows are left out by decisions; --as-packed reads them"
        );
    }

    #[test]
    fn pairs_name_rows_by_their_source_or_number_and_the_data_set_says_who_they_are() {
        let dir = tempfile::tempdir().unwrap();
        pack(&dir.path().join("data"));
        let all = ["Ann/Ann_0001.jpg", "Ann/Ann_0002.png", "Bob/Bob_0001.jpg"];
        for pairs in [
            "Ann/Ann_0001.jpg Ann/Ann_0002.png 1\nAnn/Ann_0001.jpg Bob/Bob_0001.jpg 0\n",
            "0,1,1\n0,2,0\n",
            "1\nAnn 1 2\nAnn 1 Bob 1\n",
            "Ann/Ann_0001,Ann/Ann_0002,1\nAnn/Ann_0001,Bob/Bob_0001,0\n",
        ] {
            let set = open(dir.path(), pairs).unwrap();
            let names: Vec<&str> = (0..set.n_images()).map(|i| set.image_name(i)).collect();
            assert_eq!(names, all, "{pairs}");
            assert_eq!((set.n_people, set.people_from), (2, PeopleFrom::Names), "{pairs}");
            let same: Vec<bool> = set.pairs().iter().map(|pair| pair.same).collect();
            assert_eq!(same, [true, false]);
        }
        let error = open(dir.path(), "0,1,1\n0,3,0\n").unwrap_err();
        assert!(matches!(error, VerifyError::MissingRows { n_missing: 1, line: 2, .. }), "{error}");
    }
}

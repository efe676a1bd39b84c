//! All landmarks of a list, to look up by image.

use std::path::Path;

use pfc_cli::interrupt;
use pfc_image::{align::Point, has_image_extension};
use pfc_shard::{Checksum, hash::content_hash};

use super::{LandmarkError, LandmarkFormat, LandmarkList, Marks};

/// Landmarks by path. Memory: 48 bytes a line, 0.8 GB for the 17 million of Glint360K.
#[derive(Debug, Default)]
pub struct LandmarkTable {
    /// In ascending order of `path_hash`.
    rows: Vec<Row>,
}

/// Paths are known by 64 bits of their hash: of 17 million, two agree once in 100,000 tables.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Row {
    path_hash: u64,
    /// x and y of the five points; what detectors print has fewer digits.
    points: [[f32; 2]; 5],
}

impl LandmarkTable {
    /// Reads a whole list.
    ///
    /// # Errors
    ///
    /// [`LandmarkError`] if the list cannot be read or understood, gives an image twice with different
    /// landmarks, or the user interrupts.
    pub fn read(path: &Path, format: LandmarkFormat) -> Result<LandmarkTable, LandmarkError> {
        let list = LandmarkList::open(path, format)?;
        let mut rows = Vec::new();
        for marks in list.images()? {
            let done = rows.len() as u64;
            if done.is_multiple_of(1 << 16) && interrupt::requested() {
                return Err(LandmarkError::Interrupted { done });
            }
            rows.push(Row::of(&marks?));
        }
        rows.sort_unstable_by_key(|row: &Row| row.path_hash);
        let of_one_path = |pair: &[Row]| pair[0].path_hash == pair[1].path_hash;
        // NaN is unlike itself; listed twice as not found is still not found.
        let differ = |pair: &[Row]| {
            let bits = |row: &Row| row.points.map(|point| point.map(f32::to_bits));
            of_one_path(pair) && bits(&pair[0]) != bits(&pair[1])
        };
        if let Some(pair) = rows.windows(2).find(|pair| differ(pair)) {
            return Err(twice(&list, pair[0].path_hash)?);
        }
        Ok(LandmarkTable { rows })
    }

    /// The landmarks of the image at `path`, which the list may give without its extension.
    pub fn get(&self, path: &str) -> Option<[Point; 5]> {
        let without = path.rsplit_once('.').filter(|_| has_image_extension(Path::new(path)));
        let row = self.row(path).or_else(|| self.row(without?.0))?;
        Some(row.points.map(|point| point.map(f64::from)))
    }

    /// A checksum of all paths and landmarks, whatever their order in the list.
    pub fn checksum(&self) -> Checksum {
        let all = self.rows.chunks(1 << 12).fold(0u128, |before, rows| {
            let mut bytes = before.to_be_bytes().to_vec();
            for row in rows {
                bytes.extend(row.path_hash.to_be_bytes());
                let values = row.points.as_flattened().iter();
                bytes.extend(values.flat_map(|v| v.to_be_bytes()));
            }
            content_hash(&bytes)
        });
        Checksum(all)
    }

    fn row(&self, path: &str) -> Option<&Row> {
        let hash = path_hash(path);
        let found = self.rows.binary_search_by_key(&hash, |row| row.path_hash).ok()?;
        self.rows.get(found)
    }
}

impl Row {
    fn of(marks: &Marks) -> Row {
        let points = marks.points.map(|point| point.map(|v| v as f32));
        Row { path_hash: path_hash(&marks.image), points }
    }
}

fn path_hash(path: &str) -> u64 {
    content_hash(path.as_bytes()) as u64
}

/// Reads the list once more to say where.
fn twice(list: &LandmarkList, hash: u64) -> Result<LandmarkError, LandmarkError> {
    let mut found = Vec::new();
    for marks in list.images()? {
        let marks = marks?;
        if path_hash(&marks.image) == hash {
            found.push(marks);
        }
    }
    let first = found.first().map_or(0, |marks| marks.line);
    let other = found.iter().find(|marks| marks.points != found[0].points);
    let second = other.or(found.last()).map_or(0, |marks| marks.line);
    let image = found.pop().map(|marks| marks.image).unwrap_or_default();
    Ok(LandmarkError::Twice { path: list.path().to_path_buf(), image, first, second })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn read(text: &str) -> Result<LandmarkTable, LandmarkError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        LandmarkTable::read(file.path(), LandmarkFormat::Auto)
    }

    const XY: &str = "38.5 51.75 73.5 51.5 56 71.75 41.5 92.25 70.75 92.25";

    #[test]
    fn an_image_is_found_by_its_path_with_or_without_extension() {
        let table = read(&format!("a/1.jpg {XY}\nn000001/0001_01 {XY}")).unwrap();
        assert_eq!(table.get("a/1.jpg").unwrap()[0], [38.5, 51.75]);
        assert!(table.get("n000001/0001_01.jpg").is_some());
        assert!(table.get("a/1").is_none() && table.get("a/2.jpg").is_none());
    }

    #[test]
    fn an_image_listed_twice_must_have_the_same_landmarks() {
        assert!(read(&format!("a.jpg {XY}\n./a.jpg {XY}")).is_ok());
        let other = XY.replace("38.5", "38");
        let error = read(&format!("a.jpg {XY}\nb.jpg {XY}\na.jpg {other}")).unwrap_err();
        assert!(
            error.to_string().ends_with("lines 1 and 3 give `a.jpg` different landmarks"),
            "{error}"
        );
    }
}

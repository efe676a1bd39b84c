//! All landmarks of a list, to look up by image.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
};

use pfc_cli::{interrupt, units};
use pfc_image::{align::Landmarks, has_image_extension};
use xxhash_rust::xxh3::xxh3_128;

use super::{
    LandmarkError, LandmarkFormat, LandmarkList, Marks,
    list::{no_line, tidy},
};

/// Landmarks by path. Memory: 48 bytes a line, 0.8 GB for the 17 million of Glint360K.
#[derive(Debug, Default)]
pub struct LandmarkTable {
    /// In ascending order of `path_hash`.
    rows: Vec<Row>,
    /// Why the list does not give the landmarks of an image that it names.
    problems: BTreeMap<u64, String>,
}

/// Paths are known by 64 bits of their hash: of 17 million, two agree once in 100,000 tables.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Row {
    path_hash: u64,
    points: Landmarks,
}

impl LandmarkTable {
    /// Reads a whole list. A line that cannot be understood costs its own image, and so do two that
    /// give one image different landmarks; how many there are is said.
    ///
    /// # Errors
    ///
    /// [`LandmarkError`] if the list cannot be read, its layout or not one of its lines be understood,
    /// or the user interrupts.
    pub fn read(path: &Path, format: LandmarkFormat) -> Result<LandmarkTable, LandmarkError> {
        let list = LandmarkList::open(path, format)?;
        let mut table = LandmarkTable::default();
        let (mut n_bad, mut first_bad) = (0, None);
        for (done, listed) in (0..).zip(list.images()?) {
            if u64::is_multiple_of(done, 1 << 16) && interrupt::requested() {
                return Err(LandmarkError::Interrupted { done });
            }
            match listed? {
                Ok(marks) => table.rows.push(Row::of(&marks)),
                Err(bad) => {
                    n_bad += 1;
                    if let Some(image) = &bad.image {
                        let problem = format!("{}:{}: {}", path.display(), bad.line, bad.problem);
                        table.problems.entry(path_hash(image)).or_insert(problem);
                    }
                    first_bad.get_or_insert(bad);
                }
            }
        }
        if let Some(bad) = first_bad {
            if table.rows.is_empty() {
                return Err(no_line(path, n_bad, &bad));
            }
            tracing::warn!(
                "{}: {} cannot be understood, the first is line {}: {}",
                path.display(),
                units::of(n_bad, "line"),
                bad.line,
                bad.problem
            );
        }
        table.rows.sort_unstable_by_key(|row: &Row| row.path_hash);
        table.leave_out_contradictions(&list)?;
        Ok(table)
    }

    /// Drops the landmarks of images that have more than one set of them.
    fn leave_out_contradictions(&mut self, list: &LandmarkList) -> Result<(), LandmarkError> {
        // NaN is unlike itself; listed twice as not found is still not found.
        let bits = |row: &Row| row.points.map(|point| point.map(f32::to_bits));
        let alike = self.rows.chunk_by(|a, b| a.path_hash == b.path_hash);
        let differ = alike.filter(|rows| rows.iter().any(|row| bits(row) != bits(&rows[0])));
        let hashes: HashSet<u64> = differ.map(|rows| rows[0].path_hash).collect();
        if hashes.is_empty() {
            return Ok(());
        }
        // Read once more to say where.
        let mut firsts: HashMap<u64, Marks> = HashMap::new();
        for marks in list.images()? {
            let Ok(marks) = marks? else { continue };
            let hash = path_hash(&marks.image);
            if !hashes.contains(&hash) {
                continue;
            }
            let Some(first) = firsts.get(&hash) else {
                firsts.insert(hash, marks);
                continue;
            };
            if Row::of(first).points != Row::of(&marks).points {
                let (path, first, second) = (list.path().display(), first.line, marks.line);
                let problem =
                    format!("{path}: lines {first} and {second} give it different landmarks");
                self.problems.entry(hash).or_insert(problem);
            }
        }
        self.rows.retain(|row| !hashes.contains(&row.path_hash));
        tracing::warn!(
            "{}: {} with different landmarks on several lines, which are left out",
            list.path().display(),
            units::of(hashes.len() as u64, "image")
        );
        Ok(())
    }

    /// The landmarks of the image at `path`, which the list may give without its extension.
    pub fn get(&self, path: &str) -> Option<Landmarks> {
        let row = names(&tidy(path)).find_map(|name| self.row(name))?;
        Some(row.points)
    }

    /// Why the list has no landmarks for the image at `path`, if it names it nevertheless.
    pub fn problem(&self, path: &str) -> Option<&str> {
        let path = tidy(path);
        let problem = names(&path).find_map(|name| self.problems.get(&path_hash(name)));
        problem.map(String::as_str)
    }

    /// A checksum of all paths and landmarks, whatever their order in the list.
    pub fn checksum(&self) -> u128 {
        let all = self.rows.chunks(1 << 12).fold(0u128, |before, rows| {
            let mut bytes = before.to_be_bytes().to_vec();
            for row in rows {
                bytes.extend(row.path_hash.to_be_bytes());
                let values = row.points.as_flattened().iter();
                bytes.extend(values.flat_map(|v| v.to_be_bytes()));
            }
            xxh3_128(&bytes)
        });
        self.problems.iter().fold(all, |before, (hash, problem)| {
            let bytes = [&before.to_be_bytes()[..], &hash.to_be_bytes(), problem.as_bytes()];
            xxh3_128(&bytes.concat())
        })
    }

    fn row(&self, path: &str) -> Option<&Row> {
        let hash = path_hash(path);
        let found = self.rows.binary_search_by_key(&hash, |row| row.path_hash).ok()?;
        self.rows.get(found)
    }
}

impl Row {
    fn of(marks: &Marks) -> Row {
        Row { path_hash: path_hash(&marks.image), points: marks.points }
    }
}

fn path_hash(path: &str) -> u64 {
    xxh3_128(path.as_bytes()) as u64
}

/// What an image at `path` may be called: so, or without its extension.
fn names(path: &str) -> impl Iterator<Item = &str> {
    let without = path.rsplit_once('.').filter(|_| has_image_extension(Path::new(path)));
    [Some(path), without.map(|(name, _)| name)].into_iter().flatten()
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
        assert_eq!(table.get("./a/1.jpg"), table.get("a\\1.jpg"));
        assert!(table.get("./a/1.jpg").is_some());
        assert!(table.get("a/1").is_none() && table.get("a/2.jpg").is_none());
    }

    #[test]
    fn an_image_listed_twice_has_landmarks_only_if_they_are_the_same() {
        assert!(read(&format!("a.jpg {XY}\n./a.jpg {XY}")).unwrap().get("a.jpg").is_some());
        let other = XY.replace("38.5", "38");
        let table = read(&format!("a.jpg {XY}\nb.jpg {XY}\na.jpg {other}")).unwrap();
        assert!(table.get("a.jpg").is_none() && table.get("b.jpg").is_some());
        let problem = table.problem("a.jpg").unwrap();
        assert!(problem.ends_with(": lines 1 and 3 give it different landmarks"), "{problem}");
        assert_eq!(table.problem("b.jpg"), None);
    }

    #[test]
    fn an_image_whose_line_is_bad_has_a_problem_and_a_list_of_such_lines_is_none() {
        let table = read(&format!("a.jpg {XY}\nb {XY} 9 9\n")).unwrap();
        let problem = table.problem("b.jpg").unwrap();
        assert!(problem.ends_with(":2: 13 fields, expected 11"), "{problem}");
        assert_ne!(table.checksum(), read(&format!("a.jpg {XY}\n")).unwrap().checksum());
        let error =
            read(&format!("a.jpg {}\nb.jpg {}\n", XY.replace("56", "x"), XY.replace("56", "x")));
        let error = error.unwrap_err();
        assert!(error.to_string().ends_with("none of its 2 lines can be understood"), "{error}");
        assert!(error.hint().unwrap().contains(":1: `x` is not a number"));
    }
}

//! The faces of a benchmark, from the two lists that name them.

use std::{collections::BTreeSet, path::Path};

use pfc_image::{ImageFolder, align::Landmarks};
use rayon::prelude::*;

use super::{
    LIST_BYTES_MAX, empty, fields,
    lines::{line_of, number, parse, shown},
    natural_order::natural_order,
};
use crate::{EvalError, files::read_regular_file};

const LANDMARK_LAYOUT: &str = "each line holds an image name below loose_crop, five landmarks as x y, and the detector's score: 12 fields";
const FACE_LAYOUT: &str =
    "each line holds an image name below loose_crop, a template id and a media id";

/// Faces in the order of the files.
#[derive(Debug, Clone, PartialEq)]
pub struct FaceList {
    /// File name below `loose_crop`.
    pub names: Vec<String>,
    /// In pixels of the loose crop.
    pub landmarks: Vec<Landmarks>,
    /// Confidence of the face detector.
    pub detector_score: Vec<f32>,
    /// Template of each face.
    pub template: Vec<u64>,
    /// Media of each face.
    pub media: Vec<u64>,
}

impl FaceList {
    /// Leaves faces out, given by ascending number.
    ///
    /// # Errors
    ///
    /// [`EvalError::EmptyTemplates`] if a template is left without any face: its pairs would have no
    /// score.
    pub fn leave_out(&mut self, faces: &[usize]) -> Result<(), EvalError> {
        let before: BTreeSet<u64> = self.template.iter().copied().collect();
        let is_kept = |face: usize| faces.binary_search(&face).is_err();
        let kept: Vec<bool> = (0..self.names.len()).map(is_kept).collect();
        fn retain<T>(list: &mut Vec<T>, kept: &[bool]) {
            let mut kept = kept.iter();
            list.retain(|_| kept.next() == Some(&true));
        }
        retain(&mut self.names, &kept);
        retain(&mut self.landmarks, &kept);
        retain(&mut self.detector_score, &kept);
        retain(&mut self.template, &kept);
        retain(&mut self.media, &kept);
        let after: BTreeSet<u64> = self.template.iter().copied().collect();
        let mut empty = before.difference(&after);
        match empty.next() {
            None => Ok(()),
            Some(first) => Err(EvalError::EmptyTemplates { first: *first, n: 1 + empty.count() }),
        }
    }

    /// Reads the two lists of faces, `landmarks` with the detector's points and `faces` with
    /// template and media ids; both name the same faces in the same order.
    ///
    /// # Errors
    ///
    /// [`EvalError::Durable`], and [`EvalError::Verify`] for the first line that breaks the layout.
    pub fn read(landmarks: &Path, faces: &Path) -> Result<FaceList, EvalError> {
        FaceList::parse(
            (landmarks, &read_regular_file(landmarks, LIST_BYTES_MAX)?),
            (faces, &read_regular_file(faces, LIST_BYTES_MAX)?),
        )
    }

    /// Parses the two lists; paths are for errors alone.
    ///
    /// # Errors
    ///
    /// As [`read`](FaceList::read).
    pub fn parse(landmarks: (&Path, &[u8]), faces: (&Path, &[u8])) -> Result<FaceList, EvalError> {
        let points = parse(landmarks.0, landmarks.1, LANDMARK_LAYOUT, landmark_line)?;
        let places = parse(faces.0, faces.1, FACE_LAYOUT, face_line)?;
        let differs = |i: &usize| match (points.get(*i), places.get(*i)) {
            (Some((a, _, _)), Some((b, _, _))) => a != b,
            _ => true,
        };
        if let Some(i) = (0..points.len().max(places.len())).find(differs) {
            let name = |name: Option<&String>| {
                name.map_or("the end of the list".to_owned(), |name| format!("`{}`", shown(name)))
            };
            let (here, there) = (places.get(i).map(|p| &p.0), points.get(i).map(|p| &p.0));
            let problem = format!(
                "{} stands where {} has {}",
                name(here),
                landmarks.0.display(),
                name(there)
            );
            let layout = "both lists name the same faces in the same order";
            return Err(EvalError::line(faces.0, line_of(faces.1, i), problem, layout));
        }
        if points.is_empty() {
            return Err(empty(landmarks.0, LANDMARK_LAYOUT));
        }
        let (template, media) = places.into_iter().map(|(_, t, m)| (t, m)).unzip();
        let mut list = FaceList {
            names: Vec::with_capacity(points.len()),
            landmarks: Vec::with_capacity(points.len()),
            detector_score: Vec::with_capacity(points.len()),
            template,
            media,
        };
        for (name, landmarks, score) in points {
            list.names.push(name);
            list.landmarks.push(landmarks);
            list.detector_score.push(score);
        }
        Ok(list)
    }

    /// Line of the list of landmarks that names a face; the list is read again.
    pub(in crate::ijb) fn line(landmarks: &Path, face: usize) -> usize {
        // Where the list is gone by now, blank lines (there are none as published) do not count.
        let bytes = read_regular_file(landmarks, LIST_BYTES_MAX).unwrap_or_default();
        if bytes.is_empty() { face + 1 } else { line_of(&bytes, face) }
    }

    /// Ids of all templates, rising.
    pub fn templates(&self) -> Vec<u64> {
        let mut ids = self.template.clone();
        ids.par_sort_unstable();
        ids.dedup();
        ids
    }

    /// The faces by name, digits read as numbers: the order of the published files, whatever the
    /// order of these.
    pub fn by_name(&self) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.names.len() as u32).collect();
        let name = |row: u32| self.names[row as usize].as_str();
        let key = |row: u32| (self.template[row as usize], self.media[row as usize], row);
        let compare = |a: &u32, b: &u32| {
            natural_order(name(*a), name(*b)).then_with(|| key(*a).cmp(&key(*b)))
        };
        // The published files are in this order already.
        if !order.is_sorted_by(|a, b| compare(a, b).is_lt()) {
            order.par_sort_unstable_by(compare);
        }
        order
    }
}

fn landmark_line(line: &str) -> Result<(String, Landmarks, f32), String> {
    let fields: [&str; 12] = fields(line)?;
    let mut landmarks = [[0.0; 2]; 5];
    for (value, field) in landmarks.as_flattened_mut().iter_mut().zip(&fields[1..]) {
        *value = number::<f32>(field, "landmark")?;
        if !value.is_finite() {
            return Err(format!("a landmark is {value}, not a finite number"));
        }
    }
    let score: f32 = number(fields[11], "detector score")?;
    if !score.is_finite() {
        return Err(format!("the detector score is {score}, not a finite number"));
    }
    Ok((name(fields[0])?, landmarks, score))
}

fn face_line(line: &str) -> Result<(String, u64, u64), String> {
    let [image, template, media] = fields(line)?;
    Ok((name(image)?, number(template, "template id")?, number(media, "media id")?))
}

/// A name that cannot lead out of the folder of images.
fn name(field: &str) -> Result<String, String> {
    match ImageFolder::ANY.below(field) {
        Ok(_) => Ok(field.to_owned()),
        Err(leads_out) => Err(leads_out.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POINTS: &str = "1 2 3 4 5 6 7 8 9 10";

    fn faces(landmarks: &str, places: &str) -> Result<FaceList, EvalError> {
        FaceList::parse(
            (Path::new("pts"), landmarks.as_bytes()),
            (Path::new("tid"), places.as_bytes()),
        )
    }

    #[track_caller]
    fn check_faces(landmarks: &str, places: &str, expected: &str) {
        assert_eq!(faces(landmarks, places).unwrap_err().to_string(), expected);
    }

    #[test]
    fn faces_are_joined_line_by_line() {
        let list =
            faces(&format!("a.jpg {POINTS} 0.9\nb.jpg {POINTS} 1"), "a.jpg 7 3\nb.jpg 5 3\n");
        let list = list.unwrap();
        assert_eq!(list.names, ["a.jpg", "b.jpg"]);
        assert_eq!((&list.template[..], &list.media[..]), (&[7, 5][..], &[3, 3][..]));
        assert_eq!(list.landmarks[1][4], [9.0, 10.0]);
        assert_eq!(list.templates(), [5, 7]);
    }

    #[test]
    fn bad_face_lines_are_named() {
        let good = format!("a.jpg {POINTS} 0.9");
        check_faces(
            &format!("{good}\na.jpg {POINTS}"),
            "",
            "pts:2: 11 fields where 12 are expected",
        );
        check_faces(
            &format!("a.jpg {POINTS} NaN"),
            "",
            "pts:1: the detector score is NaN, not a finite number",
        );
        check_faces(
            "a.jpg 1 2 3 4 5 6 7 8 inf 10 1",
            "",
            "pts:1: a landmark is inf, not a finite number",
        );
        check_faces(&good, "a.jpg 7 x", "tid:1: the media id is `x`, which is no number");
        check_faces(&good, "a.jpg 7", "tid:1: 2 fields where 3 are expected");
        check_faces(&good, "a.jpg 7 3 4 5", "tid:1: 5 fields where 3 are expected");
        check_faces(&good, "b.jpg 7 3", "tid:1: `b.jpg` stands where pts has `a.jpg`");
        check_faces(&good, "", "tid:1: the end of the list stands where pts has `a.jpg`");
        check_faces("", "", "pts:1: the list is empty");
        check_faces(
            &format!("../a {POINTS} 1"),
            "",
            "pts:1: the path `../a` leads out of the folder of the images",
        );
    }
}

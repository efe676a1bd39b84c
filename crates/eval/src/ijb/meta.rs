//! The `meta` folder of IJB-B and IJB-C.

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use rayon::prelude::*;

use super::lines::{line_of, number, parse, shown};
use crate::{EvalError, pairs::read_regular_file};

/// No list of a benchmark is near this size.
const LIST_BYTES_MAX: u64 = 8 << 30;

const LANDMARK_LAYOUT: &str =
    "each line holds an image name, five landmarks as x y, and the detector's score: 12 fields";
const FACE_LAYOUT: &str = "each line holds an image name, a template id and a media id";
const PAIR_LAYOUT: &str = "each line holds two template ids and 1 (same person) or 0";
const SEARCH_LAYOUT: &str =
    "after a header line, each line starts with a template id and a subject id, comma separated";

/// Faces in the order of the files.
#[derive(Debug, Clone, PartialEq)]
pub struct FaceList {
    /// File name below `loose_crop`.
    pub names: Vec<String>,
    /// x1 y1 … x5 y5 in pixels of the loose crop.
    pub landmarks: Vec<[f64; 10]>,
    /// Confidence of the face detector.
    pub detector_score: Vec<f32>,
    /// Template of each face.
    pub template: Vec<u64>,
    /// Media of each face.
    pub media: Vec<u64>,
}

/// Template pairs of the 1:1 protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairList {
    /// Places of the two templates in the rising list of ids.
    pub pairs: Vec<(u32, u32)>,
    /// Whether they show one person.
    pub same: Vec<bool>,
}

/// Templates of a gallery or of the probes, each once, by rising id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SearchList {
    /// Places of the templates in the rising list of ids.
    pub rows: Vec<u32>,
    /// The person of each.
    pub subjects: Vec<u64>,
}

impl FaceList {
    /// Reads the two lists of faces, `landmarks` with the detector's points and `faces` with
    /// template and media ids; both name the same faces in the same order.
    ///
    /// # Errors
    ///
    /// [`EvalError::Io`], and [`EvalError::Line`] for the first line that breaks the layout.
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
            return Err(EvalError::Line {
                path: faces.0.to_owned(),
                line: line_of(faces.1, i),
                problem: format!(
                    "{} stands where {} has {}",
                    name(here),
                    landmarks.0.display(),
                    name(there)
                ),
                layout: "both lists name the same faces in the same order",
            });
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
    pub(super) fn line(landmarks: &Path, face: usize) -> usize {
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

/// Where a template id stands in a rising list of ids.
#[derive(Debug)]
pub struct TemplateIndex {
    ids: Vec<u64>,
    /// By id, for ids that are dense enough; `u32::MAX` where there is none.
    direct: Vec<u32>,
}

impl TemplateIndex {
    /// `ids` rise.
    pub fn new(ids: Vec<u64>) -> TemplateIndex {
        let mut direct = Vec::new();
        let last = ids.last().copied().unwrap_or(0);
        if last < (1 << 20) + 16 * ids.len() as u64 {
            direct = vec![u32::MAX; last as usize + 1];
            for (row, &id) in ids.iter().enumerate() {
                direct[id as usize] = row as u32;
            }
        }
        TemplateIndex { ids, direct }
    }

    /// Number of templates.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The place of `id`.
    pub fn row(&self, id: u64) -> Option<u32> {
        if self.direct.is_empty() {
            return self.ids.binary_search(&id).ok().map(|row| row as u32);
        }
        self.direct.get(id as usize).copied().filter(|&row| row != u32::MAX)
    }

    fn known(&self, id: u64) -> Result<u32, String> {
        self.row(id).ok_or_else(|| format!("template {id} has no face in the list of faces"))
    }
}

impl PairList {
    /// Reads the list of template pairs.
    ///
    /// # Errors
    ///
    /// [`EvalError::Io`], and [`EvalError::Line`] for the first line that breaks the layout or names
    /// a template without faces.
    pub fn read(path: &Path, index: &TemplateIndex) -> Result<PairList, EvalError> {
        PairList::parse(path, &read_regular_file(path, LIST_BYTES_MAX)?, index)
    }

    /// Parses the list; `path` is for errors alone.
    ///
    /// # Errors
    ///
    /// As [`read`](PairList::read).
    pub fn parse(path: &Path, bytes: &[u8], index: &TemplateIndex) -> Result<PairList, EvalError> {
        let line = |line: &str| {
            let [a, b, label] = fields(line)?;
            let same = match label {
                "1" => true,
                "0" => false,
                _ => return Err(format!("the label is `{}`, neither 0 nor 1", shown(label))),
            };
            let row = |field| index.known(number(field, "template id")?);
            Ok(((row(a)?, row(b)?), same))
        };
        let (pairs, same): (Vec<_>, Vec<_>) =
            parse(path, bytes, PAIR_LAYOUT, line)?.into_iter().unzip();
        if pairs.is_empty() {
            return Err(empty(path, PAIR_LAYOUT));
        }
        Ok(PairList { pairs, same })
    }
}

impl SearchList {
    /// Reads the list of a gallery or of the probes.
    ///
    /// # Errors
    ///
    /// [`EvalError::Io`], and [`EvalError::Line`] for the first line that breaks the layout, names a
    /// template without faces, or gives a template a second person.
    pub fn read(path: &Path, index: &TemplateIndex) -> Result<SearchList, EvalError> {
        SearchList::parse(path, &read_regular_file(path, LIST_BYTES_MAX)?, index)
    }

    /// As [`read`](SearchList::read), of a gallery, which cannot be empty.
    pub(super) fn read_gallery(
        path: &Path,
        index: &TemplateIndex,
    ) -> Result<SearchList, EvalError> {
        let list = SearchList::read(path, index)?;
        if list.rows.is_empty() { Err(empty(path, SEARCH_LAYOUT)) } else { Ok(list) }
    }

    /// Parses the list; `path` is for errors alone.
    ///
    /// # Errors
    ///
    /// As [`read`](SearchList::read).
    pub fn parse(
        path: &Path,
        bytes: &[u8],
        index: &TemplateIndex,
    ) -> Result<SearchList, EvalError> {
        let header_end = bytes.iter().position(|&b| b == b'\n').map_or(bytes.len(), |i| i + 1);
        let line = |line: &str| {
            let mut fields = line.split(',').map(str::trim_ascii);
            let mut next = |what| number::<u64>(fields.next().unwrap_or_default(), what);
            let id = next("template id")?;
            Ok((index.known(id)?, id, next("subject id")?))
        };
        let after_header = |error| match error {
            EvalError::Line { path, line, problem, layout } => {
                EvalError::Line { path, line: line + 1, problem, layout }
            }
            other => other,
        };
        let lines = parse(path, &bytes[header_end..], SEARCH_LAYOUT, line).map_err(after_header)?;
        let mut list = BTreeMap::new();
        for (i, (row, id, subject)) in lines.into_iter().enumerate() {
            let known = *list.entry(row).or_insert(subject);
            if known != subject {
                return Err(EvalError::Line {
                    path: path.to_owned(),
                    line: 1 + line_of(&bytes[header_end..], i),
                    problem: format!("template {id} is of subject {subject}, above of {known}"),
                    layout: SEARCH_LAYOUT,
                });
            }
        }
        let (rows, subjects) = list.into_iter().unzip();
        Ok(SearchList { rows, subjects })
    }
}

fn empty(path: &Path, layout: &'static str) -> EvalError {
    let problem = "the list is empty".to_owned();
    EvalError::Line { path: path.to_owned(), line: 1, problem, layout }
}

/// Where the lists of a benchmark are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaPaths {
    /// Landmarks and detector scores.
    pub landmarks: PathBuf,
    /// Template and media ids.
    pub faces: PathBuf,
    /// Template pairs.
    pub pairs: PathBuf,
    /// Gallery lists, by name.
    pub galleries: Vec<(String, PathBuf)>,
    /// Probe list.
    pub probes: PathBuf,
}

impl MetaPaths {
    /// The paths below `data` for file names that start with `prefix`, `ijbb` or `ijbc`.
    pub fn new(data: &Path, prefix: &str, galleries: &[String]) -> MetaPaths {
        let at = |name: &str| data.join("meta").join(format!("{prefix}_{name}"));
        let gallery = |name: &String| (name.clone(), at(&format!("1N_gallery_{name}.csv")));
        MetaPaths {
            landmarks: at("name_5pts_score.txt"),
            faces: at("face_tid_mid.txt"),
            pairs: at("template_pair_label.txt"),
            galleries: galleries.iter().map(gallery).collect(),
            probes: at("1N_probe_mixed.csv"),
        }
    }
}

/// Exactly `N` fields between spaces or tabs.
fn fields<const N: usize>(line: &str) -> Result<[&str; N], String> {
    let mut fields = line.split_ascii_whitespace();
    let mut found = [""; N];
    for (n, field) in found.iter_mut().enumerate() {
        *field = fields.next().ok_or_else(|| format!("{n} fields where {N} are expected"))?;
    }
    match fields.count() {
        0 => Ok(found),
        more => Err(format!("{} fields where {N} are expected", N + more)),
    }
}

fn landmark_line(line: &str) -> Result<(String, [f64; 10], f32), String> {
    let fields: [&str; 12] = fields(line)?;
    let mut landmarks = [0.0; 10];
    for (value, field) in landmarks.iter_mut().zip(&fields[1..]) {
        *value = number::<f64>(field, "landmark")?;
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
    let path = Path::new(field);
    let plain = path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    if plain {
        Ok(field.to_owned())
    } else {
        Err(format!("the image name `{}` leads out of the image folder", shown(field)))
    }
}

/// Compares names with their runs of digits as numbers: `2.jpg` before `10.jpg`.
fn natural_order(a: &str, b: &str) -> Ordering {
    let (mut x, mut y) = (a.as_bytes(), b.as_bytes());
    while let (Some(p), Some(q)) = (x.first(), y.first()) {
        if !(p.is_ascii_digit() && q.is_ascii_digit()) {
            if p != q {
                return p.cmp(q);
            }
            (x, y) = (&x[1..], &y[1..]);
            continue;
        }
        let (number_x, rest_x) = digits(x);
        let (number_y, rest_y) = digits(y);
        let order = number_x.len().cmp(&number_y.len()).then_with(|| number_x.cmp(number_y));
        if order.is_ne() {
            return order;
        }
        (x, y) = (rest_x, rest_y);
    }
    // Equal but for leading zeros, or one is the beginning of the other.
    x.len().cmp(&y.len()).then_with(|| a.cmp(b))
}

/// The leading digits without zeros in front, and what follows.
fn digits(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    let zeros = text[..end].iter().position(|&b| b != b'0').unwrap_or(end);
    (&text[zeros..end], &text[end..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
        assert_eq!(list.landmarks[1][9], 10.0);
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
            "pts:1: the image name `../a` leads out of the image folder",
        );
    }

    #[test]
    fn pairs_name_templates_with_faces() {
        for ids in [vec![5, 7], vec![5, 7, u64::MAX]] {
            let index = TemplateIndex::new(ids);
            let parse = |text: &str| PairList::parse(Path::new("p"), text.as_bytes(), &index);
            let list = parse("5 7 1\n7\t5 0\n").unwrap();
            assert_eq!(list.pairs, [(0, 1), (1, 0)]);
            assert_eq!(list.same, [true, false]);
            let error = |text: &str| parse(text).unwrap_err().to_string();
            assert_eq!(error("5 7 1\n5 6 0"), "p:2: template 6 has no face in the list of faces");
            assert_eq!(error("\n"), "p:1: the list is empty");
            assert_eq!(error("5 7 2"), "p:1: the label is `2`, neither 0 nor 1");
            assert_eq!(error("5 -7 1"), "p:1: the template id is `-7`, which is no number");
        }
    }

    #[test]
    fn a_search_list_holds_each_template_once() {
        let index = TemplateIndex::new(vec![5, 7]);
        let parse = |text: &str| SearchList::parse(Path::new("s"), text.as_bytes(), &index);
        let list = parse("TEMPLATE_ID,SUBJECT_ID,FILENAME\n7,40,a\n5,41,\"b, c\"\n7,40,d").unwrap();
        assert_eq!((list.rows, list.subjects), (vec![0, 1], vec![41, 40]));
        let error = |text: &str| parse(text).unwrap_err().to_string();
        assert_eq!(error("h\n5,1\n5,2"), "s:3: template 5 is of subject 2, above of 1");
        assert_eq!(error("h\n\n5,1\n\n5,2"), "s:5: template 5 is of subject 2, above of 1");
        assert_eq!(error("h\n9,1"), "s:2: template 9 has no face in the list of faces");
        assert_eq!(error("h\n5"), "s:2: the subject id is ``, which is no number");
        assert_eq!(parse("").unwrap(), SearchList::default());
    }

    #[test]
    fn names_are_ordered_by_their_numbers() {
        let mut names = ["b1", "10.jpg", "a/10", "2.jpg", "a/9", "02.jpg", "a"];
        names.sort_by(|a, b| natural_order(a, b));
        assert_eq!(names, ["02.jpg", "2.jpg", "10.jpg", "a", "a/9", "a/10", "b1"]);
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_list_or_an_error(a: Vec<u8>, b: Vec<u8>, text in "[0-9 ,.a\n-]{0,80}") {
            let (path, index) = (Path::new("x"), TemplateIndex::new(vec![1, 2]));
            for bytes in [&a[..], text.as_bytes()] {
                let _ = FaceList::parse((path, bytes), (path, &b));
                let _ = PairList::parse(path, bytes, &index);
                let _ = SearchList::parse(path, bytes, &index);
            }
        }

        #[test]
        fn the_order_of_names_is_total(mut names in proptest::collection::vec("[0-9a]{0,4}", 3)) {
            names.sort_by(|a, b| natural_order(a, b));
            prop_assert!(natural_order(&names[0], &names[2]).is_le());
            prop_assert_eq!(natural_order(&names[0], &names[1]).is_eq(), names[0] == names[1]);
        }
    }
}

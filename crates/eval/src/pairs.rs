//! Lists of image pairs: LFW's two layouts and plain `path path 0|1` lines.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::EvalError;

/// How the pairs of a set are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// Ten contiguous folds, each judged by the threshold that is best on the other nine.
    TenFold,
    /// One list, judged by its own best threshold.
    SingleList,
}

/// Two images and whether they show one person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// Index of an image of the set.
    pub left: u32,
    /// Index of an image of the set.
    pub right: u32,
    /// Whether both show the same person.
    pub same: bool,
}

/// An image that a list names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageName {
    /// Path below the data folder, with `/`; without the extension if `any_extension`.
    pub path: String,
    /// Whether the list leaves the extension open, as LFW's do.
    pub any_extension: bool,
    /// The person, where the list tells.
    pub person: Option<String>,
    /// Line of the list, from 1, that names it first.
    pub line: usize,
}

/// A parsed list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairList {
    /// How the list is judged.
    pub protocol: Protocol,
    /// Each image once, in order of first mention.
    pub images: Vec<ImageName>,
    /// In the order of the list.
    pub pairs: Vec<Pair>,
}

const LFW_LAYOUT: &str = "LFW's layout: a first line `10 300` (folds, pairs of each kind per fold) \
    or `500` (pairs of each kind); then per fold first the lines `NAME N N` of matched pairs, then \
    the lines `NAME N NAME N` of mismatched ones, separated by tabs";
const LABEL_LAYOUT: &str = "each line holds two paths below the data folder and 1 (same person) or \
    0, separated by tabs or spaces";
/// No pairs list of a benchmark is near this size; an image given by mistake may be.
const LIST_BYTES_MAX: u64 = 1 << 30;

impl PairList {
    /// Reads a list, telling LFW's layouts from label lines by the first line.
    ///
    /// # Errors
    ///
    /// [`EvalError::Io`], and [`EvalError::Line`] for the first line that breaks the layout.
    pub fn read(path: &Path) -> Result<PairList, EvalError> {
        PairList::parse(path, &read_regular_file(path, LIST_BYTES_MAX)?)
    }

    /// Parses the bytes of a list; `path` is for errors alone.
    ///
    /// # Errors
    ///
    /// As [`read`](PairList::read).
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<PairList, EvalError> {
        let lines = Lines { path, lines: split_lines(path, bytes)? };
        let Some(first) = lines.lines.first() else {
            return Err(lines.error(1, "the list is empty", LFW_LAYOUT));
        };
        let numbers: Option<Vec<usize>> = first.fields.iter().map(|f| f.parse().ok()).collect();
        match numbers.as_deref() {
            Some(&[n_per_kind]) => parse_lfw(&lines, 1, n_per_kind),
            Some(&[n_folds, n_per_kind]) => parse_lfw(&lines, n_folds, n_per_kind),
            _ => parse_labels(&lines),
        }
    }
}

/// Reads a file whole, refusing devices, pipes and absurd sizes.
pub(crate) fn read_regular_file(path: &Path, bytes_max: u64) -> Result<Vec<u8>, EvalError> {
    let refuse = |why: String| {
        EvalError::io("read", path)(std::io::Error::new(std::io::ErrorKind::InvalidInput, why))
    };
    let metadata = std::fs::metadata(path).map_err(EvalError::io("open", path))?;
    if !metadata.is_file() {
        return Err(refuse("it is no regular file".to_owned()));
    }
    if metadata.len() > bytes_max {
        return Err(refuse(format!("{} bytes are more than {bytes_max}", metadata.len())));
    }
    std::fs::read(path).map_err(EvalError::io("read", path))
}

/// A line with content.
#[derive(Debug)]
struct Line<'a> {
    number: usize,
    fields: Vec<&'a str>,
}

struct Lines<'a> {
    path: &'a Path,
    lines: Vec<Line<'a>>,
}

impl Lines<'_> {
    fn error(&self, line: usize, problem: impl Into<String>, layout: &'static str) -> EvalError {
        EvalError::Line { path: self.path.to_owned(), line, problem: problem.into(), layout }
    }

    fn last_number(&self) -> usize {
        self.lines.last().map_or(1, |line| line.number)
    }
}

/// Lines with content, split at tabs if they have any, else at spaces.
fn split_lines<'a>(path: &Path, bytes: &'a [u8]) -> Result<Vec<Line<'a>>, EvalError> {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let mut lines = Vec::new();
    for (i, line) in bytes.split(|&b| b == b'\n').enumerate() {
        let text = std::str::from_utf8(line).map_err(|error| EvalError::Line {
            path: path.to_owned(),
            line: i + 1,
            problem: format!("byte {} is not UTF-8", error.valid_up_to() + 1),
            layout: "pairs lists are UTF-8 text: is this the right file?",
        })?;
        let text = text.trim_end_matches('\r');
        let fields: Vec<&str> = if text.trim().contains('\t') {
            text.split('\t').map(str::trim).filter(|field| !field.is_empty()).collect()
        } else {
            text.split_whitespace().collect()
        };
        if !fields.is_empty() {
            lines.push(Line { number: i + 1, fields });
        }
    }
    Ok(lines)
}

/// Gives each image one index.
#[derive(Default)]
struct Images {
    names: Vec<ImageName>,
    index: HashMap<String, u32>,
}

impl Images {
    fn add(&mut self, name: ImageName) -> u32 {
        let next = self.names.len() as u32;
        let index = *self.index.entry(name.path.clone()).or_insert(next);
        if index == next {
            self.names.push(name);
        }
        index
    }
}

fn parse_lfw(lines: &Lines, n_folds: usize, n_per_kind: usize) -> Result<PairList, EvalError> {
    let header = lines.lines[0].number;
    if !matches!(n_folds, 1 | 10) {
        let problem = format!("{n_folds} folds; 10 are judged, or a single list");
        return Err(lines.error(header, problem, LFW_LAYOUT));
    }
    let (body, n_found) = (&lines.lines[1..], lines.lines.len() - 1);
    let expected = n_folds.checked_mul(n_per_kind).and_then(|n| n.checked_mul(2));
    let Some(expected) = expected.filter(|&n| n > 0) else {
        let problem = format!("{n_folds} folds of {n_per_kind} + {n_per_kind} pairs");
        return Err(lines.error(header, problem, LFW_LAYOUT));
    };
    let mut images = Images::default();
    let mut pairs = Vec::with_capacity(n_found);
    for (i, line) in body.iter().enumerate().take(expected) {
        let same = (i / n_per_kind).is_multiple_of(2);
        let pair = lfw_pair(line, same, &mut images)
            .map_err(|problem| lines.error(line.number, problem, LFW_LAYOUT))?;
        pairs.push(pair);
    }
    if n_found < expected {
        let problem =
            format!("the list ends after {n_found} pairs; its first line promises {expected}");
        return Err(lines.error(lines.last_number(), problem, LFW_LAYOUT));
    }
    if let Some(line) = body.get(expected) {
        let problem = format!("a pair more than the {expected} that the first line promises");
        return Err(lines.error(line.number, problem, LFW_LAYOUT));
    }
    let protocol = if n_folds == 1 { Protocol::SingleList } else { Protocol::TenFold };
    Ok(PairList { protocol, images: images.names, pairs })
}

fn lfw_pair(line: &Line, same: bool, images: &mut Images) -> Result<Pair, String> {
    let kind = if same { "a matched pair (NAME N N)" } else { "a mismatched pair (NAME N NAME N)" };
    let (left, right) = match (same, &line.fields[..]) {
        (true, &[name, i, j]) => ((name, i), (name, j)),
        (false, &[a, i, b, j]) if a == b => {
            return Err(format!("a mismatched pair of `{a}` (images {i} and {j}) with itself"));
        }
        (false, &[a, i, b, j]) => ((a, i), (b, j)),
        (_, fields) => {
            return Err(format!("{} columns where {kind} is expected", fields.len()));
        }
    };
    let mut image = |(name, number): (&str, &str)| -> Result<u32, String> {
        let n: u32 =
            number.parse().map_err(|_| format!("`{number}` is no image number of `{name}`"))?;
        Ok(images.add(ImageName {
            path: format!("{name}/{name}_{n:04}"),
            any_extension: true,
            person: Some(name.to_owned()),
            line: line.number,
        }))
    };
    Ok(Pair { left: image(left)?, right: image(right)?, same })
}

fn parse_labels(lines: &Lines) -> Result<PairList, EvalError> {
    let mut images = Images::default();
    let mut pairs = Vec::with_capacity(lines.lines.len());
    for line in &lines.lines {
        let &[left, right, label] = &line.fields[..] else {
            let problem = format!("{} columns where 3 are expected", line.fields.len());
            return Err(lines.error(line.number, problem, LABEL_LAYOUT));
        };
        let same = match label {
            "1" => true,
            "0" => false,
            other => {
                let problem = format!("label `{other}` is neither 0 nor 1");
                return Err(lines.error(line.number, problem, LABEL_LAYOUT));
            }
        };
        let mut image = |path: &str| {
            images.add(ImageName {
                path: path.to_owned(),
                any_extension: false,
                person: parent_folder(path),
                line: line.number,
            })
        };
        pairs.push(Pair { left: image(left), right: image(right), same });
    }
    Ok(PairList { protocol: Protocol::TenFold, images: images.names, pairs })
}

/// `people/Ann/3.jpg` shows `people/Ann`; a bare file name does not tell.
fn parent_folder(path: &str) -> Option<String> {
    let parent: PathBuf = Path::new(path).parent()?.to_owned();
    (!parent.as_os_str().is_empty()).then(|| parent.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<PairList, EvalError> {
        PairList::parse(Path::new("pairs.txt"), text.as_bytes())
    }

    #[track_caller]
    fn check_error(text: &str, expected: &str) {
        assert_eq!(parse(text).unwrap_err().to_string(), expected);
    }

    #[test]
    fn a_single_list_names_each_image_once() {
        let list =
            parse("2\nAnn\t1\t2\r\nBob\t3\t4\nAnn\t2\tBob\t3\nAnn\t12345\tBob\t4\n\n").unwrap();
        let paths: Vec<&str> = list.images.iter().map(|image| image.path.as_str()).collect();
        let expected =
            ["Ann/Ann_0001", "Ann/Ann_0002", "Bob/Bob_0003", "Bob/Bob_0004", "Ann/Ann_12345"];
        assert_eq!(paths, expected);
        assert_eq!(list.protocol, Protocol::SingleList);
        assert_eq!(list.pairs[2], Pair { left: 1, right: 2, same: false });
        assert_eq!(list.images[4].line, 5);
    }

    #[test]
    fn ten_folds_alternate_matched_and_mismatched_pairs() {
        let list = parse(&format!("10 1\n{}", "A 1 2\nA 1 B 1\n".repeat(10))).unwrap();
        assert_eq!(
            (list.protocol, list.pairs.len(), list.images.len()),
            (Protocol::TenFold, 20, 3)
        );
        assert!(list.pairs.iter().enumerate().all(|(i, pair)| pair.same == (i % 2 == 0)));
    }

    #[test]
    fn label_lines_may_hold_spaces_between_tabs() {
        let list = parse("my faces/a 1.png\tb.png\t1\nb.png\tmy faces/a 1.png\t0\n").unwrap();
        assert_eq!(list.images[0].path, "my faces/a 1.png");
        assert_eq!(list.images[0].person.as_deref(), Some("my faces"));
        assert_eq!(list.images[1].person, None);
        assert_eq!(list.pairs[1], Pair { left: 1, right: 0, same: false });
    }

    #[test]
    fn broken_lines_are_named() {
        check_error("", "pairs.txt:1: the list is empty");
        check_error(
            "1\nAnn 1 2\nAnn 1 2\n",
            "pairs.txt:3: 3 columns where a mismatched pair (NAME N NAME N) is expected",
        );
        check_error("1\nAnn 1 two\nAnn 1 Bob 1", "pairs.txt:2: `two` is no image number of `Ann`");
        check_error(
            "1\nAnn 1 2\nAnn 1 Ann 2",
            "pairs.txt:3: a mismatched pair of `Ann` (images 1 and 2) with itself",
        );
        check_error(
            "2\nAnn 1 2\n\nAnn 1 3\n",
            "pairs.txt:4: the list ends after 2 pairs; its first line promises 4",
        );
        check_error(
            "1\nAnn 1 2\nAnn 1 Bob 2\nAnn 1 Bob 3\n",
            "pairs.txt:4: a pair more than the 2 that the first line promises",
        );
        check_error("5 300\n", "pairs.txt:1: 5 folds; 10 are judged, or a single list");
        check_error("0\n", "pairs.txt:1: 1 folds of 0 + 0 pairs");
        check_error("a b 1\na b 2\n", "pairs.txt:2: label `2` is neither 0 nor 1");
        check_error("a b 1\na b\n", "pairs.txt:2: 2 columns where 3 are expected");
    }

    #[test]
    fn a_header_of_more_pairs_than_fit_in_memory_is_no_allocation() {
        assert!(parse("10 1844674407370955161\nA 1 2\n").is_err());
        assert!(parse("10 922337203685477580\nA 1 2\n").is_err());
    }

    #[test]
    fn text_that_is_not_utf8_names_line_and_byte() {
        let error = PairList::parse(Path::new("p"), b"1\nAnn 1 2\nJos\xe9 1 Bob 2\n").unwrap_err();
        assert_eq!(error.to_string(), "p:3: byte 4 is not UTF-8");
    }
}

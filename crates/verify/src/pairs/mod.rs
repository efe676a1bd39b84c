//! Lists of image pairs in the layouts that benchmarks publish.

mod cfp;
mod labels;
mod lfw;
mod lines;

pub use cfp::CfpSplit;

use std::path::Path;

use pfc_sources::list_text;
use serde::{Deserialize, Serialize};

use self::lines::Lines;
use crate::{VerifyError, files::read_regular_file};

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

/// Folds of [`Protocol::TenFold`].
const N_FOLDS: usize = 10;

/// No pairs list of a benchmark is near this size; an image given by mistake may be.
const LIST_BYTES_MAX: u64 = 1 << 30;

impl PairList {
    /// Reads a list, telling the layouts apart by the first line: numbers alone are the header of an
    /// LFW list, a name and numbers one without a header, a path and a number start a CALFW list, all
    /// else is `path path 0|1` lines. Tabs, blanks, commas or semicolons separate; a header of column
    /// names is passed over. UTF-8 and UTF-16 are read, with any line ends. A list of fewer than ten pairs is judged
    /// as one list.
    ///
    /// # Errors
    ///
    /// [`VerifyError::Durable`], and [`VerifyError::Line`] for the first line that breaks the layout.
    pub fn read(path: &Path) -> Result<PairList, VerifyError> {
        PairList::parse(path, &list_text(read_regular_file(path, LIST_BYTES_MAX)?))
    }

    /// Parses the bytes of a list; `path` is for errors alone.
    ///
    /// # Errors
    ///
    /// As [`read`](PairList::read).
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<PairList, VerifyError> {
        let mut lines = Lines::split_pairs(path, bytes)?;
        let label_column = labels::header(&mut lines);
        let Some(first) = lines.lines.first() else {
            return Err(lines.error(1, "the list is empty", lfw::LAYOUT));
        };
        let numbers: Option<Vec<usize>> = first.fields.iter().map(|f| f.parse().ok()).collect();
        let list = match (numbers.as_deref(), &first.fields[..]) {
            (Some(&[n_per_kind]), _) => lfw::parse(&lines, 1, n_per_kind),
            (Some(&[n_folds, n_per_kind]), _) => lfw::parse(&lines, n_folds, n_per_kind),
            (None, fields) if lfw::is_pair(fields) => lfw::parse_without_header(&lines),
            (None, [_, label]) if label.parse::<u32>().is_ok() => labels::parse_line_pairs(&lines),
            _ => labels::parse(&lines, label_column),
        };
        list.map(PairList::judged_by_its_length)
    }

    /// The same, judged as one list if it is too short for ten folds.
    fn judged_by_its_length(self) -> PairList {
        match self.pairs.len() < N_FOLDS {
            true => PairList { protocol: Protocol::SingleList, ..self },
            false => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<PairList, VerifyError> {
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
        check_error("0\n", "pairs.txt:1: 1 folds of 0 + 0 pairs");
        check_error("0 5\n", "pairs.txt:1: 0 folds of 5 + 5 pairs");
    }

    #[test]
    fn lists_without_a_header_or_with_other_numbers_of_folds_are_read() {
        // RFW and Kaggle's copy of LFW have no counts; the kinds tell by their columns.
        let rfw = "m.01\t1\t2\nm.02\t3\tm.03\t4\n".repeat(10);
        let kaggle = "name,imagenum1,imagenum2,\n".to_owned() + &"A,1,4,\nA,1,B,2\n".repeat(10);
        for text in [rfw, kaggle] {
            let list = parse(&text).unwrap();
            assert_eq!((list.protocol, list.pairs.len()), (Protocol::TenFold, 20), "{text}");
            assert!(list.pairs.iter().enumerate().all(|(i, pair)| pair.same == (i % 2 == 0)));
        }
        let list = parse("A,1,4,\nA,1,B,2\n").unwrap();
        assert_eq!(list.images[1].path, "A/A_0004");
        // Ten folds need ten pairs.
        assert_eq!(list.protocol, Protocol::SingleList);
        // Five folds of two of each kind are judged in ten of one of each kind.
        let list =
            parse(&format!("5 2\n{}", "A 1 2\nA 1 3\nA 1 B 1\nA 1 B 2\n".repeat(5))).unwrap();
        assert_eq!((list.protocol, list.pairs.len()), (Protocol::TenFold, 20));
        assert!(list.pairs.chunks(2).all(|fold| fold[0].same && !fold[1].same));
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

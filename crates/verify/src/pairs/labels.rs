//! Lists of paths and labels: one pair per line, or CALFW's one image per line.

use std::path::Path;

use pfc_image::has_image_extension;

use super::{
    ImageName, N_FOLDS, Pair, PairList, Protocol,
    lines::{Images, Line, Lines, same_of},
};
use crate::VerifyError;

const LAYOUT: &str = "each line holds two paths below the data folder and 1 (same person) or 0, \
    separated by tabs, spaces, commas or semicolons; True and False, and 1 and -1, are read as well";

/// What headers call the column that says whether a pair shows one person.
const LABEL_NAMES: &[&str] = &[
    "label",
    "labels",
    "same",
    "is_same",
    "issame",
    "same_person",
    "match",
    "target",
    "y",
    "class",
];

/// Passes over a first line of column names; the column of the labels, if one is named so.
pub fn header(lines: &mut Lines) -> Option<usize> {
    let first = lines.lines.first()?;
    // `a.jpg,b.jpg,same` is a pair.
    if first.fields.iter().any(|field| has_image_extension(field.as_ref())) {
        return None;
    }
    let is_name = |field: &&str| LABEL_NAMES.iter().any(|name| field.eq_ignore_ascii_case(name));
    let column = first.fields.iter().position(is_name);
    // Kaggle's copy of LFW's list.
    let is_lfw = first.fields.iter().any(|field| field.eq_ignore_ascii_case("imagenum1"));
    let is_guessed = column.is_none() && !is_lfw && is_header_of_pairs(&lines.lines);
    if is_guessed {
        let (path, names) = (lines.path.display(), first.fields.join(", "));
        tracing::warn!("{path}: its first line is taken for the names of columns: {names}");
    }
    if column.is_some() || is_lfw || is_guessed {
        lines.lines.remove(0);
    }
    column
}

/// Whether the first line is three names that are not known: none of them is a path, a number or a word for a
/// pair, and the next line is a pair.
fn is_header_of_pairs(lines: &[Line<'_>]) -> bool {
    let [first, second, ..] = lines else { return false };
    let is_same = |field: &str| same_of(field).is_some();
    let is_path = |field: &str| field.contains(['.', '/', '\\']) && !is_same(field);
    let is_name = |field: &str| !is_path(field) && !is_same(field) && field.parse::<f64>().is_err();
    first.fields.len() == 3
        && first.fields.iter().copied().all(is_name)
        && second.fields.len() == 3
        && second.fields.iter().copied().filter(|field| is_same(field)).count() == 1
        && second.fields.iter().copied().filter(|field| is_path(field)).count() == 2
}

const LINE_PAIRS_LAYOUT: &str = "the layout of pairs_CALFW.txt: two lines `NAME_0001.jpg N` per \
    pair, where N is 0 on both lines for different people and above 0 for the same person";

/// `path path 0|1` per line, or the label in the column `label_column`. Where that is named, further
/// columns may stand beside; the paths are those that look most like it.
pub fn parse(lines: &Lines, label_column: Option<usize>) -> Result<PairList, VerifyError> {
    let mut images = Images::default();
    let mut pairs = Vec::with_capacity(lines.lines.len());
    for line in &lines.lines {
        let wrong = |problem: String| lines.error(line.number, problem, LAYOUT);
        let (left, right, label) = row(&line.fields, label_column).map_err(wrong)?;
        let same =
            same_of(label).ok_or_else(|| wrong(format!("label `{label}` is neither 0 nor 1")))?;
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
    Ok(PairList { protocol: Protocol::TenFold, images: images.names, pairs: dealt(pairs) })
}

/// The two paths of a line, and its label.
fn row<'a>(
    fields: &[&'a str],
    label_column: Option<usize>,
) -> Result<(&'a str, &'a str, &'a str), String> {
    match (fields, label_column) {
        // The label in front, as `0,a.jpg,b.jpg`.
        (&[label, left, right], None | Some(0))
            if same_of(label).is_some() && same_of(right).is_none() =>
        {
            Ok((left, right, label))
        }
        (&[left, right, label], None | Some(2)) => Ok((left, right, label)),
        (fields, Some(column)) if column < fields.len() && fields.len() >= 3 => {
            let others = fields.iter().enumerate().filter(|(i, _)| *i != column).map(|(_, f)| *f);
            let others: Vec<&str> = others.collect();
            let paths = others.iter().copied().filter(|field| field.contains(['.', '/', '\\']));
            let paths: Vec<&str> = paths.collect();
            match (&paths[..], &others[..]) {
                (&[left, right], _) | (_, &[left, right]) => Ok((left, right, fields[column])),
                _ => Err(format!("{} columns, of which two must be paths", fields.len())),
            }
        }
        _ => Err(format!("{} columns where 3 are expected", fields.len())),
    }
}

/// `NAME_0001.jpg N` per line, two lines per pair.
pub fn parse_line_pairs(lines: &Lines) -> Result<PairList, VerifyError> {
    let mut images = Images::default();
    let mut sides = Vec::with_capacity(lines.lines.len());
    for line in &lines.lines {
        let &[path, label] = &line.fields[..] else {
            let problem = format!("{} columns where 2 are expected", line.fields.len());
            return Err(lines.error(line.number, problem, LINE_PAIRS_LAYOUT));
        };
        let label: u32 = label.parse().map_err(|_| {
            lines.error(line.number, format!("`{label}` is no number"), LINE_PAIRS_LAYOUT)
        })?;
        let image = images.add(ImageName {
            path: path.to_owned(),
            any_extension: false,
            person: parent_folder(path).or_else(|| name_before_number(path)),
            line: line.number,
        });
        sides.push((image, label != 0, line.number));
    }
    let (pairs, rest) = sides.as_chunks::<2>();
    if !rest.is_empty() {
        let problem = "the list ends within a pair";
        return Err(lines.error(lines.last_number(), problem, LINE_PAIRS_LAYOUT));
    }
    let pair = |&[(left, same, _), (right, same_right, number)]: &[(u32, bool, usize); 2]| {
        if same != same_right {
            let problem = "the two lines of a pair disagree on whether it is one person";
            return Err(lines.error(number, problem, LINE_PAIRS_LAYOUT));
        }
        Ok(Pair { left, right, same })
    };
    let pairs = pairs.iter().map(pair).collect::<Result<Vec<Pair>, VerifyError>>()?;
    Ok(PairList { protocol: Protocol::TenFold, images: images.names, pairs: dealt(pairs) })
}

/// Deals a list that is sorted by label into ten folds that hold both kinds: fold k gets the k-th
/// tenth of each kind. A list in any other order is left as it is.
pub fn dealt(pairs: Vec<Pair>) -> Vec<Pair> {
    let split = pairs.iter().take_while(|pair| pair.same == pairs[0].same).count();
    let (first, second) = pairs.split_at(split);
    let sorted = second.iter().all(|pair| pair.same == second[0].same);
    if !sorted || first.len() != second.len() || !first.len().is_multiple_of(N_FOLDS) {
        return pairs;
    }
    let size = (first.len() / N_FOLDS).max(1);
    first.chunks(size).zip(second.chunks(size)).flat_map(|(a, b)| [a, b].concat()).collect()
}

/// Deals pairs in any order into ten folds that hold both kinds, where their numbers allow it.
pub fn dealt_anew(pairs: Vec<Pair>) -> Vec<Pair> {
    let (same, different): (Vec<Pair>, Vec<Pair>) = pairs.into_iter().partition(|pair| pair.same);
    dealt([same, different].concat())
}

/// `people/Ann/3.jpg` shows `people/Ann`; a bare file name does not tell.
fn parent_folder(path: &str) -> Option<String> {
    let parent = Path::new(path).parent()?;
    (!parent.as_os_str().is_empty()).then(|| parent.to_string_lossy().into_owned())
}

/// `Ann_Lee_0003.jpg` shows `Ann_Lee`.
fn name_before_number(path: &str) -> Option<String> {
    let stem = Path::new(path).file_stem()?.to_str()?;
    let (name, number) = stem.rsplit_once('_')?;
    (!name.is_empty() && number.bytes().all(|b| b.is_ascii_digit())).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<PairList, VerifyError> {
        PairList::parse(Path::new("list.txt"), text.as_bytes())
    }

    #[track_caller]
    fn check_error(text: &str, expected: &str) {
        assert_eq!(parse(text).unwrap_err().to_string(), expected);
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
    fn pairs_are_read_between_tabs_blanks_commas_and_semicolons() {
        for text in [
            "x/a.jpg,x/b.jpg,1\nx/a.jpg,y/c.jpg,0\n",
            "x/a.jpg,x/b.jpg, 1\nx/a.jpg,y/c.jpg, 0\n",
            "x/a.jpg; x/b.jpg; True\nx/a.jpg; y/c.jpg; False\n",
            "x/a.jpg x/b.jpg 1\nx/a.jpg y/c.jpg -1\n",
            "1,x/a.jpg,x/b.jpg\n0,x/a.jpg,y/c.jpg\n",
            "file1,file2,label\nx/a.jpg,x/b.jpg,1\nx/a.jpg,y/c.jpg,0\n",
            "issame,left,right\ntrue,x/a.jpg,x/b.jpg\nfalse,x/a.jpg,y/c.jpg\n",
            "id,a,b,same,fold\n0,x/a.jpg,x/b.jpg,1.0,0\n1,x/a.jpg,y/c.jpg,0.0,0\n",
            "\"x/a.jpg\",\"x/b.jpg\",\"1\"\n\"x/a.jpg\",\"y/c.jpg\",\"0\"\n",
            "\"x/a.jpg\"\t\"x/b.jpg\"\t1\n\"x/a.jpg\"\t\"y/c.jpg\"\t0\n",
            "x/a.jpg,x/b.jpg,same\nx/a.jpg,y/c.jpg,different\n",
            "x/a.jpg x/b.jpg match\nx/a.jpg y/c.jpg mismatch\n",
            "path1\tpath2\tlabel\nx/a.jpg\tx/b.jpg\t1\nx/a.jpg\ty/c.jpg\t0\n",
            "img1,img2,is_pair\nx/a.jpg,x/b.jpg,1\nx/a.jpg,y/c.jpg,0\n",
            "Verified;Left;Right\n1;x/a.jpg;x/b.jpg\n0;x/a.jpg;y/c.jpg\n",
        ] {
            let list = parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            let images: Vec<&str> = list.images.iter().map(|image| image.path.as_str()).collect();
            assert_eq!(images, ["x/a.jpg", "x/b.jpg", "y/c.jpg"], "{text}");
            let same: Vec<bool> = list.pairs.iter().map(|pair| pair.same).collect();
            assert_eq!(same, [true, false], "{text}");
        }
        let list = parse("a,1.jpg b.jpg 1\n").unwrap();
        assert_eq!(list.images[0].path, "a,1.jpg");
        let Some(case) = pfc_testing::case("pairs-commas") else { return };
        let list = PairList::read(&case.join("commas.txt")).unwrap();
        assert!(list.images.iter().all(|image| case.join("faces").join(&image.path).is_file()));
    }

    #[test]
    fn a_list_in_utf_16_or_with_the_line_ends_of_old_macs_is_read_from_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pairs.csv");
        let text = "a,b,same\nx/ä.jpg,x/b.jpg,1\nx/ä.jpg,y/c.jpg,0\n";
        let little: Vec<u8> = "\u{feff}"
            .encode_utf16()
            .chain(text.encode_utf16())
            .flat_map(u16::to_le_bytes)
            .collect();
        let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        for bytes in [text.as_bytes(), &little, &big, text.replace('\n', "\r").as_bytes()] {
            std::fs::write(&path, bytes).unwrap();
            let list = PairList::read(&path).unwrap();
            assert_eq!((list.images[0].path.as_str(), list.pairs.len()), ("x/ä.jpg", 2));
            assert_eq!(list.protocol, Protocol::SingleList);
        }
    }

    #[test]
    fn calfw_lines_make_pairs_by_twos() {
        let list =
            parse("Ann_Lee_0001.jpg 3\nAnn_Lee_0002.jpg 3\nAnn_Lee_0001.jpg 0\nBo_0001.jpg 0\n")
                .unwrap();
        assert_eq!(list.pairs[0], Pair { left: 0, right: 1, same: true });
        assert_eq!(list.pairs[1], Pair { left: 0, right: 2, same: false });
        assert_eq!(list.images[1].person.as_deref(), Some("Ann_Lee"));
    }

    #[test]
    fn a_list_sorted_by_label_is_dealt_into_folds() {
        let line = |i: usize| format!("a{i} b{i} {}\n", u8::from(i < 20));
        let list = parse(&(0..40).map(line).collect::<String>()).unwrap();
        for fold in list.pairs.chunks(4) {
            assert_eq!(fold.iter().map(|p| p.same).collect::<Vec<_>>(), [true, true, false, false]);
        }
        assert_eq!(list.images[list.pairs[4].left as usize].path, "a2");
    }

    #[test]
    fn a_mixed_list_keeps_its_order() {
        let list = parse("a b 0\nc d 1\ne f 0\n").unwrap();
        assert_eq!(list.pairs.iter().map(|p| p.same).collect::<Vec<_>>(), [false, true, false]);
    }

    #[test]
    fn broken_lines_are_named() {
        check_error("a b 1\na b 2\n", "list.txt:2: label `2` is neither 0 nor 1");
        check_error("a b 1\na b\n", "list.txt:2: 2 columns where 3 are expected");
        check_error("a 1\nb 1\nc 0\n", "list.txt:3: the list ends within a pair");
        check_error(
            "a 1\nb 0\n",
            "list.txt:2: the two lines of a pair disagree on whether it is one person",
        );
        check_error("a 1\nb x\n", "list.txt:2: `x` is no number");
        check_error("a b maybe\nc d 1\n", "list.txt:1: label `maybe` is neither 0 nor 1");
    }
}

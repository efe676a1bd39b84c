//! Who each row of a file of embeddings is.

use std::{collections::HashMap, path::Path};

use crate::{
    EvalError,
    files::{read_regular_file, utf8},
};

const LAYOUT: &str = "each line holds the person of one row and, if there are groups, its group after \
    a tab; in a list without tabs a blank separates them, so that names of several words need tabs; all \
    lines have a group, or none";
/// Two million lines take 60 MB.
const BYTES_MAX: u64 = 4 << 30;

/// People and groups, numbered from 0 by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    /// Person of each row.
    pub identity: Vec<u32>,
    /// Group of each row; all 0 if there are none.
    pub group: Vec<u32>,
    /// Names of the people.
    pub people: Vec<String>,
    /// Names of the groups; empty if there are none.
    pub groups: Vec<String>,
}

impl Labels {
    /// Reads lines of `person` or `person<TAB>group`. In a list without any tab the group comes after
    /// a blank; a name of several words without a group then ends in a tab, or is one of three words
    /// or more, or the lines differ in their number of words.
    ///
    /// # Errors
    ///
    /// [`EvalError::Durable`], and [`EvalError::Verify`] for the first line that breaks the layout.
    pub fn read(path: &Path) -> Result<Labels, EvalError> {
        Labels::parse(path, &read_regular_file(path, BYTES_MAX)?)
    }

    /// Parses the lines; `path` is for errors alone.
    ///
    /// # Errors
    ///
    /// As [`read`](Labels::read).
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Labels, EvalError> {
        let broken = |line: usize, problem: String| EvalError::line(path, line, problem, LAYOUT);
        let text = utf8(path, bytes, LAYOUT)?;
        let separator = Separator::of(text);
        if separator == Separator::Blank && text.lines().any(|line| line.trim().contains(' ')) {
            tracing::warn!(
                "{}: there are no tabs, so the second word of each line is taken for the group; a \
                 tab after a name of two words says that it has none",
                path.display()
            );
        }
        let mut rows: Vec<(&str, Option<&str>)> = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let row = separator.row(line).map_err(|problem| broken(number, problem))?;
            if rows.first().is_some_and(|first| first.1.is_some() != row.1.is_some()) {
                let has = if row.1.is_some() { "a" } else { "no" };
                return Err(broken(number, format!("it has {has} group, unlike the first line")));
            }
            rows.push(row);
        }
        if rows.is_empty() {
            return Err(broken(1, "the list is empty".to_owned()));
        }
        let mut group_of = HashMap::new();
        for (number, &(person, group)) in (1..).zip(&rows) {
            let first = *group_of.entry(person).or_insert(group);
            if let (Some(first), Some(group)) = (first, group)
                && first != group
            {
                let problem = format!("`{person}` is in group `{group}`, above in `{first}`");
                return Err(broken(number, problem));
            }
        }
        let (identity, people) = numbered(rows.iter().map(|row| row.0));
        let (group, groups) = numbered(rows.iter().filter_map(|row| row.1));
        let group = if group.is_empty() { vec![0; rows.len()] } else { group };
        Ok(Labels { identity, group, people, groups })
    }
}

/// What stands between a person and a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Separator {
    Tab,
    Blank,
    /// The lines are names alone.
    None,
}

impl Separator {
    /// A tab, where there is one. Without any, lines of two words each, or of one each, are person
    /// and group; lines of any other numbers of words are names.
    fn of(text: &str) -> Separator {
        if text.contains('\t') {
            return Separator::Tab;
        }
        let words = |line: &str| line.split_whitespace().count();
        let mut lines = text.lines().map(words).filter(|n| *n > 0);
        match lines.next() {
            Some(first @ 1..=2) if lines.all(|n| n == first) => Separator::Blank,
            _ => Separator::None,
        }
    }

    fn row(self, line: &str) -> Result<(&str, Option<&str>), String> {
        let line = line.trim_matches(|c: char| c.is_whitespace() && c != '\t');
        let mut fields = match self {
            Separator::Tab => line.split('\t').map(str::trim).collect(),
            Separator::Blank => line.split_whitespace().collect(),
            Separator::None => vec![line],
        };
        // A name that ends in a tab has no group.
        fields.pop_if(|last| last.is_empty());
        match fields[..] {
            [] => Err("the line is empty".into()),
            ["", ..] => Err("the person is empty".into()),
            [person] => Ok((person, None)),
            [person, group] => Ok((person, Some(group))),
            _ => Err(format!("{} fields where 1 or 2 are expected", fields.len())),
        }
    }
}

/// Numbers by the order of names, so that they do not depend on the order of the rows.
fn numbered<'a>(names: impl Iterator<Item = &'a str> + Clone) -> (Vec<u32>, Vec<String>) {
    let mut sorted: Vec<&str> = names.clone().collect();
    sorted.sort_unstable();
    sorted.dedup();
    let number: HashMap<&str, u32> = sorted.iter().copied().zip(0..).collect();
    (names.map(|name| number[name]).collect(), sorted.into_iter().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Labels, EvalError> {
        Labels::parse(Path::new("l"), text.as_bytes())
    }

    #[test]
    fn people_and_groups_are_numbered_by_name() {
        let labels = parse("bo\teast\nal\twest\r\nbo\t east\n").unwrap();
        assert_eq!((labels.identity, labels.group), (vec![1, 0, 1], vec![0, 1, 0]));
        assert_eq!(
            (labels.people, labels.groups),
            (vec!["al".into(), "bo".into()], vec!["east".into(), "west".into()])
        );
        let plain = parse("7\n3\n").unwrap();
        assert_eq!((plain.group, plain.groups.len()), (vec![0, 0], 0));
    }

    #[test]
    fn a_tab_separates_where_there_is_one_and_names_may_have_blanks() {
        let people = |text: &str| {
            let labels = parse(text).unwrap();
            (labels.people, labels.groups)
        };
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let check = |text: &str, expected: (&[&str], &[&str])| {
            let expected: (Vec<String>, Vec<String>) = (owned(expected.0), owned(expected.1));
            assert_eq!(people(text), expected, "{text:?}");
        };
        check(
            "John Smith\tWhite\nAnn Lee\tEast Asian\n",
            (&["Ann Lee", "John Smith"], &["East Asian", "White"]),
        );
        check("John Smith\t\nAnn\t\n", (&["Ann", "John Smith"], &[]));
        check("J. R. Doe\nAnn van Lee\n", (&["Ann van Lee", "J. R. Doe"], &[]));
        check("John Smith\nMadonna\n", (&["John Smith", "Madonna"], &[]));
        check("bo east\nal  west\n", (&["al", "bo"], &["east", "west"]));
        check("7\n3\n", (&["3", "7"], &[]));
        let error = parse("John Smith\tWhite\nAnn Lee\n").unwrap_err().to_string();
        assert_eq!(error, "l:2: it has no group, unlike the first line");
        let Some(case) = pfc_testing::case("nn-labels-open") else { return };
        let labels = Labels::read(&case.join("tab.txt")).unwrap();
        assert!(labels.people.iter().all(|name| name.contains(' ')), "{:?}", labels.people);
        assert!(!labels.groups.is_empty());
    }

    #[test]
    fn bad_lines_are_named() {
        let error = |text: &str| parse(text).unwrap_err().to_string();
        assert_eq!(error("a\n\nb"), "l:2: the line is empty");
        assert_eq!(error("a\tb\tc\td"), "l:1: 4 fields where 1 or 2 are expected");
        assert_eq!(error("a\tb\nc"), "l:2: it has no group, unlike the first line");
        assert_eq!(error("a\tb\n\tb"), "l:2: the person is empty");
        assert_eq!(error("a x\nb x\na y"), "l:3: `a` is in group `y`, above in `x`");
        assert_eq!(error(""), "l:1: the list is empty");
        let error = Labels::parse(Path::new("l"), b"a\n\xff").unwrap_err();
        assert_eq!(error.to_string(), "l:2: it is not UTF-8 text");
    }

    proptest! {
        #[test]
        fn any_bytes_give_labels_or_an_error(bytes: Vec<u8>, text in "[ab \n\t]{0,40}") {
            let _ = Labels::parse(Path::new("x"), &bytes);
            let _ = Labels::parse(Path::new("x"), text.as_bytes());
        }
    }
}

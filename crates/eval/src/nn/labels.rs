//! Who each row of a file of embeddings is.

use std::{collections::HashMap, path::Path};

use crate::{
    EvalError,
    pairs::{read_regular_file, utf8},
};

const LAYOUT: &str = "each line holds the person of one row and, if there are groups, its group, \
    separated by a tab or spaces; all lines have a group, or none";
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
    /// Reads lines of `person` or `person group`.
    ///
    /// # Errors
    ///
    /// [`EvalError::Io`], and [`EvalError::Line`] for the first line that breaks the layout.
    pub fn read(path: &Path) -> Result<Labels, EvalError> {
        Labels::parse(path, &read_regular_file(path, BYTES_MAX)?)
    }

    /// Parses the lines; `path` is for errors alone.
    ///
    /// # Errors
    ///
    /// As [`read`](Labels::read).
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Labels, EvalError> {
        let broken = |line: usize, problem: String| EvalError::Line {
            path: path.to_owned(),
            line,
            problem,
            layout: LAYOUT,
        };
        let text = utf8(path, bytes, LAYOUT)?;
        let mut rows: Vec<(&str, Option<&str>)> = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let mut fields = line.split_ascii_whitespace();
            let row = (fields.next(), fields.next(), fields.count());
            let (Some(person), group, 0) = row else {
                let problem = match row.0 {
                    None => "the line is empty".to_owned(),
                    Some(_) => format!("{} fields where 1 or 2 are expected", row.2 + 2),
                };
                return Err(broken(number, problem));
            };
            if rows.first().is_some_and(|first| first.1.is_some() != group.is_some()) {
                let has = if group.is_some() { "a" } else { "no" };
                return Err(broken(number, format!("it has {has} group, unlike the first line")));
            }
            rows.push((person, group));
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
        let labels = parse("bo\teast\nal west\r\nbo east\n").unwrap();
        assert_eq!((labels.identity, labels.group), (vec![1, 0, 1], vec![0, 1, 0]));
        assert_eq!(
            (labels.people, labels.groups),
            (vec!["al".into(), "bo".into()], vec!["east".into(), "west".into()])
        );
        let plain = parse("7\n3\n").unwrap();
        assert_eq!((plain.group, plain.groups.len()), (vec![0, 0], 0));
    }

    #[test]
    fn bad_lines_are_named() {
        let error = |text: &str| parse(text).unwrap_err().to_string();
        assert_eq!(error("a\n\nb"), "l:2: the line is empty");
        assert_eq!(error("a b c d"), "l:1: 4 fields where 1 or 2 are expected");
        assert_eq!(error("a b\nc"), "l:2: it has no group, unlike the first line");
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

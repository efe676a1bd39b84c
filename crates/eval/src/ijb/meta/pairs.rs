//! The pairs of the 1:1 protocol.

use std::path::Path;

use super::{
    LIST_BYTES_MAX, TemplateIndex, empty, fields,
    lines::{number, parse, shown},
};
use crate::{EvalError, files::read_regular_file};

const PAIR_LAYOUT: &str = "each line holds two template ids and 1 (same person) or 0";

/// Template pairs of the 1:1 protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairList {
    /// Places of the two templates in the rising list of ids.
    pub pairs: Vec<(u32, u32)>,
    /// Whether they show one person.
    pub same: Vec<bool>,
}

impl PairList {
    /// Reads the list of template pairs.
    ///
    /// # Errors
    ///
    /// [`EvalError::Durable`], and [`EvalError::Verify`] for the first line that breaks the layout or names
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

#[cfg(test)]
mod tests {
    use super::*;

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
}

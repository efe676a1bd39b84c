//! The lists of the 1:N protocol.

use std::{collections::BTreeMap, path::Path};

use pfc_verify::VerifyError;

use super::{
    LIST_BYTES_MAX, TemplateIndex, empty,
    lines::{line_of, number, parse},
};
use crate::{EvalError, files::read_regular_file};

const SEARCH_LAYOUT: &str = "after a header line, if there is one, each line starts with a template id and a subject id, comma \
     separated";

/// Templates of a gallery or of the probes, each once, by rising id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SearchList {
    /// Places of the templates in the rising list of ids.
    pub rows: Vec<u32>,
    /// The person of each.
    pub subjects: Vec<u64>,
}

impl SearchList {
    /// Reads the list of a gallery or of the probes.
    ///
    /// # Errors
    ///
    /// [`EvalError::Durable`], and [`EvalError::Verify`] for the first line that breaks the layout, names a
    /// template without faces, or gives a template a second person.
    pub fn read(path: &Path, index: &TemplateIndex) -> Result<SearchList, EvalError> {
        SearchList::parse(path, &read_regular_file(path, LIST_BYTES_MAX)?, index)
    }

    /// As [`read`](SearchList::read), of a gallery, which cannot be empty.
    pub(in crate::ijb) fn read_gallery(
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
        let header_end = header_end(bytes);
        let n_headers = usize::from(header_end > 0);
        let line = |line: &str| {
            let mut fields = line.split(',').map(str::trim_ascii);
            let mut next = |what| number::<u64>(fields.next().unwrap_or_default(), what);
            let id = next("template id")?;
            Ok((index.known(id)?, id, next("subject id")?))
        };
        let after_header = |error| match error {
            EvalError::Verify(VerifyError::Line { path, line, problem, layout }) => {
                EvalError::line(&path, line + n_headers, problem, layout)
            }
            other => other,
        };
        let lines = parse(path, &bytes[header_end..], SEARCH_LAYOUT, line).map_err(after_header)?;
        let mut list = BTreeMap::new();
        for (i, (row, id, subject)) in lines.into_iter().enumerate() {
            let known = *list.entry(row).or_insert(subject);
            if known != subject {
                let line = n_headers + line_of(&bytes[header_end..], i);
                let problem = format!("template {id} is of subject {subject}, above of {known}");
                return Err(EvalError::line(path, line, problem, SEARCH_LAYOUT));
            }
        }
        let (rows, subjects) = list.into_iter().unzip();
        Ok(SearchList { rows, subjects })
    }
}

/// Where the header line ends: at 0 if the first line begins with a number, as a line of the list does.
fn header_end(bytes: &[u8]) -> usize {
    let end = bytes.iter().position(|&b| b == b'\n').map_or(bytes.len(), |i| i + 1);
    let field = bytes[..end].split(|&b| b == b',').next().unwrap_or_default().trim_ascii();
    let is_number = !field.is_empty() && field.iter().all(u8::is_ascii_digit);
    if is_number { 0 } else { end }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_without_a_header_keeps_its_first_template() {
        let index = TemplateIndex::new(vec![5, 7]);
        let parse = |text: &str| SearchList::parse(Path::new("s"), text.as_bytes(), &index);
        let list = parse("7, 40,a\n5,41,b").unwrap();
        assert_eq!((list.rows, list.subjects), (vec![0, 1], vec![41, 40]));
        let error = |text: &str| parse(text).unwrap_err().to_string();
        assert_eq!(error("5,1\n5,2"), "s:2: template 5 is of subject 2, above of 1");
        assert_eq!(parse("7,40").unwrap().rows, [1]);
        assert_eq!(error("9,1"), "s:1: template 9 has no face in the list of faces");
        assert_eq!(error("5"), "s:1: the subject id is ``, which is no number");
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
}

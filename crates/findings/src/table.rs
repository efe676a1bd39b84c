//! The table of questions that people fill in.

use std::{borrow::Cow, path::Path};

use pfc_durable::DurableError;
use serde::{Deserialize, Serialize};

use crate::FindingsError;

/// Maximum bytes of a table.
const TABLE_BYTES_MAX: u64 = 1 << 30;

/// A line of the table: a question, and the place for its answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Line {
    /// Names the question.
    pub id: String,
    /// The answer; empty if there is none yet.
    pub answer: String,
    /// What may be answered, separated by spaces.
    pub answers: String,
    /// The question in words.
    pub question: String,
    /// The answer that says that the finding is right.
    pub suggestion: String,
    /// The finding.
    pub reason: String,
    /// What was measured.
    pub score: String,
    /// Its bound.
    pub threshold: String,
    /// Number of images asked about.
    pub images: String,
    /// Name of their identity.
    pub identity: String,
    /// Where the first of them came from.
    pub source: String,
    /// The identity that they may belong to. Where it is empty, a person may name one to answer
    /// `relabel`.
    pub target_identity: String,
    /// Where the image came from that they are compared with.
    pub partner_source: String,
    /// The picture that shows them.
    pub sheet: String,
    /// The row of the first image.
    pub row: String,
}

/// An answer in a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Where it stands, counted from 1; the header is line 1.
    pub line: u64,
    /// The question.
    pub id: String,
    /// What was answered; never empty.
    pub answer: String,
    /// The cell `target_identity`.
    pub target_identity: String,
}

/// Text of a table; its header is there even if nothing is to be asked. Text that a spreadsheet would
/// take for a formula gets an apostrophe in front, which [`answers`] takes off again.
pub fn write(lines: &[Line]) -> Vec<u8> {
    let mut out = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    let header: Vec<&str> = Line::default().cells().map(|(name, _)| name).to_vec();
    // Writing to a vector cannot fail, and all lines have the same number of cells.
    let _ = out.write_record(&header);
    for line in lines {
        let _ = out.write_record(line.cells().map(|(_, cell)| guarded(cell)));
    }
    out.into_inner().unwrap_or_default()
}

impl Line {
    fn cells(&self) -> [(&'static str, &str); 15] {
        [
            ("id", &self.id),
            ("answer", &self.answer),
            ("answers", &self.answers),
            ("question", &self.question),
            ("suggestion", &self.suggestion),
            ("reason", &self.reason),
            ("score", &self.score),
            ("threshold", &self.threshold),
            ("images", &self.images),
            ("identity", &self.identity),
            ("source", &self.source),
            ("target_identity", &self.target_identity),
            ("partner_source", &self.partner_source),
            ("sheet", &self.sheet),
            ("row", &self.row),
        ]
    }
}

/// Numbers are not formulas, whatever their sign is.
fn guarded(cell: &str) -> String {
    let is_risky = cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\'']);
    match is_risky && cell.parse::<f64>().is_err() {
        true => format!("'{cell}"),
        false => cell.to_owned(),
    }
}

fn unguarded(cell: &str) -> &str {
    cell.strip_prefix('\'').unwrap_or(cell)
}

/// The answers in the table at `path` and the number of lines without one. Columns may be missing,
/// but for `id` and `answer`, stand in another order, be named in capitals, and be separated by
/// semicolons or tabs, as some spreadsheets leave them.
///
/// # Errors
///
/// [`FindingsError::Durable`] if it cannot be read, [`FindingsError::Answer`] for what is no table.
pub fn answers(path: &Path) -> Result<(Vec<Answer>, usize), FindingsError> {
    let io = |op| DurableError::at(op, path);
    let bytes = std::fs::metadata(path).map_err(io("read"))?.len();
    let bad = |line: u64, what: String| FindingsError::Answer { path: path.into(), line, what };
    if bytes > TABLE_BYTES_MAX {
        return Err(bad(1, format!("{bytes} bytes, the limit is {TABLE_BYTES_MAX}")));
    }
    let text = std::fs::read(path).map_err(io("read"))?;
    parse(&text).map_err(|(line, what)| bad(line, what))
}

/// As [`answers`], of text.
///
/// # Errors
///
/// The line, and what is wrong there.
pub fn parse(text: &[u8]) -> Result<(Vec<Answer>, usize), (u64, String)> {
    let text = &*utf8(text).map_err(|what| (1, what))?;
    let first = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let n_of = |delimiter: &u8| first.iter().filter(|byte| *byte == delimiter).count();
    // A header of one column has none of them: the last is then taken.
    let delimiter = [b'\t', b';', b','].into_iter().max_by_key(n_of).unwrap_or(b',');
    let mut table = csv::ReaderBuilder::new().delimiter(delimiter).flexible(true).from_reader(text);
    let header = table.headers().map_err(|e| (1, e.to_string()))?.clone();
    let column = |name: &str| header.iter().position(|cell| cell.trim().eq_ignore_ascii_case(name));
    let needed = |name: &str| {
        column(name).ok_or_else(|| {
            let found: Vec<String> =
                header.iter().take(8).map(|cell| format!("`{}`", cell.escape_debug())).collect();
            let found = found.join(", ");
            (1, format!("no column `{name}` among {found}: it is no table of `review export`"))
        })
    };
    let (id, answer, target) = (needed("id")?, needed("answer")?, column("target_identity"));
    let (mut found, mut n_open) = (Vec::new(), 0);
    let (mut seen, mut line) = (0, 1);
    for record in table.records() {
        // A name may hold the end of a line, so that lines are not counted by records.
        let line_of = |position: Option<&csv::Position>| position.map_or(1, csv::Position::line);
        let record = record.map_err(|e| (line_of(e.position()), e.to_string()))?;
        // The place of a record is before what is left of the end of the line above it.
        let start = record.position().map_or(0, |position| position.byte() as usize);
        let rest = text.get(start..).unwrap_or_default();
        let n_ends = rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let start = (start + n_ends).min(text.len());
        let passed = text.get(seen..start).unwrap_or_default();
        line += passed.iter().filter(|byte| **byte == b'\n').count() as u64;
        seen = start;
        let cell = |i: usize| unguarded(record.get(i).unwrap_or_default()).to_owned();
        let said = cell(answer).trim().to_ascii_lowercase();
        if said.is_empty() {
            n_open += 1;
            continue;
        }
        let target_identity = target.map(cell).unwrap_or_default();
        found.push(Answer { line, id: cell(id).trim().to_owned(), answer: said, target_identity });
    }
    Ok((found, n_open))
}

/// The text as UTF-8 without a byte order mark, turned from UTF-16 where that has one.
fn utf8(text: &[u8]) -> Result<Cow<'_, [u8]>, String> {
    let unit: fn([u8; 2]) -> u16 = match text {
        [0xff, 0xfe, ..] => u16::from_le_bytes,
        [0xfe, 0xff, ..] => u16::from_be_bytes,
        [b'P', b'K', 3, 4, ..] | [0xd0, 0xcf, 0x11, 0xe0, ..] => {
            return Err(
                "it is a workbook of a spreadsheet (.xlsx, .ods or .xls): save the table as \
                        CSV in UTF-8"
                    .into(),
            );
        }
        _ => {
            let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
            return match std::str::from_utf8(text) {
                Ok(_) => Ok(Cow::Borrowed(text)),
                Err(e) => Err(format!(
                    "byte {} is not UTF-8: save the table as CSV in UTF-8",
                    e.valid_up_to()
                )),
            };
        }
    };
    let (pairs, _) = text[2..].as_chunks::<2>();
    let turned = char::decode_utf16(pairs.iter().map(|pair| unit(*pair)));
    let turned: String = turned.map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    Ok(Cow::Owned(turned.into_bytes()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_give_answers_or_an_error(
            bytes: Vec<u8>,
            text in "(id|answer|f1|yes|[,;\t\"\r\n=+ a-c]){0,60}",
        ) {
            let table = format!("id,answer\n{text}");
            for bytes in [&bytes[..], text.as_bytes(), table.as_bytes()] {
                if let Ok((answers, _)) = parse(bytes) {
                    let is_whole = |answer: &Answer| answer.line > 0 && !answer.answer.is_empty();
                    prop_assert!(answers.iter().all(is_whole));
                }
            }
        }
    }

    #[test]
    fn names_that_look_like_formulas_are_guarded_and_come_back() {
        for name in
            ["=1+1", "+x", "-x", "@x", "'quoted", "'=x", "a,b\n\"c\"", "\tx", "plain", "-0.5"]
        {
            let line = Line {
                id: "f1".into(),
                answer: "relabel".into(),
                target_identity: name.into(),
                ..Line::default()
            };
            let text = write(&[line]);
            let (found, n_open) = parse(&text).unwrap();
            assert_eq!((found[0].target_identity.as_str(), n_open), (name, 0));
            let text = String::from_utf8(text).unwrap();
            let bare = text.contains(&format!(",{name},")) || text.contains(&format!(",\"{name}"));
            let is_formula = name.starts_with(['=', '+', '-', '@']) && name != "-0.5";
            assert!(!(bare && is_formula), "{text}");
        }
    }

    #[test]
    fn the_header_is_there_even_if_nothing_is_asked() {
        let text = write(&[]);
        assert!(text.starts_with(b"id,answer,answers,question,"));
        assert_eq!(parse(&text).unwrap(), (vec![], 0));
    }

    #[test]
    fn tables_that_spreadsheets_wrote_are_read() {
        let text = "\u{feff}answer;row;id\r\n Keep ;7;f1\r\n;8;f2\r\n";
        let (found, n_open) = parse(text.as_bytes()).unwrap();
        assert_eq!((found.len(), n_open), (1, 1));
        assert_eq!(
            (found[0].id.as_str(), found[0].answer.as_str(), found[0].line),
            ("f1", "keep", 2)
        );
        let utf16 = |unit: fn(u16) -> [u8; 2]| {
            let text = "\u{feff}ID\tAnswer\r\nf1\tkeep\r\nf2\t\r\n";
            text.encode_utf16().flat_map(unit).collect::<Vec<u8>>()
        };
        for text in [
            b"ID,Answer\nf1,Keep\nf2,\n".to_vec(),
            b"id\tanswer\tsource\nf1\tkeep\ta, b; c\nf2\t\t\n".to_vec(),
            utf16(u16::to_le_bytes),
            utf16(u16::to_be_bytes),
        ] {
            let (found, n_open) = parse(&text).unwrap();
            assert_eq!((found.len(), n_open, found[0].id.as_str()), (1, 1, "f1"));
            assert_eq!((found[0].answer.as_str(), found[0].line), ("keep", 2));
        }
    }

    #[test]
    fn what_is_no_table_is_said_with_what_it_is() {
        for (text, expected) in [
            (&b"PK\x03\x04..."[..], "it is a workbook of a spreadsheet"),
            (b"id,answer\nJos\xe9,keep\n", "byte 13 is not UTF-8: save the table as CSV"),
            (b"case,answer\n1,keep\n", "no column `id` among `case`, `answer`"),
            (b"id;said\n1;keep\n", "no column `answer` among `id`, `said`"),
        ] {
            let (line, what) = parse(text).unwrap_err();
            assert!(line == 1 && what.starts_with(expected), "{what}");
        }
    }
}

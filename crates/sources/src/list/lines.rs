//! The lines of a list. Two layouts: `path<TAB>label` without a header, and columns by the names in
//! a header, between commas (CSV, with quotes) or tabs (without).

use std::io::{BufRead, Read};

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

use crate::{catalogue::Who, source::Landmarks};

/// A path has 4,096 bytes at most, and a line little else.
const LINE_BYTES_MAX: u64 = 1 << 16;
/// More columns than any list has.
const COLUMNS_MAX: usize = 1024;

const POINT_COLUMNS: [&str; 10] = ["x1", "y1", "x2", "y2", "x3", "y3", "x4", "y4", "x5", "y5"];

/// One image of a list.
#[derive(Debug, PartialEq)]
pub struct Row<'a> {
    /// As it is listed.
    pub path: &'a str,
    /// Whose it is.
    pub who: Who,
    /// In a list with columns for landmarks; not a number in a line that leaves them empty.
    pub points: Option<Landmarks>,
}

/// The lines of a list, read one by one in bounded memory.
pub struct Lines<R> {
    input: R,
    /// Lines read, the current one included.
    line: u64,
    text: Vec<u8>,
    fields: Fields,
    /// Unknown until the first line is seen.
    layout: Option<Layout>,
}

enum Layout {
    PathTabLabel,
    Columns(Columns),
}

/// Where a header puts what.
struct Columns {
    n: usize,
    path: usize,
    label: Option<usize>,
    identity: Option<usize>,
    points: Option<[usize; 10]>,
}

impl<R: BufRead> Lines<R> {
    /// The lines of `input`.
    pub fn new(input: R) -> Lines<R> {
        Lines { input, line: 0, text: Vec::new(), fields: Fields::new(b','), layout: None }
    }

    /// Number of the line last read, from 1.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// Goes to the next line with an image; empty lines and a header are passed over. Whether there
    /// is one.
    ///
    /// # Errors
    ///
    /// What is wrong with [`line`](Lines::line).
    pub fn advance(&mut self) -> Result<bool, String> {
        while self.read_line()? {
            let is_empty = self.text.trim_ascii().is_empty();
            // A header holds no image.
            if !is_empty && (self.layout.is_some() || !self.begin()?) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The image of the line.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn row(&mut self) -> Result<Row<'_>, String> {
        match &self.layout {
            Some(Layout::Columns(columns)) => columns.row(self.fields.split(&self.text)?),
            _ => path_tab_label(&self.text),
        }
    }

    /// Reads a line without its end; whether there was one.
    fn read_line(&mut self) -> Result<bool, String> {
        self.text.clear();
        let mut input = (&mut self.input).take(LINE_BYTES_MAX);
        let read = input.read_until(b'\n', &mut self.text);
        let n = read.map_err(|e| format!("cannot read: {e}"))?;
        if n == 0 {
            return Ok(false);
        }
        self.line += 1;
        if self.text.pop_if(|byte| *byte == b'\n').is_none() && n as u64 == LINE_BYTES_MAX {
            return Err(format!("the line has more than {LINE_BYTES_MAX} bytes"));
        }
        self.text.pop_if(|byte| *byte == b'\r');
        if self.line == 1 && self.text.starts_with(b"\xef\xbb\xbf") {
            self.text.drain(..3);
        }
        Ok(true)
    }

    /// Learns the layout from the first line; whether that is a header.
    fn begin(&mut self) -> Result<bool, String> {
        let has_tab = self.text.contains(&b'\t');
        self.fields = Fields::new(if has_tab { b'\t' } else { b',' });
        let header: Vec<String> = self
            .fields
            .split(&self.text)?
            .iter()
            .map(|field| String::from_utf8_lossy(field).trim().to_ascii_lowercase())
            .collect();
        let columns = Columns::of(&header)?;
        let is_header = columns.is_some();
        self.layout = Some(match columns {
            Some(columns) => Layout::Columns(columns),
            None if has_tab => Layout::PathTabLabel,
            None => {
                let what = "neither `path<TAB>label` nor a header with the columns path and label";
                return Err(what.into());
            }
        });
        Ok(is_header)
    }
}

fn path_tab_label(line: &[u8]) -> Result<Row<'_>, String> {
    let line = utf8(line)?;
    let mut fields = line.split('\t');
    let (Some(path), Some(label), None) = (fields.next(), fields.next(), fields.next()) else {
        let n = line.split('\t').count();
        return Err(format!("{n} fields between tabs, not a path and a label"));
    };
    let who = Who::parse(Some(label), None)?;
    Ok(Row { path: not_empty(path)?, who, points: None })
}

fn utf8(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|_| "the line is not valid UTF-8".into())
}

fn not_empty(path: &str) -> Result<&str, String> {
    if path.is_empty() { Err("the path is empty".into()) } else { Ok(path) }
}

impl Columns {
    /// The columns of a header; `None` if the line is none.
    fn of(header: &[String]) -> Result<Option<Columns>, String> {
        let position = |name: &str| header.iter().position(|field| field == name);
        let (label, identity) = (position("label"), position("identity"));
        let Some(path) = position("path").filter(|_| label.or(identity).is_some()) else {
            return Ok(None);
        };
        let named = ["path", "label", "identity"].into_iter().chain(POINT_COLUMNS);
        for name in named {
            if header.iter().filter(|field| *field == name).count() > 1 {
                return Err(format!("there are two columns `{name}`"));
            }
        }
        let points = POINT_COLUMNS.map(position);
        let n_points = points.iter().flatten().count();
        if n_points != 0 && n_points != points.len() {
            let has = |name: &&&str| position(name).is_none();
            let missing = POINT_COLUMNS.iter().find(has).unwrap_or(&"x1");
            return Err(format!("of the ten columns of landmarks, `{missing}` is missing"));
        }
        let points = (n_points > 0).then(|| points.map(Option::unwrap_or_default));
        Ok(Some(Columns { n: header.len(), path, label, identity, points }))
    }

    fn row<'a>(&self, fields: Split<'a>) -> Result<Row<'a>, String> {
        if fields.len() != self.n {
            let (n, expected) = (fields.len(), self.n);
            return Err(format!("{n} fields, and the header has {expected}"));
        }
        let text = |column: usize| utf8(fields.get(column));
        let optional = |column: Option<usize>| column.map(text).transpose();
        let who = Who::parse(optional(self.label)?, optional(self.identity)?)?;
        let points = match self.points {
            Some(columns) => Some(landmarks(&fields, columns)?),
            None => None,
        };
        Ok(Row { path: not_empty(text(self.path)?)?, who, points })
    }
}

/// The landmarks of a line; not a number if all are empty.
fn landmarks(fields: &Split<'_>, columns: [usize; 10]) -> Result<Landmarks, String> {
    let mut points = [f32::NAN; 10];
    if columns.iter().all(|column| fields.get(*column).trim_ascii().is_empty()) {
        return Ok(points);
    }
    for ((point, column), name) in points.iter_mut().zip(columns).zip(POINT_COLUMNS) {
        let text = utf8(fields.get(column))?.trim();
        let value = text.parse().ok().filter(|value: &f32| value.is_finite());
        *point = value.ok_or_else(|| format!("`{text}` in column {name} is no coordinate"))?;
    }
    Ok(points)
}

/// Splits lines into fields, in memory that is used again.
struct Fields {
    reader: Reader,
    /// The fields without quotes, end to end.
    text: Vec<u8>,
    ends: Vec<usize>,
}

/// The fields of one line.
struct Split<'a> {
    text: &'a [u8],
    ends: &'a [usize],
}

impl Fields {
    fn new(delimiter: u8) -> Fields {
        // Who separates by tabs does not quote.
        let reader = ReaderBuilder::new().delimiter(delimiter).quoting(delimiter == b',').build();
        Fields { reader, text: Vec::new(), ends: vec![0; COLUMNS_MAX] }
    }

    fn split<'a>(&'a mut self, line: &[u8]) -> Result<Split<'a>, String> {
        self.reader.reset();
        self.text.resize(line.len() + 1, 0);
        let (result, n_in, n_text, n_ends) =
            self.reader.read_record(line, &mut self.text, &mut self.ends);
        let (result, n_text, n_ends) = match result {
            // The end of the line, which ends the record.
            ReadRecordResult::InputEmpty if n_in == line.len() => {
                let (text, ends) = (&mut self.text[n_text..], &mut self.ends[n_ends..]);
                let (result, _, more_text, more_ends) = self.reader.read_record(b"\n", text, ends);
                (result, n_text + more_text, n_ends + more_ends)
            }
            result => (result, n_text, n_ends),
        };
        match result {
            ReadRecordResult::Record if n_in == line.len() => {}
            ReadRecordResult::Record => return Err("a carriage return within the line".into()),
            ReadRecordResult::OutputEndsFull => {
                return Err(format!("more than {COLUMNS_MAX} fields"));
            }
            _ => return Err("a quote is not closed on its line".into()),
        }
        Ok(Split { text: &self.text[..n_text], ends: &self.ends[..n_ends] })
    }
}

impl<'a> Split<'a> {
    fn len(&self) -> usize {
        self.ends.len()
    }

    fn get(&self, i: usize) -> &'a [u8] {
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.text[start..self.ends[i]]
    }

    fn iter(&self) -> impl Iterator<Item = &'a [u8]> {
        (0..self.len()).map(|i| self.get(i))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &[u8]) -> Result<Vec<(String, Who)>, String> {
        let mut lines = Lines::new(text);
        let mut rows = Vec::new();
        let mut next = || -> Result<bool, String> {
            if !lines.advance()? {
                return Ok(false);
            }
            let row = lines.row()?;
            rows.push((row.path.to_owned(), row.who));
            Ok(true)
        };
        let problem = loop {
            match next() {
                Ok(true) => {}
                Ok(false) => return Ok(rows),
                Err(problem) => break problem,
            }
        };
        Err(format!("{}: {problem}", lines.line()))
    }

    #[track_caller]
    fn check(text: &str, expected: &[(&str, Who)]) {
        let expected: Vec<_> =
            expected.iter().map(|(path, who)| ((*path).to_owned(), who.clone())).collect();
        assert_eq!(rows(text.as_bytes()), Ok(expected));
    }

    #[track_caller]
    fn check_wrong(text: impl AsRef<[u8]>, expected: &str) {
        assert_eq!(rows(text.as_ref()).unwrap_err(), expected);
    }

    #[test]
    fn paths_and_labels_between_tabs_need_no_header() {
        let name = |name: &str| Who::Name(name.into());
        check(
            "a b.jpg\tAnn Lee\r\n\n\"c\".jpg\t16777217",
            &[("a b.jpg", name("Ann Lee")), ("\"c\".jpg", Who::Number(16_777_217))],
        );
        check("\u{feff}é.jpg\t0\n", &[("é.jpg", Who::Number(0))]);
        check("path\tlabels\n", &[("path", name("labels"))]);
    }

    #[test]
    fn columns_are_found_by_the_names_in_a_header() {
        let both = |number, name: &str| Who::Both(number, name.into());
        check("path,label\na.jpg,3\n", &[("a.jpg", Who::Number(3))]);
        check(
            "Label, identity ,size,PATH\n0,\"Lee, \"\"Ann\"\"\",9,\"a,b.jpg\"",
            &[("a,b.jpg", both(0, "Lee, \"Ann\""))],
        );
        check("identity\tpath\nBob\ta\"b.jpg\n", &[("a\"b.jpg", Who::Name("Bob".into()))]);
    }

    #[test]
    fn what_is_wrong_with_a_line_is_said_with_its_number() {
        let neither = "neither `path<TAB>label` nor a header with the columns path and label";
        check_wrong("a.jpg 3\n", &format!("1: {neither}"));
        check_wrong("\n\npath,class\n", &format!("3: {neither}"));
        check_wrong("a\tb\nc\n", "2: 1 fields between tabs, not a path and a label");
        check_wrong("a\tb\tc\n", "1: 3 fields between tabs, not a path and a label");
        check_wrong("a\t\n", "1: the label is empty");
        check_wrong("\tb\n", "1: the path is empty");
        check_wrong("a\t-1\n", "1: label -1 is negative, so the image is nobody's");
        check_wrong(b"a\tb\n\xff\tc\n", "2: the line is not valid UTF-8");
        check_wrong("path,label\na\n", "2: 1 fields, and the header has 2");
        check_wrong("path,label\n\"a,1\n", "2: a quote is not closed on its line");
        check_wrong("path,label\na\rb,1\n", "2: a carriage return within the line");
        check_wrong("path,label,path\n", "1: there are two columns `path`");
        check_wrong("path,label,x1,y1,x2\n", "1: of the ten columns of landmarks, `y2` is missing");
        let header = "path,label,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5\n";
        let bad = "2: `nan` in column y1 is no coordinate";
        check_wrong(format!("{header}a,0,1,nan,3,4,5,6,7,8,9,10\n"), bad);
        check_wrong(
            format!("{header}a,0,,2,3,4,5,6,7,8,9,10\n"),
            "2: `` in column x1 is no coordinate",
        );
        check_wrong("x".repeat(70_000), "1: the line has more than 65536 bytes");
        check_wrong(format!("path,label{}", ",".repeat(2000)), "1: more than 1024 fields");
    }
}

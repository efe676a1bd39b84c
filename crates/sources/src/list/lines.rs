//! The lines of a list, one image each, in any of the layouts that `layout` knows.

use std::{
    borrow::Cow,
    io::{BufRead, Read},
};

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

use super::layout::{Layout, POINT_COLUMNS, Split};
use crate::{catalogue::People, columns::ColumnChoice, label::Who, source::Landmarks};

/// A path has 4,096 bytes at most, and a line little else.
const LINE_BYTES_MAX: u64 = 1 << 16;
/// More columns than any list has.
const COLUMNS_MAX: usize = 1024;

/// One image of a list.
#[derive(Debug, PartialEq)]
pub struct Row<'a> {
    /// As it is listed, but with `/` between its parts.
    pub path: Cow<'a, str>,
    /// Whose it is, or why nobody's.
    pub who: Result<Who, String>,
    /// In a list with columns for landmarks; not a number in a line that leaves them empty.
    pub points: Option<Landmarks>,
}

/// The lines of a list, read one by one in bounded memory.
pub struct Lines<R> {
    input: R,
    choice: ColumnChoice,
    people: People,
    /// Lines read, the current one included.
    line: u64,
    text: Vec<u8>,
    /// The line is longer than any, and `text` its beginning.
    is_too_long: bool,
    fields: Fields,
    /// Unknown until the first line is seen.
    layout: Option<Layout>,
}

impl<R: BufRead> Lines<R> {
    /// The lines of `input`, which may be paths alone where `people` are optional.
    pub fn new(input: R, choice: ColumnChoice, people: People) -> Lines<R> {
        let (text, fields) = (Vec::new(), Fields::new(b','));
        Lines { input, choice, people, line: 0, text, is_too_long: false, fields, layout: None }
    }

    /// Number of the line last read, from 1.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// What the layout was guessed to be, once a line is seen, if it is no documented one.
    pub fn guess(&self) -> Option<&str> {
        self.layout.as_ref()?.guess.as_deref()
    }

    /// Goes to the next line with an image; empty lines and a header are passed over. Whether there
    /// is one.
    ///
    /// # Errors
    ///
    /// Why the list cannot be read, or what it is cannot be told from [`line`](Lines::line).
    pub fn advance(&mut self) -> Result<bool, String> {
        while self.read_line()? {
            let is_empty = !self.is_too_long && self.text.trim_ascii().is_empty();
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
    /// What is wrong with this one line.
    pub fn row(&mut self) -> Result<Row<'_>, String> {
        if self.is_too_long {
            return Err(format!("the line has more than {LINE_BYTES_MAX} bytes"));
        }
        let layout = self.layout.as_ref().ok_or("the layout is not known")?;
        row(layout, &self.fields.split(&self.text, layout.split)?)
    }

    /// Reads a line without its end; whether there was one.
    fn read_line(&mut self) -> Result<bool, String> {
        self.text.clear();
        let failed = |e| format!("cannot read: {e}");
        let mut input = (&mut self.input).take(LINE_BYTES_MAX);
        let n = input.read_until(b'\n', &mut self.text).map_err(failed)?;
        if n == 0 {
            return Ok(false);
        }
        self.line += 1;
        self.is_too_long =
            self.text.pop_if(|byte| *byte == b'\n').is_none() && n as u64 == LINE_BYTES_MAX;
        if self.is_too_long {
            self.input.skip_until(b'\n').map_err(failed)?;
        }
        self.text.pop_if(|byte| *byte == b'\r');
        if self.line == 1 && self.text.starts_with(b"\xef\xbb\xbf") {
            self.text.drain(..3);
        }
        Ok(true)
    }

    /// Learns the layout from the first line; whether that is a header.
    fn begin(&mut self) -> Result<bool, String> {
        if self.is_too_long {
            return Err(format!("the line has more than {LINE_BYTES_MAX} bytes"));
        }
        let layout = Layout::of(&self.choice, self.people, |split| {
            let fields = self.fields.split(&self.text, split)?;
            Ok(fields.iter().map(|field| String::from_utf8_lossy(field).into_owned()).collect())
        })?;
        Ok(self.layout.insert(layout).has_header)
    }
}

fn row<'a>(layout: &Layout, fields: &Cut<'a>) -> Result<Row<'a>, String> {
    let n = fields.len();
    if let Some(expected) = layout.n.filter(|expected| *expected != n) {
        return Err(match layout.has_header {
            true => format!("{n} fields, and the header has {expected}"),
            false => format!("{n} fields, and the first line has {expected}"),
        });
    }
    let text = |column: usize| {
        let field = fields.get(column).ok_or_else(|| format!("{n} fields are too few"))?;
        std::str::from_utf8(field).map_err(|_| "the line is not valid UTF-8".to_owned())
    };
    let optional = |column: Option<usize>| column.map(text).transpose();
    let who = Who::parse(optional(layout.label)?, optional(layout.identity)?);
    let points = layout.points.map(|columns| landmarks(fields, columns)).transpose()?;
    let path = match layout.split {
        Split::At(b'\t') => unquoted(text(layout.path)?),
        _ => text(layout.path)?.trim(),
    };
    if path.is_empty() {
        return Err("the path is empty".into());
    }
    let path = match path.contains('\\') {
        true => Cow::Owned(path.replace('\\', "/")),
        false => Cow::Borrowed(path),
    };
    Ok(Row { path, who, points })
}

/// What a spreadsheet puts in quotes between tabs.
fn unquoted(field: &str) -> &str {
    let inside = field.strip_prefix('"').and_then(|field| field.strip_suffix('"'));
    inside.filter(|inside| !inside.contains('"')).unwrap_or(field)
}

/// The landmarks of a line; not a number if all are empty.
fn landmarks(fields: &Cut<'_>, columns: [usize; 10]) -> Result<Landmarks, String> {
    let mut points = [f32::NAN; 10];
    let field = |column: usize| fields.get(column).unwrap_or_default();
    if columns.iter().all(|column| field(*column).trim_ascii().is_empty()) {
        return Ok(points);
    }
    for ((point, column), name) in points.iter_mut().zip(columns).zip(POINT_COLUMNS) {
        let text = String::from_utf8_lossy(field(column));
        let value = text.trim().parse().ok().filter(|value: &f32| value.is_finite());
        *point =
            value.ok_or_else(|| format!("`{}` in column {name} is no coordinate", text.trim()))?;
    }
    Ok(points)
}

/// Cuts lines into fields, in memory that is used again.
struct Fields {
    delimiter: u8,
    reader: Reader,
    /// The fields without quotes, end to end.
    text: Vec<u8>,
    ends: Vec<usize>,
}

/// The fields of one line.
enum Cut<'a> {
    Joined { text: &'a [u8], ends: &'a [usize] },
    Apart(Vec<&'a [u8]>),
}

impl Fields {
    fn new(delimiter: u8) -> Fields {
        // Who separates by tabs does not quote.
        let reader = ReaderBuilder::new().delimiter(delimiter).quoting(delimiter != b'\t').build();
        Fields { delimiter, reader, text: Vec::new(), ends: vec![0; COLUMNS_MAX] }
    }

    fn split<'a>(&'a mut self, line: &'a [u8], split: Split) -> Result<Cut<'a>, String> {
        let line_trimmed = line.trim_ascii();
        let at = |place: Option<usize>| match place {
            None => vec![line_trimmed],
            Some(i) => {
                let (first, last) = line_trimmed.split_at(i);
                vec![first.trim_ascii_end(), last.trim_ascii_start()]
            }
        };
        let is_blank = u8::is_ascii_whitespace;
        Ok(Cut::Apart(match split {
            Split::At(delimiter) => {
                if self.delimiter != delimiter {
                    *self = Fields::new(delimiter);
                }
                return self.split_at(line);
            }
            Split::Whole => vec![line_trimmed],
            Split::BeforeLast => at(line_trimmed.iter().rposition(is_blank)),
            Split::AfterFirst => at(line_trimmed.iter().position(is_blank)),
            Split::Blanks => {
                let fields = line.split(is_blank).filter(|field| !field.is_empty());
                let fields: Vec<&[u8]> = fields.take(COLUMNS_MAX + 1).collect();
                if fields.len() > COLUMNS_MAX {
                    return Err(format!("more than {COLUMNS_MAX} fields"));
                }
                fields
            }
        }))
    }

    fn split_at<'a>(&'a mut self, line: &[u8]) -> Result<Cut<'a>, String> {
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
        Ok(Cut::Joined { text: &self.text[..n_text], ends: &self.ends[..n_ends] })
    }
}

impl<'a> Cut<'a> {
    fn len(&self) -> usize {
        match self {
            Cut::Joined { ends, .. } => ends.len(),
            Cut::Apart(fields) => fields.len(),
        }
    }

    fn get(&self, i: usize) -> Option<&'a [u8]> {
        match self {
            Cut::Joined { text, ends } => {
                let start = if i == 0 { 0 } else { *ends.get(i - 1)? };
                text.get(start..*ends.get(i)?)
            }
            Cut::Apart(fields) => fields.get(i).copied(),
        }
    }

    fn iter(&self) -> impl Iterator<Item = &'a [u8]> {
        (0..self.len()).filter_map(|i| self.get(i))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Path and label, or why there is none.
    type Listed = (String, Result<Who, String>);

    /// Of every line.
    fn rows_of(text: &[u8], choice: &str) -> Result<Vec<Listed>, String> {
        let choice = if choice.is_empty() { Default::default() } else { choice.parse().unwrap() };
        let mut lines = Lines::new(text, choice, People::Needed);
        let mut rows = Vec::new();
        loop {
            match lines.advance() {
                Ok(true) => {}
                Ok(false) => return Ok(rows),
                Err(problem) => return Err(format!("{}: {problem}", lines.line())),
            }
            let line = lines.line();
            rows.push(match lines.row() {
                Ok(row) => (row.path.into_owned(), row.who),
                Err(problem) => (line.to_string(), Err(problem)),
            });
        }
    }

    #[track_caller]
    fn check(text: &str, expected: &[(&str, Who)]) {
        let expected: Vec<_> =
            expected.iter().map(|(path, who)| ((*path).to_owned(), Ok(who.clone()))).collect();
        assert_eq!(rows_of(text.as_bytes(), ""), Ok(expected), "{text}");
    }

    /// The second of two lines, the first of which is good.
    #[track_caller]
    fn check_bad_line(text: impl AsRef<[u8]>, expected: &str) {
        let rows = rows_of(text.as_ref(), "").unwrap();
        assert_eq!(rows.last().unwrap().1, Err(expected.to_owned()));
    }

    #[track_caller]
    fn check_wrong(text: impl AsRef<[u8]>, expected: &str) {
        assert_eq!(rows_of(text.as_ref(), "").unwrap_err(), expected);
    }

    fn name(name: &str) -> Who {
        Who::Name(name.into())
    }

    #[test]
    fn paths_and_labels_between_tabs_need_no_header() {
        check(
            "a b.jpg\tAnn Lee\r\n\n\"c\".jpg\t16777217\n\"d.jpg\"\t3",
            &[
                ("a b.jpg", name("Ann Lee")),
                ("\"c\".jpg", Who::Number(16_777_217)),
                ("d.jpg", Who::Number(3)),
            ],
        );
        check("\u{feff}é.jpg\t0\n", &[("é.jpg", Who::Number(0))]);
        check("path\tAnn\n", &[("path", name("Ann"))]);
    }

    #[test]
    fn columns_are_found_by_the_names_in_a_header() {
        let both = |number, name: &str| Who::Both(number, name.into());
        check("path,label\na.jpg,3\n", &[("a.jpg", Who::Number(3))]);
        check(
            "Label, identity ,size,PATH\n0,\"Lee, \"\"Ann\"\"\",9,\"a,b.jpg\"",
            &[("a,b.jpg", both(0, "Lee, \"Ann\""))],
        );
        check("identity\tpath\nBob\ta\"b.jpg\n", &[("a\"b.jpg", name("Bob"))]);
        for (header, row) in [
            ("file_name,label", "a.jpg,3"),
            ("id,filename,class", "7,a.jpg,3"),
            ("image_id,identity", "a.jpg,3"),
            ("image;label", "a.jpg;3"),
            ("\"image\";\"label\"", "\"a.jpg\";\"3\""),
            ("image|label", "a.jpg|3"),
            ("image label", "a.jpg 3"),
            ("label image", "3 a.jpg"),
            ("file_name, label", "a.jpg, 3"),
            ("filename\tperson_id\tage", "a.jpg\t3\t40"),
        ] {
            check(&format!("{header}\n{row}\n"), &[("a.jpg", Who::Number(3))]);
        }
    }

    #[test]
    fn lists_of_other_tools_are_told_by_their_first_line() {
        for line in [
            "faces/a.jpg 3",
            "faces/a.jpg   3  ",
            "3 faces/a.jpg",
            "3\tfaces/a.jpg",
            "faces/a.jpg,3",
            "faces/a.jpg, 3",
            "faces/a.jpg;3",
            "faces\\a.jpg 3",
            "faces\\a.jpg\t3",
            // MXNet's im2rec, with one label and with several, and InsightFace's face2rec2.
            "0\t3.000000\tfaces/a.jpg",
            "12\t3\t0.5\t0.7\tfaces/a.jpg",
            "0 3 faces/a.jpg",
            "1\tfaces/a.jpg\t3",
            "0\tfaces/a.jpg\t3\t10\t20\t30\t40",
        ] {
            check(&format!("{line}\n"), &[("faces/a.jpg", Who::Number(3))]);
        }
        check("my faces/a 1.jpg 3\n", &[("my faces/a 1.jpg", Who::Number(3))]);
        check("000001.jpg 2880\n", &[("000001.jpg", Who::Number(2880))]);
        check("a.jpg Ann\nb.jpg Bob\n", &[("a.jpg", name("Ann")), ("b.jpg", name("Bob"))]);
    }

    #[test]
    fn the_user_may_name_or_number_the_columns() {
        for (choice, text) in [
            ("image=f,label=c", "f,c,label\na.jpg,3,9\n"),
            ("label=c", "path;label;c\na.jpg;9;3\n"),
            ("image=3,label=2", "x,3,a.jpg\n"),
            ("image=1,label=3", "a.jpg x 3\n"),
            ("image=2,identity=1", "3\ta.jpg\n"),
        ] {
            let expected = Ok(vec![("a.jpg".to_owned(), Ok(Who::Number(3)))]);
            assert_eq!(rows_of(text.as_bytes(), choice), expected, "{choice}");
        }
        let problem = rows_of(b"path,label\na.jpg,3\n", "label=who").unwrap_err();
        assert_eq!(problem, "1: no column `who` among `path`, `label`");
    }

    #[test]
    fn a_first_line_that_tells_no_layout_is_an_error() {
        let neither = "neither `path<TAB>label` nor a header with the columns path and label";
        check_wrong("a.jpg\n", &format!("1: {neither}"));
        check_wrong("\n\npath,age\n", "3: it is not clear which of the 2 fields is what");
        check_wrong("a\tb\tc\n", "1: it is not clear which of the 3 fields is what");
        check_wrong("path,label,path\n", "1: there are two columns `path`");
        check_wrong("path,label,x1,y1,x2\n", "1: of the ten columns of landmarks, `y2` is missing");
        check_wrong("x".repeat(70_000), "1: the line has more than 65536 bytes");
        check_wrong(format!("path,label{}", ",".repeat(2000)), "1: more than 1024 fields");
    }

    #[test]
    fn a_line_that_is_wrong_costs_its_own_image() {
        check_bad_line("a\tb\nc\n", "1 fields, and the first line has 2");
        check_bad_line("a\tb\nc\td\te\n", "3 fields, and the first line has 2");
        check_bad_line("a\tb\nc\t\n", "the label is empty");
        check_bad_line("a\tb\n\tb\n", "the path is empty");
        check_bad_line("a\tb\na\t-1\n", "label -1 is negative, so the image is nobody's");
        check_bad_line("a\tb\na\tnan\n", "label `nan` stands for none");
        check_bad_line(b"a\tb\n\xff\tc\n", "the line is not valid UTF-8");
        check_bad_line("path,label\na\n", "1 fields, and the header has 2");
        check_bad_line("path,label\n\"a,1\n", "a quote is not closed on its line");
        check_bad_line("path,label\na\rb,1\n", "a carriage return within the line");
        let header = "path,label,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5\n";
        let bad = "`nan` in column y1 is no coordinate";
        check_bad_line(format!("{header}a,0,1,nan,3,4,5,6,7,8,9,10\n"), bad);
        let bad = "`` in column x1 is no coordinate";
        check_bad_line(format!("{header}a,0,,2,3,4,5,6,7,8,9,10\n"), bad);
        let long = format!("a\t0\n{}\nb\t1\n", "x".repeat(200_000));
        let rows = rows_of(long.as_bytes(), "").unwrap();
        assert_eq!(rows[1].1, Err("the line has more than 65536 bytes".into()));
        assert_eq!(rows[2], ("b".into(), Ok(Who::Number(1))));
    }
}

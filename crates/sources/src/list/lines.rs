//! The lines of a list, one image each, in any of the layouts that `layout` knows.

use std::{
    borrow::Cow,
    io::{BufRead, Read},
    path::Path,
};

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};
use pfc_image::{align::Landmarks, has_image_extension};

use super::{
    json,
    layout::{Layout, POINT_COLUMNS, Split},
    row::Row,
};
use crate::{
    catalogue::People,
    columns::{ColumnChoice, Names},
    label::Who,
};

/// A path has 4,096 bytes at most, and a line little else.
const LINE_BYTES_MAX: u64 = 1 << 16;
/// More columns than any list has.
const COLUMNS_MAX: usize = 1024;

/// What is said of a line in another encoding.
const NOT_UTF8: &str =
    "the line is not valid UTF-8; `iconv -f LATIN1 -t UTF-8` turns a list that is in Latin-1";

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
    /// The same of lines of JSON.
    json: Option<Names>,
    /// Lines that were passed over before that.
    n_notes: u64,
}

impl<R: BufRead> Lines<R> {
    /// The lines of `input`, which may be paths alone where `people` are optional.
    pub fn new(input: R, choice: ColumnChoice, people: People) -> Lines<R> {
        let (text, fields) = (Vec::new(), Fields::new(b','));
        let (line, is_too_long, layout, json, n_notes) = (0, false, None, None, 0);
        Lines { input, choice, people, line, text, is_too_long, fields, layout, json, n_notes }
    }

    /// Number of the line last read, from 1.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// What the layout was guessed to be, once a line is seen, if it is no documented one.
    pub fn guess(&self) -> Option<&str> {
        let of_json = self.json.as_ref().and_then(|names| names.guess.as_deref());
        of_json.or_else(|| self.layout.as_ref()?.guess.as_deref())
    }

    /// Whether lines say whom their images show, once one is seen.
    pub fn says_people(&self) -> bool {
        let of_json =
            self.json.as_ref().map(|names| names.label.is_some() || names.identity.is_some());
        let of_fields = || self.layout.as_ref().map(|l| l.label.or(l.identity).is_some());
        of_json.or_else(of_fields).unwrap_or(false)
    }

    /// How many lines before the first were passed over: comments, a count, a word on the separator.
    pub fn n_notes(&self) -> u64 {
        self.n_notes
    }

    /// Goes to the next line with an image; empty lines, notes before the first image and a header are
    /// passed over. Whether there is one.
    ///
    /// # Errors
    ///
    /// Why the list cannot be read, or what it is cannot be told from [`line`](Lines::line).
    pub fn advance(&mut self) -> Result<bool, String> {
        while self.read_line()? {
            let is_empty = !self.is_too_long && self.text.trim_ascii().is_empty();
            if is_empty {
                continue;
            }
            let is_begun = self.layout.is_some() || self.json.is_some();
            if !is_begun && self.is_note() {
                self.n_notes += 1;
                continue;
            }
            // A header holds no image.
            if is_begun || !self.begin()? {
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
        if let Some(names) = &self.json {
            return json::row(&self.text, names);
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
        // Programs that write an end of line as text of Windows turn that of Windows into two and one.
        while self.text.pop_if(|byte| *byte == b'\r').is_some() {}
        if self.line == 1 && self.text.starts_with(b"\xef\xbb\xbf") {
            self.text.drain(..3);
        }
        Ok(true)
    }

    /// Whether the line before the first image is none: a comment, the number of images (`CelebA`), or
    /// which character separates columns (Excel).
    fn is_note(&mut self) -> bool {
        let text = self.text.trim_ascii();
        if text.len() == 5 && text[..4].eq_ignore_ascii_case(b"sep=") {
            return true;
        }
        if is_count(text) {
            // A list of paths alone may have such names.
            return self.peek().is_some_and(|next| !is_count(next.trim_ascii()));
        }
        if !text.starts_with(b"#") {
            return false;
        }
        let is_image = text
            .split(|byte| b"\t,;| ".contains(byte))
            .any(|field| has_image_extension(Path::new(&*String::from_utf8_lossy(field))));
        let names = self.text.trim_ascii()[1..].trim_ascii().to_vec();
        if is_image {
            return false;
        }
        // The names of columns may be behind the mark.
        if let Ok(layout) = self.layout_of(&names)
            && layout.has_header
            && let Some(next) = self.peek()
            && let Ok(fields) = texts(&mut self.fields, &next, layout.split.apart())
            && layout.n.is_none_or(|n| n == fields.len())
        {
            self.layout = Some(layout);
        }
        true
    }

    /// What is at hand of the next line.
    fn peek(&mut self) -> Option<Vec<u8>> {
        let ahead = self.input.fill_buf().ok()?;
        let line = ahead.split(|byte| *byte == b'\n').next()?;
        let n_returns = line.iter().rev().take_while(|byte| **byte == b'\r').count();
        Some(line[..line.len() - n_returns].to_vec())
    }

    /// Learns the layout from the first line; whether that is a header.
    fn begin(&mut self) -> Result<bool, String> {
        if self.is_too_long {
            return Err(format!("the line has more than {LINE_BYTES_MAX} bytes"));
        }
        if self.text.trim_ascii().starts_with(b"{") {
            self.json = Some(json::names(&self.text, &self.choice, self.people)?);
            return Ok(false);
        }
        let text = std::mem::take(&mut self.text);
        let layout = self.layout_of(&text);
        self.text = text;
        let mut layout = layout?;
        if layout.has_header
            && let Some(next) = self.peek()
            && let Ok(fields) = texts(&mut self.fields, &next, layout.split.apart())
            && layout.lacks_row_names(&fields)
        {
            layout = layout.behind_row_names();
        }
        Ok(self.layout.insert(layout).has_header)
    }

    fn layout_of(&mut self, line: &[u8]) -> Result<Layout, String> {
        let fields = &mut self.fields;
        Layout::of(&self.choice, self.people, |split| texts(fields, line, split))
    }
}

fn is_count(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_digit)
}

/// The fields of a line as text, without quotes around them.
fn texts(fields: &mut Fields, line: &[u8], split: Split) -> Result<Vec<String>, String> {
    let fields = fields.split(line, split)?;
    let text = |field| {
        let text = String::from_utf8_lossy(field);
        if split.keeps_quotes() { unquoted(&text).into_owned() } else { text.into_owned() }
    };
    Ok(fields.iter().map(text).collect())
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
        let field = std::str::from_utf8(field);
        let field = field.map_err(|_| NOT_UTF8.to_owned())?;
        Ok::<_, String>(match layout.split.keeps_quotes() {
            true => unquoted(field),
            false => Cow::Borrowed(field),
        })
    };
    let optional = |column: Option<usize>| column.map(text).transpose();
    let (label, identity) = (optional(layout.label)?, optional(layout.identity)?);
    let who = Who::parse(label.as_deref(), identity.as_deref());
    let points = layout.points.map(|columns| landmarks(fields, columns)).transpose()?;
    let mut path = text(layout.path)?;
    // Between tabs blanks are parts of names, but not behind the ending of an image.
    let is_image = |path: &str| has_image_extension(Path::new(path));
    if layout.split != Split::At(b'\t') || !is_image(&path) && is_image(path.trim_end()) {
        path = match path {
            Cow::Borrowed(path) => Cow::Borrowed(path.trim()),
            Cow::Owned(path) => Cow::Owned(path.trim().to_owned()),
        };
    }
    // Python writes text in such quotes.
    let bare = path.strip_prefix('\'').and_then(|path| path.strip_suffix('\''));
    if let Some(bare) = bare.filter(|bare| is_image(bare) && !is_image(&path)) {
        path = Cow::Owned(bare.to_owned());
    }
    if path.is_empty() {
        return Err("the path is empty".into());
    }
    let is_turned = path.contains('\\');
    if is_turned {
        path = Cow::Owned(path.replace('\\', "/"));
    }
    Ok(Row { path, is_turned, who, points })
}

/// A field without the quotes that R and spreadsheets put around it; those within are doubled.
fn unquoted(field: &str) -> Cow<'_, str> {
    match field.strip_prefix('"').and_then(|field| field.strip_suffix('"')) {
        Some(inside) if !inside.contains('"') => Cow::Borrowed(inside),
        Some(inside) if !inside.replace("\"\"", "").contains('"') => {
            Cow::Owned(inside.replace("\"\"", "\""))
        }
        _ => Cow::Borrowed(field),
    }
}

/// The landmarks of a line; not a number if all are empty.
fn landmarks(fields: &Cut<'_>, columns: [usize; 10]) -> Result<Landmarks, String> {
    let mut points: Landmarks = [[f32::NAN; 2]; 5];
    let field = |column: usize| fields.get(column).unwrap_or_default();
    if columns.iter().all(|column| field(*column).trim_ascii().is_empty()) {
        return Ok(points);
    }
    for ((point, column), name) in
        points.as_flattened_mut().iter_mut().zip(columns).zip(POINT_COLUMNS)
    {
        let text = String::from_utf8_lossy(field(column));
        let text = unquoted(text.trim());
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
        // Between tabs quotes may be parts of names; those around fields are taken away later.
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
        Ok(Cut::Apart(match split {
            Split::At(delimiter) => {
                if self.delimiter != delimiter {
                    *self = Fields::new(delimiter);
                }
                return self.split_at(line);
            }
            Split::Whole => vec![line_trimmed],
            Split::BeforeLast => at(last_gap(line_trimmed)),
            Split::AfterFirst => at(first_gap(line_trimmed)),
            Split::Blanks => {
                let fields = between_blanks(line);
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

/// Where a field between quotes that begins at `start` ends: at a quote before white space.
fn quoted_end(line: &[u8], start: usize) -> Option<usize> {
    if line.get(start) != Some(&b'"') {
        return None;
    }
    let is_end =
        |at: &usize| line[*at] == b'"' && line.get(at + 1).is_none_or(u8::is_ascii_whitespace);
    (start + 1..line.len()).find(is_end).map(|at| at + 1)
}

/// The fields of a line between white space, of which those in quotes may hold some.
fn between_blanks(line: &[u8]) -> Vec<&[u8]> {
    let (mut fields, mut at) = (Vec::new(), 0);
    while let Some(skipped) = line[at..].iter().position(|byte| !byte.is_ascii_whitespace()) {
        let start = at + skipped;
        let blank = || line[start..].iter().position(u8::is_ascii_whitespace);
        at = quoted_end(line, start).or_else(|| Some(start + blank()?)).unwrap_or(line.len());
        fields.push(&line[start..at]);
        if fields.len() > COLUMNS_MAX {
            break;
        }
    }
    fields
}

/// The white space behind the first field.
fn first_gap(line: &[u8]) -> Option<usize> {
    let end = quoted_end(line, 0).filter(|end| *end < line.len());
    end.or_else(|| line.iter().position(u8::is_ascii_whitespace))
}

/// The white space before the last field.
fn last_gap(line: &[u8]) -> Option<usize> {
    let is_blank = |at: usize| line[at].is_ascii_whitespace();
    let quoted = || {
        let last = line.len().checked_sub(1).filter(|last| line[*last] == b'"')?;
        (1..last).rev().find(|at| line[*at] == b'"' && is_blank(at - 1)).map(|at| at - 1)
    };
    quoted().or_else(|| line.iter().rposition(u8::is_ascii_whitespace))
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
    fn lines_of_json_are_rows_by_their_keys() {
        check(
            "{\"file_name\": \"a.jpg\", \"label\": 3}\n\n{\"label\": \"4.0\", \"file_name\": \"b\\\\c.jpg\"}\n",
            &[("a.jpg", Who::Number(3)), ("b/c.jpg", Who::Number(4))],
        );
        check(
            "{\"image\": \"\u{e9}.jpg\", \"identity\": \"Zo\u{eb}\"}\n",
            &[("\u{e9}.jpg", name("Zo\u{eb}"))],
        );
        let rows = rows_of(
            b"{\"file_name\": \"a\", \"label\": null}\n{\"file_name\": \"b\", \"label\": [1]}\n{\"label\": 1}\n[]\n",
            "",
        );
        let problems: Vec<String> =
            rows.unwrap().into_iter().map(|row| row.1.unwrap_err()).collect();
        assert_eq!(
            problems[..2],
            ["the label is missing", "its label is neither a number nor text"]
        );
        assert_eq!(problems[2], "`file_name` is no path");
        assert!(problems[3].starts_with("the line is no object of JSON: "), "{}", problems[3]);
        check_wrong("{\"a\": 1}\n", "1: no column `image` among `a`");
        let rows = rows_of(b"{\"x\": \"a\", \"y\": 1}\n", "image=x,id=y").unwrap();
        assert_eq!(rows, [("a".to_owned(), Ok(Who::Number(1)))]);
    }

    #[test]
    fn landmarks_behind_a_box_have_all_x_before_all_y() {
        let line =
            "0\ta.jpg\t7\t1\t2\t30\t40\t11\t12\t13\t14\t15\t21\t22\t23\t24\t25\n0\tb.jpg\t8\n";
        let mut lines = Lines::new(line.as_bytes(), ColumnChoice::default(), People::Needed);
        assert!(lines.advance().unwrap());
        let row = lines.row().unwrap();
        let expected = [[11., 21.], [12., 22.], [13., 23.], [14., 24.], [15., 25.]];
        assert_eq!((row.who, row.points), (Ok(Who::Number(7)), Some(expected)));
        assert!(lines.advance().unwrap());
        assert!(lines.row().unwrap().points.unwrap()[0][0].is_nan());
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
            ("\"path\"\t\"label\"", "\"a.jpg\"\t\"3\""),
            ("\"image\" \"label\"", "\"a.jpg\" \"3\""),
            ("# made by hand\n\n1\npath,label", "a.jpg,3"),
            ("sep=;\nimage;label", "a.jpg;3"),
        ] {
            check(&format!("{header}\n{row}\n"), &[("a.jpg", Who::Number(3))]);
        }
    }

    #[test]
    fn quotes_around_fields_are_none_of_theirs_in_any_layout() {
        let number = |path| (path, Who::Number(3));
        for text in [
            "\"path\"\t\"label\"\n\"a 1.jpg\"\t\"3\"\n",
            "\"path\" \"label\"\n\"a 1.jpg\" \"3\"\n",
            "\"label\" \"path\"\n\"3\" \"a 1.jpg\"\n",
            "\"age\" \"path\" \"label\"\n40 \"a 1.jpg\" \"3\"\n",
            "\"a 1.jpg\"\t\"3\"\n",
            "\"a 1.jpg\" 3\n",
            "\"a 1.jpg\" \"3\"\n",
            // As R's write.table has it by default, with a number before each row.
            "\"path\" \"label\"\n\"1\" \"a 1.jpg\" \"3\"\n",
            "\"path\"\t\"label\"\n\"1\"\t\"a 1.jpg\"\t3\n",
            "path label\n1 \"a 1.jpg\" 3\n",
        ] {
            check(text, &[number("a 1.jpg")]);
        }
        check(
            "\"path\"\t\"identity\"\n\"a.jpg\"\t\"Ann Lee\"\nb.jpg\t\"Bob \"\"B\"\" Lee\"\nc.jpg\t\"C\" Lee\n",
            &[
                ("a.jpg", name("Ann Lee")),
                ("b.jpg", name("Bob \"B\" Lee")),
                ("c.jpg", name("\"C\" Lee")),
            ],
        );
        check("\"a.jpg\" \"Ann Lee\"\n", &[("a.jpg", name("Ann Lee"))]);
        let points = "x1\ty1\tx2\ty2\tx3\ty3\tx4\ty4\tx5\ty5";
        let values = "\"1\"\t2\t3\t4\t5\t6\t7\t8\t9\t\"10\"";
        let text = format!("path\tlabel\t{points}\n\"a.jpg\"\t3\t{values}\n");
        let mut lines = Lines::new(text.as_bytes(), ColumnChoice::default(), People::Needed);
        assert_eq!(lines.advance(), Ok(true));
        let points = lines.row().unwrap().points.unwrap();
        assert_eq!(points, [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0], [9.0, 10.0]]);
    }

    #[test]
    fn notes_before_the_first_line_are_passed_over() {
        for notes in [
            "# made by hand\n",
            "#\n# two, lines\n\n",
            "202599\n",
            "1\n# one image\n",
            "sep=;\n",
            "SEP=,\r\n",
        ] {
            for list in ["a.jpg\t3\n", "path,label\na.jpg,3\n", "file_name;class\na.jpg;3\n"] {
                check(&format!("{notes}{list}"), &[("a.jpg", Who::Number(3))]);
            }
            let paths = format!("{notes}a.jpg\nb.jpg\n");
            let mut lines = Lines::new(paths.as_bytes(), ColumnChoice::default(), People::Optional);
            assert_eq!(lines.advance(), Ok(true));
            assert_eq!(lines.row().unwrap().path, "a.jpg");
        }
        check("# file_name,size,class\na.jpg,9,3\n", &[("a.jpg", Who::Number(3))]);
        check("#1/a.jpg\t3\n", &[("#1/a.jpg", Who::Number(3))]);
        // Names of files may be numbers, where each line is one.
        let mut lines = Lines::new(&b"12\n13\n"[..], ColumnChoice::default(), People::Optional);
        assert_eq!(lines.advance(), Ok(true));
        assert_eq!(lines.row().unwrap().path, "12");
        assert_eq!(rows_of(b"# nothing\n", ""), Ok(vec![]));
    }

    #[test]
    fn lists_of_other_tools_are_told_by_their_first_line() {
        for line in [
            "202599\nfaces/a.jpg 3",
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
        check_wrong("notes\n", &format!("1: {neither}"));
        check_wrong("a/1.jpg\n", "1: a path without a label, and each line needs both");
        check_wrong("my face 1.jpg\n", "1: a path without a label, and each line needs both");
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
        check_bad_line("a\tb\na\t-1\n", "label -1 is negative, so it names no identity");
        check_bad_line("a\tb\na\tnan\n", "label `nan` stands for none");
        check_bad_line(b"a\tb\n\xff\tc\n", NOT_UTF8);
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

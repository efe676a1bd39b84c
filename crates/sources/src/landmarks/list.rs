//! Reading a list line by line, in constant memory.

use std::{
    borrow::Cow,
    fs::File,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use pfc_durable::DurableError;
use pfc_image::align::Landmarks;

use super::{LandmarkError, LandmarkFormat, error::BadLine, header, layout::Layout};
use crate::encoding;

/// Bytes of a line at most; 68 points of eight digits take 1.5 kB.
const LINE_BYTES_MAX: u64 = 64 << 10;

/// Lines from which the layout is told.
const LINES_TO_LOOK_AT: usize = 256;

/// Median distance from the template, in pixels of the 112×112 crop, beyond which numbers are taken
/// for no face. For all of LFW it is 2.4; with the numbers read in another order 13 to 20.
const MISFIT_MAX: f64 = 10.0;

/// Semicolons of a line that part its fields, as spreadsheets write them where commas are decimal points: five
/// points behind a path have ten.
const SEMICOLONS_MIN: usize = 10;

/// One line: an image and its landmarks.
#[derive(Debug, Clone, PartialEq)]
pub struct Marks {
    /// Line of the list, from 1.
    pub line: u64,
    /// Path of the image as the list has it, with slashes and no leading `./`.
    pub image: String,
    /// Those of its face.
    pub points: Landmarks,
}

/// A line of a list, unless the system fails.
pub type Listed = Result<Result<Marks, BadLine>, LandmarkError>;

/// A list whose layout is known.
#[derive(Debug)]
pub struct LandmarkList {
    path: PathBuf,
    layout: Layout,
    split: Split,
    /// Lines before the first image.
    n_lines_before: u64,
}

/// How a line falls into fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Split {
    /// At this character; quotes count.
    Csv(u8),
    /// At blanks; the first field ends at a tab if there is one.
    Blanks,
    /// At commas and blanks: `PATH X,Y,W,H X1,Y1,…`, as FaceX-Zoo's list of FaceScrub.
    Both,
}

impl LandmarkList {
    /// Reads the first lines and tells the layout from the header or, without one, from the order
    /// of the numbers that makes faces, unless `format` says which.
    ///
    /// # Errors
    ///
    /// [`LandmarkError`] if it cannot be read or made sense of.
    pub fn open(path: &Path, format: LandmarkFormat) -> Result<LandmarkList, LandmarkError> {
        let mut lines = Lines::open(path)?;
        let (mut head, mut n_bad, mut first_bad) = (Vec::new(), 0, None);
        while head.len() < LINES_TO_LOOK_AT
            && let Some(line) = lines.next_line()?
        {
            match line {
                Ok(line) => head.push(line),
                Err(bad) => {
                    n_bad += 1;
                    first_bad = first_bad.or(Some(bad));
                }
            }
        }
        if let (true, Some(bad)) = (head.is_empty(), first_bad) {
            return Err(no_line(path, n_bad, &bad));
        }
        // One path may hold a comma.
        let are_most = |is: fn(&str) -> bool| {
            let n = head.iter().filter(|(_, line)| is(line)).count();
            n > 0 && 2 * n >= head.len()
        };
        let split = if are_most(|line| line.matches(';').count() >= SEMICOLONS_MIN) {
            Split::Csv(b';')
        } else if !are_most(|line| line.contains(',')) {
            Split::Blanks
        } else if head.iter().all(|(_, line)| is_mixed(line)) {
            Split::Both
        } else {
            Split::Csv(b',')
        };
        let fields = |(number, line): &(u64, String)| (*number, split.fields(line));
        let head: Vec<(u64, Vec<String>)> = head.iter().map(fields).collect();
        let (layout, n_lines_before) = tell(path, &head, format)?;
        Ok(LandmarkList { path: path.to_path_buf(), layout, split, n_lines_before })
    }

    /// Where the list lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The images in their order, and the lines that do not have the layout.
    ///
    /// # Errors
    ///
    /// [`LandmarkError::Durable`] if the list cannot be opened or read.
    pub fn images(&self) -> Result<impl Iterator<Item = Listed> + '_, LandmarkError> {
        let mut lines = Lines::open(&self.path)?;
        let mut failed = false;
        Ok(std::iter::from_fn(move || {
            while !failed {
                let line = match lines.next_line() {
                    Ok(line) => line?,
                    Err(error) => {
                        failed = true;
                        return Some(Err(error));
                    }
                };
                match line {
                    // Lines of the header.
                    Ok((line, _)) if line <= self.n_lines_before => {}
                    Ok((line, text)) => return Some(Ok(self.marks(line, &text))),
                    Err(bad) => return Some(Ok(Err(bad))),
                }
            }
            None
        }))
    }

    fn marks(&self, line: u64, text: &str) -> Result<Marks, BadLine> {
        let mut fields = self.split.fields(text);
        let image = fields.get(self.layout.image).map(|image| tidy(image).into_owned());
        let bad = |problem: String| BadLine { line, problem, image: image.clone() };
        if fields.len() != self.layout.n_fields {
            let (found, expected) = (fields.len(), self.layout.n_fields);
            return Err(bad(format!("{found} fields, expected {expected}")));
        }
        let numbers = numbers(&fields);
        let columns = self.layout.points.iter().flat_map(|&(x, y)| [x, y]);
        for column in columns {
            // A detector that found nothing may say so: these are landmarks that make no face.
            if numbers[column].is_nan() && !is_nan(&fields[column]) {
                return Err(bad(format!("`{}` is not a number", fields[column])));
            }
        }
        let points =
            self.layout.landmarks(&numbers).ok_or_else(|| bad("too few numbers".into()))?;
        let image = fields.swap_remove(self.layout.image);
        Ok(Marks { line, image: tidy(&image).into_owned(), points })
    }
}

/// That there is nothing but bad lines.
pub fn no_line(path: &Path, n: u64, first: &BadLine) -> LandmarkError {
    let BadLine { line, problem, .. } = first;
    let example = format!("{}:{line}: {problem}", path.display());
    LandmarkError::NoLine { path: path.to_path_buf(), n, example }
}

/// The layout and the number of the last line before the images.
fn tell(
    path: &Path,
    head: &[(u64, Vec<String>)],
    format: LandmarkFormat,
) -> Result<(Layout, u64), LandmarkError> {
    let empty = || LandmarkError::Empty { path: path.to_path_buf() };
    let mut rest = head;
    // CelebA begins with the number of images.
    if let [(_, fields), after @ ..] = rest
        && let [only] = &fields[..]
        && only.parse::<u64>().is_ok()
    {
        rest = after;
    }
    let has_header = rest.first().is_some_and(|(_, fields)| is_header(fields));
    let images = if has_header { &rest[1..] } else { rest };
    let (line, fields) = images.first().ok_or_else(empty)?;
    let n_lines_before = line - 1;
    if has_header {
        let missing = |missing| LandmarkError::Header { path: path.to_path_buf(), missing };
        let n_fields = usual_n_fields(images, |_| true).unwrap_or(fields.len());
        let layouts = header::layouts(&rest[0].1, n_fields).map_err(missing)?;
        let (_, layout) = best(layouts, images).ok_or_else(empty)?;
        return Ok((layout, n_lines_before));
    }
    let candidates = |n_fields: usize| Layout::candidates(format, n_fields);
    let n_fields = usual_n_fields(images, |n| !candidates(n).is_empty());
    let n_fields = n_fields.ok_or_else(|| LandmarkError::Fields {
        path: path.to_path_buf(),
        line: *line,
        found: fields.len(),
        expected: Layout::expected_fields(format),
    })?;
    let (residual, layout) = best(candidates(n_fields), images).ok_or_else(empty)?;
    if format == LandmarkFormat::Auto && residual.is_finite() && residual > MISFIT_MAX {
        return Err(LandmarkError::NoFace { path: path.to_path_buf(), residual });
    }
    Ok((layout, n_lines_before))
}

/// The layout that makes faces of the lines, of those that may be theirs, and how far these are off.
fn best(candidates: Vec<Layout>, images: &[(u64, Vec<String>)]) -> Option<(f64, Layout)> {
    let n_fields = candidates.first()?.n_fields;
    let usual = images.iter().filter(|(_, fields)| fields.len() == n_fields);
    let lines: Vec<Vec<f64>> = usual.map(|(_, fields)| numbers(fields)).collect();
    let misfit = |layout: Layout| (layout.misfit(&lines), layout);
    candidates.into_iter().map(misfit).min_by(|a, b| a.0.total_cmp(&b.0))
}

/// The number of fields that most lines have, of those that `is_known`; of two the one met first.
fn usual_n_fields(
    images: &[(u64, Vec<String>)],
    is_known: impl Fn(usize) -> bool,
) -> Option<usize> {
    let counts = images.iter().map(|(_, fields)| fields.len());
    let n_lines = |n: usize| counts.clone().filter(|count| *count == n).count();
    // The last of equals is taken.
    counts.clone().rev().filter(|n| is_known(*n)).max_by_key(|n| n_lines(*n))
}

/// Whether no field but perhaps the first is a number.
fn is_header(fields: &[String]) -> bool {
    fields.len() > 1 && fields[1..].iter().all(|field| field.parse::<f64>().is_err())
}

fn is_nan(field: &str) -> bool {
    field.parse::<f32>().is_ok_and(f32::is_nan)
}

/// Each field as a number, in the precision that detectors give; NaN where it is none.
fn numbers(fields: &[String]) -> Vec<f64> {
    fields.iter().map(|field| field.parse::<f32>().map_or(f64::NAN, f64::from)).collect()
}

/// A path as lists of landmarks are searched for it: with slashes, and no `./` before it.
pub fn tidy(image: &str) -> Cow<'_, str> {
    match image.contains('\\') {
        true => {
            let image = image.replace('\\', "/");
            Cow::Owned(image.strip_prefix("./").unwrap_or(&image).to_owned())
        }
        false => Cow::Borrowed(image.strip_prefix("./").unwrap_or(image)),
    }
}

impl Split {
    fn fields(self, line: &str) -> Vec<String> {
        match self {
            Split::Csv(delimiter) => csv_fields(line, delimiter),
            Split::Both => {
                let fields = line.split(|c: char| c == ',' || c.is_whitespace());
                fields.filter(|field| !field.is_empty()).map(str::to_owned).collect()
            }
            Split::Blanks => match line.split_once('\t') {
                None => line.split_whitespace().map(unquoted).collect(),
                Some((path, rest)) => {
                    let rest = rest.split_whitespace().map(unquoted);
                    std::iter::once(unquoted(path.trim())).chain(rest).collect()
                }
            },
        }
    }
}

/// Whether blanks part a path from numbers that commas part.
fn is_mixed(line: &str) -> bool {
    let mut groups = line.split_whitespace();
    let is_path = groups.next().is_some_and(|path| !path.contains(','));
    let is_group = |group: &str| group.split(',').all(|number| number.parse::<f64>().is_ok());
    let rest: Vec<&str> = groups.collect();
    is_path && !rest.is_empty() && rest.iter().all(|group| group.contains(',') && is_group(group))
}

/// A field without quotes around it.
fn unquoted(field: &str) -> String {
    let inside = field.strip_prefix('"').and_then(|field| field.strip_suffix('"'));
    inside.unwrap_or(field).to_owned()
}

fn csv_fields(line: &str, delimiter: u8) -> Vec<String> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .delimiter(delimiter)
        .trim(csv::Trim::All)
        .buffer_capacity(line.len().max(1))
        .from_reader(line.as_bytes());
    let record = reader.records().next().and_then(Result::ok).unwrap_or_default();
    let text = |field: &str| match field.replacen(',', ".", 1) {
        number if delimiter == b';' && number.parse::<f64>().is_ok() => number,
        _ => field.to_owned(),
    };
    record.iter().map(text).collect()
}

/// Number and text of a line, or what is wrong with it.
type Line = Result<(u64, String), BadLine>;

/// Lines that say something, with their numbers.
struct Lines {
    path: PathBuf,
    reader: Box<dyn BufRead>,
    number: u64,
}

impl Lines {
    fn open(path: &Path) -> Result<Lines, LandmarkError> {
        let file = File::open(path).map_err(DurableError::at("open", path))?;
        let reader = encoding::utf8(Box::new(BufReader::new(file))).and_then(encoding::line_feeds);
        let reader = reader.map_err(DurableError::at("read", path))?;
        Ok(Lines { path: path.to_path_buf(), reader, number: 0 })
    }

    /// The next line that is neither blank nor a comment.
    fn next_line(&mut self) -> Result<Option<Line>, LandmarkError> {
        loop {
            let mut bytes = Vec::new();
            let mut bounded = (&mut self.reader).take(LINE_BYTES_MAX + 1);
            let n = bounded.read_until(b'\n', &mut bytes);
            let n = n.map_err(DurableError::at("read", &self.path))?;
            if n == 0 {
                return Ok(None);
            }
            self.number += 1;
            let line = self.number;
            let bad = |problem| Ok(Some(Err(BadLine { line, problem, image: None })));
            if n as u64 > LINE_BYTES_MAX {
                let skipped = self.reader.skip_until(b'\n');
                skipped.map_err(DurableError::at("read", &self.path))?;
                return bad(format!("the line is longer than {LINE_BYTES_MAX} bytes"));
            }
            if bytes.starts_with(b"#") {
                continue;
            }
            let Ok(text) = std::str::from_utf8(&bytes) else {
                return bad("the line is not valid UTF-8".into());
            };
            // Windows' editors put a mark before the first line.
            let text = text.trim_start_matches('\u{feff}').trim();
            if !text.is_empty() && !text.starts_with('#') {
                return Ok(Some(Ok((line, text.to_owned()))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::landmarks::layout::FIVE_OF_106;

    type Lines = Vec<Result<Marks, BadLine>>;

    fn read_all(text: &[u8], format: LandmarkFormat) -> Result<Lines, LandmarkError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text).unwrap();
        LandmarkList::open(file.path(), format)?.images()?.collect()
    }

    /// Of a list without a bad line.
    fn read(text: &[u8], format: LandmarkFormat) -> Result<Vec<Marks>, LandmarkError> {
        Ok(read_all(text, format)?.into_iter().map(Result::unwrap).collect())
    }

    /// The bad lines of a list: number, problem and image.
    fn bad(text: &[u8]) -> Vec<(u64, String, Option<String>)> {
        let bad = read_all(text, LandmarkFormat::Auto).unwrap().into_iter().filter_map(Result::err);
        bad.map(|bad| (bad.line, bad.problem, bad.image)).collect()
    }

    const FACE: Landmarks =
        [[38.5, 51.75], [73.5, 51.5], [56.0, 71.75], [41.5, 92.25], [70.75, 92.25]];

    #[test]
    fn numbers_between_commas_may_stand_in_groups() {
        let points = "38.3,51.7,73.5,51.5,56.0,71.7,41.5,92.4,70.7,92.2";
        let text = format!("a/1.jpg 10,12,90,95 {points}\nb/2.jpg 1,2,80,85 {points}\n");
        let marks = read(text.as_bytes(), LandmarkFormat::Auto).unwrap();
        let images: Vec<&str> = marks.iter().map(|marks| &marks.image[..]).collect();
        assert_eq!(images, ["a/1.jpg", "b/2.jpg"]);
        assert_eq!(marks[1].points[2], [56.0, 71.7]);
    }

    #[track_caller]
    fn check(text: &str, image: &str) {
        let marks = read(text.as_bytes(), LandmarkFormat::Auto).unwrap();
        assert_eq!(marks[0].image, image);
        assert_eq!(marks[0].points, FACE);
        assert_eq!(marks.len(), 1);
    }

    #[test]
    fn lists_in_utf_16_and_with_the_line_ends_of_old_macs_are_read() {
        let text = format!("a/1.jpg {XY}\nb/2.jpg {XY}\n");
        let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        for bytes in [little, text.replace('\n', "\r").into_bytes()] {
            let marks = read(&bytes, LandmarkFormat::Auto).unwrap();
            let images: Vec<&str> = marks.iter().map(|marks| &marks.image[..]).collect();
            assert_eq!(images, ["a/1.jpg", "b/2.jpg"]);
            assert_eq!(marks[1].points, FACE);
        }
    }

    const XY: &str = "38.5 51.75 73.5 51.5 56 71.75 41.5 92.25 70.75 92.25";

    #[test]
    fn tabs_blanks_commas_and_headers_are_told_apart() {
        check(&format!("a/1.jpg {XY}"), "a/1.jpg");
        check(&format!("a/1.jpg\t{}\r\n", XY.replace(' ', "\t")), "a/1.jpg");
        check(&format!("\u{feff}# made by hand\n\n./a b/1.jpg\t{XY}\n"), "a b/1.jpg");
        check(&format!("\"a, b/1.jpg\",{}", XY.replace(' ', ", ")), "a, b/1.jpg");
        check(&format!("a\\1.jpg\t17\t{XY}"), "a/1.jpg");
        let decimal_commas = XY.replace(' ', ";").replace('.', ",");
        check(&format!("\"a; b/1.jpg\";{decimal_commas}"), "a; b/1.jpg");
        let names = "path;x1;y1;x2;y2;x3;y3;x4;y4;x5;y5";
        check(&format!("{names}\n1.jpg;{}\n", XY.replace(' ', ";")), "1.jpg");
        check(&format!("\"a/1.jpg\"\t\"{}\"", XY.replace(' ', "\"\t\"")), "a/1.jpg");
        check(&format!("1.jpg {XY} 0.999"), "1.jpg");
        check("a/1.jpg 38.5 73.5 56 41.5 70.75 51.75 51.5 71.75 92.25 92.25", "a/1.jpg");
        let header = "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x \
                      leftmouth_y rightmouth_x rightmouth_y";
        check(&format!("1\n{header}\n1.jpg {XY}"), "1.jpg");
        let swapped = "y1,x1,y2,x2,y3,x3,y4,x4,y5,x5,path,who";
        let line = "51.75,38.5,51.5,73.5,71.75,56,92.25,41.5,92.25,70.75,1.jpg,ann";
        check(&format!("{swapped}\n{line}"), "1.jpg");
    }

    #[test]
    fn of_106_points_below_a_header_those_are_taken_that_make_a_face() {
        for five in FIVE_OF_106 {
            let mut points = [[50.0_f32, 60.0]; 106];
            for (place, point) in five.into_iter().zip(FACE) {
                points[place] = point;
            }
            let names: Vec<String> = (0..106).map(|i| format!("x{i},y{i}")).collect();
            let values: Vec<String> = points.iter().map(|[x, y]| format!("{x},{y}")).collect();
            let text = format!("path,{}\n1.jpg,{}\n", names.join(","), values.join(","));
            check(&text, "1.jpg");
        }
    }

    #[track_caller]
    fn refused(text: &[u8], format: LandmarkFormat, expected: &str) {
        let error = read(text, format).unwrap_err();
        assert!(error.to_string().ends_with(expected), "{error}");
        assert!(error.hint().is_some());
    }

    #[test]
    fn every_fault_of_a_list_is_named_with_its_line() {
        let auto = LandmarkFormat::Auto;
        refused(b"", auto, ": lists no landmarks");
        refused(b"image,x1,y1\n", auto, ": lists no landmarks");
        refused(
            b"1.jpg 1 2 3",
            auto,
            ": line 1 has 4 fields, expected 11 to 16 or 137 to 142 or 213 to 218",
        );
        let long = [vec![b'a'; 65 << 10], b"\n".to_vec()].concat();
        refused(&long, auto, ": its only line cannot be understood");
        refused(b"\n\xff.jpg 1", auto, ": its only line cannot be understood");
        refused(b"image,x1\na,1", auto, ": its header names no column for y1 of 5 points");
        let one = format!("1.jpg {XY}").into_bytes();
        let upside_down = b"1.jpg 73 92 38 92 56 71 70 51 41 51 ";
        refused(b"1.jpg 1 1 1 2 1 3 1 4 1 5", auto, "(off by 13 pixels of 112)");
        assert_eq!(read(upside_down, auto).unwrap().len(), 1);
        refused(&one, LandmarkFormat::LabelXy, ": line 1 has 11 fields, expected 12 or 138");
    }

    #[test]
    fn a_line_that_is_wrong_costs_its_own_image() {
        let good = |name: &str| format!("{name} {XY}\n");
        let some = |image: &str| Some(image.to_owned());
        let long = "x".repeat(70 << 10);
        let lines = [
            // The first line does not say what the others are.
            "0.jpg 1 2 3\n".to_owned().into_bytes(),
            good("1.jpg").into_bytes(),
            good("2.jpg").replace("56", "5g").into_bytes(),
            b"Jos\xe9.jpg 1 2\n".to_vec(),
            format!("{long}\n").into_bytes(),
            b"# Jos\xe9\n".to_vec(),
            good("Lee, Ann.jpg").replace("Lee, ", "Lee,").into_bytes(),
            good("3.jpg").replace(" 92.25\n", "\n").into_bytes(),
            good("4.jpg").into_bytes(),
        ]
        .concat();
        let expected = [
            (1, "4 fields, expected 11", some("0.jpg")),
            (3, "`5g` is not a number", some("2.jpg")),
            (4, "the line is not valid UTF-8", None),
            (5, "the line is longer than 65536 bytes", None),
            (8, "10 fields, expected 11", some("3.jpg")),
        ];
        assert_eq!(
            bad(&lines),
            expected.map(|(line, problem, image)| (line, problem.to_owned(), image))
        );
        let read = read_all(&lines, LandmarkFormat::Auto).unwrap();
        let images: Vec<String> = read.into_iter().filter_map(|l| Some(l.ok()?.image)).collect();
        assert_eq!(images, ["1.jpg", "Lee,Ann.jpg", "4.jpg"]);
        let names = "image,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5";
        let row = |image: &str| format!("{image},{}", XY.replace(' ', ","));
        let text = format!("{names}\n{},ann\n{}\n{}\n", row("1.jpg"), row("2.jpg"), row("3.jpg"));
        assert_eq!(bad(text.as_bytes()), [(2, "12 fields, expected 11".into(), some("1.jpg"))]);
    }

    #[test]
    fn a_bad_line_costs_itself_alone_wherever_it_stands() {
        let mut text = format!("0.jpg 1 2\n1.jpg {XY}\n\u{fffd}").into_bytes();
        text.truncate(text.len() - 1);
        text.extend(format!("\n{}\n2.jpg {XY}\n3.jpg 5g {XY}\n", "a".repeat(70_000)).bytes());
        let items = read_all(&text, LandmarkFormat::Auto).unwrap();
        let good: Vec<&str> = items.iter().flatten().map(|marks| marks.image.as_str()).collect();
        assert_eq!(good, ["1.jpg", "2.jpg"]);
        let lines: Vec<u64> = bad(&text).into_iter().map(|(line, ..)| line).collect();
        assert_eq!(lines, [1, 3, 4, 6]);
    }

    #[test]
    fn a_face_that_was_not_found_is_no_fault_of_the_list() {
        let text = format!("1.jpg {XY}\n2.jpg {}", ["nan"; 10].join(" "));
        let marks = read(text.as_bytes(), LandmarkFormat::Auto).unwrap();
        assert!(marks[1].points[0][0].is_nan());
        assert_eq!(marks[1].line, 2);
    }
}

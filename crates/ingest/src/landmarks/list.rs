//! Reading a list line by line, in constant memory.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use pfc_durable::DurableError;
use pfc_image::align::Point;

use super::{LandmarkError, LandmarkFormat, header, layout::Layout};

/// Bytes of a line at most; 68 points of eight digits take 1.5 kB.
const LINE_BYTES_MAX: u64 = 64 << 10;

/// Lines from which the layout is told.
const LINES_TO_LOOK_AT: usize = 256;

/// Median distance from the template, in pixels of the 112×112 crop, beyond which numbers are taken
/// for no face. For all of LFW it is 2.4; with the numbers read in another order 13 to 20.
const MISFIT_MAX: f64 = 10.0;

/// One line: an image and its landmarks.
#[derive(Debug, Clone, PartialEq)]
pub struct Marks {
    /// Line of the list, from 1.
    pub line: u64,
    /// Path of the image as the list has it, with slashes and no leading `./`.
    pub image: String,
    /// Left eye, right eye, nose, left and right corner of the mouth, in pixels.
    pub points: [Point; 5],
}

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
    Csv,
    /// At blanks; the first field ends at a tab if there is one.
    Blanks,
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
        let mut head = Vec::new();
        while head.len() < LINES_TO_LOOK_AT
            && let Some(line) = lines.next_line()?
        {
            head.push(line);
        }
        let split = match head.iter().any(|(_, line)| line.contains(',')) {
            true => Split::Csv,
            false => Split::Blanks,
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

    /// The images in their order. Stops at the first line that does not have the layout.
    ///
    /// # Errors
    ///
    /// [`LandmarkError::Durable`] if the list cannot be opened; each item may be an error of its line.
    pub fn images(
        &self,
    ) -> Result<impl Iterator<Item = Result<Marks, LandmarkError>> + '_, LandmarkError> {
        let mut lines = Lines::open(&self.path)?;
        let mut failed = false;
        Ok(std::iter::from_fn(move || {
            while !failed {
                let line = lines.next_line().transpose()?;
                let marks = line.and_then(|(line, text)| {
                    let is_image = line > self.n_lines_before;
                    is_image.then(|| self.marks(line, &text)).transpose()
                });
                failed = marks.is_err();
                match marks.transpose() {
                    // A line of the header.
                    None => continue,
                    marks => return marks,
                }
            }
            None
        }))
    }

    fn marks(&self, line: u64, text: &str) -> Result<Marks, LandmarkError> {
        let mut fields = self.split.fields(text);
        if fields.len() != self.layout.n_fields {
            let expected = self.layout.n_fields.to_string();
            return Err(wrong_fields(&self.path, line, fields.len(), expected));
        }
        let numbers = numbers(&fields);
        let bad = |field: usize| LandmarkError::Number {
            path: self.path.clone(),
            line,
            text: fields.get(field).cloned().unwrap_or_default(),
        };
        let columns = self.layout.points.iter().flat_map(|&(x, y)| [x, y]);
        for column in columns {
            // A detector that found nothing may say so; the image is left out, not the list.
            if numbers[column].is_nan() && !is_nan(&fields[column]) {
                return Err(bad(column));
            }
        }
        let points = self.layout.five(&numbers).ok_or_else(|| bad(self.layout.image))?;
        let image = fields.swap_remove(self.layout.image);
        Ok(Marks { line, image: tidy(image), points })
    }
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
    let first_image = if has_header { rest.get(1) } else { rest.first() };
    let (line, fields) = first_image.ok_or_else(empty)?;
    let images = if has_header { &rest[1..] } else { rest };
    let n_lines_before = line - 1;
    if has_header {
        let missing = |missing| LandmarkError::Header { path: path.to_path_buf(), missing };
        return Ok((header::layout(&rest[0].1, fields.len()).map_err(missing)?, n_lines_before));
    }
    let candidates = Layout::candidates(format, fields.len());
    if candidates.is_empty() {
        let expected = Layout::expected_fields(format);
        return Err(wrong_fields(path, *line, fields.len(), expected));
    }
    let lines: Vec<Vec<f64>> = images.iter().map(|(_, fields)| numbers(fields)).collect();
    let misfit = |layout: Layout| (layout.misfit(&lines), layout);
    let best = candidates.into_iter().map(misfit).min_by(|a, b| a.0.total_cmp(&b.0));
    let (residual, layout) = best.ok_or_else(empty)?;
    if format == LandmarkFormat::Auto && residual.is_finite() && residual > MISFIT_MAX {
        return Err(LandmarkError::NoFace { path: path.to_path_buf(), residual });
    }
    Ok((layout, n_lines_before))
}

fn wrong_fields(path: &Path, line: u64, found: usize, expected: String) -> LandmarkError {
    LandmarkError::Fields { path: path.to_path_buf(), line, found, expected }
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

fn tidy(image: String) -> String {
    let image = image.replace('\\', "/");
    match image.strip_prefix("./") {
        Some(rest) => rest.to_owned(),
        None => image,
    }
}

impl Split {
    fn fields(self, line: &str) -> Vec<String> {
        match self {
            Split::Csv => csv_fields(line),
            Split::Blanks => match line.split_once('\t') {
                None => line.split_whitespace().map(str::to_owned).collect(),
                Some((path, rest)) => {
                    let rest = rest.split_whitespace().map(str::to_owned);
                    std::iter::once(path.trim().to_owned()).chain(rest).collect()
                }
            },
        }
    }
}

fn csv_fields(line: &str) -> Vec<String> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .trim(csv::Trim::All)
        .buffer_capacity(line.len().max(1))
        .from_reader(line.as_bytes());
    let record = reader.records().next().and_then(Result::ok).unwrap_or_default();
    record.iter().map(str::to_owned).collect()
}

/// Lines that say something, with their numbers.
struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    number: u64,
}

impl Lines {
    fn open(path: &Path) -> Result<Lines, LandmarkError> {
        let file = File::open(path).map_err(DurableError::at("open", path))?;
        Ok(Lines { path: path.to_path_buf(), reader: BufReader::new(file), number: 0 })
    }

    /// The next line that is neither blank nor a comment.
    fn next_line(&mut self) -> Result<Option<(u64, String)>, LandmarkError> {
        loop {
            let mut bytes = Vec::new();
            let mut bounded = (&mut self.reader).take(LINE_BYTES_MAX + 1);
            let n = bounded.read_until(b'\n', &mut bytes);
            let n = n.map_err(DurableError::at("read", &self.path))?;
            if n == 0 {
                return Ok(None);
            }
            self.number += 1;
            let (path, line) = (|| self.path.clone(), self.number);
            if n as u64 > LINE_BYTES_MAX {
                let bytes_max = LINE_BYTES_MAX;
                return Err(LandmarkError::LongLine { path: path(), line, bytes_max });
            }
            let text = std::str::from_utf8(&bytes)
                .map_err(|_| LandmarkError::NotUtf8 { path: path(), line })?;
            // Windows' editors put a mark before the first line.
            let text = text.trim_start_matches('\u{feff}').trim();
            if !text.is_empty() && !text.starts_with('#') {
                return Ok(Some((line, text.to_owned())));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn read(text: &[u8], format: LandmarkFormat) -> Result<Vec<Marks>, LandmarkError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text).unwrap();
        LandmarkList::open(file.path(), format)?.images()?.collect()
    }

    const FACE: [Point; 5] =
        [[38.5, 51.75], [73.5, 51.5], [56.0, 71.75], [41.5, 92.25], [70.75, 92.25]];

    #[track_caller]
    fn check(text: &str, image: &str) {
        let marks = read(text.as_bytes(), LandmarkFormat::Auto).unwrap();
        assert_eq!(marks[0].image, image);
        assert_eq!(marks[0].points, FACE);
        assert_eq!(marks.len(), 1);
    }

    const XY: &str = "38.5 51.75 73.5 51.5 56 71.75 41.5 92.25 70.75 92.25";

    #[test]
    fn tabs_blanks_commas_and_headers_are_told_apart() {
        check(&format!("a/1.jpg {XY}"), "a/1.jpg");
        check(&format!("a/1.jpg\t{}\r\n", XY.replace(' ', "\t")), "a/1.jpg");
        check(&format!("\u{feff}# made by hand\n\n./a b/1.jpg\t{XY}\n"), "a b/1.jpg");
        check(&format!("\"a, b/1.jpg\",{}", XY.replace(' ', ", ")), "a, b/1.jpg");
        check(&format!("a\\1.jpg\t17\t{XY}"), "a/1.jpg");
        check(&format!("1.jpg {XY} 0.999"), "1.jpg");
        check("a/1.jpg 38.5 73.5 56 41.5 70.75 51.75 51.5 71.75 92.25 92.25", "a/1.jpg");
        let header = "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x \
                      leftmouth_y rightmouth_x rightmouth_y";
        check(&format!("1\n{header}\n1.jpg {XY}"), "1.jpg");
        let swapped = "y1,x1,y2,x2,y3,x3,y4,x4,y5,x5,path,who";
        let line = "51.75,38.5,51.5,73.5,71.75,56,92.25,41.5,92.25,70.75,1.jpg,ann";
        check(&format!("{swapped}\n{line}"), "1.jpg");
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
        refused(b"1.jpg 1 2 3", auto, ": line 1 has 4 fields, expected 11 or 12 or 137 or 138");
        let long = [vec![b'a'; 65 << 10], b"\n".to_vec()].concat();
        refused(&long, auto, ": line 1 is longer than 65536 bytes");
        refused(b"\n\xff.jpg 1", auto, ": line 2 is not valid UTF-8");
        refused(b"image,x1\na,1", auto, ": its header names no column for y1 of 5 points");
        let then = |second: &str| format!("1.jpg {XY}\n{second}").into_bytes();
        let names = "image,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5";
        let short = format!("{names},who\n1.jpg,{}", XY.replace(' ', ","));
        refused(short.as_bytes(), auto, ": line 2 has 11 fields, expected 12");
        let long = format!("{names}\n1.jpg,{},ann", XY.replace(' ', ","));
        refused(long.as_bytes(), auto, ": line 2 has 12 fields, expected 11");
        refused(&then("2.jpg 1 2"), auto, ": line 2 has 3 fields, expected 11");
        refused(&then(&format!("my {XY}").replace("56", "5g")), auto, ": `5g` is not a number");
        let upside_down = b"1.jpg 73 92 38 92 56 71 70 51 41 51 ";
        refused(b"1.jpg 1 1 1 2 1 3 1 4 1 5", auto, "(off by 13 pixels of 112)");
        assert_eq!(read(upside_down, auto).unwrap().len(), 1);
        refused(&then(""), LandmarkFormat::LabelXy, ": line 1 has 11 fields, expected 12 or 138");
    }

    #[test]
    fn a_face_that_was_not_found_is_no_fault_of_the_list() {
        let text = format!("1.jpg {XY}\n2.jpg {}", ["nan"; 10].join(" "));
        let marks = read(text.as_bytes(), LandmarkFormat::Auto).unwrap();
        assert!(marks[1].points[0][0].is_nan());
        assert_eq!(marks[1].line, 2);
    }
}

//! Verification packs: pairs of images and whether each is of one person. The pairs come from a list
//! with `PATH PATH 1|0` a line, or from LFW's `pairs.txt`.

use std::{
    collections::{BTreeSet, HashMap},
    fs::File,
    io::{self, Read, Write},
    path::Path,
};

use pfc_binpack::{Dialect, PackWriter};
use pfc_durable::{AtomicFile, DurableError, FolderError, faults::is_of_system};
use pfc_image::has_image_extension;
use pfc_sources::{IDENTITIES_OF_PACK_HEADER, identities_of_pack};

use super::{
    Feed, Written, names,
    options::Pairs,
    pairs::{self, Pair},
};
use crate::{ExportError, IngestError};

/// Writes the file `out`, and beside it `out.identities.tsv`, which says who is on each image: the format
/// has no place for names.
///
/// # Errors
///
/// [`IngestError`]; nothing is then left behind.
pub fn write(feed: &Feed<'_>, out: &Path, pairs: &Pairs) -> Result<Written, IngestError> {
    let pairs = match pairs {
        Pairs::Random { n, seed } => pairs::draw(&people(feed)?, *n, *seed)?,
        Pairs::File(path) => read_pairs(feed, path)?,
    };
    let table_path = identities_of_pack(out);
    check_table(&table_path)?;
    let mut table = format!("{IDENTITIES_OF_PACK_HEADER}\n");
    let mut n_images = 0;
    let mut file = AtomicFile::create(out)?;
    let mut bytes = Counted { out: &mut file, n_bytes: 0 };
    let mut labels = BTreeSet::new();
    let at = || DurableError::at("write", out);
    let mut writer = PackWriter::new(&mut bytes, Dialect::Python3).map_err(at())?;
    for pair in &pairs {
        let (left, right) = (feed.take(pair.left)?, feed.take(pair.right)?);
        labels.extend([left.label, right.label]);
        for item in [&left, &right] {
            let name = names::in_table(item.identity);
            table += &format!("{n_images}\t{}\t{name}\n", item.label);
            n_images += 1;
        }
        writer.push([left.face.image, right.face.image], pair.same).map_err(at())?;
    }
    writer.finish().map_err(at())?;
    let n_bytes = bytes.n_bytes;
    // A killed export leaves at most a table without a pack, which the next one replaces.
    pfc_durable::write_output(&table_path, table.as_bytes())?;
    file.commit_new()?;
    Ok(Written {
        images: 2 * pairs.len() as u64,
        identities: labels.len() as u64,
        pairs: Some(pairs.len() as u64),
        files: 2,
        bytes: n_bytes,
        ..Written::default()
    })
}

/// Refuses to replace a file that is no table of ours.
fn check_table(path: &Path) -> Result<(), IngestError> {
    match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(bytes) if bytes.starts_with(IDENTITIES_OF_PACK_HEADER.as_bytes()) => Ok(()),
        Err(error) if is_of_system(&error) => Err(IngestError::at("read", path)(error)),
        _ => Err(FolderError::Taken { folder: path.to_owned() }.into()),
    }
}

/// The images of each person; they follow each other.
fn people(feed: &Feed<'_>) -> Result<Vec<std::ops::Range<usize>>, IngestError> {
    let mut people: Vec<std::ops::Range<usize>> = Vec::new();
    let mut last = None;
    for place in 0..feed.len() {
        let label = feed.peek(place)?.label;
        match people.last_mut() {
            Some(person) if last == Some(label) => person.end = place + 1,
            _ => people.push(place..place + 1),
        }
        last = Some(label);
    }
    Ok(people)
}

struct Counted<'a> {
    out: &'a mut AtomicFile,
    n_bytes: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.n_bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A list of ten million pairs.
const LIST_BYTES_MAX: u64 = 1 << 30;

/// Where an image that the list names is among the selected ones.
enum Found {
    Missing,
    At(usize),
    Twice,
}

/// A line: two images, and whether they show one person.
struct Line {
    number: usize,
    left: String,
    right: String,
    same: bool,
}

/// Reads the list at `path`. Images are found by their sources; extensions play no part, as an image
/// packed anew has another.
///
/// # Errors
///
/// [`ExportError::PairsFile`] for a line that is no pair or names an image that is not selected or
/// not the only one of its name.
fn read_pairs(feed: &Feed<'_>, path: &Path) -> Result<Vec<Pair>, IngestError> {
    let mut text = String::new();
    let file = File::open(path).map_err(IngestError::at("open", path))?;
    file.take(LIST_BYTES_MAX).read_to_string(&mut text).map_err(IngestError::at("read", path))?;
    let bad = |line, problem| -> IngestError {
        ExportError::PairsFile { path: path.to_path_buf(), line, problem }.into()
    };
    let lines = parse(&text).map_err(|(line, problem)| bad(line, problem))?;
    if lines.is_empty() {
        return Err(bad(1, "the list has no pair".into()));
    }
    let places = find(feed, &lines)?;
    let place = |line: &Line, name: &str| match places.get(name) {
        Some(Found::At(place)) => Ok(*place),
        Some(Found::Twice) => Err(bad(line.number, format!("two images are called `{name}`"))),
        _ => Err(bad(line.number, format!("there is no selected image `{name}`"))),
    };
    let pair = |line: &Line| {
        let (left, right) = (place(line, &line.left)?, place(line, &line.right)?);
        Ok(Pair { left, right, same: line.same })
    };
    lines.iter().map(pair).collect()
}

/// Where the images of `lines` are.
fn find(feed: &Feed<'_>, lines: &[Line]) -> Result<HashMap<String, Found>, IngestError> {
    let names = lines.iter().flat_map(|line| [&line.left, &line.right]);
    let mut places: HashMap<String, Found> =
        names.map(|name| (name.clone(), Found::Missing)).collect();
    for place in 0..feed.len() {
        let source = feed.peek(place)?.face.source;
        if let Some(found) = places.get_mut(without_extension(source)) {
            *found = match found {
                Found::Missing => Found::At(place),
                _ => Found::Twice,
            };
        }
    }
    Ok(places)
}

/// The pairs in a list; else the line at fault, from 1, and what is wrong.
fn parse(text: &str) -> Result<Vec<Line>, (usize, String)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = (1..).zip(text.lines()).map(|(number, line)| (number, fields(line)));
    let mut lines = lines.filter(|(_, fields)| !fields.is_empty()).peekable();
    let is_count = |field: &&str| field.bytes().all(|b| b.is_ascii_digit());
    let is_lfw = lines.peek().is_some_and(|(_, f)| f.len() <= 2 && f.iter().all(is_count));
    if is_lfw {
        lines.next();
    }
    let line = |(number, fields): (usize, Vec<&str>)| {
        let parsed = if is_lfw { lfw(&fields) } else { two_paths(&fields) };
        let (left, right, same) = parsed.map_err(|problem| (number, problem))?;
        Ok(Line { number, left, right, same })
    };
    lines.map(line).collect()
}

/// The fields of a line, at tabs if it has any, else at blanks.
fn fields(line: &str) -> Vec<&str> {
    match line.contains('\t') {
        true => line.split('\t').map(str::trim).filter(|field| !field.is_empty()).collect(),
        false => line.split_whitespace().collect(),
    }
}

type TwoImages = (String, String, bool);

fn two_paths(fields: &[&str]) -> Result<TwoImages, String> {
    let &[left, right, label] = fields else {
        return Err(format!("{} columns where 3 are expected", fields.len()));
    };
    let same = match label {
        "1" => true,
        "0" => false,
        other => return Err(format!("`{other}` is neither 1 nor 0")),
    };
    let name = |path| without_extension(path).to_owned();
    Ok((name(left), name(right), same))
}

fn lfw(fields: &[&str]) -> Result<TwoImages, String> {
    let image = |name: &str, number: &str| {
        let number: u32 = number.parse().map_err(|_| format!("`{number}` is no image number"))?;
        Ok::<_, String>(format!("{name}/{name}_{number:04}"))
    };
    match *fields {
        [name, i, j] => Ok((image(name, i)?, image(name, j)?, true)),
        [name, i, other, j] => Ok((image(name, i)?, image(other, j)?, false)),
        _ => Err(format!("{} columns where 3 or 4 are expected", fields.len())),
    }
}

fn without_extension(path: &str) -> &str {
    match path.rfind('.') {
        Some(dot) if has_image_extension(path.as_ref()) => &path[..dot],
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[(&str, &str, bool)]) {
        let lines = parse(text).unwrap_or_else(|(line, problem)| panic!("{line}: {problem}"));
        let lines: Vec<_> =
            lines.iter().map(|l| (l.left.as_str(), l.right.as_str(), l.same)).collect();
        assert_eq!(lines, expected);
    }

    #[track_caller]
    fn check_refused(text: &str, line: usize, problem: &str) {
        assert_eq!(parse(text).err(), Some((line, problem.to_owned())));
    }

    #[test]
    fn two_paths_and_a_label_are_a_pair() {
        check(
            "a/1.jpg a/2.png 1\n\na b/1.jpg\tc/1\t0\r\n",
            &[("a/1", "a/2", true), ("a b/1", "c/1", false)],
        );
        check_refused("a b 1\na b 2\n", 2, "`2` is neither 1 nor 0");
        check_refused("a b\n", 1, "2 columns where 3 are expected");
    }

    #[test]
    fn the_list_of_lfw_names_files() {
        check(
            "10\t300\nAbel\t1\t4\nAbel\t1\tZoe\t22\n",
            &[
                ("Abel/Abel_0001", "Abel/Abel_0004", true),
                ("Abel/Abel_0001", "Zoe/Zoe_0022", false),
            ],
        );
        check("500\nAbel 1 4\n", &[("Abel/Abel_0001", "Abel/Abel_0004", true)]);
        check_refused("10 300\nAbel 1 x\n", 2, "`x` is no image number");
        check_refused("10 300\nAbel\n", 2, "1 columns where 3 or 4 are expected");
    }
}

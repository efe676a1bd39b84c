//! Lists of image files with their labels.

mod encoding;
mod layout;
mod lines;

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
};

use pfc_cli::{interrupt, units};
use rayon::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

pub use lines::{Lines, Row};

use crate::{
    catalogue::{Catalogue, People, Sealed},
    columns::ColumnChoice,
    error::SourceError,
    file::{Root, file_size, read_file},
    identities,
    index::Index,
    names::Names,
    reject::{ReadError, Reject},
    source::{Landmarks, LeftOut, Source, nothing, stamp, write_paths},
};

/// How the names of lists end.
pub const ENDINGS: &[&str] = &[".txt", ".tsv", ".lst", ".list", ".csv"];

/// Lines between two looks at whether the user has had enough.
const CHUNK_LINES: u64 = 1 << 16;

/// A list of so many lines without one that can be used is of another kind.
const BAD_LINES_MAX: usize = 10_000;

/// The list of a million distractors takes 40 MB.
const JSON_BYTES_MAX: u64 = 1 << 30;

/// The file of `-`.
pub fn is_stdin(raw: &Path) -> bool {
    raw.as_os_str() == "-"
}

/// The images of a list, in its order.
///
/// Memory: the paths' own bytes and 12 bytes per image, with landmarks 40 more.
#[derive(Debug, Default)]
struct Listed {
    paths: Names,
    /// By place in the list; empty without landmarks, and not a number where a line has none.
    landmarks: Vec<Landmarks>,
    catalogue: Catalogue,
    left_out: Vec<LeftOut>,
}

impl Listed {
    fn read(
        name: &str,
        input: impl BufRead,
        choice: &ColumnChoice,
        people: People,
    ) -> Result<Listed, SourceError> {
        let mut lines = Lines::new(input, choice.clone(), people);
        let mut listed = Listed { catalogue: Catalogue::of(people), ..Listed::default() };
        let mut n_turned = 0_u64;
        loop {
            let more = lines.advance();
            let line = lines.line();
            let wrong = |problem| SourceError::Line { path: name.to_owned(), line, problem };
            if !more.map_err(wrong)? {
                break;
            }
            let place = || format!("{name}:{line}");
            match lines.row() {
                Ok(Row { path, who, points }) => {
                    n_turned += u64::from(matches!(path, std::borrow::Cow::Owned(_)));
                    listed.paths.push(&path);
                    listed.landmarks.extend(points);
                    if let Some(problem) = listed.catalogue.push_or_leave_out(name, who)? {
                        let (source, reject) = (path.into_owned(), Reject::NoLabel(problem));
                        listed.left_out.push(LeftOut { source, reject });
                    }
                }
                Err(problem) => {
                    let reject = Reject::BadLine(problem);
                    listed.left_out.push(LeftOut { source: place(), reject });
                }
            }
            if listed.paths.len() == 0 && listed.left_out.len() == BAD_LINES_MAX {
                break;
            }
            if line.is_multiple_of(CHUNK_LINES) && interrupt::requested() {
                return Err(SourceError::Interrupted { path: name.to_owned() });
            }
        }
        if let Some(guess) = lines.guess() {
            tracing::warn!("{name}: read as {guess}; --columns says otherwise");
        }
        if n_turned > 0 {
            tracing::warn!("{name}: {} with backslashes, read as `/`", units::of(n_turned, "path"));
        }
        Ok(listed)
    }
}

/// Opens the list at `path` and finds where its relative paths start.
fn opened(
    path: &Path,
    root: Option<&Path>,
) -> Result<(String, Box<dyn BufRead>, PathBuf), SourceError> {
    let (name, input): (String, Box<dyn BufRead>) = if is_stdin(path) {
        ("standard input".into(), Box::new(BufReader::new(io::stdin())))
    } else {
        let file = File::open(path).map_err(SourceError::at("open", path))?;
        (path.display().to_string(), Box::new(BufReader::with_capacity(1 << 20, file)))
    };
    let input = encoding::utf8(input).map_err(SourceError::at("read", path))?;
    let folder = path.parent().filter(|_| path.is_file()).unwrap_or(Path::new(""));
    Ok((name, input, root.unwrap_or(folder).to_path_buf()))
}

/// Images named by a list, indexed.
///
/// Memory: the paths' own bytes and 24 bytes per image, with landmarks 40 more.
pub struct ListSource {
    name: String,
    /// Where relative paths start.
    root: PathBuf,
    /// The folder that all images lie in.
    common: Root,
    /// By place in the list, as all that follows.
    paths: Names,
    landmarks: Vec<Landmarks>,
    index: Index,
    /// The place in the list of each entry.
    order: Vec<u32>,
    left_out: Vec<LeftOut>,
}

impl ListSource {
    /// Reads the list at `path`, `-` being standard input. Relative paths start at `root`, or else
    /// at the list's folder; those of standard input and of pipes at the current folder. A line that
    /// is wrong costs its own image. Where identities are optional, the list may hold paths alone,
    /// one a line, or be the JSON of MegaFace's devkit, `{"path": […]}`.
    ///
    /// # Errors
    ///
    /// [`SourceError`] if the list cannot be read, its layout is not known, or it has no image that
    /// can be used.
    pub fn open(
        path: &Path,
        root: Option<&Path>,
        choice: &ColumnChoice,
        people: People,
    ) -> Result<ListSource, SourceError> {
        let (name, mut input, root) = opened(path, root)?;
        let first = input.fill_buf().map_err(SourceError::at("read", path))?.trim_ascii_start();
        let listed = match people {
            People::Optional if first.starts_with(b"{") => devkit(&name, input)?,
            _ => Listed::read(&name, input, choice, people)?,
        };
        let mut source = ListSource::of(name, root, listed, people)?;
        if let Some(folder) = path.parent().filter(|_| path.is_file()) {
            identities::rename(&mut source.index, folder, "");
        }
        Ok(source)
    }

    fn of(
        name: String,
        root: PathBuf,
        listed: Listed,
        people: People,
    ) -> Result<ListSource, SourceError> {
        let Listed { paths, landmarks, catalogue, left_out } = listed;
        if catalogue.is_nobody() {
            return Err(nothing(&name, &left_out));
        }
        let Sealed { index, order } = match people {
            People::Needed => catalogue.seal(&name, |_| 1),
            People::Optional => catalogue.seal_quietly(|_| 1),
        };
        let listed = order.iter().map(|place| paths.get(*place as usize));
        let common = Root::of(&root.join(common_folder(listed)));
        let source = ListSource { name, root, common, paths, landmarks, index, order, left_out };
        if people == People::Needed {
            source.warn_of_doubles();
        }
        Ok(source)
    }

    fn line(&self, entry: u64) -> usize {
        self.order[entry as usize] as usize
    }

    /// Says that an image is listed more than once, above all under two labels.
    ///
    /// Memory: 8 bytes per image for a while.
    fn warn_of_doubles(&self) {
        let path = |entry: u32| self.paths.get(self.line(entry.into()));
        // The upper half of a hash, and the entry; equal halves are looked at.
        let key = |entry: u32| xxh3_64(path(entry).as_bytes()) >> 32 << 32 | u64::from(entry);
        let n = u32::try_from(self.index.len()).unwrap_or(u32::MAX);
        let mut keys: Vec<u64> = (0..n).into_par_iter().map(key).collect();
        keys.par_sort_unstable();
        let (mut n_doubled, mut n_labels, mut example) = (0_u64, 0_u64, None);
        for alike in keys.chunk_by(|a, b| a >> 32 == b >> 32).filter(|alike| alike.len() > 1) {
            let mut entries: Vec<u32> = alike.iter().map(|key| *key as u32).collect();
            // Stable: entries of one path stay in the order of their labels.
            entries.sort_by_key(|entry| path(*entry));
            for same in entries.chunk_by(|a, b| path(*a) == path(*b)).filter(|s| s.len() > 1) {
                let label = |entry: u32| self.index.label(entry.into());
                let [first, .., last] = [same[0], same[same.len() - 1]];
                n_doubled += 1;
                if label(first) != label(last) {
                    n_labels += 1;
                    let names = [first, last].map(|e| self.index.identity(e.into()));
                    let found = (path(first), names);
                    example = example.min(Some(found)).or(Some(found));
                }
            }
        }
        let name = &self.name;
        if let Some((path, [first, second])) = example {
            tracing::warn!(
                "{name}: {} under two labels or more, such as `{path}` under `{first}` and \
                 `{second}`: each line is packed",
                units::of(n_labels, "path")
            );
        }
        if n_doubled > n_labels {
            let paths = units::of(n_doubled - n_labels, "path");
            tracing::warn!("{name}: {paths} listed more than once: each line is packed");
        }
    }
}

impl Source for ListSource {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn index(&self) -> &Index {
        &self.index
    }

    fn path(&self, entry: u64) -> String {
        self.paths.get(self.line(entry)).to_owned()
    }

    fn place(&self, entry: u64) -> u64 {
        self.order[entry as usize].into()
    }

    fn stamp(&self, entry: u64) -> u128 {
        let path = self.paths.get(self.line(entry));
        stamp(path, &[file_size(&self.root.join(path))])
    }

    fn write_names(&self, out: &mut dyn Write) -> io::Result<()> {
        // Sizes are not looked at: that would be a visit to every file.
        write_paths(self, |_| 0, out)?;
        let points = (0..self.index.len()).filter_map(|entry| self.landmarks(entry));
        points.flatten().try_for_each(|value| out.write_all(&value.to_le_bytes()))
    }

    fn read(&self, entry: u64) -> Result<Vec<u8>, ReadError> {
        read_file(&self.root.join(self.paths.get(self.line(entry))), &self.common)
    }

    fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    fn landmarks(&self, entry: u64) -> Option<Landmarks> {
        let points = *self.landmarks.get(self.line(entry))?;
        points.iter().all(|value| value.is_finite()).then_some(points)
    }
}

/// A list of MegaFace's devkit: JSON with the paths of images.
fn devkit(name: &str, input: impl BufRead) -> Result<Listed, SourceError> {
    #[derive(serde::Deserialize)]
    struct Json {
        path: Vec<String>,
    }
    let wrong = |error: serde_json::Error| SourceError::Line {
        path: name.to_owned(),
        line: error.line() as u64,
        problem: format!("no list in the devkit's JSON: {error}"),
    };
    let Json { path } = serde_json::from_reader(input.take(JSON_BYTES_MAX)).map_err(wrong)?;
    let mut listed = Listed { catalogue: Catalogue::of(People::Optional), ..Listed::default() };
    for path in path {
        listed.paths.push(&path);
        listed.catalogue.push_or_leave_out(name, Err(String::new()))?;
    }
    Ok(listed)
}

/// The longest folder that all paths begin with; empty if there is none.
fn common_folder<'a>(mut paths: impl Iterator<Item = &'a str>) -> &'a str {
    let folder = |path: &'a str| path.rfind('/').map_or("", |end| &path[..end.max(1)]);
    let Some(mut common) = paths.next().map(folder) else { return "" };
    for path in paths {
        let holds = |outer: &str, path: &str| {
            outer.is_empty() || outer == "/" || path[outer.len()..].starts_with('/')
        };
        while !(path.starts_with(common) && holds(common, path)) {
            // The root of all paths has no folder above it.
            common = if common == "/" { "" } else { folder(common) };
        }
    }
    common
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(name: &str, text: &str, root: &str) -> Result<ListSource, SourceError> {
        let people = People::Needed;
        let listed = Listed::read(name, text.as_bytes(), &ColumnChoice::default(), people)?;
        ListSource::of(name.into(), root.into(), listed, people)
    }

    /// Paths and labels in the order of a list that is opened for its images alone.
    #[track_caller]
    fn check_images(text: &str, expected: &[(&str, Option<u32>)]) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list.txt");
        std::fs::write(&path, text).unwrap();
        let choice = ColumnChoice::default();
        let list = ListSource::open(&path, None, &choice, People::Optional).unwrap();
        let mut entries: Vec<u64> = (0..list.index().len()).collect();
        entries.sort_by_key(|entry| list.place(*entry));
        let rows: Vec<_> =
            entries.into_iter().map(|e| (list.path(e), list.index().who(e))).collect();
        let expected: Vec<_> = expected.iter().map(|(p, who)| ((*p).to_owned(), *who)).collect();
        assert_eq!(rows, expected, "{text:?}");
    }

    #[test]
    fn a_list_of_images_alone_may_lack_labels() {
        check_images(
            "b.jpg\na.jpg\n\n b.jpg \n",
            &[("b.jpg", None), ("a.jpg", None), ("b.jpg", None)],
        );
        check_images("my face 1.jpg\nx/2.png\n", &[("my face 1.jpg", None), ("x/2.png", None)]);
        check_images("ann/1\nbob/2\n", &[("ann/1", None), ("bob/2", None)]);
        check_images("path\na.jpg\n", &[("a.jpg", None)]);
        check_images(
            "b.jpg\t7\na.jpg\tnan\nc.jpg\t3\n",
            &[("b.jpg", Some(1)), ("a.jpg", None), ("c.jpg", Some(0))],
        );
        check_images("0 b.jpg\n1 a.jpg\n", &[("b.jpg", Some(0)), ("a.jpg", Some(1))]);
        check_images(
            " {\"path\": [\"b/1.jpg\", \"a.jpg\"], \"id\": [1, 2]}",
            &[("b/1.jpg", None), ("a.jpg", None)],
        );
    }

    #[test]
    fn the_folder_of_all_images_is_the_longest_that_they_share() {
        #[track_caller]
        fn check(paths: &[&str], expected: &str) {
            assert_eq!(common_folder(paths.iter().copied()), expected);
        }
        check(&["/d/a/1.jpg", "/d/a/2.jpg"], "/d/a");
        check(&["/d/a/1.jpg", "/d/ab/2.jpg"], "/d");
        check(&["/d/a/1.jpg", "/e/2.jpg"], "/");
        check(&["a/b/1.jpg", "a/2.jpg"], "a");
        check(&["a/1.jpg", "b/2.jpg"], "");
        check(&["/1.jpg", "/d/2.jpg"], "/");
        check(&["/1.jpg", "d/2.jpg"], "");
        check(&["1.jpg"], "");
    }

    #[test]
    fn bad_lines_and_nobodys_images_are_left_out_alone() {
        let text = "path,label\na.jpg,0.0\nb.jpg,-1\nc.jpg\nd.jpg,nan\ne.jpg,10.0\nf.jpg,2.0\n";
        let list = listed("l", text, "").unwrap();
        assert_eq!(list.index().identities().collect::<Vec<_>>(), ["0", "2", "10"]);
        let left_out: Vec<_> =
            list.left_out().iter().map(|l| (l.source.as_str(), l.reject.reason())).collect();
        assert_eq!(left_out, [("b.jpg", "no_label"), ("l:4", "bad_line"), ("d.jpg", "no_label")]);
        let bad = "path,label\n,1\n".to_owned() + &"x\n".repeat(20_000);
        let error = listed("l", &bad, "").err().unwrap();
        assert!(matches!(error, SourceError::NothingUsable { n: 10_000, .. }), "{error}");
    }

    #[test]
    fn landmarks_are_found_by_entry_where_a_line_has_them() {
        let text = "path,label,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5\n\
                    b.jpg,1,1,2,3,4,5,6,7,8,9,10.5\n\
                    a.jpg,0,,,,,,,,,,\n";
        let list = listed("list", text, "root").unwrap();
        assert_eq!([list.path(0), list.path(1)], ["a.jpg", "b.jpg"]);
        assert_eq!(list.landmarks(0), None);
        assert_eq!(list.landmarks(1), Some([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.5]));
        let plain = listed("list", "a.jpg\t0\n", "root").unwrap();
        assert_eq!(plain.landmarks(0), None);
    }
}

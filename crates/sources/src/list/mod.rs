//! Lists of image files with their labels.

mod json;
mod layout;
mod lines;
mod row;

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
};

use pfc_cli::{interrupt, units};
use pfc_image::{ImageFolder, align::Landmarks};
use rayon::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

pub use lines::Lines;
use row::Row;

use crate::{
    catalogue::{Catalogue, People, Sealed},
    columns::ColumnChoice,
    encoding,
    error::SourceError,
    file::{Root, file_size, is_file, read_file},
    identities,
    index::Index,
    names::Names,
    reject::{ReadError, Reject},
    source::{LeftOut, Source, nothing, stamp, write_paths},
};

/// How the names of lists end.
pub const ENDINGS: &[&str] = &[".txt", ".tsv", ".lst", ".list", ".csv", ".jsonl", ".ndjson"];

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
        folder: Option<&ImageFolder>,
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
                Ok(Row { path, is_turned, who, points }) => {
                    n_turned += u64::from(is_turned);
                    let reject = match check(folder, &path) {
                        Err(reject) => Some(reject),
                        Ok(()) => {
                            listed.paths.push(&path);
                            listed.landmarks.extend(points);
                            listed.catalogue.push_or_leave_out(name, who)?.map(Reject::NoLabel)
                        }
                    };
                    if let Some(reject) = reject {
                        listed.left_out.push(LeftOut { source: path.into_owned(), reject });
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
        if lines.n_notes() > 0 {
            let notes = units::of(lines.n_notes(), "line");
            tracing::warn!("{name}: {notes} before the first image passed over, as notes");
        }
        if n_turned > 0 {
            tracing::warn!("{name}: {} with backslashes, read as `/`", units::of(n_turned, "path"));
        }
        Ok(listed)
    }
}

/// Whether the list at `path` says whom its images show.
///
/// # Errors
///
/// [`SourceError::Durable`] if it cannot be opened or the system fails.
pub fn says_people(path: &Path) -> Result<bool, SourceError> {
    let (_, input, _) = opened(path, None)?;
    let mut lines = Lines::new(input, ColumnChoice::default(), People::Optional);
    Ok(lines.advance().unwrap_or(false) && lines.says_people())
}

fn first_line(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == b'\n').next().unwrap_or(bytes)
}

/// Refuses a path that leads out of the folder of the images, where the user has named that.
fn check(folder: Option<&ImageFolder>, path: &str) -> Result<(), Reject> {
    match folder {
        Some(folder) => Ok(folder.below(path).map(|_| ())?),
        None => Ok(()),
    }
}

/// Says that the landmarks of CelebA lie beside its list of identities.
fn tell_of_landmarks(list: &Path, folder: &Path) -> Result<(), SourceError> {
    let is_celeba =
        list.file_stem().is_some_and(|stem| stem.eq_ignore_ascii_case("identity_CelebA"));
    for name in ["list_landmarks_align_celeba", "list_landmarks_celeba"] {
        for ending in [".txt", ".csv"] {
            let landmarks = folder.join(format!("{name}{ending}"));
            if is_celeba && is_file(&landmarks)? {
                tracing::warn!(
                    "{}: {name}{ending} lies beside it; --landmarks {} cuts the faces out",
                    list.display(),
                    landmarks.display()
                );
            }
        }
    }
    Ok(())
}

/// The folder that a list lies in, which a pipe does not.
fn folder_of(path: &Path) -> Result<Option<&Path>, SourceError> {
    Ok(match is_file(path)? {
        true => path.parent(),
        false => None,
    })
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
    let input = encoding::utf8(input).and_then(encoding::line_feeds);
    let input = input.map_err(SourceError::at("read", path))?;
    let folder = folder_of(path)?.unwrap_or(Path::new(""));
    Ok((name, input, root.unwrap_or(folder).to_path_buf()))
}

/// Images named by a list, indexed.
///
/// Memory: the paths' own bytes and 24 bytes per image, with landmarks 40 more, and 24 per folder.
pub struct ListSource {
    name: String,
    /// Where relative paths start, and the folders of the images.
    root: Root,
    /// Where they start, if the user has named it: all images then lie below it.
    folder: Option<ImageFolder>,
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
    /// at the list's folder; those of standard input and of pipes at the current folder. With `root`
    /// all images lie below it ([`ImageFolder`]); without, the list itself says where they are. A line
    /// that is wrong costs its own image. Where identities are optional, the list may hold paths alone,
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
        let folder = root.map(ImageFolder::at);
        let (name, mut input, root) = opened(path, root)?;
        let first = input.fill_buf().map_err(SourceError::at("read", path))?.trim_ascii_start();
        let listed = match people {
            People::Optional if first.starts_with(b"{") && !json::is_line(first_line(first)) => {
                devkit(&name, input, folder.as_ref())?
            }
            _ => Listed::read(&name, input, choice, people, folder.as_ref())?,
        };
        let mut source = ListSource::of(name, root, listed, people)?;
        source.folder = folder;
        if let Some(folder) = folder_of(path)? {
            identities::rename(&mut source.index, folder, "")?;
            tell_of_landmarks(path, folder)?;
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
        let Sealed { index, order } = catalogue.seal_for(people, &name, |_| 1);
        let listed = order.iter().map(|place| paths.get(*place as usize));
        let root = Root::of_files(&root, listed);
        let folder = None;
        let source = ListSource { name, root, folder, paths, landmarks, index, order, left_out };
        if people == People::Needed {
            source.warn_of_doubles();
        }
        Ok(source)
    }

    fn line(&self, entry: u64) -> usize {
        self.order[entry as usize] as usize
    }

    /// The file of an image.
    fn file(&self, entry: u64) -> PathBuf {
        let path = self.paths.get(self.line(entry));
        let below = self.folder.as_ref().and_then(|folder| folder.below(path).ok());
        self.root.path().join(below.as_deref().unwrap_or(Path::new(path)))
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
        stamp(path, &[file_size(&self.file(entry))])
    }

    fn write_names(&self, out: &mut dyn Write) -> io::Result<()> {
        // Sizes are not looked at: that would be a visit to every file.
        write_paths(self, |_| 0, out)?;
        let points = (0..self.index.len()).filter_map(|entry| self.landmarks(entry));
        let values = points.flatten().flatten();
        values.into_iter().try_for_each(|value| out.write_all(&value.to_le_bytes()))
    }

    fn read(&self, entry: u64) -> Result<Vec<u8>, ReadError> {
        read_file(&self.file(entry), &self.root)
    }

    fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    fn landmarks(&self, entry: u64) -> Option<Landmarks> {
        let points = *self.landmarks.get(self.line(entry))?;
        points.as_flattened().iter().all(|value| value.is_finite()).then_some(points)
    }
}

/// A list of MegaFace's devkit: JSON with the paths of images.
fn devkit(
    name: &str,
    input: impl BufRead,
    folder: Option<&ImageFolder>,
) -> Result<Listed, SourceError> {
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
        if let Err(reject) = check(folder, &path) {
            listed.left_out.push(LeftOut { source: path, reject });
            continue;
        }
        listed.paths.push(&path);
        listed.catalogue.push_or_leave_out(name, Err(String::new()))?;
    }
    Ok(listed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(name: &str, text: &str, root: &str) -> Result<ListSource, SourceError> {
        let people = People::Needed;
        let choice = ColumnChoice::default();
        let listed = Listed::read(name, text.as_bytes(), &choice, people, None)?;
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
            "{\"file_name\": \"b.jpg\", \"age\": 3}\n{\"file_name\": \"a.jpg\"}\n",
            &[("b.jpg", None), ("a.jpg", None)],
        );
        check_images(
            " {\"path\": [\"b/1.jpg\", \"a.jpg\"], \"id\": [1, 2]}",
            &[("b/1.jpg", None), ("a.jpg", None)],
        );
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
        assert_eq!(
            list.landmarks(1),
            Some([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0], [9.0, 10.5]])
        );
        let plain = listed("list", "a.jpg\t0\n", "root").unwrap();
        assert_eq!(plain.landmarks(0), None);
    }
}

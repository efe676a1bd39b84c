//! Lists of image files with their labels.

mod lines;

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
};

use pfc_cli::interrupt;

pub use lines::{Lines, Row};

use crate::{
    catalogue::{Catalogue, Sealed},
    error::SourceError,
    file::{Root, read_file},
    index::Index,
    names::Names,
    reject::ReadError,
    source::{Landmarks, LeftOut, Source, write_paths},
};

/// How the names of lists end.
pub const ENDINGS: &[&str] = &[".txt", ".tsv", ".lst", ".list", ".csv"];

/// Lines between two looks at whether the user has had enough.
const CHUNK_LINES: usize = 1 << 16;

/// The file of `-`.
pub fn is_stdin(raw: &Path) -> bool {
    raw.as_os_str() == "-"
}

/// Images named by a list.
///
/// Memory: the paths' own bytes and 24 bytes per image, with landmarks 40 more.
pub struct ListSource {
    name: String,
    /// Where relative paths start.
    root: PathBuf,
    /// The folder that all images lie in.
    common: Root,
    /// By place in the list.
    paths: Names,
    /// The same; empty without landmarks, and not a number where a line has none.
    landmarks: Vec<Landmarks>,
    index: Index,
    /// The place in the list of each entry.
    order: Vec<u32>,
}

impl ListSource {
    /// Reads the list at `path`, `-` being standard input. Relative paths start at `root`, or else
    /// at the list's folder; those of standard input and of pipes at the current folder.
    ///
    /// # Errors
    ///
    /// [`SourceError`] if the list cannot be read, a line is wrong, or there is none.
    pub fn open(path: &Path, root: Option<&Path>) -> Result<ListSource, SourceError> {
        let (name, input): (String, Box<dyn BufRead>) = if is_stdin(path) {
            ("standard input".into(), Box::new(io::stdin().lock()))
        } else {
            let file = File::open(path).map_err(SourceError::at("open", path))?;
            (path.display().to_string(), Box::new(BufReader::with_capacity(1 << 20, file)))
        };
        let is_file = path.is_file();
        let folder = path.parent().filter(|_| is_file).unwrap_or(Path::new(""));
        let root = root.unwrap_or(folder).to_path_buf();
        ListSource::read(name, input, root)
    }

    fn read(name: String, input: impl BufRead, root: PathBuf) -> Result<ListSource, SourceError> {
        let mut lines = Lines::new(input);
        let mut catalogue = Catalogue::default();
        let (mut paths, mut landmarks) = (Names::default(), Vec::new());
        loop {
            let more = lines.advance();
            let line = lines.line();
            let wrong = |problem| SourceError::Line { path: name.clone(), line, problem };
            if !more.map_err(wrong)? {
                break;
            }
            let Row { path, who, points } = lines.row().map_err(wrong)?;
            paths.push(path);
            landmarks.extend(points);
            catalogue.push(who).map_err(wrong)?;
            if catalogue.len() % CHUNK_LINES == 0 && interrupt::requested() {
                return Err(SourceError::Interrupted { path: name });
            }
        }
        if catalogue.len() == 0 {
            return Err(SourceError::NoImages { path: name });
        }
        let Sealed { index, order } = catalogue.seal(&name)?;
        let common = Root::of(&root.join(common_folder((0..order.len()).map(|i| paths.get(i)))));
        Ok(ListSource { name, root, common, paths, landmarks, index, order })
    }

    fn place(&self, entry: u64) -> usize {
        self.order[entry as usize] as usize
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
        self.paths.get(self.place(entry)).to_owned()
    }

    fn write_names(&self, out: &mut dyn Write) -> io::Result<()> {
        // Sizes are not looked at: that would be a visit to every file.
        write_paths(self, |_| 0, out)?;
        let points = (0..self.index.len()).filter_map(|entry| self.landmarks(entry));
        points.flatten().try_for_each(|value| out.write_all(&value.to_le_bytes()))
    }

    fn read(&self, entry: u64) -> Result<Vec<u8>, ReadError> {
        read_file(&self.root.join(self.paths.get(self.place(entry))), &self.common)
    }

    fn left_out(&self) -> &[LeftOut] {
        &[]
    }

    fn landmarks(&self, entry: u64) -> Option<Landmarks> {
        let points = *self.landmarks.get(self.place(entry))?;
        points.iter().all(|value| value.is_finite()).then_some(points)
    }
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
    fn landmarks_are_found_by_entry_where_a_line_has_them() {
        let text = "path,label,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5\n\
                    b.jpg,1,1,2,3,4,5,6,7,8,9,10.5\n\
                    a.jpg,0,,,,,,,,,,\n";
        let list = ListSource::read("list".into(), text.as_bytes(), "root".into()).unwrap();
        assert_eq!([list.path(0), list.path(1)], ["a.jpg", "b.jpg"]);
        assert_eq!(list.landmarks(0), None);
        assert_eq!(list.landmarks(1), Some([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.5]));
        let plain = ListSource::read("list".into(), &b"a.jpg\t0\n"[..], "root".into()).unwrap();
        assert_eq!(plain.landmarks(0), None);
    }
}

//! Images to embed, from wherever they are: a folder, a list, a data set, a RecordIO file, a pack.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use pfc_embeddings::cache::LeftOut;
use pfc_findings::{Reading, View};
use pfc_image::Tally;
use pfc_recordio::{RecordFile, RecordPaths};
use pfc_shard::{MANIFEST_FILE, hash::content_hash};
use pfc_sources::Listing;
use rayon::prelude::*;

use crate::{
    EvalError,
    faces::{Decoded, FACE_BYTES, IMAGE_BYTES_MAX, decode},
    files::read_regular_file,
    megaface::Gallery,
    pack::Pack,
};

/// Images in a fixed order, read from many threads.
#[derive(Debug)]
pub struct Images {
    path: PathBuf,
    source: Source,
    /// What was done to the images decoded so far.
    changes: Mutex<Tally>,
}

#[derive(Debug)]
enum Source {
    /// Paths below a folder, and how they are called.
    Files {
        root: PathBuf,
        names: Vec<String>,
    },
    Dataset(Box<View>),
    Records(Box<RecordFile>),
    Pack(Pack),
}

impl Images {
    /// Finds out what `path` is: a folder with a manifest is a data set, one with `train.rec` is
    /// RecordIO, any other is searched for images, in the order of their paths. A file is RecordIO
    /// (`.rec`), a pack (`.bin`), or a list: one path a line, or the devkit's JSON.
    ///
    /// * `root`: where the paths of a list start from, by default its own folder
    ///
    /// # Errors
    ///
    /// [`EvalError::NoImages`], and what reading each kind gives.
    pub fn open(path: &Path, root: Option<&Path>) -> Result<Images, EvalError> {
        Images::open_as(path, root, Reading::Decided)
    }

    /// As [`open`](Images::open); a data set is read as `reading` says.
    ///
    /// # Errors
    ///
    /// As [`open`](Images::open).
    pub fn open_as(
        path: &Path,
        root: Option<&Path>,
        reading: Reading,
    ) -> Result<Images, EvalError> {
        let extension = path.extension().and_then(|extension| extension.to_str());
        let source = if path.join(MANIFEST_FILE).is_file() {
            let view = View::open(path, reading)?;
            view.dataset().preload()?;
            Source::Dataset(Box::new(view))
        } else if let Some(paths) = RecordPaths::find(path) {
            Source::Records(Box::new(paths.open()?))
        } else if path.is_dir() {
            Source::Files { root: path.to_owned(), names: find(path)? }
        } else if extension == Some("bin") {
            Source::Pack(Pack::read(path)?)
        } else {
            let own = path.parent().unwrap_or(Path::new(""));
            let names = Gallery::read(path)?.paths;
            Source::Files { root: root.unwrap_or(own).to_owned(), names }
        };
        let images = Images { path: path.to_owned(), source, changes: Mutex::default() };
        if images.is_empty() {
            return Err(EvalError::NoImages { path: path.to_owned() });
        }
        Ok(images)
    }

    /// What decisions change in a data set, and the switch that turns them off; see [`View::notice`].
    pub fn notice(&self, switch: &str) -> Option<String> {
        match &self.source {
            Source::Dataset(view) => view.notice(switch),
            _ => None,
        }
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        match &self.source {
            Source::Files { names, .. } => names.len(),
            Source::Dataset(dataset) => dataset.len() as usize,
            Source::Records(file) => file.n_images() as usize,
            Source::Pack(pack) => pack.images.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What image `i` is called: its path, the key of its record, or its number.
    ///
    /// # Errors
    ///
    /// What reading gives.
    pub fn name(&self, i: usize) -> Result<String, EvalError> {
        Ok(match &self.source {
            Source::Files { names, .. } => names[i].clone(),
            Source::Dataset(dataset) => dataset.get(i as u64)?.source.to_owned(),
            Source::Records(file) => match file.image_entry(i as u64) {
                Some(entry) => entry.key.to_string(),
                None => i.to_string(),
            },
            Source::Pack(_) => i.to_string(),
        })
    }

    /// Who is on image `i`, where the source has labels.
    ///
    /// # Errors
    ///
    /// What reading gives.
    pub fn label(&self, i: usize) -> Result<Option<u64>, EvalError> {
        Ok(match &self.source {
            Source::Files { .. } | Source::Pack(_) => None,
            Source::Dataset(dataset) => Some(u64::from(dataset.get(i as u64)?.label)),
            Source::Records(file) => Some(file.image(i as u64)?.label),
        })
    }

    /// What identifies each image: of a file its name and size, of a row its source and the hash of its
    /// bytes, of a record its key, place and the file's size, of an image of a pack its bytes.
    ///
    /// A file that is not there has a stamp too: reading it will say so.
    ///
    /// # Errors
    ///
    /// What reading gives.
    pub fn stamps(&self) -> Result<Vec<u128>, EvalError> {
        let of = |text: String| content_hash(text.as_bytes());
        match &self.source {
            Source::Files { root, names } => {
                let size = |name: &str| root.join(name).metadata().map_or(0, |found| found.len());
                Ok(names.par_iter().map(|name| of(format!("{name}\0{}", size(name)))).collect())
            }
            Source::Dataset(dataset) => {
                let stamp = |row| {
                    let face = dataset.get(row)?;
                    Ok(of(format!("{}\0{:032x}", face.source, face.hash)))
                };
                (0..dataset.len()).map(stamp).collect()
            }
            Source::Records(file) => {
                let path = file.path();
                let size = path.metadata().map_err(EvalError::io("open", path))?.len();
                let place = |i| file.image_entry(i).map_or((i, 0), |e| (e.key, e.offset));
                Ok((0..file.n_images()).map(|i| of(format!("{:?}\0{size}", place(i)))).collect())
            }
            Source::Pack(pack) => Ok(pack.images.iter().map(|image| content_hash(image)).collect()),
        }
    }

    /// The collection, as the user named it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether image `i` can be read and decoded.
    pub fn is_readable(&self, i: usize) -> bool {
        self.face(i).is_ok()
    }

    /// Pixels `[images, 112, 112, 3]` of those images of `range` that can be read, decoded on all threads;
    /// other sizes are resized. The others are returned with their numbers and reasons.
    ///
    /// # Errors
    ///
    /// The first fault of the system, in order, which says nothing about an image.
    ///
    /// # Panics
    ///
    /// If `range` reaches beyond the images.
    pub fn rgb(&self, range: Range<usize>) -> Result<(Vec<u8>, Vec<LeftOut>), EvalError> {
        let decoded: Vec<Result<Decoded, EvalError>> =
            range.clone().into_par_iter().map(|i| self.face(i)).collect();
        let mut pixels = Vec::with_capacity(range.len() * FACE_BYTES);
        let (mut left_out, mut tally) = (Vec::new(), Tally::default());
        for (index, face) in range.zip(decoded) {
            match face.map_err(EvalError::of_image) {
                Ok(Decoded { rgb, changes }) => {
                    tally.add(changes);
                    pixels.extend(rgb);
                }
                Err(reason) => left_out.push(LeftOut { index, reason: reason? }),
            }
        }
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).merge(&tally);
        Ok((pixels, left_out))
    }

    /// What was done to the images decoded so far.
    pub fn changes(&self) -> Tally {
        *self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn face(&self, i: usize) -> Result<Decoded, EvalError> {
        let decoded = match &self.source {
            Source::Files { root, names } => {
                decode(&read_regular_file(&root.join(&names[i]), IMAGE_BYTES_MAX)?)
            }
            Source::Dataset(dataset) => decode(dataset.get(i as u64)?.image),
            Source::Records(file) => decode(&file.image(i as u64)?.image),
            Source::Pack(pack) => decode(&pack.images[i]),
        };
        match decoded {
            Ok(decoded) => Ok(decoded),
            Err(reason) => {
                let image = format!("{}: {}", self.path.display(), self.name(i)?);
                Err(EvalError::Image { image, reason })
            }
        }
    }
}

/// Images anywhere below `root`, those of a folder before those of the folders in it. Those that are
/// passed over are counted: nothing that is in the folder is missing without a word.
fn find(root: &Path) -> Result<Vec<String>, EvalError> {
    let listing = Listing::of(root)?;
    for left_out in listing.left_out.iter().filter(|left_out| !left_out.reject.is_skip()) {
        let pfc_sources::LeftOut { source, reject } = left_out;
        tracing::warn!("{}: {source} is left out: {reject}", root.display());
    }
    let n_skipped = listing.left_out.iter().filter(|left_out| left_out.reject.is_skip()).count();
    if n_skipped > 0 {
        tracing::warn!(
            "{}: {n_skipped} files or folders are no images, or the system's own, and are passed over",
            root.display()
        );
    }
    let mut paths: Vec<String> = (0..listing.len()).map(|i| listing.path(i)).collect();
    // A folder's files come before its folders in the listing.
    paths.sort_by(|a, b| Path::new(a).cmp(Path::new(b)));
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png(path: &Path, grey: u8) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        image::RgbImage::from_pixel(112, 112, image::Rgb([grey; 3])).save(path).unwrap();
    }

    #[test]
    fn a_folder_is_searched_in_the_order_of_paths() {
        let dir = tempfile::tempdir().unwrap();
        for (name, grey) in [("b/2.png", 3), ("a.PNG", 1), ("b/1.png", 2)] {
            png(&dir.path().join(name), grey);
        }
        std::fs::write(dir.path().join("notes.txt"), "x").unwrap();
        let images = Images::open(dir.path(), None).unwrap();
        let names: Vec<String> = (0..images.len()).map(|i| images.name(i).unwrap()).collect();
        assert_eq!(names, ["a.PNG", "b/1.png", "b/2.png"]);
        let (pixels, left_out) = images.rgb(1..3).unwrap();
        assert_eq!((pixels[0], pixels[FACE_BYTES], left_out), (2, 3, vec![]));
        let before = images.stamps().unwrap();
        png(&dir.path().join("c.png"), 4);
        let after = Images::open(dir.path(), None).unwrap().stamps().unwrap();
        assert_eq!((&after[..3], after.len()), (&before[..], 4));
    }

    #[test]
    fn a_folder_is_searched_by_content_and_without_what_systems_leave_behind() {
        let dir = tempfile::tempdir().unwrap();
        for (name, grey) in
            [("a/1.png", 1), ("a/.ipynb_checkpoints/1.png", 9), ("__MACOSX/1.png", 9)]
        {
            png(&dir.path().join(name), grey);
        }
        std::fs::rename(dir.path().join("a/1.png"), dir.path().join("a/1")).unwrap();
        let images = Images::open(dir.path(), None).unwrap();
        let names: Vec<String> = (0..images.len()).map(|i| images.name(i).unwrap()).collect();
        assert_eq!(names, ["a/1"]);
        let Some(case) = pfc_testing::case("eval-folder-skips") else { return };
        assert_eq!(Images::open(&case.join("tree"), None).unwrap().len(), 6);
    }

    #[test]
    fn a_list_starts_from_its_own_folder_or_the_stated_one() {
        let dir = tempfile::tempdir().unwrap();
        png(&dir.path().join("faces/x.png"), 9);
        std::fs::write(dir.path().join("faces/own.txt"), "x.png\n").unwrap();
        std::fs::write(dir.path().join("other.txt"), "x.png\n").unwrap();
        let own = Images::open(&dir.path().join("faces/own.txt"), None).unwrap();
        assert_eq!(own.rgb(0..1).unwrap().0[0], 9);
        let root = dir.path().join("faces");
        let other = Images::open(&dir.path().join("other.txt"), Some(&root)).unwrap();
        assert_eq!(other.rgb(0..1).unwrap().0[0], 9);
    }

    #[test]
    fn a_damaged_image_is_left_out_with_its_reason_and_an_empty_folder_refused() {
        let dir = tempfile::tempdir().unwrap();
        let error = Images::open(dir.path(), None).unwrap_err();
        assert!(error.to_string().ends_with("no image is in it"), "{error}");
        std::fs::write(dir.path().join("x.jpg"), b"\xff\xd8\xff").unwrap();
        png(&dir.path().join("y.png"), 5);
        std::fs::write(dir.path().join("list.txt"), "x.jpg\nmissing.png\ny.png\n").unwrap();
        let images = Images::open(&dir.path().join("list.txt"), None).unwrap();
        let (pixels, left_out) = images.rgb(0..3).unwrap();
        assert_eq!((pixels.len(), pixels[0]), (FACE_BYTES, 5));
        assert_eq!(left_out.iter().map(|image| image.index).collect::<Vec<_>>(), [0, 1]);
        assert!(left_out[1].reason.starts_with("cannot open: No such file"), "{left_out:?}");
        assert!(!images.is_readable(0) && images.is_readable(2));
    }
}

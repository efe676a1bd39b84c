//! Images to embed, from wherever they are: a folder, a list, a data set, a RecordIO file, a pack.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use pfc_recordio::{RecordFile, RecordPaths};
use pfc_shard::{Dataset, MANIFEST_FILE, hash::content_hash};
use rayon::prelude::*;
use walkdir::WalkDir;

use crate::{
    EvalError,
    faces::{FACE_BYTES, IMAGE_BYTES_MAX, decode},
    features::cache::LeftOut,
    megaface::Gallery,
    pack::Pack,
    pairs::read_regular_file,
};

const EXTENSIONS: [&str; 7] = ["jpg", "jpeg", "png", "bmp", "webp", "ppm", "pgm"];

/// Images in a fixed order, read from many threads.
#[derive(Debug)]
pub struct Images {
    path: PathBuf,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// Paths below a folder, and how they are called.
    Files {
        root: PathBuf,
        names: Vec<String>,
    },
    Dataset(Box<Dataset>),
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
        let extension = path.extension().and_then(|extension| extension.to_str());
        let source = if path.join(MANIFEST_FILE).is_file() {
            let dataset = Dataset::open(path)?;
            dataset.preload()?;
            Source::Dataset(Box::new(dataset))
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
        let images = Images { path: path.to_owned(), source };
        if images.is_empty() {
            return Err(EvalError::NoImages { path: path.to_owned() });
        }
        Ok(images)
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
        let decoded: Vec<Result<Vec<u8>, EvalError>> =
            range.clone().into_par_iter().map(|i| self.face(i)).collect();
        let mut pixels = Vec::with_capacity(range.len() * FACE_BYTES);
        let mut left_out = Vec::new();
        for (index, face) in range.zip(decoded) {
            match face.map_err(EvalError::of_image) {
                Ok(face) => pixels.extend(face),
                Err(reason) => left_out.push(LeftOut { index, reason: reason? }),
            }
        }
        Ok((pixels, left_out))
    }

    fn face(&self, i: usize) -> Result<Vec<u8>, EvalError> {
        let decoded = match &self.source {
            Source::Files { root, names } => {
                decode(&read_regular_file(&root.join(&names[i]), IMAGE_BYTES_MAX)?)
            }
            Source::Dataset(dataset) => decode(dataset.get(i as u64)?.image),
            Source::Records(file) => decode(&file.image(i as u64)?.image),
            Source::Pack(pack) => decode(&pack.images[i]),
        };
        match decoded {
            Ok(decoded) => Ok(decoded.rgb),
            Err(reason) => {
                let image = format!("{}: {}", self.path.display(), self.name(i)?);
                Err(EvalError::Image { image, reason })
            }
        }
    }
}

/// Images anywhere below `root`, by path.
fn find(root: &Path) -> Result<Vec<String>, EvalError> {
    let mut names = Vec::new();
    for entry in WalkDir::new(root).follow_links(true).sort_by_file_name() {
        let entry = entry.map_err(|error| EvalError::io("read", root)(error.into()))?;
        let extension = entry.path().extension().and_then(|extension| extension.to_str());
        let is_image = extension
            .is_some_and(|extension| EXTENSIONS.contains(&&*extension.to_ascii_lowercase()));
        if is_image && entry.file_type().is_file() {
            let below = entry.path().strip_prefix(root).unwrap_or(entry.path());
            names.push(below.to_string_lossy().into_owned());
        }
    }
    Ok(names)
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

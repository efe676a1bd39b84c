//! Images to embed, from wherever they are: a data set, or any input that `pfc-ingest pack` reads.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use pfc_detect::{DetectorArgs, Finder};
use pfc_embeddings::cache::LeftOut;
use pfc_findings::{Reading, View};
use pfc_image::Tally;
use pfc_shard::{MANIFEST_FILE, hash::content_hash};
use pfc_sources::{
    AlignOptions, Alignment, InOrder, InputOptions, LeftOut as NotListed, ReadError, Root,
    open_images, read_file,
};
use pfc_verify::VerifyError;
use rayon::prelude::*;

use crate::{
    EvalError,
    faces::{Decoded, FACE_BYTES, cut, decode, found},
};

/// Images in a fixed order, read from many threads.
#[derive(Debug)]
pub struct Images {
    path: PathBuf,
    inside: Inside,
    /// What was done to the images decoded so far.
    changes: Mutex<Tally>,
}

#[derive(Debug)]
enum Inside {
    Dataset(Box<View>),
    Input(InOrder, Alignment, Option<Box<Detecting>>),
}

/// What finds the faces of photographs.
#[derive(Debug)]
struct Detecting {
    finder: Finder,
    /// What tells its faces from those of another, or of other bounds.
    stamp: String,
}

/// How images are opened.
#[derive(Debug, Clone)]
pub struct Opening<'a> {
    /// How an input that is no data set is read.
    pub input: &'a InputOptions,
    /// By which landmarks faces are cut out of its images.
    pub align: &'a AlignOptions,
    /// What finds the faces of its images, where they are photographs.
    pub detector: Option<&'a DetectorArgs>,
    /// How a data set is read.
    pub reading: Reading,
    /// A folder on whose disk images of compressed inputs are unpacked to a temporary file.
    pub scratch: &'a Path,
    /// Whether no progress is shown.
    pub quiet: bool,
}

impl Detecting {
    fn open(args: &DetectorArgs, alignment: &Alignment) -> Result<Option<Detecting>, EvalError> {
        if args.is_given() && !matches!(alignment, Alignment::None) {
            return Err(EvalError::DetectorAndLandmarks);
        }
        let finder = args.open(rayon::current_num_threads()).map_err(VerifyError::from)?;
        let stamp = |finder: &Finder| args.content_arguments(Some(finder)).join(" ");
        Ok(finder.map(|finder| Detecting { stamp: stamp(&finder), finder }))
    }
}

impl Images {
    /// Opens `path`: a folder with a manifest is a data set, whose rows keep their order. Anything else
    /// is what `pfc-ingest pack` takes it for, its images in its own order: those of a folder by their
    /// paths, wherever they lie in it; a list may hold paths alone, and each image of a verification
    /// pack counts.
    ///
    /// # Errors
    ///
    /// [`EvalError::Source`] if there is no image, and what reading each kind gives.
    pub fn open(path: &Path, opening: &Opening<'_>) -> Result<Images, EvalError> {
        let alignment = opening.align.open()?;
        let inside = if path.join(MANIFEST_FILE).is_file() {
            let is_detector_given = opening.detector.is_some_and(DetectorArgs::is_given);
            if is_detector_given || !matches!(alignment, Alignment::None) {
                return Err(EvalError::PackedCrops { path: path.to_owned() });
            }
            let view = View::open(path, opening.reading)?;
            view.dataset().preload()?;
            if view.is_empty() {
                return Err(EvalError::NoImages { path: path.to_owned() });
            }
            Inside::Dataset(Box::new(view))
        } else {
            let images = open_images(path, opening.input, opening.scratch, opening.quiet)?;
            if let Some(notice) = alignment.notice(images.source()) {
                tracing::warn!("{notice}");
            }
            let detecting = match opening.detector {
                Some(args) => Detecting::open(args, &alignment)?.map(Box::new),
                None => None,
            };
            Inside::Input(images, alignment, detecting)
        };
        let images = Images { path: path.to_owned(), inside, changes: Mutex::default() };
        images.count_skipped();
        Ok(images)
    }

    /// Says how many files were never meant as images of someone: nothing that is in an input is missing
    /// without a word.
    fn count_skipped(&self) {
        let Inside::Input(input, ..) = &self.inside else { return };
        let n = input.source().left_out().iter().filter(|l| l.reject.is_skip()).count();
        if n > 0 {
            tracing::warn!(
                "{}: {n} files or folders are no images, or the system's own, and are passed over",
                self.path.display()
            );
        }
    }

    /// What decisions change in a data set, and the switch that turns them off; see [`View::notice`].
    pub fn notice(&self, switch: &str) -> Option<String> {
        match &self.inside {
            Inside::Dataset(view) => view.notice(switch),
            Inside::Input(..) => None,
        }
    }

    /// Images that were met in the input and have no number here, since they cannot be read or named:
    /// each by its place, with the reason. What was never meant as an image is not among them.
    pub fn not_listed(&self) -> Vec<&NotListed> {
        match &self.inside {
            Inside::Dataset(_) => Vec::new(),
            Inside::Input(input, ..) => {
                input.source().left_out().iter().filter(|l| !l.reject.is_skip()).collect()
            }
        }
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        match &self.inside {
            Inside::Dataset(dataset) => dataset.len() as usize,
            Inside::Input(input, ..) => input.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What image `i` is called: as in the column `source` of the data set that it would be packed to.
    ///
    /// # Errors
    ///
    /// What reading gives.
    pub fn name(&self, i: usize) -> Result<String, EvalError> {
        Ok(match &self.inside {
            Inside::Dataset(dataset) => dataset.get(i as u64)?.source.to_owned(),
            Inside::Input(input, ..) => input.source().path(input.entry(i)),
        })
    }

    /// Who is on image `i`, where that is known: the label that it would be packed with.
    ///
    /// # Errors
    ///
    /// What reading gives.
    pub fn label(&self, i: usize) -> Result<Option<u64>, EvalError> {
        Ok(match &self.inside {
            Inside::Dataset(dataset) => Some(u64::from(dataset.get(i as u64)?.label)),
            Inside::Input(input, ..) => input.source().index().who(input.entry(i)).map(u64::from),
        })
    }

    /// What identifies each image: of a row its source and the hash of its bytes, else what the source
    /// knows without reading it.
    ///
    /// A file that is not there has a stamp too: reading it will say so.
    ///
    /// # Errors
    ///
    /// What reading gives.
    pub fn stamps(&self) -> Result<Vec<u128>, EvalError> {
        match &self.inside {
            Inside::Dataset(dataset) => {
                let stamp = |row| {
                    let face = dataset.get(row)?;
                    Ok(content_hash(format!("{}\0{:032x}", face.source, face.hash).as_bytes()))
                };
                (0..dataset.len()).map(stamp).collect()
            }
            Inside::Input(input, alignment, detecting) => {
                let stamp = |i| {
                    let stamp = alignment.stamp(input.source(), input.entry(i));
                    let Some(detecting) = detecting else { return stamp };
                    content_hash(format!("{stamp:032x} {}", detecting.stamp).as_bytes())
                };
                Ok((0..input.len()).into_par_iter().map(stamp).collect())
            }
        }
    }

    /// The collection, as the user named it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether image `i` can be read and decoded.
    ///
    /// # Errors
    ///
    /// A fault of the system, which says nothing of the image.
    pub fn is_readable(&self, i: usize) -> Result<bool, EvalError> {
        is_usable(self.face(i))
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
        let decoded = match &self.inside {
            Inside::Dataset(dataset) => decode(dataset.get(i as u64)?.image),
            Inside::Input(input, alignment, detecting) => {
                let (source, entry) = (input.source(), input.entry(i));
                let read = || {
                    let landmarks = alignment.landmarks(source, entry)?;
                    Ok::<_, ReadError>((source.read(entry)?, landmarks))
                };
                match (read(), detecting) {
                    (Ok((bytes, _)), Some(detecting)) => {
                        let place = self.place(i)?;
                        let face = found(&bytes, &detecting.finder, || place.clone())?;
                        return face.map_err(|reason| EvalError::NoFace { image: place, reason });
                    }
                    (Ok((bytes, landmarks)), None) => cut(&bytes, landmarks.as_ref()),
                    (Err(ReadError::Fault(error)), _) => return Err(error.into()),
                    (Err(ReadError::Reject(reject)), _) => {
                        return Err(EvalError::Unread { image: self.place(i)?, reject });
                    }
                }
            }
        };
        match decoded {
            Ok(decoded) => Ok(decoded),
            Err(reason) => Err(EvalError::image(self.place(i)?, reason)),
        }
    }

    /// Where an image is, for a message.
    fn place(&self, i: usize) -> Result<String, EvalError> {
        Ok(format!("{}: {}", self.path.display(), self.name(i)?))
    }
}

/// Whether an image was had; else the error where that is a fault of the system.
pub(crate) fn is_usable<T>(image: Result<T, EvalError>) -> Result<bool, EvalError> {
    image.map_or_else(|error| error.of_image().map(|_| false), |_| Ok(true))
}

/// The bytes of the image `name` below the folder `root`, whose loss is told from that of one file.
///
/// # Errors
///
/// [`EvalError::Unread`] for what is a fact about this image, else a fault of the system.
pub(crate) fn read_below(root: &Root, name: &str) -> Result<Vec<u8>, EvalError> {
    let path = root.path().join(name);
    read_file(&path, root).map_err(|error| match error {
        ReadError::Fault(error) => error.into(),
        ReadError::Reject(reject) => {
            EvalError::Unread { image: path.display().to_string(), reject }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Opened as the command does without options.
    fn open(path: &Path) -> Result<Images, EvalError> {
        let (input, align) = (InputOptions::default(), AlignOptions::default());
        let scratch = &std::env::temp_dir();
        let reading = Reading::Decided;
        let (input, align) = (&input, &align);
        Images::open(path, &Opening { input, align, detector: None, reading, scratch, quiet: true })
    }

    fn names(images: &Images) -> Vec<String> {
        (0..images.len()).map(|i| images.name(i).unwrap()).collect()
    }

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
        let images = open(dir.path()).unwrap();
        assert_eq!(names(&images), ["a.PNG", "b/1.png", "b/2.png"]);
        let (pixels, left_out) = images.rgb(1..3).unwrap();
        assert_eq!((pixels[0], pixels[FACE_BYTES], left_out), (2, 3, vec![]));
        let before = images.stamps().unwrap();
        png(&dir.path().join("c.png"), 4);
        let after = open(dir.path()).unwrap().stamps().unwrap();
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
        let images = open(dir.path()).unwrap();
        assert_eq!(names(&images), ["a/1"]);
        let Some(case) = pfc_testing::case("eval-folder-skips") else { return };
        assert_eq!(open(&case.join("tree")).unwrap().len(), 6);
    }

    #[test]
    fn rows_follow_the_input_and_carry_the_labels_of_pack() {
        let dir = tempfile::tempdir().unwrap();
        let face = dir.path().join("face.png");
        png(&face, 7);
        let bytes = std::fs::read(&face).unwrap();
        let classes = [20, 0, 20, 10];
        let mut records = pfc_recordio::RecordWriter::create(&dir.path().join("rec")).unwrap();
        let mut list = String::new();
        for (key, class) in (0..).zip(classes) {
            let header = pfc_recordio::Header::scalar(class as f32, key);
            records.write(key, &header, &bytes).unwrap();
            std::fs::copy(&face, dir.path().join(format!("{key}.png"))).unwrap();
            list += &format!("{key}.png\t{class}\n");
        }
        records.finish(None).unwrap();
        std::fs::write(dir.path().join("list.tsv"), list).unwrap();
        let expected = [
            ("rec", ["id_20/0", "id_0/1", "id_20/2", "id_10/3"]),
            ("list.tsv", ["0.png", "1.png", "2.png", "3.png"]),
        ];
        for (input, expected) in expected {
            let images = open(&dir.path().join(input)).unwrap();
            assert_eq!(names(&images), expected);
            let labels: Vec<_> = (0..4).map(|i| images.label(i).unwrap()).collect();
            // The gaps between the classes are closed.
            assert_eq!(labels, [Some(2), Some(0), Some(2), Some(1)], "{input}");
            let stamps = images.stamps().unwrap();
            assert!((0..4).all(|i| !stamps[..i].contains(&stamps[i])), "{input}");
        }
    }

    #[test]
    fn a_folder_that_vanishes_is_no_fault_of_its_images() {
        let dir = tempfile::tempdir().unwrap();
        let faces = dir.path().join("faces");
        for i in 0..3 {
            png(&faces.join(format!("a/{i}.png")), i);
        }
        let images = open(&faces).unwrap();
        std::fs::rename(&faces, dir.path().join("gone")).unwrap();
        let error = images.rgb(0..3).unwrap_err();
        assert!(
            error.to_string().ends_with("the folder that the images lie in is gone"),
            "{error}"
        );
        assert!(error.hint().unwrap().contains("run the same command again"));
        std::fs::rename(dir.path().join("gone"), &faces).unwrap();
        assert_eq!(images.rgb(0..3).unwrap().1, vec![]);
    }

    #[test]
    fn with_a_stated_folder_a_list_names_images_below_it_alone() {
        let dir = tempfile::tempdir().unwrap();
        png(&dir.path().join("faces/x.png"), 9);
        png(&dir.path().join("secret.png"), 8);
        let secret = dir.path().join("secret.png").display().to_string();
        let inside = dir.path().join("faces/x.png").display().to_string();
        let list = format!("x.png\n../secret.png\n{secret}\n{inside}\nsub/../x.png\n");
        let devkit = serde_json::json!({ "path": list.lines().collect::<Vec<_>>() }).to_string();
        let input = InputOptions::default().with_root(dir.path().join("faces"));
        let (input, align) = (&input, &AlignOptions::default());
        let reading = Reading::Decided;
        let opening =
            Opening { input, align, detector: None, reading, scratch: dir.path(), quiet: true };
        for text in [list, devkit] {
            std::fs::write(dir.path().join("list.txt"), text).unwrap();
            let images = Images::open(&dir.path().join("list.txt"), &opening).unwrap();
            assert_eq!(names(&images), ["x.png", &inside, "sub/../x.png"]);
            let left_out: Vec<_> = images
                .not_listed()
                .iter()
                .map(|l| (l.source.as_str(), l.reject.reason()))
                .collect();
            assert_eq!(left_out, [("../secret.png", "outside_path"), (&secret, "outside_path")]);
            assert_eq!(images.rgb(0..3).unwrap().1, []);
        }
    }

    #[test]
    fn a_list_starts_from_its_own_folder_or_the_stated_one() {
        let dir = tempfile::tempdir().unwrap();
        png(&dir.path().join("faces/x.png"), 9);
        std::fs::write(dir.path().join("faces/own.txt"), "x.png\n").unwrap();
        std::fs::write(dir.path().join("other.txt"), "x.png\n").unwrap();
        let own = open(&dir.path().join("faces/own.txt")).unwrap();
        assert_eq!(own.rgb(0..1).unwrap().0[0], 9);
        let input = InputOptions::default().with_root(dir.path().join("faces"));
        let reading = Reading::Decided;
        let (input, align) = (&input, &AlignOptions::default());
        let opening =
            Opening { input, align, detector: None, reading, scratch: dir.path(), quiet: true };
        let other = Images::open(&dir.path().join("other.txt"), &opening).unwrap();
        assert_eq!(other.rgb(0..1).unwrap().0[0], 9);
    }

    #[test]
    fn a_damaged_image_is_left_out_with_its_reason_and_an_empty_folder_refused() {
        let dir = tempfile::tempdir().unwrap();
        let error = open(dir.path()).unwrap_err();
        assert!(
            error.to_string().ends_with("no image is in it; there is no file in it"),
            "{error}"
        );
        std::fs::write(dir.path().join("x.jpg"), b"\xff\xd8\xff").unwrap();
        png(&dir.path().join("y.png"), 5);
        std::fs::write(dir.path().join("list.txt"), "x.jpg\nmissing.png\ny.png\n").unwrap();
        let images = open(&dir.path().join("list.txt")).unwrap();
        let (pixels, left_out) = images.rgb(0..3).unwrap();
        assert_eq!((pixels.len(), pixels[0]), (FACE_BYTES, 5));
        assert_eq!(left_out.iter().map(|image| image.index).collect::<Vec<_>>(), [0, 1]);
        assert!(left_out[1].reason.starts_with("there is no such file"), "{left_out:?}");
        assert!(!images.is_readable(0).unwrap() && images.is_readable(2).unwrap());
    }
}

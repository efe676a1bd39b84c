//! A list of pairs with its images in memory.

use std::{
    collections::HashMap,
    ops::Range,
    path::{Path, PathBuf},
};

use pfc_detect::Finder;
use pfc_findings::Reading;
use pfc_image::{ImageFolder, LeadsOut, has_image_extension, with_extensions};
use pfc_metrics::union::Union;
use pfc_model::{Embed, MirroredEmbeddings, ModelError};
use pfc_sources::{SourceError, verification_set};
use serde::{Deserialize, Serialize};

use crate::{
    VerifyError,
    faces::{Faces, IMAGE_BYTES_MAX, warn_of_changes, warn_of_unfound},
    files::{is_file, read_regular_file},
    packed::Rows,
    pairs::{ImageName, Pair, PairList, Protocol},
};

/// Images embedded between two looks at the clock and at Ctrl-C, at least: a model that takes more in a
/// pass is given them.
const BATCH: usize = 128;

/// How it is known who is on an image; the bootstrap resamples these people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeopleFrom {
    /// The list or the folders name them.
    Names,
    /// Not named: images of matched pairs, and equal images, are taken for one person. A person
    /// in several unlinked pairs counts as several, so intervals may be too narrow.
    Pairs,
}

/// How the images of a list are opened.
#[derive(Debug, Clone, Copy, Default)]
pub struct Opening<'a> {
    /// Of a data set, whether the decisions beside it are applied; see [`PairsSet::notice`].
    pub reading: Reading,
    /// What finds the faces of photographs; images in which it finds none count as they are. The rows of a data
    /// set are faces already.
    pub finder: Option<&'a Finder>,
}

/// Pairs of faces to judge, every image decoded once and kept.
#[derive(Debug)]
pub struct PairsSet {
    pub(crate) name: String,
    pub(crate) protocol: Protocol,
    pub(crate) pairs: Vec<Pair>,
    faces: Faces,
    /// What each image is called in tables and reports.
    image_names: Vec<String>,
    /// Who is on each image; people are numbered from 0.
    pub(crate) people: Vec<u32>,
    pub(crate) n_people: u32,
    pub(crate) people_from: PeopleFrom,
    /// The rows of a data set that the images are.
    rows: Option<Rows>,
}

impl PairsSet {
    /// Opens a folder of images and a list of pairs of them.
    ///
    /// Images of any size and common format are taken; other sizes than 112×112 are resized, with
    /// a warning. All of them lie below `root` ([`ImageFolder`]), or are rows of the packed data set there,
    /// by name or by number.
    ///
    /// # Errors
    ///
    /// [`VerifyError::Line`] for a broken list or a path that leads out of `root`,
    /// [`VerifyError::MissingImages`] or [`VerifyError::MissingRows`], [`VerifyError::Image`] for
    /// the first image that cannot be decoded, [`VerifyError::Durable`], [`VerifyError::Detect`] for a
    /// detector that fails.
    pub fn open(root: &Path, pairs: &Path, opening: Opening<'_>) -> Result<PairsSet, VerifyError> {
        let list = PairList::read(pairs)?;
        PairsSet::from_list(root, pairs, list, opening)
    }

    /// As [`open`](PairsSet::open), with a list that is parsed already; `pairs` names it.
    ///
    /// # Errors
    ///
    /// As [`open`](PairsSet::open).
    pub fn from_list(
        root: &Path,
        pairs: &Path,
        list: PairList,
        opening: Opening<'_>,
    ) -> Result<PairsSet, VerifyError> {
        if list.pairs.is_empty() {
            return Err(VerifyError::NoPairs { list: pairs.to_owned() });
        }
        if is_file(&root.join(pfc_shard::MANIFEST_FILE))? {
            return PairsSet::of_rows(root, pairs, list, opening.reading);
        }
        std::fs::read_dir(root).map_err(VerifyError::io("open the folder", root))?;
        let paths = find_images(root, pairs, &list.images)?;
        let read = |i: usize| read_regular_file(&paths[i], IMAGE_BYTES_MAX);
        let name = |i: usize| paths[i].display().to_string();
        let faces = Faces::load_with(opening.finder, paths.len(), read, name)?;
        let (people, n_people, people_from) = people(&list);
        let below_root =
            |path: &PathBuf| path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned();
        let set = PairsSet {
            name: stem(pairs),
            protocol: list.protocol,
            pairs: list.pairs,
            faces,
            image_names: paths.iter().map(below_root).collect(),
            people,
            n_people,
            people_from,
            rows: None,
        };
        set.warn_of_sizes();
        Ok(set)
    }

    /// The set of a list whose images are rows of the data set at `root`, which says who is on them.
    fn of_rows(
        root: &Path,
        pairs: &Path,
        mut list: PairList,
        reading: Reading,
    ) -> Result<PairsSet, VerifyError> {
        let rows = Rows::find(root, pairs, &list.images, reading)?;
        let mut image_names = Vec::with_capacity(list.images.len());
        for (i, image) in list.images.iter_mut().enumerate() {
            let (source, person) = rows.names(i)?;
            image.person = Some(person);
            image_names.push(source);
        }
        let name = |i: usize| format!("{}: {}", root.display(), image_names[i]);
        let faces = Faces::load(image_names.len(), |i| rows.read(i), name)?;
        let (people, n_people, people_from) = people(&list);
        let set = PairsSet {
            name: stem(pairs),
            protocol: list.protocol,
            pairs: list.pairs,
            faces,
            image_names,
            people,
            n_people,
            people_from,
            rows: Some(rows),
        };
        set.warn_of_sizes();
        Ok(set)
    }

    /// Opens an `InsightFace` pack (`lfw.bin`), or a verification set of CVLface or AdaFace
    /// ([`verification_set`]); images that occur more than once are kept once.
    ///
    /// # Errors
    ///
    /// [`VerifyError::Pack`] or [`VerifyError::Source`] if it cannot be read or is none,
    /// [`VerifyError::Image`].
    pub fn open_pack(path: &Path) -> Result<PairsSet, VerifyError> {
        let pack = verification_set(path).map_err(|error| match error {
            SourceError::Bin(error) => VerifyError::Pack(error),
            error => error.into(),
        })?;
        // Where image i of the pack lies among the different ones.
        let mut index = HashMap::new();
        let mut firsts = Vec::new();
        let mut place = |i: usize| {
            *index.entry(&pack.images[i][..]).or_insert_with(|| {
                firsts.push(i);
                firsts.len() as u32 - 1
            })
        };
        let pair = |(i, &same)| Pair { left: place(2 * i), right: place(2 * i + 1), same };
        let pairs: Vec<Pair> = pack.same.iter().enumerate().map(pair).collect();
        let read = |i: usize| Ok(pack.images[firsts[i]].clone());
        let image_name = |i: usize| format!("{} image {}", path.display(), firsts[i]);
        let faces = Faces::load(firsts.len(), read, image_name)?;
        let (people, n_people) = link(firsts.len(), &pairs);
        let set = PairsSet {
            name: stem(path),
            protocol: Protocol::TenFold,
            pairs,
            faces,
            image_names: firsts.iter().map(usize::to_string).collect(),
            people,
            n_people,
            people_from: PeopleFrom::Pairs,
            rows: None,
        };
        set.warn_of_sizes();
        Ok(set)
    }

    /// Of images in a data set, what its decisions change and `switch`, which turns them off; see
    /// [`notice`](pfc_findings::View::notice) of a view.
    pub fn notice(&self, switch: &str) -> Option<String> {
        self.rows.as_ref()?.view.notice(switch)
    }

    /// The quality of each pair by a measure of `pfc-ingest quality`, `[P]`: that of its image of lower value; of
    /// yaw, pitch and roll the larger number of degrees, of whatever sign. NaN where it is not known of both
    /// images.
    ///
    /// # Errors
    ///
    /// [`VerifyError::NoQuality`] if the images are no rows of a packed data set, [`VerifyError::Dataset`] if
    /// that has no such measure.
    pub fn quality(&self, column: &str) -> Result<Vec<f64>, VerifyError> {
        let missing = || VerifyError::NoQuality { set: self.name.clone() };
        let values = self.rows.as_ref().ok_or_else(missing)?.quality(column)?;
        let is_angle = ["yaw", "pitch", "roll"].contains(&column);
        let of_pair = |pair: &Pair| {
            let [a, b] = [pair.left, pair.right].map(|image| f64::from(values[image as usize]));
            match (a.is_nan() || b.is_nan(), is_angle) {
                (true, _) => f64::NAN,
                (_, true) => a.abs().max(b.abs()),
                (_, false) => a.min(b),
            }
        };
        Ok(self.pairs.iter().map(of_pair).collect())
    }

    /// What the set is called, from the list's file name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number of different images.
    pub fn n_images(&self) -> usize {
        self.faces.len()
    }

    /// What image `i` is called: its path below the data folder, or its number in the pack.
    ///
    /// # Panics
    ///
    /// If there is no image `i`.
    pub fn image_name(&self, i: usize) -> &str {
        &self.image_names[i]
    }

    /// The pairs, in the order of the list.
    pub fn pairs(&self) -> &[Pair] {
        &self.pairs
    }

    /// Number of pairs.
    pub fn n_pairs(&self) -> usize {
        self.pairs.len()
    }

    /// How the set is judged.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The images, for other uses than [`embed`](PairsSet::embed).
    pub fn faces(&self) -> &Faces {
        &self.faces
    }

    /// Embeds a range of the images, plain and mirrored.
    ///
    /// * `on_batch`: gets the number of images done since the last call; its error stops the work
    ///
    /// The parts of several ranges, put together in order, are the embeddings of the whole.
    ///
    /// # Errors
    ///
    /// [`VerifyError::Model`], [`VerifyError::Unusable`] for NaN or infinity, and whatever `on_batch`
    /// returns.
    ///
    /// # Panics
    ///
    /// If `range` reaches beyond the images.
    pub fn embed<E: Embed + ?Sized, F: From<VerifyError>>(
        &self,
        embedder: &E,
        range: Range<usize>,
        on_batch: &mut dyn FnMut(usize) -> Result<(), F>,
    ) -> Result<MirroredEmbeddings, F> {
        let mut all = MirroredEmbeddings { original: Vec::new(), mirrored: Vec::new() };
        let mut start = range.start;
        let size = embedder.batch_size().max(BATCH);
        while start < range.end {
            let batch = start..range.end.min(start + size);
            let n = batch.len();
            let part = embedder.embed_with_mirror(&self.faces.rgb(batch), n);
            let part = part.map_err(|error| self.of_model(error, start))?;
            all.original.extend(part.original);
            all.mirrored.extend(part.mirrored);
            start += n;
            on_batch(n)?;
        }
        Ok(all)
    }

    /// The error of a model, with the image named that it is about.
    ///
    /// * `first`: number of the first image that the model was given
    fn of_model(&self, error: ModelError, first: usize) -> VerifyError {
        match error {
            ModelError::EmbeddingNotFinite { model, image } => VerifyError::Unusable {
                model,
                image: self.image_names[first + image].clone(),
                what: "not finite",
            },
            other => other.into(),
        }
    }

    fn warn_of_sizes(&self) {
        warn_of_changes(&self.name, self.faces.changes());
        warn_of_unfound(&self.name, &self.faces);
    }
}

/// A file's name without its extension.
fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// The file of each image.
fn find_images(
    root: &Path,
    list: &Path,
    images: &[ImageName],
) -> Result<Vec<PathBuf>, VerifyError> {
    let folder = ImageFolder::at(root);
    let find = |image: &ImageName| {
        let below = folder.below(&image.path).map_err(|leads_out| VerifyError::Line {
            path: list.to_owned(),
            line: image.line,
            problem: leads_out.to_string(),
            layout: LeadsOut::HINT,
        })?;
        find_image(&root.join(below), image.any_extension)
    };
    let found: Vec<Option<PathBuf>> = images.iter().map(find).collect::<Result<_, _>>()?;
    let missing = || images.iter().zip(&found).filter(|(_, path)| path.is_none());
    let Some((first, _)) = missing().next() else {
        return Ok(found.into_iter().flatten().collect());
    };
    Err(VerifyError::MissingImages {
        root: root.to_owned(),
        list: list.to_owned(),
        n_missing: missing().count(),
        n_images: images.len(),
        first: first.path.clone() + if first.any_extension { ".jpg" } else { "" },
        line: first.line,
    })
}

/// The file of an image, whose name may lack the ending that it has on disk.
///
/// * `any_extension`: the list leaves it open for all
fn find_image(path: &Path, any_extension: bool) -> Result<Option<PathBuf>, VerifyError> {
    if !any_extension {
        if is_file(path)? {
            return Ok(Some(path.to_owned()));
        }
        if has_image_extension(path) {
            return Ok(None);
        }
    }
    for path in with_extensions(path) {
        if is_file(&path)? {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Who is on each image, how many people that makes, and how it is known.
///
/// Names count only if they agree with every label: a folder need not be a person.
fn people(list: &PairList) -> (Vec<u32>, u32, PeopleFrom) {
    let names: Option<Vec<&String>> =
        list.images.iter().map(|image| image.person.as_ref()).collect();
    let agree = |names: &Vec<&String>| {
        let one_person = |pair: &Pair| names[pair.left as usize] == names[pair.right as usize];
        list.pairs.iter().all(|pair| one_person(pair) == pair.same)
    };
    let Some(names) = names.filter(agree) else {
        let (people, n) = link(list.images.len(), &list.pairs);
        return (people, n, PeopleFrom::Pairs);
    };
    let mut different = names.clone();
    different.sort_unstable();
    different.dedup();
    // By name and not by first mention, so that the order of the list does not matter.
    let number = |name: &String| different.partition_point(|other| *other < name) as u32;
    (names.iter().map(|name| number(name)).collect(), different.len() as u32, PeopleFrom::Names)
}

/// People as the groups of images that matched pairs link, numbered by first image.
fn link(n_images: usize, pairs: &[Pair]) -> (Vec<u32>, u32) {
    let mut union = Union::new(n_images);
    for pair in pairs.iter().filter(|pair| pair.same) {
        let (a, b) = (union.leader(pair.left as usize), union.leader(pair.right as usize));
        // The smaller index leads, so that numbering follows the first image.
        union.join(a.max(b), a.min(b));
    }
    let mut numbers = vec![u32::MAX; n_images];
    let mut n_people = 0;
    for image in 0..n_images {
        let root = union.leader(image);
        if numbers[root] == u32::MAX {
            numbers[root] = n_people;
            n_people += 1;
        }
        numbers[image] = numbers[root];
    }
    (numbers, n_people)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_several_people_is_no_person() {
        let image = |path: &str, person: &str| ImageName {
            path: path.to_owned(),
            any_extension: false,
            person: Some(person.to_owned()),
            line: 1,
        };
        let list = |pairs: &[(u32, u32, bool)]| PairList {
            protocol: Protocol::TenFold,
            images: vec![image("x/1", "x"), image("x/2", "x"), image("y/1", "y")],
            pairs: pairs.iter().map(|&(left, right, same)| Pair { left, right, same }).collect(),
        };
        let named = list(&[(0, 1, true), (1, 2, false)]);
        assert_eq!(people(&named), (vec![0, 0, 1], 2, PeopleFrom::Names));
        let mixed = list(&[(0, 1, false), (1, 2, true)]);
        assert_eq!(people(&mixed), (vec![0, 1, 1], 2, PeopleFrom::Pairs));
    }

    #[test]
    fn an_image_is_found_by_its_name_and_without_its_ending() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.jpg", "b", "b.jpg", "c.png", "d.1.png"] {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        for (name, any_extension, expected) in [
            ("a.jpg", false, Some("a.jpg")),
            ("a", false, Some("a.jpg")),
            ("b", false, Some("b")),
            ("b", true, Some("b.jpg")),
            ("c.jpg", false, None),
            ("c", true, Some("c.png")),
            ("d.1", false, Some("d.1.png")),
            ("e", false, None),
        ] {
            let found = find_image(&dir.path().join(name), any_extension).unwrap();
            assert_eq!(found, expected.map(|name| dir.path().join(name)), "{name}");
        }
    }

    #[test]
    fn matched_pairs_link_images_to_people() {
        let pair = |left, right, same| Pair { left, right, same };
        let pairs = [pair(4, 3, true), pair(1, 2, false), pair(3, 0, true)];
        assert_eq!(link(5, &pairs), (vec![0, 1, 2, 0, 0], 3));
    }
}

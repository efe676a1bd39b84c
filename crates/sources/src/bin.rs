//! `InsightFace`'s verification packs. They hold pairs, and who is who follows from them.

use std::{
    collections::{HashMap, hash_map::Entry},
    io::{self, Write},
    path::{Path, PathBuf},
};

use pfc_binpack::Pack;
use pfc_cli::units;
use pfc_metrics::union::Union;
use xxhash_rust::xxh3::xxh3_128;

use crate::{
    catalogue::{Catalogue, People, Sealed},
    error::SourceError,
    identities,
    index::Index,
    label::Who,
    reject::ReadError,
    source::{LeftOut, Source, write_paths},
};

/// The different images of a pack.
///
/// Images of equal bytes are one image: packs repeat an image for every pair that it is in. Where
/// identities are optional, each counts as often as it is there, two images a pair. The
/// identities are the connected components of the pairs that show one person, `id_N` after the
/// number N of their first image in the pack, and in that order; an image that is in no such pair is
/// an identity of its own. A table `PACK.identities.tsv` beside the pack says who is who instead, if it
/// agrees with the pairs.
///
/// Memory: the pack, twice while it is read.
pub struct BinSource {
    path: PathBuf,
    index: Index,
    /// By entry: the number of the image in the pack.
    numbers: Vec<usize>,
    images: Vec<Vec<u8>>,
}

impl BinSource {
    /// Reads a pack. Warns where pairs contradict each other.
    ///
    /// # Errors
    ///
    /// [`SourceError`] if it cannot be read or is none.
    pub fn open(path: &Path, people: People) -> Result<BinSource, SourceError> {
        let Pack { images, same } = Pack::read(path)?;
        let firsts = firsts(&images);
        let named = identities::of_pack(path, images.len())?;
        let named = named.filter(|named| agree(path, named, &firsts, &same));
        let mut people_of = people_of(&firsts, &same);
        let n_contradictions = n_contradictions(&mut people_of, &firsts, &same);
        if n_contradictions > 0 {
            let path = path.display();
            let pairs = units::of(n_contradictions, "pair");
            tracing::warn!(
                "{path}: {pairs} of two people who are one by other pairs: the identities are mixed"
            );
        }
        let mut catalogue = Catalogue::default();
        let name = path.display().to_string();
        for (i, first) in firsts.iter().enumerate() {
            let who = if *first == i || people == People::Optional {
                let person = people_of.leader(*first);
                Ok(match named.as_ref().and_then(|named| named.get(i)) {
                    Some((label, name)) => Who::Both(*label, name.clone()),
                    None => Who::Both(person as u64, format!("id_{person}").into()),
                })
            } else {
                Err(String::new())
            };
            catalogue.push_or_leave_out(&name, who)?;
        }
        let Sealed { index, order } = catalogue.seal_quietly(|_| 1);
        let numbers = order.into_iter().map(|item| item as usize).collect();
        Ok(BinSource { path: path.to_path_buf(), index, numbers, images })
    }
}

impl Source for BinSource {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn index(&self) -> &Index {
        &self.index
    }

    fn path(&self, entry: u64) -> String {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        format!("{name}/{}", self.numbers[entry as usize])
    }

    fn place(&self, entry: u64) -> u64 {
        self.numbers[entry as usize] as u64
    }

    fn stamp(&self, entry: u64) -> u128 {
        xxh3_128(&self.images[self.numbers[entry as usize]])
    }

    fn write_names(&self, out: &mut dyn Write) -> io::Result<()> {
        write_paths(self, |entry| self.images[self.numbers[entry as usize]].len() as u64, out)
    }

    fn read(&self, entry: u64) -> Result<Vec<u8>, ReadError> {
        Ok(self.images[self.numbers[entry as usize]].clone())
    }

    fn left_out(&self) -> &[LeftOut] {
        &[]
    }
}

/// Whether names give images of equal bytes one person, and pairs what they say of them.
fn agree(path: &Path, named: &[(u64, Box<str>)], firsts: &[usize], same: &[bool]) -> bool {
    let label = |i: usize| named[i].0;
    let is_one = (0..firsts.len()).all(|i| label(i) == label(firsts[i]));
    let pairs = (0..firsts.len()).step_by(2).zip(same);
    let agree = is_one && pairs.into_iter().all(|(i, same)| (label(i) == label(i + 1)) == *same);
    if !agree {
        let table = identities::beside_pack(path);
        tracing::warn!("{}: contradicts the pairs of the pack, so it is not used", table.display());
    }
    agree
}

/// For each image the number of the first one with the same bytes.
fn firsts(images: &[Vec<u8>]) -> Vec<usize> {
    let mut seen: HashMap<&[u8], usize> = HashMap::with_capacity(images.len());
    let first = |(i, image)| match seen.entry(image) {
        Entry::Occupied(first) => *first.get(),
        Entry::Vacant(place) => *place.insert(i),
    };
    images.iter().map(Vec::as_slice).enumerate().map(first).collect()
}

/// Sets of images that show one person, each led by the image of its lowest number.
fn people_of(firsts: &[usize], same: &[bool]) -> Union {
    let mut people = Union::new(firsts.len());
    for (pair, _) in firsts.chunks_exact(2).zip(same).filter(|(_, same)| **same) {
        let (a, b) = (people.leader(pair[0]), people.leader(pair[1]));
        people.join(a.max(b), a.min(b));
    }
    people
}

/// Pairs that are said to show two people although other pairs make them one.
fn n_contradictions(people: &mut Union, firsts: &[usize], same: &[bool]) -> u64 {
    let pairs = firsts.chunks_exact(2).zip(same);
    let different = pairs.filter(|(_, same)| !**same).map(|(pair, _)| (pair[0], pair[1]));
    different.filter(|&(a, b)| people.leader(a) == people.leader(b)).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_what_chains_of_pairs_connect() {
        // Images 0 = 4 and 3 = 6 by their bytes; 0-1, 5-4 and 7-6 show one person each.
        let images: Vec<Vec<u8>> =
            [10, 11, 12, 13, 10, 15, 13, 17].into_iter().map(|byte| vec![byte]).collect();
        let firsts = firsts(&images);
        assert_eq!(firsts, [0, 1, 2, 3, 0, 5, 3, 7]);
        let same = [true, false, true, true];
        let mut people = people_of(&firsts, &same);
        let roots: Vec<usize> = firsts.iter().map(|first| people.leader(*first)).collect();
        assert_eq!(roots, [0, 0, 2, 3, 0, 0, 3, 3]);
        assert_eq!(n_contradictions(&mut people, &firsts, &same), 0);
    }

    #[test]
    fn a_pair_of_two_people_whom_others_make_one_is_counted() {
        let images: Vec<Vec<u8>> = [1, 2, 2, 3, 3, 1].into_iter().map(|byte| vec![byte]).collect();
        let firsts = firsts(&images);
        let same = [true, true, false];
        assert_eq!(n_contradictions(&mut people_of(&firsts, &same), &firsts, &same), 1);
    }
}

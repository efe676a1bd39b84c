//! Random pairs in ten folds, as LFW has them: in each fold first those of one person, then as many
//! of two, no pair twice, and, where there are at least 20 people, nobody in two folds.
//!
//! Pairs are drawn in rounds, one of every person (or two people) a round, so that someone with
//! hundreds of images does not fill the list.

use std::ops::Range;

use pfc_random::key;
use pfc_shard::Permutation;

use crate::{ExportError, IngestError};

/// Folds of the list.
const FOLDS: u64 = 10;

/// Two images, by their places among the selected ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    pub left: usize,
    pub right: usize,
    /// Whether they show one person.
    pub same: bool,
}

/// Draws `n_pairs` pairs; `people` are the places of each person's images.
///
/// # Errors
///
/// [`IngestError::Options`] if `n_pairs` is no multiple of 20, [`ExportError::TooFewPairs`].
pub fn draw(people: &[Range<usize>], n_pairs: u64, seed: u64) -> Result<Vec<Pair>, IngestError> {
    if n_pairs == 0 || !n_pairs.is_multiple_of(2 * FOLDS) {
        return Err(IngestError::Options {
            what: format!("{n_pairs} pairs cannot be split evenly into {FOLDS} folds"),
            hint: "give --pairs a multiple of 20".into(),
        });
    }
    let per_fold = n_pairs / (2 * FOLDS);
    let groups = groups(people, seed);
    // A group that serves all folds must have pairs for all of them.
    let wanted = n_pairs / 2 / groups.len() as u64;
    let mut pairs = Vec::new();
    for (i, group) in (0..).zip(&groups) {
        let too_few = |sort, found| {
            let people = group.len();
            IngestError::from(ExportError::TooFewPairs { n_pairs, wanted, sort, people, found })
        };
        let found = n_same(group);
        if found < u128::from(wanted) {
            return Err(too_few("one person", found));
        }
        let found = n_different(group);
        if found < u128::from(wanted) {
            return Err(too_few("two people", found));
        }
        let same = same(group, wanted, key(&[seed, i, 1]));
        let different = different(group, wanted, key(&[seed, i, 2]));
        let fold = usize::try_from(per_fold).unwrap_or(usize::MAX);
        for (same, different) in same.chunks(fold).zip(different.chunks(fold)) {
            pairs.extend_from_slice(same);
            pairs.extend_from_slice(different);
        }
    }
    Ok(pairs)
}

type Group = Vec<Range<usize>>;

/// Ten groups of different people, or all of them as one.
fn groups(people: &[Range<usize>], seed: u64) -> Vec<Group> {
    let n = people.len() as u64;
    if n < 2 * FOLDS {
        return vec![people.to_vec()];
    }
    let order = Permutation::new(n, key(&[seed, 3]));
    let person = |i| people[order.apply(i) as usize].clone();
    (0..FOLDS).map(|f| (f * n / FOLDS..(f + 1) * n / FOLDS).map(person).collect()).collect()
}

/// Pairs of two images of one person that there are.
fn n_same(group: &[Range<usize>]) -> u128 {
    group.iter().map(|person| u128::from(n_pairs_of(person.len() as u64))).sum()
}

/// Pairs of images of two people that there are.
fn n_different(group: &[Range<usize>]) -> u128 {
    let n: u128 = group.iter().map(|person| person.len() as u128).sum();
    let squares: u128 = group.iter().map(|person| (person.len() as u128).pow(2)).sum();
    (n * n - squares) / 2
}

fn n_pairs_of(n: u64) -> u64 {
    // Far fewer than 2^32 images are of one person.
    n.saturating_mul(n.saturating_sub(1)) / 2
}

/// `wanted` different pairs of one person, which must exist.
fn same(group: &[Range<usize>], wanted: u64, seed: u64) -> Vec<Pair> {
    let mut pairs = Vec::new();
    let n = group.len() as u64;
    let order = Permutation::new(n, seed);
    let person = |i| &group[order.apply(i) as usize];
    let mut going: Vec<u64> = (0..n).collect();
    for round in 0.. {
        going.retain(|&i| n_pairs_of(person(i).len() as u64) > round);
        for &i in &going {
            if pairs.len() as u64 == wanted {
                return pairs;
            }
            let images = person(i);
            let n_pairs = n_pairs_of(images.len() as u64);
            let (a, b) = pair_of(Permutation::new(n_pairs, key(&[seed, i])).apply(round));
            let place = |image: u64| images.start + image as usize;
            pairs.push(Pair { left: place(a), right: place(b), same: true });
        }
        if going.is_empty() {
            break;
        }
    }
    pairs
}

/// Pair `k` of those with a below b, ordered by b and then a.
fn pair_of(k: u64) -> (u64, u64) {
    let b = ((1 + 8 * u128::from(k)).isqrt() as u64).div_ceil(2);
    (k - b * (b - 1) / 2, b)
}

/// `wanted` different pairs of two people, which must exist.
fn different(group: &[Range<usize>], wanted: u64, seed: u64) -> Vec<Pair> {
    let mut pairs = Vec::new();
    let n_people = n_pairs_of(group.len() as u64);
    let order = Permutation::new(n_people, seed);
    for round in 0.. {
        let before = pairs.len();
        for i in 0..n_people {
            if pairs.len() as u64 == wanted {
                return pairs;
            }
            let k = order.apply(i);
            let (one, two) = pair_of(k);
            let (one, two) = (&group[one as usize], &group[two as usize]);
            let n_images = (one.len() as u64).saturating_mul(two.len() as u64);
            if round < n_images {
                let image = Permutation::new(n_images, key(&[seed, k])).apply(round);
                let (a, b) = (image / two.len() as u64, image % two.len() as u64);
                let (left, right) = (one.start + a as usize, two.start + b as usize);
                pairs.push(Pair { left, right, same: false });
            }
        }
        if pairs.len() == before {
            break;
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    /// People with so many images each.
    fn people(sizes: &[usize]) -> Group {
        let ends = sizes.iter().scan(0, |end, size| {
            *end += size;
            Some(*end - size..*end)
        });
        ends.collect()
    }

    fn person_of(people: &[Range<usize>], place: usize) -> usize {
        people.iter().position(|person| person.contains(&place)).unwrap()
    }

    #[track_caller]
    fn check(sizes: &[usize], n_pairs: u64) -> Vec<Pair> {
        let people = people(sizes);
        let pairs = draw(&people, n_pairs, 5).unwrap();
        assert_eq!(pairs.len() as u64, n_pairs);
        let half = n_pairs / 20;
        for (i, pair) in (0..).zip(&pairs) {
            assert_eq!(pair.same, i % (2 * half) < half, "pair {i}");
            let is_same = person_of(&people, pair.left) == person_of(&people, pair.right);
            assert_eq!(pair.same, is_same, "pair {i}");
            assert_ne!(pair.left, pair.right, "pair {i}");
        }
        let unordered = pairs.iter().map(|p| (p.left.min(p.right), p.left.max(p.right)));
        assert_eq!(unordered.collect::<BTreeSet<_>>().len(), pairs.len(), "a pair comes twice");
        pairs
    }

    #[test]
    fn nobody_is_in_two_folds_when_there_are_enough_people() {
        let sizes = [6; 25];
        let pairs = check(&sizes, 200);
        let people = people(&sizes);
        let mut homes = BTreeMap::new();
        for (i, pair) in pairs.iter().enumerate() {
            for place in [pair.left, pair.right] {
                let person = person_of(&people, place);
                assert_eq!(*homes.entry(person).or_insert(i / 20), i / 20, "person {person}");
            }
        }
    }

    #[test]
    fn few_people_are_shared_by_all_folds() {
        check(&[8, 3, 1, 9], 40);
    }

    #[test]
    fn every_pair_there_is_can_be_had() {
        // 10 pairs of one person: 4·3/2 + 3·2/2 + 2·1/2; of two 4·3 + 4·2 + 3·2 = 26.
        check(&[4, 3, 2], 20);
    }

    #[test]
    fn someone_with_many_images_does_not_fill_the_list() {
        let mut sizes = vec![3; 19];
        sizes.push(500);
        let pairs = check(&sizes, 40);
        let of_last = pairs.iter().filter(|pair| pair.same && pair.left >= 57).count();
        assert!(of_last <= 2, "{of_last}");
    }

    #[test]
    fn another_seed_gives_other_pairs_and_the_same_seed_the_same() {
        let people = people(&[5; 40]);
        let draw = |seed| draw(&people, 100, seed).unwrap();
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn more_pairs_than_there_are_is_an_error_that_says_how_many_there_are() {
        let refused = |sizes: &[usize], n| draw(&people(sizes), n, 0).unwrap_err().to_string();
        assert_eq!(
            refused(&[4, 3, 2], 40),
            "40 pairs ask for 20 of one person in a group of 3 people, which has 10"
        );
        assert_eq!(
            refused(&[9], 20),
            "20 pairs ask for 10 of two people in a group of 1 people, which has 0"
        );
        assert_eq!(refused(&[9], 30), "30 pairs cannot be split evenly into 10 folds");
    }

    #[test]
    fn pairs_are_numbered_without_gaps() {
        let all: Vec<_> = (0..6).map(pair_of).collect();
        assert_eq!(all, [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]);
        assert_eq!(pair_of(n_pairs_of(u32::MAX.into()) - 1).1, u64::from(u32::MAX) - 1);
    }
}

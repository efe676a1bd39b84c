//! A list of verification pairs in the format of LFW's `pairs.txt`.
//!
//! First line: number of folds, and of pairs of each sort per fold. Then, fold after fold, the pairs
//! of one person (`NAME i j`) and those of two (`NAME i OTHER j`), tab separated, images from 1.

use std::fmt::Write;

use pfc_shard::Permutation;

use crate::SynthError;

/// Folds of the list, as LFW has them.
pub const FOLDS: u64 = 10;

/// Someone to make pairs of: a name and the numbers of the usable images, from 0.
#[derive(Debug, Clone)]
pub struct Person {
    pub name: String,
    pub images: Vec<u64>,
}

/// One picture: index of the person, number of the image.
type Picture<'a> = (&'a Person, u64);

/// The text of a list of `n_pairs` different pairs, half of them of one person.
///
/// With at least 20 people each fold has people of its own, as in LFW; with fewer they share them.
///
/// # Errors
///
/// [`SynthError::Arguments`] if `n_pairs` is no multiple of 20 or there are too few pictures.
pub fn list(people: &[Person], n_pairs: u64, seed: u64) -> Result<String, SynthError> {
    let refuse = |what, hint| Err(SynthError::Arguments { what, hint });
    if n_pairs == 0 || !n_pairs.is_multiple_of(2 * FOLDS) {
        let what = format!("{n_pairs} pairs cannot be split evenly into {FOLDS} folds");
        return refuse(what, "give --pairs a multiple of 20");
    }
    let per_fold = n_pairs / (2 * FOLDS);
    let groups = groups(people, seed);
    // A group that serves all folds must have pairs for all of them.
    let per_group = n_pairs / 2 / groups.len() as u64;
    let mut folds = Vec::new();
    for (i, group) in groups.iter().enumerate() {
        let same = same(group, pfc_random::key(&[seed, i as u64, 1]));
        let different = different(group, pfc_random::key(&[seed, i as u64, 2]));
        let pairs: Vec<_> = same.take(per_group as usize).collect();
        let others: Vec<_> = different.take(per_group as usize).collect();
        let found = pairs.len().min(others.len()) as u64;
        if found < per_group {
            let what = format!(
                "{n_pairs} pairs ask for {per_group} of one person and {per_group} of two in each \
                 group of {} identities, which have {found}",
                group.len()
            );
            return refuse(what, "ask for fewer pairs, or make more identities or images of each");
        }
        let fold = per_fold as usize;
        folds.extend(
            pairs.chunks(fold).map(<[_]>::to_vec).zip(others.chunks(fold).map(<[_]>::to_vec)),
        );
    }
    Ok(text(&folds, per_fold))
}

/// Ten groups of different people, or all of them as one.
fn groups(people: &[Person], seed: u64) -> Vec<Vec<&Person>> {
    let n = people.len() as u64;
    if n < 2 * FOLDS {
        return vec![people.iter().collect()];
    }
    let order = Permutation::new(n, pfc_random::key(&[seed, 3]));
    let person = |i| &people[order.apply(i) as usize];
    (0..FOLDS).map(|f| (f * n / FOLDS..(f + 1) * n / FOLDS).map(person).collect()).collect()
}

/// All pairs of two pictures of one person, in random order.
fn same<'a>(group: &[&'a Person], key: u64) -> impl Iterator<Item = (Picture<'a>, Picture<'a>)> {
    let mut pairs = Vec::new();
    for &person in group {
        for (i, &first) in person.images.iter().enumerate() {
            pairs.extend(person.images[i + 1..].iter().map(|&second| (person, first, second)));
        }
    }
    let order = Permutation::new(pairs.len() as u64, key);
    (0..pairs.len() as u64).map(move |i| {
        let (person, first, second) = pairs[order.apply(i) as usize];
        ((person, first), (person, second))
    })
}

/// All pairs of pictures of two people, in random order; drawn as they are asked for.
fn different<'a>(
    group: &[&'a Person],
    key: u64,
) -> impl Iterator<Item = (Picture<'a>, Picture<'a>)> {
    let pictures: Vec<(usize, Picture<'a>)> = group
        .iter()
        .enumerate()
        .flat_map(|(i, &person)| person.images.iter().map(move |&image| (i, (person, image))))
        .collect();
    let n = pictures.len() as u64;
    let order = Permutation::new(n * n, key);
    (0..n * n).filter_map(move |i| {
        let place = order.apply(i);
        let (a, b) = (pictures[(place / n) as usize], pictures[(place % n) as usize]);
        // Each pair of people in one order only, so that no pair comes twice.
        (a.0 < b.0).then_some((a.1, b.1))
    })
}

type Pairs<'a> = Vec<(Picture<'a>, Picture<'a>)>;

fn text(folds: &[(Pairs<'_>, Pairs<'_>)], per_fold: u64) -> String {
    let mut text = format!("{FOLDS}\t{per_fold}\n");
    for (same, different) in folds {
        for ((person, a), (_, b)) in same {
            let _ = writeln!(text, "{}\t{}\t{}", person.name, a + 1, b + 1);
        }
        for ((one, a), (two, b)) in different {
            let _ = writeln!(text, "{}\t{}\t{}\t{}", one.name, a + 1, two.name, b + 1);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn people(n: usize, images: u64) -> Vec<Person> {
        let person = |i| Person { name: format!("p{i:03}"), images: (0..images).collect() };
        (0..n).map(person).collect()
    }

    #[track_caller]
    fn check(n: usize, images: u64, n_pairs: u64) -> Vec<Vec<String>> {
        let text = list(&people(n, images), n_pairs, 5).unwrap();
        let mut lines = text.lines().map(|l| l.split('\t').map(str::to_owned).collect::<Vec<_>>());
        let half = n_pairs / 20;
        assert_eq!(lines.next().unwrap(), ["10".to_owned(), half.to_string()]);
        let lines: Vec<_> = lines.collect();
        assert_eq!(lines.len() as u64, n_pairs);
        for (i, line) in lines.iter().enumerate() {
            let is_same = (i as u64 % (2 * half)) < half;
            assert_eq!(line.len(), if is_same { 3 } else { 4 }, "line {i}");
        }
        assert_eq!(lines.iter().collect::<BTreeSet<_>>().len(), lines.len(), "a pair comes twice");
        lines
    }

    #[test]
    fn folds_have_people_of_their_own_when_there_are_enough() {
        let lines = check(25, 6, 200);
        let mut homes = std::collections::BTreeMap::new();
        for (i, line) in lines.iter().enumerate() {
            for name in line.iter().filter(|word| word.starts_with('p')) {
                assert_eq!(*homes.entry(name.clone()).or_insert(i / 20), i / 20, "{name}");
            }
        }
    }

    #[test]
    fn few_people_are_shared_by_all_folds() {
        check(3, 8, 60);
    }

    #[test]
    fn more_pairs_than_pictures_allow_is_an_error_that_says_how_many_there_are() {
        let error = list(&people(20, 2), 60, 0).unwrap_err();
        // A group of two people with two images each has two pairs of one person.
        assert!(error.to_string().ends_with("2 identities, which have 2"), "{error}");
        assert!(list(&people(20, 5), 30, 0).is_err());
    }
}

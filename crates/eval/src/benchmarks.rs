//! What the sets of the LFW family hold, from `data/protocols/verification.toml`.

use std::{collections::BTreeMap, fmt};

use pfc_verify::PairsSet;
use serde::Deserialize;

const FACTS: &str = include_str!("../../../data/protocols/verification.toml");

/// A published benchmark.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Benchmark {
    /// What papers call it.
    pub title: String,
    /// Its lists.
    pub lists: Vec<ListFacts>,
}

/// Counts of one list; those that are not known are left out.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListFacts {
    /// What it is called.
    pub name: String,
    /// Pairs in all.
    pub pairs: u64,
    /// Pairs of one person.
    pub genuine: u64,
    /// Different images.
    pub images: Option<u64>,
    /// Different people.
    pub people: Option<u64>,
}

/// How a set differs from what was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    title: String,
    expected: Vec<ListFacts>,
    pairs: u64,
    genuine: u64,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mismatch { title, expected, pairs, genuine } = self;
        write!(f, "{pairs} pairs, {genuine} of them genuine, but {title} has ")?;
        for (i, list) in expected.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{} with {} in {}", list.pairs, list.genuine, list.name)?;
        }
        write!(f, ": an incomplete or another list, not comparable with published figures")
    }
}

/// The facts of a command's benchmark; `None` for a command that takes any set.
pub fn benchmark(command: &str) -> Option<Benchmark> {
    let mut all: BTreeMap<String, Benchmark> =
        toml::from_str(FACTS).expect("the file is part of the program, and a test reads it");
    all.remove(command)
}

/// Compares a set with the benchmark of a command.
///
/// # Errors
///
/// [`Mismatch`] if no list of the benchmark has the counts of `set`.
pub fn check(command: &str, set: &PairsSet) -> Result<(), Mismatch> {
    let Some(benchmark) = benchmark(command) else { return Ok(()) };
    let pairs = set.n_pairs() as u64;
    let genuine = set.pairs().iter().filter(|pair| pair.same).count() as u64;
    if benchmark.lists.iter().any(|list| list.pairs == pairs && list.genuine == genuine) {
        return Ok(());
    }
    Err(Mismatch { title: benchmark.title, expected: benchmark.lists, pairs, genuine })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_with_a_benchmark_knows_its_counts() {
        for command in ["lfw", "cfp-fp", "cfp-ff", "agedb", "calfw", "cplfw"] {
            let benchmark = benchmark(command).unwrap();
            assert!(benchmark.lists.iter().all(|l| l.genuine * 2 == l.pairs), "{command}");
        }
        assert_eq!(benchmark("pairs"), None);
    }

    #[test]
    fn a_mismatch_says_what_was_expected() {
        let lists = benchmark("agedb").unwrap().lists;
        let mismatch =
            Mismatch { title: "AgeDB-30".into(), expected: lists, pairs: 5990, genuine: 2995 };
        assert_eq!(
            mismatch.to_string(),
            "5990 pairs, 2995 of them genuine, but AgeDB-30 has 6000 with 3000 in the 30-year protocol: \
             an incomplete or another list, not comparable with published figures"
        );
    }
}

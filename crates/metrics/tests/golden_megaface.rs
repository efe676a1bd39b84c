//! Every case of `golden/megaface`: devkit files, ranks and rates from brute force in f64.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // helpers of tests may

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use pfc_metrics::{
    Rows,
    megaface::{Matcher, Matches},
    roc::Far,
};
use safetensors::SafeTensors;
use serde_json::Value;

/// Distances come from f64 both here and there; squares of f32 features lose half the digits.
const DISTANCE_TOLERANCE: f64 = 1e-7;
/// The noisy probes of the cleaned set carry noise of ±0.001, but the file holds their features.
const SHARE_TOLERANCE: f64 = 1e-12;

struct Case {
    expected: Value,
    probe_paths: Vec<String>,
    identities: Vec<u32>,
    distractor_paths: Vec<String>,
    /// Features by state ("raw", "clean"): dim, probes, distractors in list order.
    features: HashMap<&'static str, (usize, Vec<f32>, Vec<f32>)>,
    folder: PathBuf,
}

/// The folder of the case, if it is whole.
fn folder() -> Option<PathBuf> {
    let folder = pfc_testing::golden("megaface")?;
    let parts = [
        "expected.json",
        "feature_out",
        "feature_out_clean.safetensors",
        "templatelists",
        "data",
        "pairs.safetensors",
    ];
    parts.iter().all(|part| pfc_testing::is_known(&folder.join(part))).then_some(folder)
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()).collect()
}

fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

fn words<T>(tensors: &SafeTensors, name: &str, word: impl Fn([u8; 4]) -> T) -> Vec<T> {
    let data = tensors.tensor(name).unwrap().data().as_chunks().0.to_vec();
    data.into_iter().map(word).collect()
}

impl Case {
    fn read(folder: &Path) -> Case {
        let expected = json(&folder.join("expected.json"));
        let algorithm = expected["algo"].as_str().unwrap().to_owned();
        let probes = json(&folder.join("templatelists/facescrub_features_list.json"));
        let probe_paths = strings(&probes["path"]);
        let ids = strings_or_numbers(&probes["id"]);
        let mut numbers = HashMap::new();
        let identities = ids
            .into_iter()
            .map(|id| {
                let next = numbers.len() as u32;
                *numbers.entry(id).or_insert(next)
            })
            .collect();
        let distractor_paths = lines(&folder.join("data/megaface_lst"));
        let read = |set: &str, paths: &[String]| -> Vec<f32> {
            let file = |path: &String| {
                let name = format!("feature_out/{set}/{path}_{algorithm}.bin");
                let bytes = std::fs::read(folder.join(name)).unwrap();
                let numbers = bytes[16..].as_chunks().0.to_vec();
                numbers.into_iter().map(f32::from_le_bytes)
            };
            paths.iter().flat_map(file).collect()
        };
        let dim = expected["dim"].as_u64().unwrap() as usize;
        let raw = (dim, read("facescrub", &probe_paths), read("megaface", &distractor_paths));
        let bytes = std::fs::read(folder.join("feature_out_clean.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let clean_list = lines(&folder.join("data/facescrub_lst"));
        assert_eq!(clean_list, probe_paths, "rows of the cleaned file are in list order");
        let clean = (
            dim + 1,
            words(&tensors, "facescrub", f32::from_le_bytes),
            words(&tensors, "megaface", f32::from_le_bytes),
        );
        let features = HashMap::from([("raw", raw), ("clean", clean)]);
        let folder = folder.to_owned();
        Case { expected, probe_paths, identities, distractor_paths, features, folder }
    }

    /// Distractor rows of the list of `size`, gathered.
    fn gallery(&self, state: &str, size: &str) -> Vec<f32> {
        let name = format!("templatelists/megaface_features_list.json_{size}_1");
        let row: HashMap<&str, usize> =
            self.distractor_paths.iter().enumerate().map(|(i, p)| (p.as_str(), i)).collect();
        let (dim, _, rows) = &self.features[state];
        let paths = strings(&json(&self.folder.join(name))["path"]);
        paths.iter().flat_map(|p| &rows[row[p.as_str()] * dim..][..*dim]).copied().collect()
    }

    fn run(&self, state: &str, size: &str, reversed: bool) -> Matches {
        let (dim, probes, _) = &self.features[state];
        let mut gallery = self.gallery(state, size);
        if reversed {
            gallery = gallery.chunks(*dim).rev().flatten().copied().collect();
        }
        let n_nearest = self.identities.len() * gallery.len() / dim / 50;
        let rows = Rows::new(probes, *dim).unwrap();
        let mut matcher = Matcher::new(rows, &self.identities, n_nearest).unwrap();
        for piece in gallery.chunks(dim * if reversed { 77 } else { 4096 }) {
            matcher.add(Rows::new(piece, *dim).unwrap()).unwrap();
        }
        matcher.finish()
    }
}

fn strings_or_numbers(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(Value::to_string).collect()
}

fn check_shares(ours: &[f64], theirs: &Value, what: &str) {
    let theirs = theirs.as_array().unwrap();
    assert_eq!(ours.len(), theirs.len());
    for (rank, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        let gap = (ours - theirs.as_f64().unwrap()).abs();
        assert!(gap < SHARE_TOLERANCE, "{what}, rank {}: {ours} is not {theirs}", rank + 1);
    }
}

fn check(matches: &Matches, expected: &Value, what: &str) {
    assert_eq!(Some(matches.pairs.len() as u64), expected["pairs"].as_u64(), "{what}");
    assert_eq!(Some(matches.n_negatives()), expected["negatives"].as_u64(), "{what}");
    let hits = matches.pairs.iter().filter(|pair| pair.rank == 0).count() as u64;
    assert_eq!(Some(hits), expected["rank1_hits"].as_u64(), "{what}");
    let n_ranks = expected["cmc"].as_array().unwrap().len();
    check_shares(&matches.cmc(n_ranks), &expected["cmc"], what);
    let best = &expected["cmc_of_each_probes_best_mate"];
    check_shares(&matches.cmc_of_best_mates(best.as_array().unwrap().len()), best, what);
    for row in expected["tar_at_far"].as_array().unwrap() {
        let far = row["far"].as_f64().unwrap();
        let ours = matches.tar_at_far(Far::new(far).unwrap()).unwrap();
        assert_eq!(Some(ours.allowed), row["false_accepts_allowed"].as_u64(), "{what} {far:e}");
        let threshold = row["distance_threshold"].as_f64().unwrap();
        assert!((ours.threshold - threshold).abs() < DISTANCE_TOLERANCE, "{what} {far:e}");
        let tar = row["tar"].as_f64().unwrap();
        assert!((ours.tar - tar).abs() < SHARE_TOLERANCE, "{what} {far:e}: {} {tar}", ours.tar);
    }
}

#[test]
fn golden_megaface_ranks_and_rates_are_met_for_all_sizes() {
    let Some(folder) = folder() else { return };
    let case = Case::read(&folder);
    for (name, expected) in case.expected["results"].as_object().unwrap() {
        let (state, size) = name.split_once('_').unwrap();
        let matches = case.run(state, size, false);
        check(&matches, expected, name);
        assert_eq!(case.run(state, size, true), matches, "{name}: order of distractors");
    }
}

#[test]
fn golden_megaface_rank_and_distance_of_every_pair_are_met() {
    let Some(folder) = folder() else { return };
    let case = Case::read(&folder);
    let bytes = std::fs::read(folder.join("pairs.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let all = case.distractor_paths.len().to_string();
    for state in ["raw", "clean"] {
        let matches = case.run(state, &all, false);
        let ranks = words(&tensors, &format!("{state}.ranks"), i32::from_le_bytes);
        let data = tensors.tensor(&format!("{state}.mate_distances")).unwrap();
        let distances = data.data().as_chunks().0.to_vec();
        assert_eq!(matches.pairs.len(), ranks.len());
        for ((pair, rank), distance) in matches.pairs.iter().zip(ranks).zip(distances) {
            let path = &case.probe_paths[pair.probe as usize];
            assert_eq!(pair.rank as i32, rank, "{state} {path}: {pair:?}");
            let gap = (pair.distance - f64::from_le_bytes(distance)).abs();
            assert!(gap < DISTANCE_TOLERANCE, "{state} {path}: {pair:?}");
        }
    }
}

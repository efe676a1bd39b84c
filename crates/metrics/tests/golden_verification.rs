//! Every case of `golden/verification`, made by running insightface's `eval/verification.py`.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // helpers of tests may

use std::path::{Path, PathBuf};

use pfc_metrics::{
    roc::Far,
    verification::{
        Accuracies, fuse_mirrored, norm, squared_distance, ten_fold, ten_fold_pca, val_at_far,
    },
};
use safetensors::SafeTensors;
use serde_json::Value;

/// Thresholds are grid points or interpolated between two: the reference's own rounding.
const THRESHOLD_TOLERANCE: f64 = 1e-9;
/// Relative, for the mean norm, which the reference sums in f32.
const XNORM_TOLERANCE: f64 = 1e-6;
/// Means and deviations of exact figures, summed in another order.
const ROUNDING: f64 = 1e-12;

fn golden_cases() -> Vec<PathBuf> {
    let mut cases = pfc_testing::golden_cases("verification", |path| {
        pfc_testing::has_extension(path, "safetensors")
    });
    cases.retain(|case| pfc_testing::is_known(&case.with_extension("json")));
    cases
}

struct Case {
    name: String,
    expected: Value,
    dim: usize,
    embeddings: Vec<f32>,
    mirrored: Vec<f32>,
    same: Vec<bool>,
    curves: [Vec<f64>; 4],
    distance: Vec<f64>,
}

impl Case {
    fn read(path: &Path) -> Case {
        let bytes = std::fs::read(path).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let json = std::fs::read(path.with_extension("json")).unwrap();
        let f32s = |name| words(&tensors, name).map(f32::from_le_bytes).collect();
        let f64s = |name| words(&tensors, name).map(f64::from_le_bytes).collect();
        Case {
            name: path.file_stem().unwrap().to_string_lossy().into_owned(),
            expected: serde_json::from_slice(&json).unwrap(),
            dim: tensors.tensor("embeddings").unwrap().shape()[1],
            embeddings: f32s("embeddings"),
            mirrored: f32s("embeddings_flip"),
            same: tensors.tensor("issame").unwrap().data().iter().map(|&b| b != 0).collect(),
            curves: ["tpr", "fpr", "pca.tpr", "pca.fpr"].map(f64s),
            distance: f64s("distance"),
        }
    }

    fn sides(&self) -> Vec<f64> {
        fuse_mirrored(&self.embeddings, &self.mirrored, self.dim).unwrap()
    }

    fn distances(&self) -> Vec<f64> {
        let pair = |rows: &[f64]| squared_distance(&rows[..self.dim], &rows[self.dim..]);
        self.sides().chunks_exact(2 * self.dim).map(pair).collect()
    }

    #[track_caller]
    fn check_accuracies(&self, key: &str, ours: &Accuracies, curves: &[Vec<f64>]) {
        let theirs = &self.expected[key];
        let folds = theirs["folds"].as_array().unwrap();
        assert_eq!(ours.folds.len(), folds.len(), "{} {key}", self.name);
        for (i, (ours, theirs)) in ours.folds.iter().zip(folds).enumerate() {
            let place = format!("{} {key} fold {i}", self.name);
            assert_eq!(ours.accuracy, number(&theirs["accuracy"]), "{place}");
            close(ours.threshold, number(&theirs["best_threshold"]), THRESHOLD_TOLERANCE, &place);
        }
        close(ours.mean, number(&theirs["accuracy_mean"]), ROUNDING, &self.name);
        close(ours.std, number(&theirs["accuracy_std"]), ROUNDING, &self.name);
        for (ours, theirs) in [(&ours.tpr, &curves[0]), (&ours.fpr, &curves[1])] {
            assert_eq!(ours.len(), theirs.len());
            ours.iter().zip(theirs).for_each(|(a, b)| close(*a, *b, ROUNDING, &self.name));
        }
    }
}

/// The little-endian words of a tensor.
fn words<'a, const N: usize>(
    tensors: &'a SafeTensors,
    name: &str,
) -> impl Iterator<Item = [u8; N]> + 'a {
    let data = tensors.tensor(name).unwrap().data();
    data.chunks_exact(N).map(|word| word.try_into().unwrap())
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[track_caller]
fn close(ours: f64, theirs: f64, tolerance: f64, place: &str) {
    assert!((ours - theirs).abs() <= tolerance, "{place}: {ours} is not {theirs}");
}

#[test]
fn golden_accuracies_and_thresholds_are_those_of_the_reference() {
    for path in golden_cases() {
        let case = Case::read(&path);
        let distances = case.distances();
        for (ours, theirs) in distances.iter().zip(&case.distance) {
            close(*ours, *theirs, ROUNDING, &case.name);
        }
        let ours = ten_fold(&distances, &case.same, None).unwrap();
        case.check_accuracies("plain", &ours, &case.curves[..2]);
    }
}

#[test]
fn golden_accuracies_after_pca_are_those_of_the_exact_solver() {
    for path in golden_cases() {
        let case = Case::read(&path);
        let components = case.expected["pca_components"].as_u64().unwrap() as usize;
        let ours = ten_fold_pca(&case.sides(), case.dim, &case.same, components).unwrap();
        case.check_accuracies("pca", &ours, &case.curves[2..]);
    }
}

#[test]
fn golden_val_at_far_is_that_of_the_reference() {
    for path in golden_cases() {
        let case = Case::read(&path);
        let ours =
            val_at_far(&case.distances(), &case.same, Far::new(1e-3).unwrap(), None).unwrap();
        let theirs = &case.expected["plain"];
        for (i, (ours, theirs)) in
            ours.folds.iter().zip(theirs["folds"].as_array().unwrap()).enumerate()
        {
            let place = format!("{} fold {i}", case.name);
            close(ours.threshold, number(&theirs["val_threshold"]), THRESHOLD_TOLERANCE, &place);
            close(ours.val.unwrap(), number(&theirs["val"]), ROUNDING, &place);
            close(ours.far.unwrap(), number(&theirs["far"]), ROUNDING, &place);
        }
        close(ours.mean, number(&theirs["val"]), ROUNDING, &case.name);
        close(ours.std, number(&theirs["val_std"]), ROUNDING, &case.name);
        close(ours.far, number(&theirs["far"]), ROUNDING, &case.name);
    }
}

#[test]
fn golden_mean_norms_are_those_of_the_reference() {
    for path in golden_cases() {
        let case = Case::read(&path);
        let rows = case.embeddings.chunks_exact(case.dim);
        let norms: Vec<f64> = rows.chain(case.mirrored.chunks_exact(case.dim)).map(norm).collect();
        let ours = norms.iter().sum::<f64>() / norms.len() as f64;
        let theirs = number(&case.expected["plain"]["xnorm"]);
        close(ours, theirs, XNORM_TOLERANCE * theirs, &case.name);
    }
}

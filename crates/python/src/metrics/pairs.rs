//! Pairs: LFW's protocol, as `pfc-verify` judges it.

// P = pairs, D = embedding.

use std::collections::HashMap;

use numpy::{PyReadonlyArray1, PyReadonlyArray2};
use pfc_metrics::{
    MetricError,
    bootstrap::{Interval, People, intervals_until},
    roc::{Far, Ranking, TarAtFar},
    union::Union,
    verification::{Accuracies, ValAtFar, k_fold, k_fold_val, squared_distance},
};
use pyo3::{prelude::*, types::PyDict};

use super::{Resampling, dict, ends, fars, list};
use crate::{failure::Failure, work::interruptible};

/// FAR of the reference's VAL figure.
const VAL_FAR: f64 = 1e-3;

/// Judges pairs of embeddings.
///
/// * `left`, `right`: `[P, D]`, of any norm
/// * `same`: `[P]`
/// * `people`: `[P, 2]` who the two are, numbered from 0 without gaps, or nothing
/// * `n_folds`: 1 judges all pairs by the threshold that is best on them
#[pyfunction]
#[allow(clippy::too_many_arguments)]
pub fn verification<'py>(
    py: Python<'py>,
    left: PyReadonlyArray2<'py, f64>,
    right: PyReadonlyArray2<'py, f64>,
    same: PyReadonlyArray1<'py, bool>,
    people: Option<PyReadonlyArray2<'py, u32>>,
    n_folds: usize,
    rates: Vec<f64>,
    resampling: Resampling,
) -> PyResult<Bound<'py, PyDict>> {
    let dim = left.as_array().ncols();
    let (left, right, same) = (left.as_slice()?, right.as_slice()?, same.as_slice()?);
    let people = people.as_ref().map(PyReadonlyArray2::as_slice).transpose()?;
    let fars = fars(&rates).map_err(Failure::from)?;
    let bootstrap = resampling.bootstrap()?;
    let judged = interruptible(py, |stop| {
        let (left, right) = (unit_rows("a", left, dim)?, unit_rows("b", right, dim)?);
        let rows = || left.chunks_exact(dim).zip(right.chunks_exact(dim));
        let distances: Vec<f64> = rows().map(|(a, b)| squared_distance(a, b)).collect();
        let (people, n_people) = match people {
            Some(people) => numbered(people),
            None => linked(rows(), same),
        };
        let pairs = Pairs { distances, same: same.to_vec(), people, n_people, n_folds };
        let figures = pairs.figures(&fars)?;
        let spread = |weights: &[u64]| pairs.spread(&figures.ranking, &fars, weights);
        let (n_people, is_over) = (pairs.n_people, || stop.is_set());
        let intervals = intervals_until(&bootstrap, n_people, &pairs.people, spread, &is_over);
        stop.check()?;
        Ok(Judged { figures, intervals, pairs })
    })?;
    judged.told(py, &fars)
}

/// What is judged.
struct Pairs {
    /// `[P]`, squared L2 distance of unit embeddings, in `[0, 4]`.
    distances: Vec<f64>,
    same: Vec<bool>,
    people: Vec<People>,
    n_people: u32,
    n_folds: usize,
}

struct Figures {
    ranking: Ranking,
    accuracy: Accuracy,
    /// Of folds with both classes only.
    val: Option<ValAtFar>,
    auc: Option<f64>,
    eer: Option<f64>,
    /// `None` where the pairs cannot tell.
    tars: Vec<Option<TarAtFar>>,
}

enum Accuracy {
    Folds(Accuracies),
    /// Accuracy and threshold.
    Single(f64, f64),
}

struct Judged {
    figures: Figures,
    /// As [`Pairs::spread`] orders them; none without a bootstrap.
    intervals: Vec<Option<Interval>>,
    pairs: Pairs,
}

impl Pairs {
    fn figures(&self, fars: &[Far]) -> Result<Figures, MetricError> {
        let Pairs { distances, same, .. } = self;
        let ranking = Ranking::new(&distances.iter().map(|d| -d).collect::<Vec<f64>>(), same)?;
        let accuracy = match self.n_folds {
            1 => {
                let best = ranking.best_accuracy(None)?;
                Accuracy::Single(best.accuracy, -best.threshold)
            }
            n_folds => Accuracy::Folds(k_fold(distances, same, n_folds, None)?),
        };
        let (n_genuine, n_impostor) = ranking.counts();
        let has_val = self.n_folds > 1 && n_genuine > 0 && n_impostor > 0;
        let val = has_val.then(|| k_fold_val(distances, same, val_far(), self.n_folds, None));
        let tars = fars.iter().map(|&far| measured(ranking.tar_at_far(far, None)));
        Ok(Figures {
            accuracy,
            val: val.transpose()?,
            auc: measured(ranking.auc(None))?,
            eer: measured(ranking.eer(None))?,
            tars: tars.collect::<Result<_, _>>()?,
            ranking,
        })
    }

    /// The figures that have intervals, for pairs that count as often as `weights` says: accuracy, AUC,
    /// EER, VAL, and TAR at each FAR. NaN where one is undefined.
    fn spread(&self, ranking: &Ranking, fars: &[Far], weights: &[u64]) -> Vec<f64> {
        let Pairs { distances, same, n_folds, .. } = self;
        let weights = Some(weights);
        let accuracy = match *n_folds {
            1 => ranking.best_accuracy(weights).map(|best| best.accuracy),
            n_folds => k_fold(distances, same, n_folds, weights).map(|all| all.mean),
        };
        let val = k_fold_val(distances, same, val_far(), *n_folds, weights).map(|all| all.mean);
        let tars = fars.iter().map(|&far| ranking.tar_at_far(far, weights).map(|at| at.tar));
        [accuracy, ranking.auc(weights), ranking.eer(weights), val]
            .into_iter()
            .chain(tars)
            .map(|figure| figure.unwrap_or(f64::NAN))
            .collect()
    }
}

impl Judged {
    fn told<'py>(&self, py: Python<'py>, fars: &[Far]) -> PyResult<Bound<'py, PyDict>> {
        let Judged { figures, intervals, pairs } = self;
        let interval = |i: usize| ends(intervals.get(i).copied().flatten());
        let figure = |value: Option<f64>, i: usize| value.map(|value| (value, interval(i)));
        let (mean, std, threshold, folds) = match &figures.accuracy {
            Accuracy::Single(accuracy, threshold) => (*accuracy, None, *threshold, Vec::new()),
            Accuracy::Folds(all) => {
                let folds: Vec<(f64, f64)> =
                    all.folds.iter().map(|fold| (fold.accuracy, fold.threshold)).collect();
                let sum: f64 = folds.iter().map(|(_, threshold)| threshold).sum();
                (all.mean, Some(all.std), sum / folds.len() as f64, folds)
            }
        };
        let (n_genuine, n_impostor) = figures.ranking.counts();
        let tars = fars.iter().zip(&figures.tars).enumerate();
        let tars = list(tars, |(i, (far, at))| {
            Ok(dict!(py,
                far: far.get(),
                tar: at.map(|at| at.tar),
                interval: at.and_then(|_| interval(4 + i)),
                threshold: at.map(|at| similarity(-at.threshold)),
                impostors_allowed: far.allowed(n_impostor),
            ))
        })?;
        Ok(dict!(py,
            pairs: pairs.distances.len(),
            genuine: n_genuine,
            impostor: n_impostor,
            people: pairs.n_people,
            accuracy: mean,
            accuracy_std: std,
            accuracy_interval: interval(0),
            threshold: threshold,
            folds: folds,
            val: figures.val.as_ref().map(|val| (val.mean, val.std, val.far, interval(3))),
            auc: figure(figures.auc, 1),
            eer: figure(figures.eer, 2),
            tar_at_far: tars,
            distances: numpy::PyArray1::from_slice(py, &pairs.distances),
        ))
    }
}

fn val_far() -> Far {
    Far::new(VAL_FAR).expect("1e-3 is between 0 and 1")
}

/// The cosine of two unit vectors from their squared distance: |a − b|² = 2 − 2·cos.
fn similarity(distance: f64) -> f64 {
    1.0 - distance / 2.0
}

/// Nothing where the pairs cannot give the figure.
fn measured<T>(figure: Result<T, MetricError>) -> Result<Option<T>, MetricError> {
    match figure {
        Ok(figure) => Ok(Some(figure)),
        Err(MetricError::OneClass { .. } | MetricError::TooFewImpostors { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The rows divided by their norms.
fn unit_rows(name: &str, rows: &[f64], dim: usize) -> Result<Vec<f64>, Failure> {
    if let Some(index) = rows.iter().position(|value| !value.is_finite()) {
        let value = rows[index];
        let error = MetricError::NotFinite { what: "embedding value", index, value };
        return Err(Failure::from(error).context(&format!("embeddings_{name}")));
    }
    let mut unit = rows.to_vec();
    for (i, row) in unit.chunks_exact_mut(dim.max(1)).enumerate() {
        let norm = row.iter().map(|v| v * v).sum::<f64>().sqrt();
        if norm == 0.0 {
            return Err(Failure::value(
                format!("row {i} of embeddings_{name} is all zeros and has no direction"),
                "leave pairs of such images out: they are failed detections as a rule",
            ));
        }
        row.iter_mut().for_each(|v| *v /= norm);
    }
    Ok(unit)
}

/// Pairs of people from the numbers of both, and how many there are.
fn numbered(people: &[u32]) -> (Vec<People>, u32) {
    let n_people = people.iter().max().map_or(0, |last| last + 1);
    (people.as_chunks().0.iter().map(|&[a, b]| (a, b)).collect(), n_people)
}

/// Equal embeddings are one image, and images of genuine pairs show one person, as `pfc-eval` takes it
/// for packs, which name nobody. People are numbered by their first image.
fn linked<'a>(
    rows: impl Iterator<Item = (&'a [f64], &'a [f64])>,
    same: &[bool],
) -> (Vec<People>, u32) {
    let mut index: HashMap<Vec<u64>, u32> = HashMap::new();
    let mut place = |row: &[f64]| {
        let n = index.len() as u32;
        *index.entry(row.iter().map(|v| v.to_bits()).collect()).or_insert(n)
    };
    let images: Vec<(u32, u32)> = rows.map(|(a, b)| (place(a), place(b))).collect();
    let mut union = Union::new(index.len());
    for (&(a, b), _) in images.iter().zip(same).filter(|(_, same)| **same) {
        let (a, b) = (union.leader(a as usize), union.leader(b as usize));
        union.join(a.max(b), a.min(b));
    }
    let mut numbers: HashMap<usize, u32> = HashMap::new();
    let mut people = Vec::with_capacity(index.len());
    for image in 0..index.len() {
        let n = numbers.len() as u32;
        people.push(*numbers.entry(union.leader(image)).or_insert(n));
    }
    let person = |image: u32| people[image as usize];
    let pairs = images.iter().map(|&(a, b)| (person(a), person(b))).collect();
    (pairs, numbers.len() as u32)
}

//! N:N: all pairs of a labelled set.

use numpy::{PyReadonlyArray1, PyReadonlyArray2};
use pfc_metrics::{
    Rows,
    bootstrap::{Bootstrap, Interval},
    nn::{AllPairs, Group, Labels, Rates, Tally, TarAt},
    roc::Far,
};
use pyo3::{prelude::*, types::PyDict};

use super::{Resampling, dict, ends, fars, list};
use crate::{
    failure::Failure,
    work::{Stop, interruptible},
};

/// Compares every face with every other.
///
/// * `features`: `[N, D]`, of any norm
/// * `identity`, `group`: `[N]`, numbered from 0 without gaps
///
/// Returns a dictionary per group, and one of all faces, whose group is `None`.
#[pyfunction]
pub fn nn<'py>(
    py: Python<'py>,
    features: PyReadonlyArray2<'py, f32>,
    identity: PyReadonlyArray1<'py, u32>,
    group: PyReadonlyArray1<'py, u32>,
    n_groups: u32,
    rates: Vec<f64>,
    resampling: Resampling,
) -> PyResult<Vec<Bound<'py, PyDict>>> {
    let dim = features.as_array().ncols();
    let (features, identity) = (features.as_slice()?, identity.as_slice()?);
    let labels = Labels { identity, group: group.as_slice()?, n_groups };
    let fars = fars(&rates).map_err(Failure::from)?;
    let bootstrap = resampling.bootstrap()?;
    let rows = interruptible(py, |stop| {
        let pairs = AllPairs::new(Rows::new(features, dim)?, labels)?;
        let rates = counted(&pairs, n_groups, &fars, stop)?;
        Ok(groups(n_groups).map(|group| row(&rates, group, &fars, &bootstrap)).collect::<Vec<_>>())
    })?;
    list(&rows, |row| row.told(py))
}

/// Counts until every threshold lies above the floor of the count.
fn counted(
    pairs: &AllPairs<'_>,
    n_groups: u32,
    fars: &[Far],
    stop: &Stop,
) -> Result<Rates, Failure> {
    let coarsest = fars.iter().map(|far| far.get()).fold(0.0, f64::max);
    let mut floor = pairs.suggest_floor(coarsest);
    loop {
        let mut tally = Tally::new(n_groups, floor);
        floor = tally.across.floor();
        while tally.n_bands < pairs.n_bands() {
            stop.check()?;
            pairs.count_band(&mut tally);
        }
        let rates = Rates::new(pairs, tally);
        if floor <= -1.0 || is_complete(&rates, n_groups, fars) {
            return Ok(rates);
        }
        floor = (floor - 0.1).max(-1.0);
    }
}

fn is_complete(rates: &Rates, n_groups: u32, fars: &[Far]) -> bool {
    groups(n_groups).all(|group| {
        let Group { n_genuine, n_impostors, .. } = rates.group(group);
        let is_read = |&far: &Far| rates.at(group, far).is_some();
        n_genuine == 0 || n_impostors == 0 || fars.iter().all(is_read)
    })
}

/// Each group, and all faces; a single group is all faces.
fn groups(n_groups: u32) -> impl Iterator<Item = Option<u32>> {
    (0..n_groups).filter(move |_| n_groups > 1).map(Some).chain([None])
}

struct Row {
    group: Option<u32>,
    sizes: Group,
    tars: Vec<(Far, Option<TarAt>, Option<Interval>)>,
}

fn row(rates: &Rates, group: Option<u32>, fars: &[Far], bootstrap: &Bootstrap) -> Row {
    let at: Vec<Option<TarAt>> = fars.iter().map(|&far| rates.at(group, far)).collect();
    let known: Vec<TarAt> = at.iter().flatten().copied().collect();
    let mut intervals = rates.intervals(group, &known, bootstrap).into_iter();
    let interval = |at: &Option<TarAt>| at.and_then(|_| intervals.next().flatten());
    let intervals: Vec<Option<Interval>> = at.iter().map(interval).collect();
    let tars = fars.iter().copied().zip(at).zip(intervals);
    let tars = tars.map(|((far, at), interval)| (far, at, interval)).collect();
    Row { group, sizes: rates.group(group), tars }
}

impl Row {
    fn told<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let tars = list(&self.tars, |(far, at, interval)| {
            Ok(dict!(py,
                far: far.get(),
                tar: at.map(|at| at.tar),
                interval: ends(*interval),
                threshold: at.map(|at| f64::from(at.threshold)),
                impostors_allowed: far.allowed(self.sizes.n_impostors),
            ))
        })?;
        Ok(dict!(py,
            group: self.group,
            faces: self.sizes.n_faces,
            people: self.sizes.n_identities,
            genuine: self.sizes.n_genuine,
            impostor: self.sizes.n_impostors,
            tar_at_far: tars,
        ))
    }
}

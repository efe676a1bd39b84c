//! IJB-B and IJB-C: templates, verified and searched.

// F = faces, T = templates, P = pairs, D = embedding.

use numpy::{PyReadonlyArray1, PyReadonlyArray2};
use pfc_metrics::{
    Rows,
    bootstrap::{Bootstrap, Interval},
    ijb::{
        Faces, PairIntervals, Pooling, ScoredPairs, Templates, pair_intervals_until, pool,
        score_pairs,
    },
    roc::Far,
    scores::{AtMost, Curve, Nearest, SortedScores},
};
use pyo3::{prelude::*, types::PyDict};

use super::{Resampling, dict, ends, fars, list};
use crate::{
    failure::Failure,
    work::{Stop, interruptible},
};

/// The faces and where they belong.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct FaceColumns<'py> {
    /// `[F, D]`.
    original: PyReadonlyArray2<'py, f32>,
    mirrored: Option<PyReadonlyArray2<'py, f32>>,
    /// `[F]` each.
    detector_score: PyReadonlyArray1<'py, f32>,
    template: PyReadonlyArray1<'py, u64>,
    media: PyReadonlyArray1<'py, u64>,
    order: PyReadonlyArray1<'py, u32>,
}

/// The pairs of templates.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct PairColumns<'py> {
    /// `[P, 2]`, ids of templates.
    templates: PyReadonlyArray2<'py, u64>,
    /// `[P]`.
    same: PyReadonlyArray1<'py, bool>,
    /// `[T, 2]`, id of a template and number of its person, from 0 without gaps; or nothing.
    people: Option<PyReadonlyArray2<'py, u64>>,
}

/// The 1:1 protocol.
///
/// * `pooling`: unit-norm faces, detector score, unit-norm media
#[pyfunction]
pub fn ijb<'py>(
    py: Python<'py>,
    faces: FaceColumns<'py>,
    pairs: PairColumns<'py>,
    pooling: (bool, bool, bool),
    rates: Vec<f64>,
    resampling: Resampling,
) -> PyResult<Bound<'py, PyDict>> {
    let (unit_norm_faces, detector_score, unit_norm_media) = pooling;
    let flip = faces.mirrored.is_some();
    let pooling = Pooling { flip, unit_norm_faces, detector_score, unit_norm_media };
    let dim = faces.original.as_array().ncols();
    let mirrored = faces.mirrored.as_ref().map(PyReadonlyArray2::as_slice).transpose()?;
    let faces = Faces {
        original: Rows::new(faces.original.as_slice()?, dim).map_err(Failure::from)?,
        mirrored: mirrored.map(|m| Rows::new(m, dim)).transpose().map_err(Failure::from)?,
        detector_score: faces.detector_score.as_slice()?,
        template: faces.template.as_slice()?,
        media: faces.media.as_slice()?,
        order: faces.order.as_slice()?,
    };
    let people = pairs.people.as_ref().map(PyReadonlyArray2::as_slice).transpose()?;
    let lists = Lists {
        templates: pairs.templates.as_slice()?,
        same: pairs.same.as_slice()?,
        people: people.map(|people| people.as_chunks().0),
    };
    let mut fars = fars(&rates).map_err(Failure::from)?;
    fars.sort_by(|a, b| a.get().total_cmp(&b.get()));
    let bootstrap = resampling.bootstrap()?;
    interruptible(py, |stop| judge(&faces, &pooling, &lists, &fars, &bootstrap, stop))?
        .told(py, &fars)
}

#[derive(Clone, Copy)]
struct Lists<'a> {
    templates: &'a [u64],
    same: &'a [bool],
    people: Option<&'a [[u64; 2]]>,
}

struct Judged {
    n_templates: usize,
    n_genuine: usize,
    zero_templates: Vec<u64>,
    nearest: Vec<Nearest>,
    at_most: Vec<AtMost>,
    auc: f64,
    intervals: PairIntervals,
    scores: Vec<f64>,
    n_pairs: usize,
}

fn judge(
    faces: &Faces<'_>,
    pooling: &Pooling,
    lists: &Lists<'_>,
    fars: &[Far],
    bootstrap: &Bootstrap,
    stop: &Stop,
) -> Result<Judged, Failure> {
    let templates = pool(faces, pooling)?;
    let pairs = rows_of(&templates, lists.templates)?;
    let units = units(&templates, lists.people)?;
    stop.check()?;
    let scores = score_pairs(templates.rows(), &pairs)?;
    let same = lists.same;
    let sorted = SortedScores::new(&scores, same)?;
    let targets: Vec<f64> = fars.iter().map(|far| far.get()).collect();
    let scored = ScoredPairs { pairs: &pairs, scores: &scores, same, units: &units };
    stop.check()?;
    let is_over = || stop.is_set();
    let intervals = pair_intervals_until(bootstrap, &scored, &sorted, fars, &is_over)?;
    stop.check()?;
    Ok(Judged {
        n_templates: templates.ids.len(),
        n_genuine: sorted.genuine().len(),
        zero_templates: templates.zeros().collect(),
        nearest: sorted.nearest(&targets, Curve::Decimated),
        at_most: fars.iter().map(|&far| sorted.at_most(far)).collect(),
        auc: sorted.auc(),
        intervals,
        n_pairs: pairs.len(),
        scores,
    })
}

/// The rows of the templates that pairs name.
fn rows_of(templates: &Templates, ids: &[u64]) -> Result<Vec<(u32, u32)>, Failure> {
    let row = |id: u64| templates.row_of(id).ok_or_else(|| unknown(id));
    ids.as_chunks().0.iter().map(|&[a, b]| Ok((row(a)?, row(b)?))).collect()
}

fn unknown(id: u64) -> Failure {
    Failure::value(
        format!("template {id} has no face"),
        "pairs and people name ids that the column of templates has",
    )
}

/// The person of each template if all are known, else the template itself.
fn units(templates: &Templates, people: Option<&[[u64; 2]]>) -> Result<Vec<u32>, Failure> {
    let n = templates.ids.len();
    let Some(people) = people else { return Ok((0..n as u32).collect()) };
    let mut units = vec![u32::MAX; n];
    for &[id, person] in people {
        // People whose templates have no pairs are of no account.
        if let Some(row) = templates.row_of(id) {
            units[row as usize] = person as u32;
        }
    }
    match units.iter().position(|unit| *unit == u32::MAX) {
        None => Ok(units),
        Some(row) => Err(Failure::value(
            format!("people does not name the person of template {}", templates.ids[row]),
            "name the person of every template, or give no people: then templates are resampled",
        )),
    }
}

impl Judged {
    fn told<'py>(self, py: Python<'py>, fars: &[Far]) -> PyResult<Bound<'py, PyDict>> {
        let ends_of = |interval: Option<&Option<Interval>>| ends(interval.copied().flatten());
        let rows = list(0..fars.len(), |i| {
            let (nearest, at_most) = (self.nearest[i], self.at_most[i]);
            Ok(dict!(py,
                far: fars[i].get(),
                nearest_tar: nearest.tar,
                nearest_far: nearest.far,
                tar: at_most.tar,
                interval: ends_of(self.intervals.tar.get(i)),
                threshold: at_most.threshold,
                impostors_allowed: at_most.allowed,
            ))
        })?;
        Ok(dict!(py,
            templates: self.n_templates,
            genuine: self.n_genuine,
            impostor: self.n_pairs - self.n_genuine,
            tar_at_far: rows,
            auc: self.auc,
            auc_interval: ends(self.intervals.auc),
            zero_templates: self.zero_templates,
            scores: numpy::PyArray1::from_vec(py, self.scores),
        ))
    }
}

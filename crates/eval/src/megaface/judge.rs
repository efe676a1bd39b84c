//! From feature files to figures.

use pfc_metrics::{
    FaceSample, Rows,
    bootstrap::{Bootstrap, identity_intervals},
    megaface::{Matcher, Matches, MatePair, TarByDistance, n_nearest_for},
    roc::Far,
};
use pfc_report::chart::Histogram;
use pfc_verify::Figure;

use super::{DistractorTarRow, DistractorsRow, Gallery, MegaFaceReport, Noises, ProbeList, Store};
use crate::{
    EvalError,
    protocols::{differences, megaface as facts},
};

/// Points of the ROC curve that are kept for plots.
const ROC_POINTS: usize = 200;

/// Ranks whose shares have intervals.
const RANKS: [u32; 2] = [1, 10];

/// Distractors in memory at a time: 16 MB with 512 numbers each, enough to keep many threads busy.
const PIECE: usize = 8192;

/// Distractors that stand for all in the histogram: seven million pairs with all probes.
const SAMPLED_DISTRACTORS: usize = 2048;

/// What is judged.
#[derive(Debug, Clone)]
pub struct MegaFaceSet {
    /// Probe images and people.
    pub probes: ProbeList,
    /// Their features.
    pub probe_store: Store,
    /// Features of the distractors.
    pub distractor_store: Store,
    /// Lists of distractors, each judged alone.
    pub galleries: Vec<Gallery>,
    /// Noisy images to replace; `None` takes all features as they are.
    pub noises: Option<Noises>,
}

/// What to compute.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// FARs of verification. A FAR of 1e-3 with a million distractors keeps 3.5 million distances.
    pub fars: Vec<Far>,
    /// Ranks of the CMC curve.
    pub n_ranks: usize,
    /// Confidence intervals; `n_replicates` 0 leaves them out.
    pub bootstrap: Bootstrap,
}

impl Default for Options {
    /// FAR 1e-6 to 1e-3, 100 ranks, no intervals.
    fn default() -> Options {
        let far = |far| Far::new(far).expect("between 0 and 1");
        Options {
            fars: [1e-6, 1e-5, 1e-4, 1e-3].map(far).to_vec(),
            n_ranks: 100,
            bootstrap: Bootstrap { n_replicates: 0, ..Bootstrap::default() },
        }
    }
}

/// Ranks every probe among the distractors of each gallery.
///
/// * `on_distractors`: called with the number of distractors just compared; its error ends the work
///
/// # Errors
///
/// [`EvalError::Durable`] and [`EvalError::Devkit`] for a feature file that cannot be used,
/// [`EvalError::Metric`] for features of different size.
pub fn judge(
    set: &MegaFaceSet,
    options: &Options,
    mut on_distractors: impl FnMut(usize) -> Result<(), EvalError>,
) -> Result<MegaFaceReport, EvalError> {
    let (values, dim) = set.probe_store.read(&set.probes.paths, None)?;
    let probes = match &set.noises {
        None => values,
        Some(noises) => noises.clean_probes(&set.probes, &values, dim),
    };
    let rows = Rows::new(&probes, dim + usize::from(set.noises.is_some()))?;
    let mut galleries = Vec::with_capacity(set.galleries.len());
    for gallery in &set.galleries {
        let n_nearest = options
            .fars
            .iter()
            .map(|&far| n_nearest_for(far, rows.len() as u64, gallery.paths.len() as u64))
            .max();
        let mut matcher = Matcher::new(rows, &set.probes.identities, n_nearest.unwrap_or(0))?;
        let mut sample = FaceSample::new(SAMPLED_DISTRACTORS, rows.dim());
        for paths in gallery.paths.chunks(PIECE) {
            let (values, _) = set.distractor_store.read(paths, Some(dim))?;
            let piece = match &set.noises {
                None => values,
                Some(noises) => noises.clean_distractors(paths, &values, dim),
            };
            let piece = Rows::new(&piece, rows.dim())?;
            matcher.add(piece)?;
            sample.add(piece, |_| Some(0))?;
            on_distractors(paths.len())?;
        }
        let matches = matcher.finish();
        let histogram = histogram(rows, &matches, &sample)?;
        galleries.push(gallery_row(set, gallery, &matches, histogram, options)?);
    }
    Ok(report(set, galleries))
}

fn report(set: &MegaFaceSet, galleries: Vec<DistractorsRow>) -> MegaFaceReport {
    let mut n_by_person = vec![0; set.probes.names.len()];
    set.probes.identities.iter().for_each(|&person| n_by_person[person as usize] += 1);
    let facts = facts();
    let largest = galleries.iter().map(|gallery| gallery.n_distractors as usize).max();
    MegaFaceReport {
        n_probes: set.probes.paths.len(),
        n_people: set.probes.names.len(),
        n_pairs: n_by_person.iter().map(|n| n * (n - 1)).sum(),
        cleaned: set.noises.is_some(),
        incomplete: differences(&[
            ("probes", set.probes.paths.len(), facts.probes),
            ("people", set.probes.names.len(), facts.people),
            ("distractors", largest.unwrap_or(0), facts.distractors),
        ]),
        galleries,
    }
}

fn gallery_row(
    set: &MegaFaceSet,
    gallery: &Gallery,
    matches: &Matches,
    histogram: Histogram,
    options: &Options,
) -> Result<DistractorsRow, EvalError> {
    let at = options.fars.iter().map(|&far| matches.tar_at_far(far));
    let at: Vec<TarByDistance> = at.collect::<Result<_, _>>()?;
    let shares = shares(set, matches, &at, &options.bootstrap);
    let tar = |(i, at): (usize, &TarByDistance)| DistractorTarRow {
        far: options.fars[i].get(),
        tar: shares[RANKS.len() + i],
        threshold: at.threshold,
        n_negatives_allowed: at.allowed,
        finer_than_data: at.allowed == 0,
    };
    Ok(DistractorsRow {
        name: gallery.name.clone(),
        n_distractors: matches.n_distractors,
        n_negatives: matches.n_negatives(),
        rank1: shares[0],
        rank10: Some(shares[1]),
        cmc: matches.cmc(options.n_ranks),
        cmc_of_best_mates: matches.cmc_of_best_mates(options.n_ranks),
        tar_at_far: at.iter().enumerate().map(tar).collect(),
        roc: matches.roc(ROC_POINTS),
        histogram: Some(histogram),
    })
}

fn histogram(probes: Rows, matches: &Matches, sample: &FaceSample) -> Result<Histogram, EvalError> {
    let square = |row: &[f32]| row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>();
    let squares: Vec<f64> = (0..probes.len()).map(|i| square(probes.row(i))).collect();
    let cosine = |pair: &MatePair| {
        let (a, b) = (squares[pair.probe as usize], squares[pair.mate as usize]);
        let dot = (a + b - pair.distance.powi(2)) / 2.0;
        if a * b > 0.0 { (dot / (a * b).sqrt()) as f32 } else { 0.0 }
    };
    let strangers = sample.against(probes)?;
    Ok(Histogram::of_sample(matches.pairs.iter().map(cosine), strangers))
}

/// Shares of mate pairs: found at each rank, then nearer than each threshold.
fn shares(
    set: &MegaFaceSet,
    matches: &Matches,
    at: &[TarByDistance],
    bootstrap: &Bootstrap,
) -> Vec<Figure> {
    let n_figures = RANKS.len() + at.len();
    let mut counts = vec![vec![0.0; n_figures + 1]; set.probes.names.len()];
    for pair in &matches.pairs {
        let row = &mut counts[set.probes.identities[pair.probe as usize] as usize];
        row[0] += 1.0;
        let ranks = RANKS.iter().map(|&k| pair.rank < k);
        let near = at.iter().map(|at| pair.distance < at.threshold);
        for (count, hit) in row[1..].iter_mut().zip(ranks.chain(near)) {
            *count += f64::from(u8::from(hit));
        }
    }
    let intervals = identity_intervals(bootstrap, &counts);
    let sum = |k: usize| counts.iter().map(|row| row[k]).sum::<f64>();
    (1..=n_figures).map(|k| Figure { value: sum(k) / sum(0), interval: intervals[k - 1] }).collect()
}

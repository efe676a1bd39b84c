//! From embeddings and labels to rates.

use std::time::{Duration, Instant};

use pfc_metrics::{
    FaceSample, Rows,
    bootstrap::{Bootstrap, Interval},
    nn::{AllPairs, Group, Labels as LabelColumns, Rates, Tally, TarAt},
    roc::{Far, RocPoint},
};
use pfc_report::chart::{Curve, Histogram};
use serde::{Deserialize, Serialize};

use super::{Labels, State};
use crate::EvalError;

/// Points of the ROC curve that are kept for plots.
const ROC_POINTS: usize = 200;

/// Faces of a group whose pairs stand for all impostors in its histogram: two million pairs.
const SAMPLED_FACES: usize = 2048;

/// A power cut costs at most this much work.
const SAVE_EVERY: Duration = Duration::from_secs(300);

/// What to compute.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// FARs at which TAR is read off.
    pub fars: Vec<Far>,
    /// Confidence intervals; `n_replicates` 0 leaves them out.
    pub bootstrap: Bootstrap,
}

/// All figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NnReport {
    /// One row per group, if there are any, then all faces, pairs across groups included.
    pub groups: Vec<GroupRow>,
    /// Faces whose embedding is all zeros; their similarity with every face counts as 0.
    #[serde(default)]
    pub n_zero: u64,
}

/// One group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupRow {
    /// Its name, or `ALL`.
    pub name: String,
    /// Faces in it.
    pub n_faces: u64,
    /// People in it.
    pub n_identities: u64,
    /// Pairs of one person.
    pub n_genuine: u64,
    /// Pairs of two people.
    pub n_impostors: u64,
    /// By the FARs asked for.
    pub tar_at_far: Vec<AllPairsTarRow>,
    /// The curve up to the largest of those FARs.
    #[serde(default)]
    pub roc: Vec<RocPoint>,
    /// Spread of the scores: all of the genuine pairs, and impostors of a sample of the faces.
    #[serde(default)]
    pub histogram: Option<Histogram>,
}

impl GroupRow {
    /// The ROC curve, with the intervals of the rows.
    pub fn curve<'a>(&'a self, name: &'a str) -> Curve<'a> {
        let rows = self.tar_at_far.iter();
        let intervals = rows.filter_map(|row| Some((row.far, row.interval?))).collect();
        Curve { name, points: &self.roc, n_impostors: self.n_impostors, intervals }
    }
}

/// TAR at one FAR.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AllPairsTarRow {
    /// FAR asked for.
    pub far: f64,
    /// Share of genuine pairs strictly above the threshold; `None` without genuine or impostor
    /// pairs.
    pub tar: Option<f64>,
    /// Its interval, by resampling people; the threshold stays.
    pub interval: Option<Interval>,
    /// Cosine similarity that a pair must exceed.
    pub threshold: Option<f32>,
    /// Impostors that `far` allows: the figure rests on that many.
    pub n_impostors_allowed: u64,
    /// Whether `far` is less than one impostor pair.
    pub finer_than_data: bool,
}

/// Compares every face with every other.
///
/// * `features`: `[N, D]`, normalised or not
/// * `state`: where an interrupted count is kept
/// * `on_pairs`: called with the number of pairs compared so far; its error ends the work, and the
///   state is saved
///
/// # Errors
///
/// [`EvalError::Metric`] for labels of another number than rows, or a person in two groups;
/// [`EvalError::State`] for a state of another count.
pub fn judge(
    features: Rows,
    labels: &Labels,
    options: &Options,
    state: Option<&State>,
    mut on_pairs: impl FnMut(u64) -> Result<(), EvalError>,
) -> Result<NnReport, EvalError> {
    let n_groups = labels.groups.len().max(1) as u32;
    let columns = LabelColumns { identity: &labels.identity, group: &labels.group, n_groups };
    let pairs = AllPairs::new(features, columns)?;
    let coarsest = options.fars.iter().map(|far| far.get()).fold(0.0, f64::max);
    let mut tally = match state.map(|state| state.load(n_groups)).transpose()?.flatten() {
        Some(tally) => tally,
        None => Tally::new(n_groups, pairs.suggest_floor(coarsest)),
    };
    loop {
        let floor = tally.across.floor();
        count(&pairs, &mut tally, state, &mut on_pairs)?;
        let rates = Rates::new(&pairs, tally);
        if floor <= -1.0 || complete(&rates, n_groups, options) {
            if let Some(state) = state {
                state.remove()?;
            }
            return report(&rates, features, labels, options);
        }
        tracing::info!("a threshold lies below {floor}: counting again from a lower score");
        tally = Tally::new(n_groups, (floor - 0.1).max(-1.0));
    }
}

fn count(
    pairs: &AllPairs,
    tally: &mut Tally,
    state: Option<&State>,
    on_pairs: &mut impl FnMut(u64) -> Result<(), EvalError>,
) -> Result<(), EvalError> {
    let mut saved = Instant::now();
    while tally.n_bands < pairs.n_bands() {
        let asked = on_pairs(pairs.n_pairs_before(tally.n_bands));
        if let Some(state) = state
            && (asked.is_err() || saved.elapsed() > SAVE_EVERY)
        {
            state.save(tally)?;
            saved = Instant::now();
        }
        asked?;
        pairs.count_band(tally);
    }
    on_pairs(pairs.n_pairs_before(tally.n_bands))
}

fn groups(n_groups: u32) -> impl Iterator<Item = Option<u32>> {
    // A single group is all faces.
    (0..n_groups).filter(move |_| n_groups > 1).map(Some).chain([None])
}

/// Whether every threshold lies above the floor.
fn complete(rates: &Rates, n_groups: u32, options: &Options) -> bool {
    groups(n_groups).all(|group| {
        let Group { n_genuine, n_impostors, .. } = rates.group(group);
        let read = |&far: &Far| rates.at(group, far).is_some();
        n_genuine == 0 || n_impostors == 0 || options.fars.iter().all(read)
    })
}

fn report(
    rates: &Rates,
    features: Rows,
    labels: &Labels,
    options: &Options,
) -> Result<NnReport, EvalError> {
    let coarsest = options.fars.iter().copied().max_by(|a, b| a.get().total_cmp(&b.get()));
    let row = |group: Option<u32>| {
        let sizes = rates.group(group);
        let at: Vec<Option<TarAt>> = options.fars.iter().map(|&far| rates.at(group, far)).collect();
        let known: Vec<TarAt> = at.iter().flatten().copied().collect();
        let mut intervals = rates.intervals(group, &known, &options.bootstrap).into_iter();
        let tar = |(far, at): (&Far, Option<TarAt>)| {
            let allowed = far.allowed(sizes.n_impostors);
            AllPairsTarRow {
                far: far.get(),
                tar: at.map(|at| at.tar),
                interval: at.and_then(|_| intervals.next().flatten()),
                threshold: at.map(|at| at.threshold),
                n_impostors_allowed: allowed,
                finer_than_data: allowed == 0,
            }
        };
        Ok(GroupRow {
            name: group.map_or("ALL".to_owned(), |g| labels.groups[g as usize].clone()),
            n_faces: sizes.n_faces,
            n_identities: sizes.n_identities,
            n_genuine: sizes.n_genuine,
            n_impostors: sizes.n_impostors,
            tar_at_far: options.fars.iter().zip(at).map(tar).collect(),
            roc: coarsest.map_or(Vec::new(), |far| rates.roc(group, far, ROC_POINTS)),
            histogram: Some(histogram(rates, features, labels, group)?),
        })
    };
    let groups = groups(labels.groups.len() as u32).map(row).collect::<Result<_, EvalError>>()?;
    Ok(NnReport { groups, n_zero: features.zeros().count() as u64 })
}

fn histogram(
    rates: &Rates,
    features: Rows,
    labels: &Labels,
    group: Option<u32>,
) -> Result<Histogram, EvalError> {
    let mut sample = FaceSample::new(SAMPLED_FACES, features.dim());
    let wanted = |row: usize| group.is_none_or(|group| labels.group[row] == group);
    sample.add(features, |row| wanted(row).then(|| labels.identity[row]))?;
    Ok(Histogram::of_sample(rates.genuine_scores(group), sample.impostors()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> (Vec<f32>, Labels) {
        let hashed = |i: u64| (i ^ 0x5555).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33;
        let value = |i: u64| (hashed(i) % 2001) as f32 / 1000.0 - 1.0;
        let (mut features, mut text) = (Vec::new(), String::new());
        for row in 0..1200u64 {
            let person = row % 200;
            features.extend((0..24).map(|d| value(person * 24 + d) + value(90_000 + row * 24 + d)));
            text += &format!("p{person} g{}\n", person % 2);
        }
        (features, Labels::parse(std::path::Path::new("l"), text.as_bytes()).unwrap())
    }

    fn options(fars: &[f64]) -> Options {
        let bootstrap = Bootstrap { n_replicates: 50, ..Bootstrap::default() };
        Options { fars: fars.iter().map(|&far| Far::new(far).unwrap()).collect(), bootstrap }
    }

    #[test]
    fn an_interrupted_count_ends_with_the_same_report() {
        let (features, labels) = example();
        let rows = Rows::new(&features, 24).unwrap();
        let options = options(&[1e-5, 1e-3, 1e-2]);
        let plain = judge(rows, &labels, &options, None, |_| Ok(())).unwrap();
        assert_eq!(
            plain.groups.iter().map(|g| g.name.as_str()).collect::<Vec<_>>(),
            ["g0", "g1", "ALL"]
        );
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let state = State::new(&path, "k".to_owned());
        let stop = |done| if done > 0 { Err(EvalError::Interrupted) } else { Ok(()) };
        assert!(judge(rows, &labels, &options, Some(&state), stop).is_err());
        assert!(path.exists());
        let mut first = None;
        let resumed = judge(rows, &labels, &options, Some(&state), |done| {
            first.get_or_insert(done);
            Ok(())
        });
        assert!(first.unwrap() > 0);
        assert_eq!(resumed.unwrap(), plain);
        assert!(!path.exists());
    }

    #[test]
    fn figures_carry_their_evidence() {
        let (features, labels) = example();
        let rows = Rows::new(&features, 24).unwrap();
        let report = judge(rows, &labels, &options(&[1e-9, 1e-2]), None, |_| Ok(())).unwrap();
        let all = &report.groups[2];
        assert_eq!((all.n_genuine, all.n_impostors), (200 * 15, 1200 * 1199 / 2 - 3000));
        assert!(all.tar_at_far[0].finer_than_data && !all.tar_at_far[1].finer_than_data);
        assert_eq!(all.tar_at_far[1].n_impostors_allowed, all.n_impostors / 100);
        let (tar, interval) = (all.tar_at_far[1].tar.unwrap(), all.tar_at_far[1].interval.unwrap());
        assert!(interval.low <= tar && tar <= interval.high);
    }
}

//! People with two labels.

use pfc_embeddings::Embeddings;
use pfc_findings::{Action, Decision};
use pfc_metrics::{near::Near, union::Union};
use serde_json::json;

use super::{
    Bounds, calibrate,
    centres::{Centres, cosine},
    compare::{self, Keeper},
};
use crate::{CleanError, Work};

/// The lower bound admits this many times as many false pairs.
const BAND: f64 = 100.0;
/// Extra margin that is required where an identity has a single image, which says less of a person
/// than a centre of several does.
const SINGLE_EXTRA: f32 = 0.1;
/// Identities that one person may have been split into.
const SET_MAX: u32 = 16;
/// How much further below the bound the cosine of a member with its leader may be.
const DIAMETER: f32 = 0.1;

/// Two identities by their places, the cosine of their centres, and the bound for such a pair.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Pair {
    a: usize,
    b: usize,
    score: f32,
    bound: f32,
}

/// Merges identities whose centres are mutually nearest and above the upper bound; pairs between the bounds,
/// above without being mutually nearest, or with a mixture of people are suspicions. The identity with more
/// images leads. Identities of which a person said that they are different people are neither merged nor
/// suspicions.
///
/// Takes D·G² operations in tiles, and memory for the centres and for the pairs above the lower bound.
/// `keeper` keeps the finished part, and a stopped run goes on from there.
///
/// # Errors
///
/// [`CleanError`] if embeddings cannot be read, are too few to calibrate with, or the user
/// interrupts.
pub fn merges(
    work: &mut Work<'_>,
    embeddings: &Embeddings,
    bounds: &Bounds,
    keeper: &dyn Keeper,
) -> Result<Vec<Decision>, CleanError> {
    joined(work, embeddings, bounds, keeper, |_, _| true)
}

/// As [`merges`], but only for pairs of labels that `allowed(label, label)` accepts.
///
/// # Errors
///
/// As [`merges`].
pub fn joined(
    work: &mut Work<'_>,
    embeddings: &Embeddings,
    bounds: &Bounds,
    keeper: &dyn Keeper,
    allowed: impl Fn(u32, u32) -> bool + Sync,
) -> Result<Vec<Decision>, CleanError> {
    let centres = &Centres::of(work, embeddings)?;
    let limits = Limits::new(work, centres, bounds)?;
    let label = |place: usize| centres.groups.labels[place];
    // They are filtered here and not later, so that pairs that do not count displace no others.
    let may_be = |a: usize, b: usize| allowed(label(a), label(b));
    let pairs = compare::pairs_above(centres.rows(), limits.lowest(), may_be, keeper, work.quiet)?;
    let pairs: Vec<Pair> = pairs
        .into_iter()
        .map(|Near { a, b, score }| {
            let (a, b) = (a as usize, b as usize);
            let [_, bound] = limits.of(centres, a, b);
            Pair { a, b, score, bound }
        })
        .filter(|p| p.score > limits.of(centres, p.a, p.b)[0])
        .collect();
    Ok(decide(work, centres, pairs, limits.sure))
}

/// Lower and upper bounds: of pairs with an identity of one image, and of the others.
#[derive(Debug, Clone, Copy)]
struct Limits {
    single: [f32; 2],
    several: [f32; 2],
    /// Cohesion below which an identity may be a mixture of people, whose centre is near to each of them.
    sure: f32,
}

impl Limits {
    fn new(work: &mut Work<'_>, centres: &Centres, bounds: &Bounds) -> Result<Limits, CleanError> {
        let n_several = (0..centres.len()).filter(|p| centres.n_images(*p) > 1).count() as f64;
        let (n_pairs, n_sure) = (pairs_of(centres.len() as f64), pairs_of(n_several));
        // Each kind of pair has its own share of wrong ones.
        let rate_of = |pairs: f64| bounds.false_matches / pairs.max(1.0);
        let (single_rate, rate) = (rate_of(n_pairs - n_sure), rate_of(n_sure));
        let stated = bounds.same_person.map(|upper| {
            let lower = bounds.maybe_same_person.unwrap_or(upper - DIAMETER);
            [lower.min(upper), upper]
        });
        let mut notes = json!({"false_match_rate": rate, "identities": centres.len()});
        let limits = match stated {
            Some(stated) => {
                let sure = bounds.stranger.unwrap_or(-1.0);
                Limits { single: stated, several: stated, sure }
            }
            None => {
                // If there are too few pairs of one kind, they are judged as those of the other kind.
                let several = calibrate::centre_to_centre(centres, false);
                let single = calibrate::centre_to_centre(centres, true);
                let (single, several) = match (single, several) {
                    (Ok(single), Ok(several)) => (single, several),
                    (Err(error @ CleanError::OtherRows { .. }), _)
                    | (_, Err(error @ CleanError::OtherRows { .. })) => return Err(error),
                    (Err(_), Ok(one)) | (Ok(one), Err(_)) => (one, one),
                    (Err(error), Err(_)) => return Err(error),
                };
                notes["impostors"] = several.note();
                notes["impostors_single"] = single.note();
                let at = |tail: calibrate::Tail, rate: f64| {
                    [(rate * BAND).min(0.1), rate].map(|rate| tail.at(rate))
                };
                let single = at(single, single_rate).map(|bound| (bound + SINGLE_EXTRA).min(1.0));
                let sure = bounds.stranger.unwrap_or_else(|| several.at(calibrate::SURE_RATE));
                let mut limits = Limits { single, several: at(several, rate), sure };
                if let Some(lower) = bounds.maybe_same_person {
                    limits.single[0] = lower.min(limits.single[1]);
                    limits.several[0] = lower.min(limits.several[1]);
                }
                limits
            }
        };
        notes["same_person"] = json!(limits.several[1]);
        notes["maybe_same_person"] = json!(limits.several[0]);
        notes["same_person_single"] = json!(limits.single[1]);
        notes["sure"] = json!(limits.sure);
        notes["maybe_same_person_single"] = json!(limits.single[0]);
        work.notes.insert("merges".into(), notes);
        Ok(limits)
    }

    fn of(&self, centres: &Centres, a: usize, b: usize) -> [f32; 2] {
        let is_single = centres.n_images(a).min(centres.n_images(b)) == 1;
        if is_single { self.single } else { self.several }
    }

    fn lowest(&self) -> f32 {
        self.single[0].min(self.several[0])
    }
}

fn pairs_of(n: f64) -> f64 {
    n * (n - 1.0) / 2.0
}

fn decide(work: &Work<'_>, centres: &Centres, mut pairs: Vec<Pair>, sure: f32) -> Vec<Decision> {
    let label = |place: usize| centres.groups.labels[place];
    // Identities that are known to be different people are neither joined nor asked about again.
    let mut links = work.state.links().clone();
    pairs.retain(|pair| !links.are_different(label(pair.a), label(pair.b)));
    pairs.sort_by(|x, y| y.score.total_cmp(&x.score).then((x.a, x.b).cmp(&(y.a, y.b))));
    // In descending order of scores, the first pair of a place is the one with its nearest.
    let mut nearest: Vec<Option<u32>> = vec![None; centres.len()];
    for pair in &pairs {
        nearest[pair.a].get_or_insert(pair.b as u32);
        nearest[pair.b].get_or_insert(pair.a as u32);
    }
    let mut union = Union::new(centres.len());
    let mut decisions = Vec::new();
    // A single image shows one person and has no cohesion.
    let is_sure = |place: usize| centres.n_images(place) == 1 || centres.cohesion[place] >= sure;
    for pair in &pairs {
        let (a, b) = (union.leader(pair.a), union.leader(pair.b));
        if a == b || links.are_different(label(a), label(b)) {
            continue;
        }
        let is_larger = (centres.n_images(a), label(b)) >= (centres.n_images(b), label(a));
        let (lead, follow) = if is_larger { (a, b) } else { (b, a) };
        let is_mutual =
            nearest[pair.a] == Some(pair.b as u32) && nearest[pair.b] == Some(pair.a as u32);
        let fits = union.size(a) + union.size(b) <= SET_MAX
            && cosine(centres.centre(a), centres.centre(b)) >= pair.bound - DIAMETER;
        let is_one = pair.score > pair.bound && is_mutual && fits && is_sure(a) && is_sure(b);
        let (action, from, to) = match is_one {
            true => (Action::Merge, follow, lead),
            false => (Action::Suspect, pair.a.max(pair.b), pair.a.min(pair.b)),
        };
        let row = centres.typical[from];
        decisions.push(
            Decision::new(row, label(from), action, "same_person")
                .scored(pair.score, pair.bound)
                .with_partner(centres.typical[to])
                .with_target(label(to)),
        );
        if is_one {
            union.join(follow, lead);
            links.join(label(follow), label(lead));
        }
    }
    decisions
}

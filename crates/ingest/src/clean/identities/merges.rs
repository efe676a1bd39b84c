//! People with two labels.

use std::path::Path;

use pfc_cli::{Progress, interrupt};
use pfc_metrics::near::{self, Near};
use pfc_shard::{
    Checksum,
    decisions::{Action, Decision},
    hash::content_hash,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    Bounds, calibrate,
    centres::{Centres, cosine},
    union::Union,
};
use crate::{IngestError, clean::Work, embeddings::Embeddings};

/// Centres compared with all others between two looks at the clock and the user's wishes.
const BLOCK: usize = 4096;
/// How many times as many false pairs the lower band admits.
const BAND: f64 = 100.0;
/// One image says less of a person than a centre does: so much more is asked of it.
const SINGLE_EXTRA: f32 = 0.1;
/// Identities that one person may have been split into.
const SET_MAX: u32 = 16;
/// By how much a member may be less like its leader than pairs must be alike.
const DIAMETER: f32 = 0.1;
/// Pairs kept at most: beyond, the bound is so low that it says nothing.
const PAIRS_MAX: usize = 20_000_000;

/// Two identities by place, how alike their centres are, and the bound for such a pair.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Pair {
    a: usize,
    b: usize,
    score: f32,
    bound: f32,
}

/// Merges identities whose centres are mutually nearest and above the upper bound; pairs between the
/// bounds, or above without being mutually nearest, are suspicions. The identity of more images
/// leads.
///
/// D·G² operations in tiles; memory for the centres and for pairs above the lower bound. What is
/// done is kept in the data set's folder, and a stopped run goes on from there.
///
/// # Errors
///
/// [`IngestError`] if embeddings cannot be read, are too few to calibrate with, or the user
/// interrupts.
pub fn merges(
    work: &mut Work<'_>,
    embeddings: &Embeddings,
    bounds: &Bounds,
) -> Result<Vec<Decision>, IngestError> {
    let centres = Centres::of(work, embeddings)?;
    merge(work, &centres, bounds, |_, _| true)
}

/// As [`merges`], of pairs that `allowed(label, label)` alone.
///
/// # Errors
///
/// As [`merges`].
pub fn joined(
    work: &mut Work<'_>,
    embeddings: &Embeddings,
    bounds: &Bounds,
    allowed: impl Fn(u32, u32) -> bool,
) -> Result<Vec<Decision>, IngestError> {
    let centres = Centres::of(work, embeddings)?;
    merge(work, &centres, bounds, allowed)
}

fn merge(
    work: &mut Work<'_>,
    centres: &Centres,
    bounds: &Bounds,
    allowed: impl Fn(u32, u32) -> bool,
) -> Result<Vec<Decision>, IngestError> {
    let limits = Limits::new(work, centres, bounds)?;
    let label = |place: usize| centres.groups.labels[place];
    let pairs = pairs_above(work, centres, limits.lowest())?;
    let pairs: Vec<Pair> = pairs
        .into_iter()
        .map(|Near { a, b, score }| {
            let (a, b) = (a as usize, b as usize);
            let [_, bound] = limits.of(centres, a, b);
            Pair { a, b, score, bound }
        })
        .filter(|p| p.score > limits.of(centres, p.a, p.b)[0] && allowed(label(p.a), label(p.b)))
        .collect();
    Ok(decide(work, centres, pairs))
}

/// Lower and upper bounds: of pairs with an identity of one image, and of the others.
#[derive(Debug, Clone, Copy)]
struct Limits {
    single: [f32; 2],
    several: [f32; 2],
}

impl Limits {
    fn new(work: &mut Work<'_>, centres: &Centres, bounds: &Bounds) -> Result<Limits, IngestError> {
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
            Some(stated) => Limits { single: stated, several: stated },
            None => {
                // Of one kind there may be too few to tell; they are judged as the other then.
                let several = calibrate::centre_to_centre(centres, false);
                let single = calibrate::centre_to_centre(centres, true);
                let (single, several) = match (single, several) {
                    (Ok(single), Ok(several)) => (single, several),
                    (Err(_), Ok(one)) | (Ok(one), Err(_)) => (one, one),
                    (Err(error), Err(_)) => return Err(error.into()),
                };
                notes["impostors"] = several.note();
                notes["impostors_single"] = single.note();
                let at = |tail: calibrate::Tail, rate: f64| {
                    [(rate * BAND).min(0.1), rate].map(|rate| tail.at(rate))
                };
                let single = at(single, single_rate).map(|bound| (bound + SINGLE_EXTRA).min(1.0));
                let mut limits = Limits { single, several: at(several, rate) };
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

/// What is kept of a comparison that was stopped.
#[derive(Debug, Serialize, Deserialize)]
struct Standing {
    /// Of the centres and the bound.
    key: Checksum,
    /// Centres compared so far.
    done: usize,
    pairs: Vec<(u32, u32, f32)>,
}

/// Every pair of centres above `threshold`.
fn pairs_above(
    work: &Work<'_>,
    centres: &Centres,
    threshold: f32,
) -> Result<Vec<Near>, IngestError> {
    let rows = centres.rows();
    let path = work.dir.join(".centres.part");
    let key = key(centres, threshold);
    let mut standing = resume(&path, key);
    let n = rows.len();
    let progress = Progress::new("compare", "identities", n as u64, work.quiet);
    progress.add(standing.done as u64);
    let mut saved = std::time::Instant::now();
    let mut was_saved = false;
    while standing.done < n {
        if interrupt::requested() {
            save(&path, &standing)?;
            let (done, total) = (standing.done as u64, n as u64);
            return Err(IngestError::Interrupted { done, total });
        }
        let end = (standing.done + BLOCK).min(n);
        let found = near::pairs_above(rows, standing.done..end, threshold);
        standing.pairs.extend(found.into_iter().map(|p| (p.a, p.b, p.score)));
        standing.pairs.truncate(PAIRS_MAX);
        progress.add((end - standing.done) as u64);
        standing.done = end;
        // The file costs its writing only where losing it would cost more.
        if saved.elapsed().as_secs() >= 30 && end < n {
            save(&path, &standing)?;
            (saved, was_saved) = (std::time::Instant::now(), true);
        }
    }
    progress.finish();
    if was_saved || path.exists() {
        std::fs::remove_file(&path).map_err(IngestError::at("remove", &path))?;
    }
    Ok(standing.pairs.into_iter().map(|(a, b, score)| Near { a, b, score }).collect())
}

fn key(centres: &Centres, threshold: f32) -> Checksum {
    let mut hashes = Vec::with_capacity(centres.len() * 16 + 4);
    for place in 0..centres.len() {
        let bytes: Vec<u8> = centres.centre(place).iter().flat_map(|v| v.to_le_bytes()).collect();
        hashes.extend(content_hash(&bytes).to_le_bytes());
    }
    hashes.extend(threshold.to_le_bytes());
    Checksum(content_hash(&hashes))
}

/// What an earlier run left, if it was of the same centres; a damaged file is as good as none.
fn resume(path: &Path, key: Checksum) -> Standing {
    let read = std::fs::read(path).ok();
    let standing: Option<Standing> = read.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let fits = standing.filter(|standing| standing.key == key);
    fits.unwrap_or(Standing { key, done: 0, pairs: Vec::new() })
}

fn save(path: &Path, standing: &Standing) -> Result<(), IngestError> {
    let text = serde_json::to_vec(standing).expect("numbers become JSON");
    Ok(pfc_durable::write(path, &text)?)
}

fn decide(work: &Work<'_>, centres: &Centres, mut pairs: Vec<Pair>) -> Vec<Decision> {
    pairs.sort_by(|x, y| y.score.total_cmp(&x.score).then((x.a, x.b).cmp(&(y.a, y.b))));
    // By descending score the first pair of a place is that with its nearest.
    let mut nearest: Vec<Option<u32>> = vec![None; centres.len()];
    for pair in &pairs {
        nearest[pair.a].get_or_insert(pair.b as u32);
        nearest[pair.b].get_or_insert(pair.a as u32);
    }
    let mut union = Union::new(centres.len());
    let mut decisions = Vec::new();
    let label = |place: usize| centres.groups.labels[place];
    for pair in &pairs {
        let (a, b) = (union.leader(pair.a), union.leader(pair.b));
        if a == b {
            continue;
        }
        let is_larger = (centres.n_images(a), label(b)) >= (centres.n_images(b), label(a));
        let (lead, follow) = if is_larger { (a, b) } else { (b, a) };
        let is_mutual =
            nearest[pair.a] == Some(pair.b as u32) && nearest[pair.b] == Some(pair.a as u32);
        let fits = union.size(a) + union.size(b) <= SET_MAX
            && cosine(centres.centre(a), centres.centre(b)) >= pair.bound - DIAMETER;
        let is_one = pair.score > pair.bound && is_mutual && fits;
        let (action, from, to) = match is_one {
            true => (Action::Merge, follow, lead),
            false => (Action::Suspect, pair.a.max(pair.b), pair.a.min(pair.b)),
        };
        let row = centres.typical[from];
        let mut decision = Decision::new(row, label(from), action, "same_person")
            .scored(pair.score, pair.bound)
            .with_partner(centres.typical[to])
            .with_target(label(to));
        if !is_one {
            decision.label = work.own_label(row);
        }
        decisions.push(decision);
        if is_one {
            union.join(follow, lead);
        }
    }
    decisions
}

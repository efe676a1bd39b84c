//! Images under a wrong label.

use std::collections::HashMap;

use pfc_embeddings::Embeddings;
use pfc_findings::{Action, Decision};
use pfc_metrics::{Rows, near};
use serde_json::json;

use super::{
    Bounds, calibrate,
    centres::{Centres, cosine},
};
use crate::{CleanError, Work};

/// Share of images of strangers that would pass as an identity's own. Images below that score are looked at.
const STRANGER_RATE: f64 = 1e-3;
/// Extra margin that is required where an identity has a single image, which says less of a person
/// than a centre of several does.
const SINGLE_EXTRA: f32 = 0.1;
/// Number of suspects that are compared at a time, which bounds their memory.
const CHUNK: usize = 1 << 16;

/// Relabels images that are far from their own identity, near to another's centre and nearer to it than to
/// their own by a margin, where the other identity is sure of itself. Images that are near to a single image
/// only, or not near enough, are suspicions. Where both identities look like one person, which `merges`
/// decides, there is no label error. The surest moves come first, and an image that is then alone in its
/// identity stays, as a suspicion: of two images that are unlike, one is where it belongs.
///
/// Only suspects are compared with all centres, which takes 2·D·(suspects)·G operations.
///
/// # Errors
///
/// [`CleanError`] if embeddings cannot be read, or are too few to calibrate with.
pub fn labels(
    work: &mut Work<'_>,
    embeddings: &Embeddings,
    bounds: &Bounds,
) -> Result<Vec<Decision>, CleanError> {
    let centres = Centres::of(work, embeddings)?;
    let needs_tail = bounds.stranger.is_none() || bounds.label_match.is_none();
    let tail = needs_tail.then(|| calibrate::image_to_centre(&centres, embeddings)).transpose()?;
    let at = |rate: f64| tail.map_or(f32::NAN, |tail| tail.at(rate));
    let stranger = bounds.stranger.unwrap_or_else(|| at(STRANGER_RATE));
    let suspects = suspects(work, &centres, stranger);
    let match_rate = bounds.label_rate.min(STRANGER_RATE);
    let label_match = bounds.label_match.unwrap_or_else(|| at(match_rate));
    work.notes.insert(
        "labels".into(),
        json!({
            "stranger": stranger, "label_match": label_match, "label_margin": bounds.label_margin,
            "suspects": suspects.len(), "false_match_rate": match_rate,
            "impostors": tail.map(|tail| tail.note()),
        }),
    );
    let judge =
        Judge { work, centres: &centres, stranger, label_match, margin: bounds.label_margin };
    let mut judged = Vec::new();
    for chunk in suspects.chunks(CHUNK) {
        judged.extend(judge.decide(chunk, embeddings)?);
    }
    leave_one(&centres, &mut judged);
    let mut decisions: Vec<Decision> = judged.into_iter().map(|(_, decision)| decision).collect();
    decisions.sort_by_key(|decision| decision.row);
    Ok(decisions)
}

/// Turns moves that would take the last image of an identity into suspicions. The surest moves come first.
fn leave_one(centres: &Centres, judged: &mut [(usize, Decision)]) {
    judged.sort_by(|(_, a), (_, b)| b.score.total_cmp(&a.score).then(a.row.cmp(&b.row)));
    let mut n_moved: HashMap<usize, usize> = HashMap::new();
    for (place, decision) in judged.iter_mut().filter(|(_, d)| d.action == Action::Relabel) {
        let n_moved = n_moved.entry(*place).or_default();
        match *n_moved + 1 < centres.n_images(*place) {
            true => *n_moved += 1,
            false => decision.action = Action::Suspect,
        }
    }
}

/// An image that may be a stranger's.
#[derive(Debug, Clone, Copy)]
struct Suspect {
    row: u64,
    place: usize,
    own: f32,
}

fn suspects(work: &Work<'_>, centres: &Centres, stranger: f32) -> Vec<Suspect> {
    let of_place = |place: usize| {
        let rows = centres.own(place).filter(|(_, own)| *own < stranger);
        rows.map(move |(row, own)| Suspect { row, place, own })
    };
    let all = (0..centres.len()).flat_map(of_place);
    all.filter(|suspect| !work.state.is_pinned(suspect.row)).collect()
}

struct Judge<'a> {
    work: &'a Work<'a>,
    centres: &'a Centres,
    stranger: f32,
    label_match: f32,
    margin: f32,
}

impl Judge<'_> {
    /// The place of a suspect's identity, and what is decided of it.
    fn decide(
        &self,
        suspects: &[Suspect],
        embeddings: &Embeddings,
    ) -> Result<Vec<(usize, Decision)>, CleanError> {
        if suspects.is_empty() {
            return Ok(Vec::new());
        }
        let rows: Vec<u64> = suspects.iter().map(|suspect| suspect.row).collect();
        let images = embeddings.rows(&rows)?;
        let images = Rows::new(&images, embeddings.dim()).expect("whole rows");
        let allowed = |i: usize, to: usize| to != suspects[i].place && self.is_sure(to);
        let found = near::nearest(images, self.centres.rows(), allowed);
        let judged = suspects.iter().zip(found);
        let decided = judged
            .filter_map(|(suspect, found)| Some((suspect.place, self.judge(suspect, found?)?)));
        Ok(decided.collect())
    }

    /// Whether the images of the identity show one person, as far as they tell; a single image always does.
    fn is_sure(&self, place: usize) -> bool {
        let cohesion = self.centres.cohesion[place];
        cohesion.is_nan() || cohesion >= self.stranger
    }

    /// Whether two identities look like one. The centre of an identity that may be a mixture says nothing, as
    /// the suspect is part of it.
    fn is_one_person(&self, a: usize, b: usize) -> bool {
        let label = |place: usize| self.centres.groups.labels[place];
        let is_sure = self.centres.cohesion[a] >= self.stranger;
        let may_be = !self.work.state.links().are_different(label(a), label(b));
        is_sure
            && may_be
            && cosine(self.centres.centre(a), self.centres.centre(b)) >= self.label_match
    }

    fn judge(&self, suspect: &Suspect, (to, score): (u32, f32)) -> Option<Decision> {
        let to = to as usize;
        if self.is_one_person(suspect.place, to) {
            return None;
        }
        let is_single = self.centres.n_images(to) == 1;
        let bound = self.label_match + if is_single { SINGLE_EXTRA } else { 0.0 };
        let is_nearer = score >= suspect.own + self.margin;
        let action = match score >= bound && is_nearer {
            true => Action::Relabel,
            // One such suspicion in ten is right; below this bound there are hardly any right ones.
            false if is_nearer && score >= 0.5 * (self.stranger + self.label_match) => {
                Action::Suspect
            }
            false => return None,
        };
        let decision =
            Decision::new(suspect.row, self.work.own_label(suspect.row), action, "label_error");
        let target = self.centres.groups.labels[to];
        Some(
            decision
                .scored(score, bound)
                .with_partner(self.centres.typical[to])
                .with_target(target),
        )
    }
}

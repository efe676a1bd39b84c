//! The same picture twice, as bytes or as pixels.

use std::collections::{HashMap, HashSet};

use pfc_findings::{Action, Decision};
use rayon::prelude::*;

use super::Signature;
use crate::Work;

/// A hash of an image.
type Key = fn(&Signature) -> u128;

/// Drops all but one of the rows of an identity with the same bytes or the same pixels. The one that stays is
/// pinned, or else the first. Across identities each further row is a suspicion, as one of the two labels is
/// wrong. The cost is that of sorting, however many names one picture has.
pub fn exact(work: &Work<'_>, signatures: &[Option<Signature>]) -> Vec<Decision> {
    let mut decisions = Vec::new();
    let mut taken: HashSet<u64> = HashSet::new();
    let kinds: [(&str, Key); 2] = [("same_bytes", |s| s.content), ("same_pixels", |s| s.pixels)];
    for (reason, key) in kinds {
        let mut rows: Vec<(u128, bool, u64)> = (0..)
            .zip(signatures)
            .filter(|(row, _)| !work.state.is_dropped(*row) && !taken.contains(row))
            .filter_map(|(row, s)| Some((key(s.as_ref()?), !work.state.is_pinned(row), row)))
            .collect();
        rows.par_sort_unstable();
        for same in rows.chunk_by(|a, b| a.0 == b.0).filter(|same| same.len() > 1) {
            let first = same[0].2;
            let mut kept: HashMap<Option<u32>, u64> = HashMap::new();
            for &(_, is_free, row) in same {
                let label = work.label(row);
                let decision = |action, reason: &str, partner: u64| {
                    let decision = Decision::new(row, work.own_label(row), action, reason);
                    decision.scored(0.0, 0.0).with_partner(partner)
                };
                match kept.get(&label) {
                    Some(stays) if is_free => {
                        decisions.push(decision(Action::Drop, reason, *stays));
                        taken.insert(row);
                    }
                    Some(_) => {}
                    None => {
                        // The second kind of hash finds the copies of the first kind again.
                        let is_new = reason == "same_bytes" || !same_bytes(signatures, row, first);
                        if !kept.is_empty() && is_new {
                            decisions.push(decision(
                                Action::Suspect,
                                "one_picture_two_names",
                                first,
                            ));
                        }
                        kept.insert(label, row);
                    }
                }
            }
        }
    }
    decisions.sort_by_key(|decision| decision.row);
    decisions
}

fn same_bytes(signatures: &[Option<Signature>], a: u64, b: u64) -> bool {
    let content = |row: u64| signatures.get(row as usize)?.map(|s| s.content);
    content(a) == content(b)
}

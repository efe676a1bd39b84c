//! The rows of a data set after decisions.

use std::collections::{BTreeMap, HashMap, HashSet};

use pfc_shard::Dataset;

use crate::{Action, Decision, Links};

/// Maximum number of new identities that runs may name beyond those of the data set.
const NEW_IDENTITIES_MAX: u32 = 1 << 28;

/// The state of every row once decisions are applied: whether it is left out, and its identity.
///
/// The last decision about a row counts, and that of a person stands against later ones of passes.
/// Identities that decisions merge are one set, in which the last target leads. Where a person said
/// that two are different people, merges that would make them one do not count, those of passes
/// before those of people and the later ones before the earlier.
///
/// Takes a bit of memory per row, and some bytes per decision.
#[derive(Debug, Clone)]
pub struct State {
    n_rows: u64,
    n_old: u32,
    dropped: Vec<u64>,
    n_dropped: u64,
    /// Rows that a person decided about.
    settled: HashSet<u64>,
    relabelled: HashMap<u64, u32>,
    /// Pairs that passes merged, as (from, to).
    merged: Vec<(u32, u32)>,
    /// What people said of pairs of identities.
    verdicts: Verdicts,
    links: Links,
    n_new: u32,
}

/// What people said about identities, by the question that they answered: a new answer replaces the old one.
#[derive(Debug, Clone, Default)]
struct Verdicts {
    /// Counts answers, so that the later one of two contradicting answers counts.
    n_said: u64,
    /// Answers by unordered pair of identities.
    same: BTreeMap<(u32, u32), Same>,
    /// The pairs that an answer to this question put there; some may have been replaced since.
    same_by_subject: HashMap<Subject, Vec<(u32, u32)>>,
    /// Different people by question, with the number of the answer.
    different: BTreeMap<Subject, (u64, Vec<u32>)>,
}

/// That two identities are one person.
#[derive(Debug, Clone)]
struct Same {
    /// The number of the answer.
    when: u64,
    /// The question.
    subject: Subject,
    from: u32,
    to: u32,
}

/// The subject of a question.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Subject {
    /// Two identities, the lower label first.
    Pair(u32, u32),
    /// All rows that show the picture of this row.
    Picture(u64),
    /// A row, and the row that it was compared with.
    Row(String, u64, Option<u64>),
}

impl Subject {
    fn of(decision: &Decision) -> Subject {
        match (decision.finding(), decision.target, decision.partner) {
            ("same_person", Some(target), _) => pair(decision.label, target),
            ("one_picture_two_names", _, Some(partner)) => Subject::Picture(partner),
            (finding, _, partner) => Subject::Row(finding.to_owned(), decision.row, partner),
        }
    }
}

fn pair(a: u32, b: u32) -> Subject {
    Subject::Pair(a.min(b), a.max(b))
}

impl State {
    /// Every row as it is.
    pub fn of(dataset: &Dataset) -> State {
        State::new(dataset.len(), dataset.n_identities())
    }

    /// The state without decisions, of `n_rows` rows and `n_identities` identities.
    pub fn new(n_rows: u64, n_identities: u32) -> State {
        State {
            n_rows,
            n_old: n_identities,
            dropped: vec![0; n_rows.div_ceil(64) as usize],
            n_dropped: 0,
            settled: HashSet::new(),
            relabelled: HashMap::new(),
            merged: Vec::new(),
            verdicts: Verdicts::default(),
            links: Links::default(),
            n_new: 0,
        }
    }

    /// Applies the decisions of a run in their order.
    ///
    /// # Errors
    ///
    /// Says which decision names a row or label that is not there, or joins an identity with itself.
    pub fn apply(&mut self, decisions: &[Decision]) -> Result<(), String> {
        let mut answered = HashSet::new();
        for (i, decision) in decisions.iter().enumerate() {
            if decision.is_verdict() {
                let subject = Subject::of(decision);
                // Several decisions of one run may be one answer.
                if !answered.contains(&subject) {
                    self.verdicts.forget(&subject);
                    answered.insert(subject);
                }
            }
            self.apply_one(decision).map_err(|what| format!("decision {i}: {what}"))?;
        }
        self.links = self.link();
        Ok(())
    }

    fn apply_one(&mut self, decision: &Decision) -> Result<(), String> {
        let Decision { row, label, target, .. } = *decision;
        if row >= self.n_rows {
            return Err(format!("row {row} of {}", self.n_rows));
        }
        let is_about_row = matches!(decision.action, Action::Drop | Action::Keep | Action::Relabel);
        let target = match decision.action {
            Action::Relabel | Action::Merge | Action::Different => self.known(target)?,
            Action::Drop | Action::Keep | Action::Suspect => 0,
        };
        if is_about_row && decision.is_verdict() {
            self.settled.insert(row);
        } else if is_about_row && self.settled.contains(&row) {
            return Ok(());
        }
        match decision.action {
            Action::Suspect => {}
            Action::Drop => self.set_dropped(row, true),
            Action::Keep => {
                self.set_dropped(row, false);
                self.relabelled.remove(&row);
                self.settled.insert(row);
            }
            Action::Relabel => {
                self.set_dropped(row, false);
                self.relabelled.insert(row, target);
            }
            Action::Merge | Action::Different => {
                let from = self.known(Some(label))?;
                if from == target {
                    return Err(format!("a `{}` of label {label} with itself", decision.action));
                }
                let subject = Subject::of(decision);
                match (decision.action, decision.is_verdict()) {
                    (Action::Different, _) => self.verdicts.differ(subject, from, target),
                    (_, true) => self.verdicts.agree(subject, from, target),
                    (_, false) => self.merged.push((from, target)),
                }
            }
        }
        Ok(())
    }

    /// A label that exists, or the next new one.
    fn known(&mut self, label: Option<u32>) -> Result<u32, String> {
        let label = label.ok_or("no target")?;
        let end = self.n_identities();
        if label == end && self.n_new < NEW_IDENTITIES_MAX && end < u32::MAX - 1 {
            self.n_new += 1;
        } else if label >= end {
            return Err(format!("label {label} of {end} identities"));
        }
        Ok(label)
    }

    fn set_dropped(&mut self, row: u64, drop: bool) {
        let (word, bit) = ((row / 64) as usize, 1 << (row % 64));
        match (self.dropped[word] & bit != 0, drop) {
            (false, true) => self.n_dropped += 1,
            (true, false) => self.n_dropped -= 1,
            _ => return,
        }
        self.dropped[word] ^= bit;
    }

    /// Joins the merged identities, as far as verdicts allow.
    fn link(&self) -> Links {
        let groups = self.verdicts.groups();
        let mut links = Links::new(groups.iter().map(Vec::as_slice));
        let mut same: Vec<_> = self.verdicts.same.values().collect();
        same.sort_by_key(|said| std::cmp::Reverse(said.when));
        for said in same {
            links.join(said.from, said.to);
        }
        for &(from, to) in &self.merged {
            links.join(from, to);
        }
        links.flatten();
        links
    }

    /// Whether `row` is left out. Rows beyond the last are.
    pub fn is_dropped(&self, row: u64) -> bool {
        let word = self.dropped.get((row / 64) as usize);
        word.is_none_or(|word| word & (1 << (row % 64)) != 0)
    }

    /// Whether a person said that `row` stays, or to which identity it belongs, so that passes do not decide
    /// about it.
    pub fn is_pinned(&self, row: u64) -> bool {
        self.settled.contains(&row) && !self.is_dropped(row)
    }

    /// The identity of `row`, whose label in the data set is `label`; `None` if it is left out.
    pub fn label(&self, row: u64, label: u32) -> Option<u32> {
        if self.is_dropped(row) {
            return None;
        }
        Some(self.resolve(self.relabelled.get(&row).copied().unwrap_or(label)))
    }

    /// The identity that `row` was moved to by itself, if it was.
    pub fn relabelled_to(&self, row: u64) -> Option<u32> {
        self.relabelled.get(&row).copied()
    }

    /// The identity that `label` was merged into, which may be itself.
    pub fn resolve(&self, label: u32) -> u32 {
        self.links.leader(label)
    }

    /// Which identities are one person, and which must stay apart.
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// Every identity that was merged into another, with the one it came to, by label.
    pub fn merges(&self) -> Vec<(u32, u32)> {
        self.links.followers()
    }

    /// Identities that people said are different people: the labels of each answer.
    pub fn different(&self) -> Vec<Vec<u32>> {
        self.verdicts.groups()
    }

    /// Rows left out.
    pub fn n_dropped(&self) -> u64 {
        self.n_dropped
    }

    /// Rows left out, a bit each.
    pub(crate) fn dropped(&self) -> &[u64] {
        &self.dropped
    }

    /// Rows relabelled one by one and not left out since, with the identity that was given.
    pub fn relabelled(&self) -> impl Iterator<Item = (u64, u32)> {
        let all = self.relabelled.iter().map(|(row, label)| (*row, *label));
        all.filter(|(row, _)| !self.is_dropped(*row))
    }

    /// Number of rows relabelled one by one and not left out since.
    pub fn n_relabelled(&self) -> u64 {
        self.relabelled().count() as u64
    }

    /// Rows of the data set.
    pub fn n_rows(&self) -> u64 {
        self.n_rows
    }

    /// Labels are below this: those of the data set and the new ones.
    pub fn n_identities(&self) -> u32 {
        self.n_old + self.n_new
    }

    /// Identities of the data set itself.
    pub fn n_old(&self) -> u32 {
        self.n_old
    }
}

impl Verdicts {
    /// Takes back what was answered to this question.
    fn forget(&mut self, subject: &Subject) {
        self.different.remove(subject);
        for key in self.same_by_subject.remove(subject).unwrap_or_default() {
            if self.same.get(&key).is_some_and(|said| said.subject == *subject) {
                self.same.remove(&key);
            }
        }
    }

    fn agree(&mut self, subject: Subject, from: u32, to: u32) {
        self.n_said += 1;
        let key = (from.min(to), from.max(to));
        self.same_by_subject.entry(subject.clone()).or_default().push(key);
        self.same.insert(key, Same { when: self.n_said, subject, from, to });
    }

    fn differ(&mut self, subject: Subject, a: u32, b: u32) {
        self.n_said += 1;
        self.same.remove(&(a.min(b), a.max(b)));
        let (when, group) = self.different.entry(subject).or_default();
        *when = self.n_said;
        group.extend([a, b]);
    }

    /// Groups of different people, without members of whom somebody said later that they are one of
    /// the others after all.
    fn groups(&self) -> Vec<Vec<u32>> {
        let mut groups: Vec<(u64, HashSet<u32>)> = Vec::with_capacity(self.different.len());
        let mut of_label: HashMap<u32, Vec<usize>> = HashMap::new();
        for (when, members) in self.different.values() {
            for label in members {
                of_label.entry(*label).or_default().push(groups.len());
            }
            groups.push((*when, members.iter().copied().collect()));
        }
        for &Same { when, from, to, .. } in self.same.values() {
            for &number in of_label.get(&from).into_iter().flatten() {
                let (said, group) = &mut groups[number];
                if *said < when && group.contains(&from) && group.contains(&to) {
                    group.remove(&from);
                }
            }
        }
        let sorted = |group: HashSet<u32>| {
            let mut group: Vec<u32> = group.into_iter().collect();
            group.sort_unstable();
            group
        };
        groups.into_iter().map(|(_, group)| sorted(group)).filter(|g| g.len() > 1).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(action: Action, row: u64, label: u32, target: Option<u32>) -> Decision {
        Decision { target, ..Decision::new(row, label, action, "test") }
    }

    fn merge(from: u32, to: u32) -> Decision {
        Decision::new(0, from, Action::Merge, "same_person").with_target(to)
    }

    fn said(action: Action, a: u32, b: u32) -> Decision {
        Decision::new(0, a, action, "reviewed_same_person").with_target(b)
    }

    #[test]
    fn the_last_decision_about_a_row_counts() {
        let mut state = State::new(70, 3);
        let drop = |row| decide(Action::Drop, row, 0, None);
        state.apply(&[drop(69), drop(1)]).unwrap();
        assert_eq!((state.label(69, 0), state.label(2, 1), state.n_dropped()), (None, Some(1), 2));
        state.apply(&[decide(Action::Keep, 69, 0, None)]).unwrap();
        assert_eq!(
            (state.label(69, 0), state.is_pinned(69), state.n_dropped()),
            (Some(0), true, 1)
        );
        state.apply(&[decide(Action::Relabel, 1, 0, Some(2))]).unwrap();
        assert_eq!((state.label(1, 0), state.n_dropped(), state.n_relabelled()), (Some(2), 0, 1));
    }

    #[test]
    fn what_a_person_decided_about_a_row_stands_against_later_passes() {
        let mut state = State::new(9, 3);
        let review = |action, row, target| Decision {
            target,
            ..Decision::new(row, 0, action, "reviewed_outlier")
        };
        state.apply(&[review(Action::Keep, 0, None), review(Action::Drop, 1, None)]).unwrap();
        state.apply(&[review(Action::Relabel, 2, Some(1))]).unwrap();
        let pass = [
            decide(Action::Drop, 0, 0, None),
            decide(Action::Relabel, 1, 0, Some(2)),
            decide(Action::Drop, 2, 0, None),
        ];
        state.apply(&pass).unwrap();
        let labels = [0, 1, 2].map(|row| state.label(row, 0));
        assert_eq!(labels, [Some(0), None, Some(1)]);
        state.apply(&[review(Action::Drop, 0, None), review(Action::Keep, 1, None)]).unwrap();
        assert_eq!([0, 1].map(|row| state.label(row, 0)), [None, Some(0)]);
    }

    #[test]
    fn merges_lead_on_and_take_relabelled_rows_along() {
        let mut state = State::new(9, 4);
        let relabel = decide(Action::Relabel, 8, 3, Some(0));
        state.apply(&[merge(0, 1), merge(1, 2), relabel]).unwrap();
        assert_eq!((state.label(0, 0), state.label(8, 3)), (Some(2), Some(2)));
        assert_eq!(state.merges(), [(0, 2), (1, 2)]);
        // They are one already.
        state.apply(&[merge(2, 0)]).unwrap();
        assert_eq!(state.merges(), [(0, 2), (1, 2)]);
        let error = state.apply(&[merge(2, 2)]).unwrap_err();
        assert_eq!(error, "decision 0: a `merge` of label 2 with itself");
    }

    #[test]
    fn different_people_are_not_joined_before_or_after_it_is_said() {
        let mut state = State::new(9, 6);
        state.apply(&[merge(0, 1), merge(1, 2), merge(4, 5)]).unwrap();
        state.apply(&[said(Action::Different, 0, 2)]).unwrap();
        assert_eq!(state.merges(), [(0, 1), (4, 5)], "the later merge gives way");
        state.apply(&[merge(0, 2), merge(2, 3)]).unwrap();
        assert_eq!(state.merges(), [(0, 1), (2, 3), (4, 5)]);
        assert!(state.links().are_different(1, 3) && !state.links().are_different(1, 4));
    }

    #[test]
    fn of_two_answers_about_a_pair_the_later_one_stands() {
        let mut state = State::new(9, 3);
        for _ in 0..2 {
            state.apply(&[said(Action::Merge, 0, 1)]).unwrap();
            assert_eq!((state.merges(), state.different().len()), (vec![(0, 1)], 0));
            state.apply(&[said(Action::Different, 1, 0)]).unwrap();
            assert_eq!((state.merges(), state.different().len()), (vec![], 1));
        }
    }

    #[test]
    fn an_answer_about_one_picture_sets_all_its_names_apart_until_another_is_given() {
        let mut state = State::new(9, 5);
        let about = |action, row: u64, label, target| Decision {
            target,
            ..Decision::new(row, label, action, "reviewed_one_picture_two_names").with_partner(0)
        };
        let apart = |row, label| about(Action::Different, row, label, Some(0));
        state.apply(&[apart(1, 1), apart(2, 2), apart(3, 3)]).unwrap();
        state.apply(&[merge(1, 2), merge(3, 4), merge(4, 0)]).unwrap();
        assert_eq!(state.merges(), [(3, 4)]);
        state.apply(&[about(Action::Keep, 1, 1, None)]).unwrap();
        assert_eq!(state.merges(), [(1, 2), (3, 0), (4, 0)]);
    }

    #[test]
    fn new_identities_are_named_one_after_another() {
        let mut state = State::new(9, 4);
        state.apply(&[decide(Action::Relabel, 0, 3, Some(4))]).unwrap();
        state.apply(&[decide(Action::Relabel, 1, 3, Some(4))]).unwrap();
        assert_eq!(state.n_identities(), 5);
        assert!(state.apply(&[decide(Action::Relabel, 1, 3, Some(6))]).is_err());
        assert!(state.apply(&[decide(Action::Drop, 9, 3, None)]).is_err());
    }
}

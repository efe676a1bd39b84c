//! Every answer to every finding changes the data set as it says, again and again.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{info, write};
use pfc_findings::{Action, Decision, DecisionLog, Kind, Questions, Reading, View};
use pfc_shard::Dataset;

/// Rows 0 to 2 are of p0, 3 to 5 of p1, 6 to 8 of p2, 9 of p3.
const LABELS: [u32; 10] = [0, 0, 0, 1, 1, 1, 2, 2, 2, 3];

fn found(row: u64, action: Action, reason: &str) -> Decision {
    Decision::new(row, LABELS[row as usize], action, reason).scored(0.5, 0.49)
}

/// A finding of each kind, as passes decide and as they suspect.
fn findings() -> Vec<(&'static str, Vec<Decision>)> {
    use Action::{Drop, Merge, Relabel, Suspect};
    let with = |decision: Decision, partner| decision.with_partner(partner);
    vec![
        ("image dropped", vec![found(1, Drop, "blurred")]),
        ("copy dropped", vec![with(found(1, Drop, "near_duplicate"), 0)]),
        (
            "picture",
            vec![
                with(found(3, Suspect, "one_picture_two_names"), 1),
                with(found(6, Suspect, "one_picture_two_names"), 1),
            ],
        ),
        ("label moved", vec![with(found(1, Relabel, "label_error"), 4).with_target(1)]),
        ("label suspected", vec![with(found(1, Suspect, "label_error"), 4).with_target(1)]),
        ("stranger dropped", vec![with(found(1, Drop, "outlier"), 0)]),
        ("stranger suspected", vec![with(found(1, Suspect, "outlier"), 0)]),
        (
            "second person split",
            vec![
                with(found(1, Relabel, "second_person"), 0).with_target(4),
                with(found(2, Relabel, "second_person"), 0).with_target(4),
            ],
        ),
        (
            "second person suspected",
            vec![
                with(found(1, Suspect, "second_person"), 0),
                with(found(2, Suspect, "second_person"), 0),
            ],
        ),
        ("merged", vec![with(found(4, Merge, "same_person"), 1).with_target(0)]),
        ("merge suspected", vec![with(found(4, Suspect, "same_person"), 1).with_target(0)]),
        (
            "overlap dropped",
            (0..3).map(|row| with(found(row, Drop, "benchmark_overlap"), 77)).collect(),
        ),
        ("overlap suspected", vec![with(found(1, Suspect, "benchmark_overlap"), 77)]),
    ]
}

/// Who is on each row: `-` where it is left out, else the first row of the same identity, so that it
/// does not matter how identities are numbered.
fn people(dir: &Path) -> String {
    let view = View::open(dir, Reading::Decided).unwrap();
    let label = |row: u64| view.face(row).unwrap().map(|face| face.label);
    let who = |row: u64| match label(row) {
        None => '-',
        some => (0..=row)
            .find(|other| label(*other) == some)
            .map_or('?', |first| char::from_digit(first as u32, 10).unwrap()),
    };
    (0..LABELS.len() as u64).map(who).collect()
}

/// What the data set is after an answer, worked out by hand: as the finding's question has it.
fn expected(name: &str, answer: Action) -> &'static str {
    use Action::{Different, Drop, Keep, Merge, Relabel};
    const WHOLE: &str = "0003336669";
    match (name, answer) {
        (_, Keep) => WHOLE,
        ("image dropped" | "copy dropped", Drop) => "0-03336669",
        ("copy dropped", Different) => WHOLE,
        ("picture", Drop) => "000-44-779",
        ("picture", Relabel) => "0000440779",
        ("picture", Merge) => "0000000009",
        ("picture", Different) => WHOLE,
        ("label moved" | "label suspected", Drop) => "0-03336669",
        ("label moved" | "label suspected", Relabel) => "0101116669",
        ("label moved" | "label suspected", Merge) => "0000006669",
        ("label moved" | "label suspected", Different) => WHOLE,
        ("stranger dropped" | "stranger suspected", Drop | Different) => "0-03336669",
        ("stranger dropped" | "stranger suspected", Merge) => WHOLE,
        ("second person split" | "second person suspected", Drop) => "0--3336669",
        ("second person split" | "second person suspected", Relabel | Different) => "0113336669",
        ("second person split" | "second person suspected", Merge) => WHOLE,
        ("merged" | "merge suspected", Drop) => "0003-36669",
        ("merged" | "merge suspected", Relabel) => "0003036669",
        ("merged" | "merge suspected", Merge) => "0000006669",
        ("merged" | "merge suspected", Different) => WHOLE,
        ("overlap dropped" | "overlap suspected", Drop) => "---3336669",
        ("overlap dropped" | "overlap suspected", Different) => WHOLE,
        _ => panic!("no such answer: {name}, {answer}"),
    }
}

/// Answers the one question there is; whether anything was written.
fn answer(dir: &Path, answer: Action) -> bool {
    let dataset = Dataset::open(dir).unwrap();
    let mut log = DecisionLog::open(dir).unwrap();
    let (runs, state) = (log.runs().unwrap(), log.state(&dataset).unwrap());
    let questions = Questions::of(&runs, &dataset, &state).unwrap();
    let asked: Vec<_> = questions.all().iter().filter(|q| !q.rows.is_empty()).collect();
    assert_eq!(asked.len(), 1, "{asked:?}");
    let question = questions.find(&asked[0].id).unwrap();
    let decisions = question.decide(answer, None, &state, &dataset.labels().unwrap()).unwrap();
    if decisions.is_empty() {
        return false;
    }
    let info = info(&log, "review");
    log.append(&info, &decisions).unwrap();
    true
}

fn open_questions(dir: &Path) -> usize {
    let dataset = Dataset::open(dir).unwrap();
    let log = DecisionLog::open(dir).unwrap();
    let (runs, state) = (log.runs().unwrap(), log.state(&dataset).unwrap());
    let questions = Questions::of(&runs, &dataset, &state).unwrap();
    questions.all().iter().filter(|question| question.is_open).count()
}

#[test]
fn every_answer_to_every_finding_once_twice_and_after_any_other() {
    for (name, found) in findings() {
        let kind = Kind::of(found[0].finding());
        let has_target = found[0].target.is_some();
        for &first in kind.answers(has_target) {
            for &second in kind.answers(has_target) {
                let dir = tempfile::tempdir().unwrap();
                write(dir.path(), &LABELS);
                // Three runs of a pass that finds the same.
                (0..3).for_each(|_| common::decide(dir.path(), &found));
                assert_eq!(open_questions(dir.path()), 1, "{name}");
                let said = format!("{name}: {first}, {second}");
                assert!(answer(dir.path(), first), "{said}");
                assert_eq!(people(dir.path()), expected(name, first), "{said}");
                assert!(!answer(dir.path(), first), "{said}: the same again");
                assert_eq!(open_questions(dir.path()), 0, "{said}");
                // Answers that say the same of this finding need not be written twice.
                let is_written = answer(dir.path(), second);
                let differs = expected(name, first) != expected(name, second);
                assert!(is_written || !differs, "{said}");
                assert!(!is_written || first != second, "{said}");
                assert_eq!(people(dir.path()), expected(name, second), "{said}");
                // A later run that finds the same changes nothing.
                common::decide(dir.path(), &found);
                assert_eq!(people(dir.path()), expected(name, second), "{said}, found again");
                assert_eq!(open_questions(dir.path()), 0, "{said}, found again");
            }
        }
    }
}

#[test]
fn copies_under_many_names_are_one_question() {
    let dir = tempfile::tempdir().unwrap();
    let labels: Vec<u32> = (0..40).collect();
    let dataset = write(dir.path(), &labels);
    // As versions before this one found them: every pair.
    let pairs = (0..40u64).flat_map(|a| (0..a).map(move |b| (a, b)));
    let of_pair = |(a, b): (u64, u64)| {
        let decision = Decision::new(a, a as u32, Action::Suspect, "one_picture_two_names");
        decision.scored(1.0, 4.0).with_partner(b)
    };
    common::decide(dir.path(), &pairs.map(of_pair).collect::<Vec<_>>());
    let log = DecisionLog::open(dir.path()).unwrap();
    let (runs, state) = (log.runs().unwrap(), log.state(&dataset).unwrap());
    let questions = Questions::of(&runs, &dataset, &state).unwrap();
    let open: Vec<_> = questions.all().iter().filter(|question| question.is_open).collect();
    assert_eq!((open.len(), open[0].rows.len()), (1, 39));
    let old = Questions::of(&runs, &dataset, &state).unwrap();
    assert_eq!(old.all()[0].id, questions.all()[0].id);
}

#[test]
fn two_questions_about_one_row_are_two() {
    let dir = tempfile::tempdir().unwrap();
    let dataset = write(dir.path(), &LABELS);
    let label = found(1, Action::Suspect, "label_error").with_partner(4).with_target(1);
    let other = found(1, Action::Suspect, "label_error").with_partner(7).with_target(2);
    let stranger = found(1, Action::Suspect, "outlier").with_partner(0);
    common::decide(dir.path(), &[label, other, stranger]);
    assert_eq!(open_questions(dir.path()), 3);
    let mut log = DecisionLog::open(dir.path()).unwrap();
    let (runs, state) = (log.runs().unwrap(), log.state(&dataset).unwrap());
    let questions = Questions::of(&runs, &dataset, &state).unwrap();
    let labels = dataset.labels().unwrap();
    let decisions = questions.all()[0].decide(Action::Keep, None, &state, &labels).unwrap();
    let info = info(&log, "review");
    log.append(&info, &decisions).unwrap();
    assert_eq!(open_questions(dir.path()), 2);
}

#[test]
fn an_old_answer_to_keep_two_identities_means_that_they_are_different() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &LABELS);
    let merge = found(4, Action::Merge, "same_person").with_partner(1).with_target(0);
    common::decide(dir.path(), std::slice::from_ref(&merge));
    assert_eq!(people(dir.path()), "0000006669");
    // What `review import` logged for `keep`.
    let old = found(4, Action::Keep, "reviewed_same_person").with_partner(1);
    common::decide(dir.path(), &[old]);
    assert_eq!((people(dir.path()).as_str(), open_questions(dir.path())), ("0003336669", 0));
    common::decide(dir.path(), &[merge]);
    assert_eq!(people(dir.path()), "0003336669");
}

#[test]
fn an_answer_that_makes_no_sense_is_refused_with_those_that_do() {
    let dir = tempfile::tempdir().unwrap();
    let dataset = write(dir.path(), &LABELS);
    common::decide(dir.path(), &[found(1, Action::Drop, "blurred")]);
    let log = DecisionLog::open(dir.path()).unwrap();
    let (runs, state) = (log.runs().unwrap(), log.state(&dataset).unwrap());
    let questions = Questions::of(&runs, &dataset, &state).unwrap();
    let question = &questions.all()[0];
    let labels = dataset.labels().unwrap();
    let error = question.decide(Action::Merge, None, &state, &labels).unwrap_err();
    assert_eq!(error, "`merge` is no answer to `blurred`; answers are keep, drop");
    let error = question.decide(Action::Relabel, None, &state, &labels).unwrap_err();
    assert!(error.ends_with("name the person in `target_identity` to relabel it"), "{error}");
    let moved = question.decide(Action::Relabel, Some(2), &state, &labels).unwrap();
    assert_eq!((moved[0].action, moved[0].target), (Action::Relabel, Some(2)));
}

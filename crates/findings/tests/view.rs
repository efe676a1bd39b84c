//! A view is the data set with its decisions applied, and nothing else.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{decide, write};
use pfc_findings::{Action, Decision, Reading, View};
use pfc_shard::EpochOrder;

/// Rows 0 to 9 of three identities.
const LABELS: [u32; 10] = [0, 1, 2, 0, 1, 2, 0, 1, 2, 0];

fn drop(row: u64) -> Decision {
    Decision::new(row, LABELS[row as usize], Action::Drop, "blurred")
}

fn relabel(row: u64, target: u32) -> Decision {
    Decision::new(row, LABELS[row as usize], Action::Relabel, "label_error").with_target(target)
}

fn merge(from: u32, to: u32) -> Decision {
    Decision::new(0, from, Action::Merge, "same_person").with_target(to)
}

/// Source, which is the row as it was packed, and name of every row.
fn rows(view: &View) -> Vec<(String, String)> {
    let row = |place| {
        let face = view.get(place).unwrap();
        assert_eq!(view.row(place).to_string(), face.source);
        assert_eq!(view.place(view.row(place)), Some(place));
        let same = view.face(view.row(place)).unwrap().unwrap();
        assert_eq!((same.label, same.source), (face.label, face.source));
        (face.source.to_owned(), view.people().name(face.label).to_owned())
    };
    (0..view.len()).map(row).collect()
}

#[track_caller]
fn check(dir: &Path, expected: &[(&str, &str)]) {
    let view = View::open(dir, Reading::Decided).unwrap();
    let found = rows(&view);
    let found: Vec<(&str, &str)> = found.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    assert_eq!(found, expected);
    let labels = view.labels().unwrap();
    let people = view.people();
    assert_eq!(people.len(), view.n_identities());
    for label in 0..people.len() {
        let n = labels.iter().filter(|of| **of == label).count() as u64;
        assert!(n > 0 && people.n_images(label) == n, "label {label}");
        assert_eq!(view.rows_of(label).unwrap().len() as u64, n);
        people.names(label).for_each(|name| assert_eq!(people.label_of(name), Some(label)));
    }
}

#[test]
fn rows_are_left_out_relabelled_merged_and_split_and_labels_stay_without_gaps() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &LABELS);
    let whole = View::open(dir.path(), Reading::Decided).unwrap();
    assert_eq!((whole.len(), whole.notice("-x"), whole.decisions()), (10, None, None));
    // All of p1 but row 7, which becomes p2; p2's row 5 becomes a person of its own.
    decide(dir.path(), &[drop(1), drop(4), relabel(7, 2), relabel(5, 3)]);
    let expected = [
        ("0", "p0"),
        ("2", "p2"),
        ("3", "p0"),
        ("5", "p2#split-0"),
        ("6", "p0"),
        ("7", "p2"),
        ("8", "p2"),
        ("9", "p0"),
    ];
    check(dir.path(), &expected);
    let view = View::open(dir.path(), Reading::Decided).unwrap();
    assert_eq!((view.n_identities(), view.people().label_of("p1")), (3, None));
    assert_eq!(
        view.notice("--as-packed").unwrap(),
        "2 of 10 rows are left out and 2 rows are relabelled by decisions; --as-packed reads the \
         data set as it was packed"
    );
    decide(dir.path(), &[merge(3, 0)]);
    let view = View::open(dir.path(), Reading::Decided).unwrap();
    assert_eq!(view.people().names(0).collect::<Vec<_>>(), ["p0", "p2#split-0"]);
    assert_eq!((view.people().n_images(0), view.people().n_images(1)), (5, 3));
    let packed = View::open(dir.path(), Reading::AsPacked).unwrap();
    let names: Vec<String> = rows(&packed).into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, LABELS.map(|label| format!("p{label}")));
}

#[test]
fn what_is_only_left_out_is_told_in_a_line() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &LABELS);
    decide(dir.path(), &[drop(1), drop(4)]);
    let view = View::open(dir.path(), Reading::Decided).unwrap();
    let expected = "2 of 10 rows are left out by decisions; --as-packed reads them";
    assert_eq!(view.notice("--as-packed").unwrap(), expected);
}

#[test]
fn its_checksum_follows_what_decisions_change_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &LABELS);
    let checksum = || View::open(dir.path(), Reading::Decided).unwrap().decisions();
    assert_eq!(checksum(), None);
    decide(dir.path(), &[Decision::new(3, 0, Action::Suspect, "outlier"), relabel(7, 1)]);
    assert_eq!(checksum(), None, "nothing has changed");
    decide(dir.path(), &[drop(1)]);
    let first = checksum();
    decide(dir.path(), &[Decision::new(3, 0, Action::Suspect, "outlier")]);
    assert!(first.is_some() && checksum() == first);
    decide(dir.path(), &[drop(2)]);
    let second = checksum();
    decide(dir.path(), &[Decision::new(2, 2, Action::Keep, "reviewed_blurred")]);
    assert_ne!(first, second);
    assert_eq!(checksum(), first);
}

#[test]
fn an_epoch_visits_every_row_of_the_view_once_whatever_the_number_of_ranks() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &LABELS);
    decide(dir.path(), &[drop(0), drop(7)]);
    let view = View::open(dir.path(), Reading::Decided).unwrap();
    let order = EpochOrder::new(view.len(), 3, 1);
    let visit = |world: u32| {
        let mut all: Vec<(u64, u64)> = (0..world)
            .flat_map(|rank| order.share(0, rank, world))
            .map(|place| (place.position, view.row(place.row)))
            .collect();
        all.sort_unstable();
        all.into_iter().map(|(_, row)| row).collect::<Vec<u64>>()
    };
    let alone = visit(1);
    let mut rows = alone.clone();
    rows.sort_unstable();
    assert_eq!(rows, [1, 2, 3, 4, 5, 6, 8, 9]);
    [2, 3, 7].into_iter().for_each(|world| assert_eq!(visit(world), alone));
}

#[test]
fn split_people_get_the_first_suffix_that_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let spec_names = ["p0", "p0#split-0", "p0#split-2"];
    // Written by hand, since names are given.
    let view = {
        use pfc_shard::{DatasetSpec, DatasetWriter, Face, Quality};
        let spec = DatasetSpec {
            image_size: common::SIZE,
            seed: 1,
            shard_bytes: common::FOUR_ROWS,
            sources: vec![],
            tool: "test".into(),
            arguments: vec![],
            lineage: vec![],
        };
        let mut writer = DatasetWriter::create(dir.path(), spec).unwrap();
        for (row, label) in [0u32, 0, 0, 1, 1, 2].into_iter().enumerate() {
            let (image, source) = (common::jpeg(row as u64), row.to_string());
            let face = Face::new(&image, label, &source, common::SIZE, Quality::default());
            writer.push(face).unwrap();
        }
        writer.finish(spec_names.into_iter().collect()).unwrap();
        let split = |row, label, target| {
            Decision::new(row, label, Action::Relabel, "second_person").with_target(target)
        };
        decide(dir.path(), &[split(1, 0, 3), split(2, 0, 4), split(4, 1, 5)]);
        View::open(dir.path(), Reading::Decided).unwrap()
    };
    let names: Vec<&str> = (0..6).map(|label| view.people().name(label)).collect();
    let expected = ["p0", "p0#split-0", "p0#split-2", "p0#split-1", "p0#split-3", "p0#split-4"];
    assert_eq!(names, expected);
}

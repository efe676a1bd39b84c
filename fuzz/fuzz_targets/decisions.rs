//! Any bytes as a run of decisions on a small data set: decisions that fit it, or an error.

#![no_main]

use std::{cell::OnceCell, fs};

use libfuzzer_sys::fuzz_target;
use pfc_findings::{Action, Decision, DecisionLog, Questions, RunInfo, View};
use pfc_shard::{
    DEFAULT_SHARD_BYTES, Dataset, DatasetSpec, DatasetWriter, Face, ImageSize, Quality,
};
use tempfile::TempDir;

thread_local! {
    static SOUND: OnceCell<(TempDir, Vec<u8>)> = const { OnceCell::new() };
}

fn sound() -> (TempDir, Vec<u8>) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut jpeg = Vec::new();
    let encoder = jpeg_encoder::Encoder::new(&mut jpeg, 90);
    encoder.encode(&[9; 64], 8, 8, jpeg_encoder::ColorType::Luma).expect("a small image");
    let size = ImageSize::square(8);
    let spec = DatasetSpec {
        lineage: vec![],
        image_size: size,
        seed: 1,
        shard_bytes: DEFAULT_SHARD_BYTES,
        sources: vec![],
        tool: "fuzz".into(),
        arguments: vec![],
    };
    let mut writer = DatasetWriter::create(dir.path(), spec).expect("an empty folder");
    for label in [0, 1, 2, 3] {
        let face = Face::new(&jpeg, label, "a/1.jpg", size, Quality::default());
        writer.push(face).expect("a sound row");
    }
    writer.finish(["ann", "bob", "cal", "dee"].into_iter().collect()).expect("a sound data set");
    let mut log = DecisionLog::open(dir.path()).expect("no decisions");
    let info = RunInfo {
        dataset: log.dataset(),
        tool: "fuzz".into(),
        command: "clean".into(),
        arguments: vec![],
        notes: serde_json::Value::Null,
    };
    // Merges that other labels would close to a circle.
    let merge =
        |row: u64, to| Decision::new(row, row as u32, Action::Merge, "same_person").with_target(to);
    let relabel = Decision::new(1, 1, Action::Relabel, "label_error").with_target(0);
    log.append(&info, &[relabel, merge(0, 1), merge(3, 0), merge(2, 3)]).expect("a sound run");
    let mut bytes = fs::read(log.path(0)).expect("just written");
    // Runs of older versions have no checksum, which would refuse all that is changed below.
    let key = b"pfc.checksum";
    while let Some(place) = bytes.windows(key.len()).position(|window| window == key) {
        bytes[place..place + key.len()].copy_from_slice(b"pfc.no_check");
    }
    (dir, bytes)
}

fuzz_target!(|data: &[u8]| {
    let Some((choice, rest)) = data.split_first() else { return };
    SOUND.with(|cell| {
        let (dir, sound) = cell.get_or_init(sound);
        let mut bytes = if choice & 1 == 0 { rest.to_vec() } else { sound.clone() };
        if choice & 1 == 1 {
            for change in rest.as_chunks::<3>().0 {
                let place = usize::from(u16::from_le_bytes([change[0], change[1]])) % bytes.len();
                bytes[place] = change[2];
            }
        }
        let log = DecisionLog::open(dir.path()).expect("the folder lists");
        // A new file under the old name: a map of the old one stays whole.
        let _ = fs::remove_file(log.path(0));
        fs::write(log.path(0), bytes).expect("a temporary folder");
        let dataset = Dataset::open(dir.path()).expect("a sound data set");
        let Ok(state) = log.state(&dataset) else { return };
        for (row, label) in (0..4).zip(0..4) {
            assert!(state.label(row, label).is_none_or(|label| label < state.n_identities()));
        }
        if let Ok(runs) = log.runs() {
            let _ = Questions::of(&runs, &dataset, &state);
        }
        if let Ok(view) = View::new(dataset, &state) {
            for place in 0..view.len() {
                let face = view.get(place).expect("a sound row");
                assert!(face.label < view.n_identities());
                assert!(!view.people().name(face.label).is_empty());
            }
        }
    });
});

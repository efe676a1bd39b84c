//! Any bytes as one file of a folder of centres: the head that they are of, or an error.
#![no_main]

use std::{
    cell::OnceCell,
    fs,
    path::{Path, PathBuf},
};

use libfuzzer_sys::fuzz_target;
use pfc_head::{CentreStore, ClassRange, HeadConfig, Placement, RowStore, rule};
use tempfile::TempDir;

const CLASSES: u64 = 40;
const DIM: usize = 4;
const FILES: [&str; 3] = ["centres.json", "times.json", "places-0-40"];

thread_local! {
    static SOUND: OnceCell<(TempDir, Vec<Vec<u8>>)> = const { OnceCell::new() };
}

fn config(folder: &Path) -> HeadConfig {
    HeadConfig { centres: Placement::File(PathBuf::from(folder)), ..HeadConfig::new(CLASSES, DIM) }
}

fn open(folder: &Path) -> Option<RowStore> {
    RowStore::new(&config(folder), ClassRange::of_rank(CLASSES, 0, 1)).ok()
}

/// A folder that was saved after a step, and what is in its files.
fn sound() -> (TempDir, Vec<Vec<u8>>) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut rule = rule(&config(dir.path()));
    let mut store = open(dir.path()).expect("an empty folder");
    let ones = vec![1.0; CLASSES as usize * DIM];
    rule.finish_step(0.1);
    let stamps = vec![rule.stamp(); CLASSES as usize];
    store.import(0..CLASSES as usize, &ones, &ones, &stamps).expect("rows of the right size");
    let durable = store.durable().expect("it is in a file");
    durable.flush(rule.stamp()).expect("a disk with room");
    durable.protect(rule.stamp()).expect("a disk with room");
    drop(store);
    let files = FILES.map(|name| fs::read(dir.path().join(name)).expect("just written"));
    (dir, files.to_vec())
}

fuzz_target!(|data: &[u8]| {
    let Some((choice, rest)) = data.split_first() else { return };
    SOUND.with(|cell| {
        let (dir, files) = cell.get_or_init(sound);
        for (name, bytes) in FILES.iter().zip(files) {
            fs::write(dir.path().join(name), bytes).expect("a temporary folder");
        }
        let damaged = usize::from(choice >> 1) % FILES.len();
        let mut bytes = if choice & 1 == 0 { rest.to_vec() } else { files[damaged].clone() };
        if choice & 1 == 1 {
            for change in rest.as_chunks::<3>().0 {
                let place = usize::from(u16::from_le_bytes([change[0], change[1]])) % bytes.len();
                bytes[place] = change[2];
            }
        }
        fs::write(dir.path().join(FILES[damaged]), bytes).expect("a temporary folder");
        let Some(mut store) = open(dir.path()) else { return };
        let mut rule = rule(&config(dir.path()));
        rule.finish_step(0.1);
        let restored = store.durable().map(|durable| durable.restore(rule.stamp(), rule.as_ref()));
        if matches!(restored, Some(Ok(()))) {
            let n_numbers = CLASSES as usize * DIM;
            let (mut weight, mut state) = (vec![0.0; n_numbers], vec![0.0; n_numbers]);
            store
                .export(0..CLASSES as usize, &mut weight, &mut state)
                .expect("rows that are there");
            store.catch_up(rule.as_ref()).expect("rows that are there");
            let rows: Vec<u32> = (0..CLASSES as u32).collect();
            store.prepare(&rows).expect("a disk with room");
            assert_eq!(store.tiles(&rows, 16).len(), 3);
        }
    });
});

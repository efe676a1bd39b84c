//! Any bytes as one file of a folder of centres: the rows that were saved, or an error.
#![no_main]

use std::{cell::OnceCell, fs, path::Path};

use libfuzzer_sys::fuzz_target;
use pfc_head::{Head, HeadConfig, Placement};
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

const CLASSES: u64 = 40;
const DIM: usize = 4;
const FILES: [&str; 4] = ["centres.json", "times-0-40-1", "places-0-40-1", "rows-0-40-1"];

type Named = Vec<(String, Tensor)>;

/// A folder that was saved, what is in its files, the checkpoint, and the rows.
struct Sound {
    dir: TempDir,
    files: Vec<Vec<u8>>,
    checkpoint: Named,
    rows: Tensor,
}

thread_local! {
    static SOUND: OnceCell<Sound> = const { OnceCell::new() };
}

fn open(folder: &Path) -> Option<Head> {
    let centres = Placement::File(folder.to_path_buf());
    let config = HeadConfig { centres, sample_rate: 0.5, ..HeadConfig::new(CLASSES, DIM) };
    Head::new(&config).ok()
}

fn step(head: &mut Head, step: u64) {
    let embeddings_bd = Tensor::ones([2, DIM as i64], (Kind::Float, Device::Cpu));
    let labels = [step as i64 % CLASSES as i64, 7];
    // An error is an answer too: a damaged row is found when it is read.
    let _ = head.step(&embeddings_bd, &labels, step, 0.1);
}

fn sound() -> Sound {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut head = open(dir.path()).expect("an empty folder");
    (0..3).for_each(|n| step(&mut head, n));
    let checkpoint = head.checkpoint(false).expect("a disk with room");
    head.checkpointed().expect("a disk with room");
    let rows = head.state_as_it_is().expect("rows that are there").swap_remove(0).1;
    drop(head);
    let read = |name| fs::read(dir.path().join(name)).expect("just written");
    let files = FILES.map(read).to_vec();
    Sound { dir, files, checkpoint, rows }
}

fuzz_target!(|data: &[u8]| {
    let Some((choice, rest)) = data.split_first() else { return };
    SOUND.with(|cell| {
        let Sound { dir, files, checkpoint, rows } = cell.get_or_init(sound);
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
        let Some(mut head) = open(dir.path()) else { return };
        if head.load_state(checkpoint).is_err() {
            return;
        }
        if let Ok(mut state) = head.state_as_it_is() {
            assert_eq!(state.swap_remove(0).1, *rows, "other rows without a word");
        }
        (3..5).for_each(|n| step(&mut head, n));
    });
});

//! A power cut at any moment: the folder of centres as a disk may then have it.
//!
//! A run is recorded: after every step, around every sync and whenever a file was replaced, the bytes of
//! all files as programs see them. A power cut leaves of each file a mixture, line by line, of what it
//! was when it was last synced and of anything that it has been since, as the system writes pages back
//! whenever it likes. A file that is replaced as a whole is the old one or the new one, and a file whose
//! folder was not synced since it was made may be gone. Every choice of a version for each
//! file is tried, and mixtures within files, drawn at random. The checkpoint is a folder that
//! appears as a whole, as the trainer's test of power cuts shows, after the centres were flushed and before
//! they are told that it is there.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs,
    ops::Range,
    path::{Path, PathBuf},
    rc::Rc,
};

use super::{
    on_disk::{Saved, on_disk, restored},
    *,
};
use crate::centres::file::{Event, WATCHER};

const CLASSES: u64 = 30;
/// What is written at once, at the least; a row takes several.
const LINE: usize = 64;
/// Mixtures of a moment, beside all old, all new, and one file of each.
const N_RANDOM: u64 = 8;

/// All files as programs saw them, and what a disk must have of them.
#[derive(Clone)]
struct Moment {
    files: BTreeMap<String, Rc<Vec<u8>>>,
    /// By file: the moment since which it may have stayed as it was.
    synced: BTreeMap<String, usize>,
    /// Files whose names are sure to be there.
    named: Vec<String>,
    /// The checkpoints that may be asked for, by number, the older one first.
    saved: Vec<usize>,
}

/// A run's folder, watched.
struct Recorder {
    folder: PathBuf,
    moments: Vec<Moment>,
    saved: Vec<usize>,
}

impl Recorder {
    fn look(&mut self, event: &Event) {
        let now = self.moments.len();
        let before = self.moments.last();
        let mut synced = before.map(|before| before.synced.clone()).unwrap_or_default();
        let mut named = before.map(|before| before.named.clone()).unwrap_or_default();
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(&self.folder).unwrap().map(|entry| entry.unwrap()) {
            let name = entry.file_name().into_string().unwrap();
            // Locks, and files on their way to their names.
            if name.starts_with("lock") || name.starts_with('.') {
                continue;
            }
            let bytes = fs::read(entry.path()).unwrap();
            let same = before.and_then(|before| before.files.get(&name));
            let same = same.filter(|before| ***before == bytes).cloned();
            let is_replaced = !name.starts_with("rows") && !name.starts_with("places");
            if is_replaced || !synced.contains_key(&name) {
                synced.insert(name.clone(), now);
            }
            files.insert(name, same.unwrap_or_else(|| Rc::new(bytes)));
        }
        match event {
            Event::Synced(path) => {
                synced.insert(path.file_name().unwrap().to_str().unwrap().to_owned(), now);
            }
            // Its folder was synced.
            Event::Replaced => named = files.keys().cloned().collect(),
            Event::Moved => {}
        }
        named.retain(|name| files.contains_key(name));
        let saved = self.saved.clone();
        self.moments.push(Moment { files, synced, named, saved });
    }
}

/// A run that saves three times, is killed and goes back to the newest checkpoint, loses that and goes
/// back to the one before, and saves again.
struct Run {
    config: HeadConfig,
    recorder: Rc<RefCell<Recorder>>,
    all_saved: Vec<Saved>,
}

impl Run {
    fn steps(&self, store: &mut RowStore, rule: &mut dyn UpdateRule, steps: Range<u64>) {
        for step in steps {
            take_step(store, rule, step);
            self.recorder.borrow_mut().look(&Event::Moved);
        }
    }

    fn save(&mut self, store: &mut RowStore, rule: &dyn UpdateRule) {
        let record = store.flush(rule.stamp()).unwrap().unwrap();
        self.all_saved.push(Saved { record, memory: rule.memory(), rows: exported(store) });
        // The checkpoint appears, and the one before it is kept.
        let newest = self.all_saved.len() - 1;
        let before = self.recorder.borrow().saved.last().copied();
        self.recorder.borrow_mut().saved = before.into_iter().chain([newest]).collect();
        self.recorder.borrow_mut().look(&Event::Moved);
        store.protect(rule.stamp()).unwrap();
    }

    fn run(&mut self) {
        let config = self.config.clone();
        let (mut store, mut rule) = (store_of(&config), rule(&config));
        self.steps(&mut store, rule.as_mut(), 0..3);
        for first in [3, 6, 9] {
            self.save(&mut store, rule.as_ref());
            self.steps(&mut store, rule.as_mut(), first..first + 3);
        }
        // Killed: what it wrote goes to the disk whenever it goes.
        drop(store);
        let (mut store, mut rule) = restored(&config, &self.all_saved[2]).unwrap();
        self.steps(&mut store, rule.as_mut(), 9..11);
        drop(store);
        // Checkpoint 2 is found damaged, or moved away.
        self.recorder.borrow_mut().saved = vec![1];
        let (mut store, mut rule) = restored(&config, &self.all_saved[1]).unwrap();
        self.steps(&mut store, rule.as_mut(), 6..9);
        self.save(&mut store, rule.as_ref());
        self.steps(&mut store, rule.as_mut(), 9..11);
    }
}

/// Which version of a line a disk has.
#[derive(Clone, Copy)]
enum Mix {
    /// As it was synced, or as programs saw it last, by the kind of file.
    Whole { rows_new: bool, places_new: bool },
    /// The version of this number of each file, in order of name; one past the last for a file that is
    /// gone.
    Versions([usize; FILES_MAX]),
    /// Any, line by line.
    Random(u64),
}

/// Files of a folder: `centres.json`, and rows, places and times of one rank.
const FILES_MAX: usize = 4;

/// How many versions of each file a disk may have at a moment, its absence included.
fn n_versions(moments: &[Moment], now: usize) -> [usize; FILES_MAX] {
    let moment = &moments[now];
    let mut found = [1; FILES_MAX];
    assert!(moment.files.len() <= FILES_MAX, "{:?}", moment.files.keys());
    for (n, name) in found.iter_mut().zip(moment.files.keys()) {
        let n_moments = now + 1 - moment.synced[name];
        *n = n_moments + usize::from(!moment.named.contains(name));
    }
    found
}

/// Every choice of one number below each of `bounds`.
fn choices(bounds: [usize; FILES_MAX]) -> impl Iterator<Item = [usize; FILES_MAX]> {
    (0..bounds.iter().product::<usize>()).map(move |number| {
        let mut rest = number;
        bounds.map(|bound| {
            let choice = rest % bound;
            rest /= bound;
            choice
        })
    })
}

/// Writes the files of a moment as a disk may have them.
fn write_state(folder: &Path, moments: &[Moment], now: usize, mix: Mix) {
    for entry in fs::read_dir(folder).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let moment = &moments[now];
    for (i, (name, newest)) in moment.files.iter().enumerate() {
        let since = &moments[moment.synced[name]..=now];
        let versions: Vec<&Rc<Vec<u8>>> = since.iter().map(|then| &then.files[name]).collect();
        let is_named = moment.named.contains(name);
        let bytes = match mix {
            Mix::Whole { rows_new, places_new } => {
                let is_new = if name.starts_with("rows") { rows_new } else { places_new };
                if !is_new && !is_named {
                    continue;
                }
                let version = if is_new { newest } else { versions[0] };
                version.to_vec()
            }
            Mix::Versions(chosen) => match versions.get(chosen[i]) {
                Some(version) => version.to_vec(),
                None => continue,
            },
            Mix::Random(seed) => {
                let draw = |line: usize| scramble(seed << 40 ^ (i as u64) << 32 ^ line as u64);
                if !is_named && draw(usize::MAX).is_multiple_of(3) {
                    continue;
                }
                let mut bytes = newest.to_vec();
                for (line, bytes) in bytes.chunks_mut(LINE).enumerate() {
                    let version = versions[(draw(line) % versions.len() as u64) as usize];
                    bytes.copy_from_slice(&version[line * LINE..][..bytes.len()]);
                }
                bytes
            }
        };
        fs::write(folder.join(name), bytes).unwrap();
    }
}

/// A run, recorded, and what it saved.
fn recorded() -> (Rc<RefCell<Recorder>>, Vec<Saved>) {
    let folder = tempfile::tempdir().unwrap();
    let config = HeadConfig { classes: CLASSES, ..on_disk(folder.path(), Storage::Bf16) };
    let folder_path = folder.path().to_path_buf();
    let recorder = Recorder { folder: folder_path, moments: Vec::new(), saved: Vec::new() };
    let recorder = Rc::new(RefCell::new(recorder));
    let watching = Rc::clone(&recorder);
    WATCHER.set(Some(Box::new(move |event| watching.borrow_mut().look(event))));
    let mut run = Run { config, recorder: Rc::clone(&recorder), all_saved: Vec::new() };
    run.run();
    WATCHER.set(None);
    (recorder, run.all_saved)
}

/// Cuts the power at each moment in each of the ways that `mixes` has for it. Returns the number of states,
/// and of checkpoints that were opened in them.
fn check(mixes: impl Fn(&[Moment], usize) -> Vec<Mix>) -> (usize, usize) {
    let (recorder, all_saved) = recorded();
    let recorder = recorder.borrow();
    let cut = tempfile::tempdir().unwrap();
    let config = HeadConfig { classes: CLASSES, ..on_disk(cut.path(), Storage::Bf16) };
    let untouched = exported(&store_of(&HeadConfig { centres: Placement::Host, ..config.clone() }));
    let (mut n_states, mut n_opened) = (0, 0);
    for now in 0..recorder.moments.len() {
        for mix in mixes(&recorder.moments, now) {
            n_states += 1;
            let saved = &recorder.moments[now].saved;
            if saved.is_empty() {
                write_state(cut.path(), &recorder.moments, now, mix);
                let mut store = store_of(&config);
                store.prepare(&[]).unwrap();
                assert!(exported(&store) == untouched, "moment {now}");
            }
            for &number in saved {
                write_state(cut.path(), &recorder.moments, now, mix);
                let saved = &all_saved[number];
                let (store, _) = restored(&config, saved)
                    .unwrap_or_else(|error| panic!("checkpoint {number} at moment {now}: {error}"));
                assert!(exported(&store) == saved.rows, "checkpoint {number} at moment {now}");
                n_opened += 1;
            }
        }
    }
    (n_states, n_opened)
}

#[test]
fn after_a_power_cut_at_any_moment_the_last_two_checkpoints_are_there_bit_for_bit() {
    let whole = [[false, false], [true, false], [false, true], [true, true]]
        .map(|[rows_new, places_new]| Mix::Whole { rows_new, places_new });
    let (n_states, n_opened) = check(|_, now| {
        let random = (0..N_RANDOM).map(|i| Mix::Random(now as u64 * N_RANDOM + i));
        whole.into_iter().chain(random).collect()
    });
    assert!(n_states > 400 && n_opened > 600, "{n_states} states, {n_opened} checkpoints opened");
}

#[test]
fn after_a_power_cut_every_choice_of_a_version_of_each_file_has_both_checkpoints() {
    let (n_states, n_opened) =
        check(|moments, now| choices(n_versions(moments, now)).map(Mix::Versions).collect());
    assert!(n_states > 400 && n_opened > 600, "{n_states} states, {n_opened} checkpoints opened");
}

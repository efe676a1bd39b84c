//! Flipped bits, and files that are lost, cut short, swapped or of another time.
//!
//! What a checkpoint needs of a folder is worked out here from `docs/centres.md` alone, byte by byte, so that
//! damage which goes unnoticed is proved to be of bytes that no row of the checkpoint is made of.

use std::{fs, ops::Range, path::Path};

use super::{
    on_disk::{Saved, copy_folder, on_disk, restored_on, save},
    *,
};
use crate::{HeadError, centres::file::COPIES, config::HeadConfig};

const CLASSES: u64 = 40;

/// One rank's rows of a folder that several ranks share.
fn seen_by(
    rank: usize,
    world: usize,
    folder: &Path,
    storage: Storage,
    saved: &Saved,
) -> Result<(), String> {
    let config = HeadConfig { classes: CLASSES, ..on_disk(folder, storage) };
    let range = ClassRange::of_rank(CLASSES, rank, world);
    let text = |error: HeadError| error.to_string();
    let (store, _) = restored_on(&config, range, saved).map_err(text)?;
    let n_numbers = store.n_rows() * DIM;
    let (mut weight, mut state) = (vec![0.0; n_numbers], vec![0.0; n_numbers]);
    store.export(0..store.n_rows(), &mut weight, &mut state).map_err(text)?;
    assert!((weight, state) == saved.rows, "other rows without a word");
    Ok(())
}

/// A folder that `world` ranks have saved in twice and then gone on in, a copy of it as it was at the
/// first save, and what each rank saved.
struct Folder {
    now: tempfile::TempDir,
    then: tempfile::TempDir,
    /// By rank: the older checkpoint and the newer one.
    saved: Vec<[Saved; 2]>,
}

impl Folder {
    /// * `first_step`: other steps make another run of the same configuration
    fn new(world: usize, storage: Storage, first_step: u64) -> Folder {
        let [now, then] = [0, 1].map(|_| tempfile::tempdir().unwrap());
        let config = HeadConfig { classes: CLASSES, ..on_disk(now.path(), storage) };
        let ranges: Vec<ClassRange> =
            (0..world).map(|rank| ClassRange::of_rank(CLASSES, rank, world)).collect();
        let mut stores: Vec<RowStore> =
            ranges.iter().map(|range| RowStore::new(&config, *range).unwrap()).collect();
        let mut rule = rule(&config);
        let steps = |stores: &mut [RowStore], steps: Range<u64>, rule: &mut dyn UpdateRule| {
            for step in steps {
                for (store, range) in stores.iter_mut().zip(&ranges) {
                    take_step_of(store, *range, rule, first_step + step);
                }
                rule.finish_step(LR);
            }
        };
        steps(&mut stores, 0..20, rule.as_mut());
        let older: Vec<Saved> = stores.iter_mut().map(|store| save(store, rule.as_ref())).collect();
        copy_folder(now.path(), then.path());
        steps(&mut stores, 20..30, rule.as_mut());
        let newer: Vec<Saved> = stores.iter_mut().map(|store| save(store, rule.as_ref())).collect();
        steps(&mut stores, 30..34, rule.as_mut());
        let saved = older.into_iter().zip(newer).map(|(older, newer)| [older, newer]).collect();
        Folder { now, then, saved }
    }
}

/// The bits of a folder of one rank that a checkpoint of the time `now` is made of, as `docs/centres.md` has
/// them.
struct Needed {
    /// By place: where the copy that is needed begins.
    copies: Vec<Range<usize>>,
    places: Vec<u8>,
    n_used: usize,
    now: u32,
}

impl Needed {
    fn of(folder: &Path, saved: &Saved) -> Needed {
        let name = |kind: &str| folder.join(format!("{kind}-0-{CLASSES}-1"));
        let places = fs::read(name("places")).unwrap();
        let row_bytes = fs::metadata(name("rows")).unwrap().len() as usize / CLASSES as usize;
        let size = row_bytes / COPIES;
        let (n_used, now) = (saved.record.n_used, saved.memory.now);
        let copy = |place: usize| {
            let (copy, _) = newest_at(&places[place * 32..][..32], now).unwrap();
            let start = place * row_bytes + copy * size;
            start..start + size
        };
        Needed { copies: (0..n_used).map(copy).collect(), places, n_used, now }
    }

    /// Whether the checkpoint is not what it was once this bit of a file is flipped.
    fn has(&self, file_name: &str, bit: usize) -> bool {
        if file_name.starts_with("rows") {
            return self.copies.iter().any(|copy| copy.contains(&(bit / 8)));
        }
        if !file_name.starts_with("places") {
            return true;
        }
        let place = bit / 8 / 32;
        if place >= self.n_used {
            return false;
        }
        let entry = &self.places[place * 32..][..32];
        let mut flipped = entry.to_vec();
        flipped[bit / 8 % 32] ^= 1 << (bit % 8);
        vital(entry, self.now) != vital(&flipped, self.now)
    }
}

/// The number and the time of the newest copy that is no newer than `now`.
fn newest_at(entry: &[u8], now: u32) -> Option<(usize, u32)> {
    let word = |at: usize| u32::from_le_bytes(entry[at..at + 4].try_into().unwrap());
    let times = (0..3).map(|copy| (copy, word(8 + 4 * copy)));
    // The first of those that are equal, of which a sound folder has none.
    times.filter(|(_, time)| (1..=now).contains(time)).rev().max_by_key(|(_, time)| *time)
}

/// What the checkpoint has of an entry: its class, four bytes that are zero, time and checksum of a copy.
fn vital(entry: &[u8], now: u32) -> (Vec<u8>, Option<(u32, Vec<u8>)>) {
    let copy = newest_at(entry, now)
        .map(|(copy, time)| (time, entry[20 + 4 * copy..24 + 4 * copy].to_vec()));
    (entry[..8].to_vec(), copy)
}

#[test]
fn each_of_1000_flipped_bits_is_found_or_proved_to_be_of_no_row() {
    let damaged = tempfile::tempdir().unwrap();
    let (mut n_found, mut n_unused, mut seed) = (0, 0, 0);
    for storage in [Storage::F32, Storage::Bf16] {
        let Folder { now: sound, saved, .. } = Folder::new(1, storage, 0);
        let newest = &saved[0][1];
        seen_by(0, 1, sound.path(), storage, newest).unwrap();
        let needed = Needed::of(sound.path(), newest);
        let files = fs::read_dir(sound.path()).unwrap().map(|entry| entry.unwrap());
        let files: Vec<_> = files.filter(|file| file.metadata().unwrap().len() > 0).collect();
        assert_eq!(files.len(), 4, "centres.json, rows, places and times");
        for file in files.iter().flat_map(|file| std::iter::repeat_n(file, 125)) {
            copy_folder(sound.path(), damaged.path());
            let name = file.file_name().into_string().unwrap();
            let path = damaged.path().join(&name);
            let mut bytes = fs::read(&path).unwrap();
            seed += 1;
            let bit = (scramble(seed) % (bytes.len() as u64 * 8)) as usize;
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, bytes).unwrap();
            match seen_by(0, 1, damaged.path(), storage, newest) {
                Err(error) => {
                    assert!(error.contains(path.to_str().unwrap()), "{error}: bit {bit} of {name}");
                    n_found += 1;
                }
                Ok(()) => {
                    assert!(!needed.has(&name, bit), "bit {bit} of {name} was not found");
                    n_unused += 1;
                }
            }
        }
    }
    assert_eq!(n_found + n_unused, 1000);
    // All of two small files, and about a third of the others.
    assert!(n_found > 600, "{n_found} found, {n_unused} of no row");
}

/// What is done to a folder, in words and by a function, and the file that the error must name.
struct Damage<'a> {
    what: &'static str,
    named: String,
    carry_out: Box<dyn Fn() + 'a>,
}

#[derive(Default)]
struct Damages<'a>(Vec<Damage<'a>>);

impl<'a> Damages<'a> {
    fn add(&mut self, what: &'static str, named: &str, carry_out: impl Fn() + 'a) {
        self.0.push(Damage { what, named: named.to_owned(), carry_out: Box::new(carry_out) });
    }
}

#[test]
fn more_than_50_lost_cut_or_swapped_files_are_errors_that_name_a_file() {
    let world = 2;
    let sound = Folder::new(world, Storage::Bf16, 0);
    let foreign = Folder::new(world, Storage::Bf16, 100);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let ranks = ["0-20-1", "20-40-1"];
    let kinds = ["rows", "places", "times"];
    let mut names: Vec<String> =
        ranks.iter().flat_map(|rank| kinds.map(|kind| format!("{kind}-{rank}"))).collect();
    names.push("centres.json".to_owned());
    let pairs = kinds.map(|kind| ranks.map(|rank| path(&format!("{kind}-{rank}"))));
    let mut all = Damages::default();
    for name in &names {
        all.add("lost", name, || fs::remove_file(path(name)).unwrap());
        let resized = |len: fn(u64) -> u64| {
            move || {
                let file = fs::OpenOptions::new().write(true).open(path(name)).unwrap();
                file.set_len(len(file.metadata().unwrap().len())).unwrap();
            }
        };
        all.add("a byte short", name, resized(|len| len - 1));
        all.add("half", name, resized(|len| len / 2));
        all.add("empty", name, resized(|_| 0));
        all.add("a byte longer", name, resized(|len| len + 1));
        all.add("a folder", name, || {
            fs::remove_file(path(name)).unwrap();
            fs::create_dir(path(name)).unwrap();
        });
    }
    for rank in ranks {
        let [rows, places, times] = kinds.map(|kind| format!("{kind}-{rank}"));
        let brought = |from: &Path, names: &[&String]| {
            let copies: Vec<_> =
                names.iter().map(|name| (from.join(name), path(name.as_str()))).collect();
            move || {
                for (from, to) in &copies {
                    fs::copy(from, to).unwrap();
                }
            }
        };
        let then = sound.then.path();
        all.add("of the save before", &rows, brought(then, &[&rows]));
        all.add("of the save before", &places, brought(then, &[&places]));
        all.add("of the save before", &times, brought(then, &[&times]));
        all.add("both of the save before", &places, brought(then, &[&rows, &places]));
        let other = foreign.now.path();
        all.add("of another run", &rows, brought(other, &[&rows]));
        all.add("of another run", &places, brought(other, &[&places]));
        all.add("both of another run", &places, brought(other, &[&rows, &places]));
        let swapped = (path(&rows), path(&places));
        all.add("swapped with places", &rows, move || swap(&swapped.0, &swapped.1));
    }
    let [rows, places, _] = &pairs;
    all.add("swapped between ranks", "rows-", || swap(&rows[0], &rows[1]));
    all.add("swapped between ranks", "places-", || swap(&places[0], &places[1]));
    let all_three = || pairs.iter().for_each(|[a, b]| swap(a, b));
    all.add("all swapped between ranks", "places-", all_three);
    assert!(all.0.len() > 50, "{}", all.0.len());
    for Damage { what, named, carry_out } in &all.0 {
        copy_folder(sound.now.path(), folder.path());
        carry_out();
        let outcome =
            |rank: usize| seen_by(rank, world, folder.path(), Storage::Bf16, &sound.saved[rank][1]);
        let errors: Vec<String> = (0..world).filter_map(|rank| outcome(rank).err()).collect();
        let expected = path(named).display().to_string();
        let names_it = |error: &String| error.contains(&expected);
        assert!(errors.iter().any(names_it), "{what}: {expected} is not in {errors:?}");
    }
}

fn swap(a: &Path, b: &Path) {
    let (of_a, of_b) = (fs::read(a).unwrap(), fs::read(b).unwrap());
    fs::write(a, of_b).unwrap();
    fs::write(b, of_a).unwrap();
}

//! Rows in a folder, against rows in memory and across crashes.

use super::*;
use crate::{
    centres::file::{FULL_AT, FileRecord},
    optim::UpdateHistory,
};

/// What stays in memory and what stays on disk, as tests compare them.
pub(super) fn on_disk(folder: &Path, storage: Storage) -> HeadConfig {
    let centres = Placement::File(folder.to_path_buf());
    HeadConfig { centres, weights: storage, state: storage, ..config(300) }
}

#[test]
fn rows_on_disk_are_those_in_memory_bit_for_bit() {
    for storage in [Storage::F32, Storage::Bf16] {
        let folder = tempfile::tempdir().unwrap();
        let file_config = on_disk(folder.path(), storage);
        let host_config = HeadConfig { centres: Placement::Host, ..file_config.clone() };
        let run = |config: &HeadConfig| {
            let (mut store, mut rule) = (store_of(config), rule(config));
            (0..40).for_each(|step| take_step(&mut store, rule.as_mut(), step));
            exported(&store)
        };
        assert_eq!(run(&file_config), run(&host_config), "{storage:?}");
    }
}

/// A checkpoint: what the trainer's would hold of the centres.
pub(super) struct Saved {
    pub record: FileRecord,
    pub memory: UpdateHistory,
    pub rows: (Vec<f32>, Vec<f32>),
}

/// Saves as a run does.
pub(super) fn save(store: &mut RowStore, rule: &dyn UpdateRule) -> Saved {
    let record = store.flush(rule.stamp()).unwrap().unwrap();
    store.protect(rule.stamp()).unwrap();
    Saved { record, memory: rule.memory(), rows: exported(store) }
}

/// A store at a checkpoint, and its rule.
pub(super) fn restored(
    config: &HeadConfig,
    saved: &Saved,
) -> Result<(RowStore, Box<dyn UpdateRule>), HeadError> {
    restored_on(config, all(config), saved)
}

/// The same for the classes of one rank.
pub(super) fn restored_on(
    config: &HeadConfig,
    range: ClassRange,
    saved: &Saved,
) -> Result<(RowStore, Box<dyn UpdateRule>), HeadError> {
    let (mut store, mut rule) = (RowStore::new(config, range)?, rule(config));
    assert!(rule.remember(&saved.memory));
    store.restore(&saved.record, saved.memory.now, rule.as_ref())?;
    Ok((store, rule))
}

fn all(config: &HeadConfig) -> ClassRange {
    ClassRange::of_rank(config.classes, 0, 1)
}

#[test]
fn the_last_two_checkpoints_can_be_gone_back_to_bit_for_bit() {
    for storage in [Storage::F32, Storage::Bf16] {
        let folder = tempfile::tempdir().unwrap();
        let config = on_disk(folder.path(), storage);
        let (mut store, mut rule) = (store_of(&config), rule(&config));
        let mut saved = Vec::new();
        // Rows move in none, one or many of the steps between two saves.
        for steps in [0..10, 10..13, 13..30] {
            steps.for_each(|step| take_step(&mut store, rule.as_mut(), step));
            saved.push(save(&mut store, rule.as_ref()));
        }
        (30..60).for_each(|step| take_step(&mut store, rule.as_mut(), step));
        let end = exported(&store);
        drop(store);
        let error = restored(&config, &saved[0]).err().unwrap().to_string();
        assert!(error.contains("as of steps 14 and 31 of the head"), "{error}");
        assert!(error.ends_with("but the checkpoint needs step 11"), "{error}");
        // Twice, as a run may be killed again; then the one before.
        for (saved, first) in [(&saved[2], 30), (&saved[2], 30), (&saved[1], 13)] {
            let (mut store, mut rule) = restored(&config, saved).unwrap();
            assert_eq!(exported(&store), saved.rows, "{storage:?}");
            (first..60).for_each(|step| take_step(&mut store, rule.as_mut(), step));
            assert_eq!(exported(&store), end, "{storage:?}");
        }
        // The later one was given up by that.
        let error = restored(&config, &saved[2]).err().unwrap().to_string();
        assert!(error.contains("as of steps 14 and 14 of the head"), "{error}");
    }
}

#[test]
fn a_run_that_went_back_saves_what_an_undisturbed_one_does() {
    let folder = tempfile::tempdir().unwrap();
    let config = on_disk(folder.path(), Storage::F32);
    let (mut store, mut rule) = (store_of(&config), rule(&config));
    (0..5).for_each(|step| take_step(&mut store, rule.as_mut(), step));
    let first = save(&mut store, rule.as_ref());
    (5..9).for_each(|step| take_step(&mut store, rule.as_mut(), step));
    let second = save(&mut store, rule.as_ref());
    drop(store);
    let (mut store, mut rule) = restored(&config, &first).unwrap();
    (5..9).for_each(|step| take_step(&mut store, rule.as_mut(), step));
    assert_eq!(save(&mut store, rule.as_ref()).record, second.record);
}

#[test]
fn a_checkpoint_that_was_lost_leaves_the_one_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let config = on_disk(folder.path(), Storage::F32);
    let (mut store, mut rule) = (store_of(&config), rule(&config));
    take_step(&mut store, rule.as_mut(), 0);
    let first = save(&mut store, rule.as_ref());
    take_step(&mut store, rule.as_mut(), 1);
    // Killed between flushing and protecting: either time can be gone back to.
    let record = store.flush(rule.stamp()).unwrap().unwrap();
    let second = Saved { record, memory: rule.memory(), rows: exported(&store) };
    drop(store);
    for saved in [&second, &first] {
        let (store, _) = restored(&config, saved).unwrap();
        assert_eq!(exported(&store), saved.rows);
    }
    assert_ne!(first.rows, second.rows);
}

/// A folder that saved twice, and went on; the checkpoints, and a second folder to damage a copy in.
fn saved_twice(storage: Storage) -> ([tempfile::TempDir; 2], [Saved; 2]) {
    let folders = [0, 1].map(|_| tempfile::tempdir().unwrap());
    let config = HeadConfig { classes: 40, ..on_disk(folders[0].path(), storage) };
    let (mut store, mut rule) = (store_of(&config), rule(&config));
    (0..20).for_each(|step| take_step(&mut store, rule.as_mut(), step));
    let first = save(&mut store, rule.as_ref());
    (20..30).for_each(|step| take_step(&mut store, rule.as_mut(), step));
    let second = save(&mut store, rule.as_ref());
    (30..34).for_each(|step| take_step(&mut store, rule.as_mut(), step));
    (folders, [first, second])
}

pub(super) fn copy_folder(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(to).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => std::fs::remove_dir(path).unwrap(),
            false => std::fs::remove_file(path).unwrap(),
        }
    }
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// What a run sees of a folder: the rows of a checkpoint, or the error that ends it.
fn seen(folder: &Path, storage: Storage, saved: &Saved) -> Result<(), String> {
    let config = HeadConfig { classes: 40, ..on_disk(folder, storage) };
    let (store, _) = restored(&config, saved).map_err(|error| error.to_string())?;
    let n_numbers = store.n_rows() * DIM;
    let (mut weight, mut state) = (vec![0.0; n_numbers], vec![0.0; n_numbers]);
    let rows = store.export(0..store.n_rows(), &mut weight, &mut state);
    rows.map_err(|error| error.to_string())?;
    assert!((weight, state) == saved.rows, "other rows without a word");
    Ok(())
}

#[test]
fn lost_cut_short_swapped_and_foreign_files_are_errors_that_name_them() {
    let ([sound, damaged], [older, newest]) = saved_twice(Storage::Bf16);
    let foreign = {
        let folder = tempfile::tempdir().unwrap();
        let config = HeadConfig { classes: 40, ..on_disk(folder.path(), Storage::Bf16) };
        let (mut store, mut rule) = (store_of(&config), rule(&config));
        // Another run of the same configuration.
        (100..130).for_each(|step| take_step(&mut store, rule.as_mut(), step));
        save(&mut store, rule.as_ref());
        folder
    };
    let [rows, places, times] = ["rows", "places", "times"].map(|kind| format!("{kind}-0-40-1"));
    let path = |name: &str| damaged.path().join(name);
    let check = |what: &str, name: &str, damage: &dyn Fn()| {
        copy_folder(sound.path(), damaged.path());
        damage();
        for saved in [&newest, &older] {
            let error = seen(damaged.path(), Storage::Bf16, saved).unwrap_err();
            assert!(error.contains(path(name).to_str().unwrap()), "{what}: {error}");
        }
    };
    for name in [&*rows, &*places, &*times, "centres.json"] {
        check("lost", name, &|| std::fs::remove_file(path(name)).unwrap());
        check("cut short", name, &|| {
            let len = std::fs::metadata(path(name)).unwrap().len();
            let file = std::fs::OpenOptions::new().write(true).open(path(name)).unwrap();
            file.set_len(len - 1).unwrap();
        });
    }
    for name in [&*rows, &*places] {
        check("foreign", name, &|| {
            std::fs::copy(foreign.path().join(name), path(name)).unwrap();
        });
        check("zeros", name, &|| {
            let n_bytes = std::fs::metadata(path(name)).unwrap().len() as usize;
            std::fs::write(path(name), vec![0; n_bytes]).unwrap();
        });
    }
    check("both lost", &rows, &|| {
        std::fs::remove_file(path(&rows)).unwrap();
        std::fs::remove_file(path(&places)).unwrap();
    });
}

#[test]
fn rows_that_changed_places_are_found_when_they_are_read() {
    let ([sound, damaged], [_, newest]) = saved_twice(Storage::F32);
    copy_folder(sound.path(), damaged.path());
    let path = damaged.path().join("rows-0-40-1");
    let mut bytes = std::fs::read(&path).unwrap();
    let stride = bytes.len() / 40;
    let (first, second) = bytes.split_at_mut(stride);
    first.swap_with_slice(&mut second[..stride]);
    std::fs::write(&path, bytes).unwrap();
    let error = seen(damaged.path(), Storage::F32, &newest).unwrap_err();
    assert!(error.contains("rows-0-40-1: place "), "{error}");
    assert!(error.ends_with("as it was written: its checksum differs"), "{error}");
}

#[test]
fn a_checkpoint_that_fails_leaves_the_folder_to_the_one_before() {
    let ([sound, damaged], [older, mut newest]) = saved_twice(Storage::F32);
    copy_folder(sound.path(), damaged.path());
    newest.record.blocks[0] ^= 1;
    let error = seen(damaged.path(), Storage::F32, &newest).unwrap_err();
    let last = newest.record.n_used - 1;
    let expected = format!("places 0 to {last} are not those of the checkpoint");
    assert!(error.ends_with(&expected), "{error}");
    newest.record.blocks[0] ^= 1;
    seen(damaged.path(), Storage::F32, &newest).unwrap();
    seen(damaged.path(), Storage::F32, &older).unwrap();
}

#[test]
fn a_full_disk_is_an_error_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let config = on_disk(folder.path(), Storage::F32);
    let (mut store, mut rule) = (store_of(&config), rule(&config));
    take_step(&mut store, rule.as_mut(), 0);
    let saved = save(&mut store, rule.as_ref());
    let n_used = saved.record.n_used as u64;
    drop(store);
    FULL_AT.set(n_used + 10);
    let (mut store, _) = restored(&config, &saved).unwrap();
    let all: Vec<u32> = (0..300).collect();
    let error = store.prepare(&all).unwrap_err();
    assert!(matches!(error, HeadError::DiskFull { .. }), "{error}");
    assert!(error.to_string().contains("centres that are used for the first time need"), "{error}");
    assert_eq!(exported(&store), saved.rows);
    drop(store);
    FULL_AT.set(u64::MAX);
    let (mut store, _) = restored(&config, &saved).unwrap();
    store.prepare(&all).unwrap();
}

#[test]
fn a_copy_of_the_folder_with_holes_is_made_whole_or_is_a_full_disk() {
    use std::os::unix::fs::{FileExt, MetadataExt};
    let folder = tempfile::tempdir().unwrap();
    let config = HeadConfig { classes: 4000, ..on_disk(folder.path(), Storage::F32) };
    let (mut store, mut rule) = (store_of(&config), rule(&config));
    (0..3).for_each(|step| take_step(&mut store, rule.as_mut(), step));
    let saved = save(&mut store, rule.as_ref());
    drop(store);
    // As `cp --sparse=always` copies it: pages of zeros become holes.
    let path = folder.path().join("rows-0-4000-1");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    for (i, page) in bytes.chunks(4096).enumerate() {
        if page.iter().any(|&byte| byte != 0) {
            file.write_all_at(page, i as u64 * 4096).unwrap();
        }
    }
    drop(file);
    FULL_AT.set(saved.record.n_used as u64 - 1);
    let error = restored(&config, &saved).err().unwrap();
    assert!(matches!(error, HeadError::DiskFull { .. }), "{error}");
    FULL_AT.set(u64::MAX);
    let (store, _) = restored(&config, &saved).unwrap();
    assert_eq!(exported(&store), saved.rows);
    let n_bytes = saved.record.n_used as u64 * store.frame.stride() as u64;
    assert!(std::fs::metadata(&path).unwrap().blocks() * 512 >= n_bytes);
}

#[test]
fn places_past_those_of_the_checkpoint_are_free_whatever_is_in_them() {
    let folder = tempfile::tempdir().unwrap();
    let config = on_disk(folder.path(), Storage::F32);
    let (mut store, mut rule) = (store_of(&config), rule(&config));
    take_step(&mut store, rule.as_mut(), 0);
    let saved = save(&mut store, rule.as_ref());
    drop(store);
    // What a power cut may leave of the steps after it.
    let path = folder.path().join("places-0-300-1");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[saved.record.n_used * 32..].fill(0xA5);
    std::fs::write(&path, bytes).unwrap();
    let (mut store, mut rule) = restored(&config, &saved).unwrap();
    let mut undisturbed = store_of(&HeadConfig { centres: Placement::Host, ..config.clone() });
    let mut other = super::rule(&config);
    take_step(&mut undisturbed, other.as_mut(), 0);
    for step in 1..20 {
        take_step(&mut store, rule.as_mut(), step);
        take_step(&mut undisturbed, other.as_mut(), step);
    }
    assert_eq!(exported(&store), exported(&undisturbed));
}

#[test]
fn a_folder_that_never_saved_is_cleared_and_one_that_has_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = on_disk(folder.path(), Storage::F32);
    let untouched = exported(&store_of(&config));
    let mut rule = rule(&config);
    let mut store = store_of(&config);
    take_step(&mut store, rule.as_mut(), 0);
    assert_ne!(exported(&store), untouched);
    drop(store);
    let mut store = store_of(&config);
    store.prepare(&[]).unwrap();
    assert_eq!(exported(&store), untouched);
    take_step(&mut store, rule.as_mut(), 1);
    // Killed before the checkpoint that this was for was safe.
    store.flush(rule.stamp()).unwrap();
    drop(store);
    let mut store = store_of(&config);
    store.prepare(&[]).unwrap();
    assert_eq!(exported(&store), untouched);
    save(&mut store, rule.as_ref());
    drop(store);
    let error = store_of(&config).prepare(&[]).unwrap_err().to_string();
    assert!(error.contains("holds the centres of a run that has saved"), "{error}");
    // Nor is it taken for one that never saved when what says so is lost.
    std::fs::remove_file(folder.path().join("times-0-300-1")).unwrap();
    let error = store_of(&config).prepare(&[]).unwrap_err().to_string();
    assert!(error.contains("times-0-300-1: is missing"), "{error}");
}

#[test]
fn a_small_file_that_cannot_be_written_is_an_error_with_the_system_s_reason() {
    use std::error::Error;
    for name in ["times-0-300-1", "centres.json"] {
        let folder = tempfile::tempdir().unwrap();
        let config = on_disk(folder.path(), Storage::F32);
        let mut store = store_of(&config);
        // No file can take the name of a folder.
        std::fs::create_dir(folder.path().join(name)).unwrap();
        let error = store.prepare(&[]).unwrap_err();
        let path = folder.path().join(name);
        assert!(error.to_string().starts_with(&path.display().to_string()), "{error}");
        let source = error.source().expect("the system's reason");
        assert!(source.to_string().contains("s a directory"), "{source}");
    }
}

#[test]
fn what_a_first_step_would_refuse_is_refused_before_it_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let config = on_disk(folder.path(), Storage::F32);
    let names = || {
        let entries = std::fs::read_dir(folder.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let mut store = store_of(&config);
    store.check_free().unwrap();
    assert_eq!(names(), ["lock-0"]);
    let mut rule = rule(&config);
    take_step(&mut store, rule.as_mut(), 0);
    store.check_free().unwrap();
    drop(store);
    // It never saved, so that nothing of it is missed.
    let mut store = store_of(&config);
    store.check_free().unwrap();
    take_step(&mut store, rule.as_mut(), 1);
    save(&mut store, rule.as_ref());
    drop(store);
    let before = names();
    let error = store_of(&config).check_free().unwrap_err().to_string();
    assert!(error.contains("holds the centres of a run that has saved"), "{error}");
    assert_eq!(names(), before);
}

#[test]
fn a_folder_of_an_older_format_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let config = on_disk(folder.path(), Storage::F32);
    let identity = r#"{"format":2,"classes":300,"dim":24,"seed":3,"weights":"f32","state":"f32","state_numbers":24}"#;
    std::fs::write(folder.path().join("centres.json"), identity).unwrap();
    let error = RowStore::new(&config, all(&config)).map(drop).unwrap_err().to_string();
    let expected = "is in format 2, but this version reads and writes format 3";
    assert!(error.ends_with(expected), "{error}");
}

#[test]
fn a_folder_of_another_head_or_in_use_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let config = on_disk(folder.path(), Storage::F32);
    let open = |config: &HeadConfig| {
        RowStore::new(config, ClassRange::of_rank(300, 0, 1)).map(drop).unwrap_err().to_string()
    };
    let mut store = store_of(&config);
    store.prepare(&[]).unwrap();
    assert!(open(&config).ends_with("another process is using the centres"));
    drop(store);
    let other = HeadConfig { seed: 9, ..config };
    assert!(open(&other).ends_with("`seed` is 3, but the head has 9"));
}

#[test]
fn rows_that_are_far_apart_lie_together_on_disk() {
    use std::os::unix::fs::MetadataExt;
    let folder = tempfile::tempdir().unwrap();
    let config = HeadConfig { classes: 100_000_000, ..on_disk(folder.path(), Storage::F32) };
    let mut store = store_of(&config);
    let rows: Vec<u32> = (0..10_000).map(|i| i * 9_999).collect();
    store.prepare(&rows).unwrap();
    for name in ["rows-0-100000000-1", "places-0-100000000-1"] {
        let bytes_of_row = if name.starts_with("rows") { store.frame.stride() } else { 32 };
        let n_blocks = std::fs::metadata(folder.path().join(name)).unwrap().blocks();
        // As much again is set aside for rows to come.
        let bound = 2 * rows.len() * bytes_of_row + (64 << 10);
        assert!(n_blocks * 512 <= bound as u64, "{name}: {n_blocks} blocks of 512 bytes");
    }
}

#[test]
fn an_untouched_row_of_a_file_takes_no_room() {
    use std::os::unix::fs::MetadataExt;
    let folder = tempfile::tempdir().unwrap();
    // 800 GB of rows, if they were there.
    let config = HeadConfig {
        centres: Placement::File(folder.path().to_path_buf()),
        ..HeadConfig::new(100_000_000, 1024)
    };
    let mut rule = rule(&config);
    let mut store = store_of(&config);
    let rows = [5, 77_777_777];
    let gradient = TileGradient {
        as_negatives_td: &Tensor::ones([2, 1024], (Kind::Float, Device::Cpu)),
        as_positives: &[],
        unit_embeddings_gd: &Tensor::zeros([0, 1024], (Kind::Float, Device::Cpu)),
    };
    store.prepare(&rows).unwrap();
    for mut tile in store.tiles(&rows, 2) {
        tile.update(rule.as_ref(), &gradient, 0.1).unwrap();
    }
    rule.finish_step(0.1);
    store.flush(rule.stamp()).unwrap();
    let blocks = |name| std::fs::metadata(folder.path().join(name)).unwrap().blocks() * 512;
    for name in ["rows-0-100000000-1", "places-0-100000000-1"] {
        assert!(blocks(name) <= 1 << 20, "{name}: {}", blocks(name));
    }
}

//! Rows in a folder, against rows in memory and across crashes.

use super::*;

/// What stays in memory and what stays on disk, as tests compare them.
fn on_disk(folder: &std::path::Path, storage: Storage) -> HeadConfig {
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

#[test]
fn rows_on_disk_go_back_to_where_they_were_protected() {
    for storage in [Storage::F32, Storage::Bf16] {
        let folder = tempfile::tempdir().unwrap();
        let config = on_disk(folder.path(), storage);
        let mut rule = rule(&config);
        let mut killed = store_of(&config);
        (0..10).for_each(|step| take_step(&mut killed, rule.as_mut(), step));
        killed.flush(rule.stamp()).unwrap();
        killed.protect(rule.stamp()).unwrap();
        let (protected, memory) = (exported(&killed), rule.memory());
        // Many rows move twice and more after that.
        (10..60).for_each(|step| take_step(&mut killed, rule.as_mut(), step));
        let end = exported(&killed);
        drop(killed);

        let mut resumed = store_of(&config);
        assert!(rule.remember(&memory));
        resumed.restore(memory.now, rule.as_ref()).unwrap();
        assert_eq!(exported(&resumed), protected, "{storage:?}");
        (10..60).for_each(|step| take_step(&mut resumed, rule.as_mut(), step));
        assert_eq!(exported(&resumed), end, "{storage:?}");
    }
}

#[test]
fn a_checkpoint_that_was_lost_leaves_the_one_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let config = on_disk(folder.path(), Storage::F32);
    let mut rule = rule(&config);
    let mut killed = store_of(&config);
    take_step(&mut killed, rule.as_mut(), 0);
    killed.flush(rule.stamp()).unwrap();
    killed.protect(rule.stamp()).unwrap();
    let (first, first_time) = (exported(&killed), rule.stamp());
    take_step(&mut killed, rule.as_mut(), 1);
    // Killed between flushing and protecting: either time can be gone back to.
    killed.flush(rule.stamp()).unwrap();
    let (second, second_time) = (exported(&killed), rule.stamp());
    drop(killed);

    let mut resumed = store_of(&config);
    let error = resumed.restore(second_time + 1, rule.as_ref()).unwrap_err().to_string();
    assert!(error.contains("step 2 or 3 of the head"), "{error}");
    resumed.restore(second_time, rule.as_ref()).unwrap();
    assert_eq!(exported(&resumed), second);
    let error = resumed.restore(first_time, rule.as_ref()).unwrap_err().to_string();
    assert!(error.ends_with("the checkpoint needs step 2"), "{error}");
    assert_ne!(first, second);
}

#[test]
fn a_place_whose_entry_is_damaged_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let config = on_disk(folder.path(), Storage::F32);
    let mut rule = rule(&config);
    let mut store = store_of(&config);
    (0..3).for_each(|step| take_step(&mut store, rule.as_mut(), step));
    store.catch_up(rule.as_ref()).unwrap();
    rule.caught_up(UntouchedRows::LeftAlone);
    store.flush(rule.stamp()).unwrap();
    drop(store);
    let refused = |problem: &str| {
        let error = store_of(&config).restore(rule.stamp(), rule.as_ref()).unwrap_err().to_string();
        assert!(error.ends_with(problem), "{error}");
    };
    // The entry of place 1, 16 bytes: 1 + the class, and the times of the two copies.
    let path = folder.path().join("places-0-300");
    let mut bytes = std::fs::read(&path).unwrap();
    let second = |bytes: &[u8]| u64::from_le_bytes(bytes[16..24].try_into().unwrap()) - 1;
    let class = second(&bytes);
    // A time before the earliest step that is remembered.
    bytes[24..32].copy_from_slice(&[2, 0, 0, 0, 0, 0, 0, 0]);
    std::fs::write(&path, &bytes).unwrap();
    refused(&format!("place 1 holds class {class} as of step 2, which no row can be"));
    bytes.copy_within(0..16, 16);
    std::fs::write(&path, &bytes).unwrap();
    let class = second(&bytes);
    refused(&format!("place 1 holds class {class}, which another place holds already"));
    std::fs::remove_file(folder.path().join("rows-0-300")).unwrap();
    refused("rows-0-300: is missing, but the list of what lies in it is there");
}

#[test]
fn places_that_a_power_cut_left_free_are_filled() {
    let folder = tempfile::tempdir().unwrap();
    let config = on_disk(folder.path(), Storage::F32);
    let mut rule = rule(&config);
    let mut store = store_of(&config);
    take_step(&mut store, rule.as_mut(), 0);
    store.flush(rule.stamp()).unwrap();
    store.protect(rule.stamp()).unwrap();
    let n_rows = tile(0, 300).0.len();
    drop(store);
    // All but the last of the entries, and one of a class that the file is not for.
    let path = folder.path().join("places-0-300");
    let whole = std::fs::read(&path).unwrap();
    let mut bytes = whole.clone();
    bytes[..(n_rows - 1) * 16].fill(0);
    std::fs::write(&path, &bytes).unwrap();
    let mut store = store_of(&config);
    store.restore(rule.stamp(), rule.as_ref()).unwrap();
    let all: Vec<u32> = (0..300).collect();
    store.prepare(&all).unwrap();
    assert_eq!(store.tiles(&all, 300)[0].n_rows(), 300);
    drop(store);
    bytes[..8].copy_from_slice(&301u64.to_le_bytes());
    std::fs::write(&path, &bytes).unwrap();
    let error = store_of(&config).restore(rule.stamp(), rule.as_ref()).unwrap_err().to_string();
    assert!(error.ends_with("place 0 holds class 300, which has no place in this file"), "{error}");
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
    store.flush(rule.stamp()).unwrap();
    store.protect(rule.stamp()).unwrap();
    drop(store);
    let error = store_of(&config).prepare(&[]).unwrap_err().to_string();
    assert!(error.contains("holds the centres of a run that has saved"), "{error}");
}

#[test]
fn a_folder_of_another_head_or_in_use_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let config = on_disk(folder.path(), Storage::F32);
    let open = |config: &HeadConfig| {
        RowStore::new(config, ClassRange::of_rank(300, 0, 1)).map(drop).unwrap_err().to_string()
    };
    let store = store_of(&config);
    assert!(open(&config).ends_with("another process is using the centres"));
    drop(store);
    let other = HeadConfig { seed: 9, ..config };
    assert!(open(&other).ends_with("`seed` is 3, but the head has 9"));
}

#[test]
fn rows_are_found_by_any_number_of_ranks_after_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let file_config = on_disk(folder.path(), Storage::Bf16);
    let host_config = HeadConfig { centres: Placement::Host, ..file_config.clone() };
    let mut undisturbed = store_of(&host_config);
    let mut rules = [rule(&file_config), rule(&host_config)];
    let ranks = |world: usize| -> Vec<RowStore> {
        let store = |rank| RowStore::new(&file_config, ClassRange::of_rank(300, rank, world));
        (0..world).map(|rank| store(rank).unwrap()).collect()
    };
    let mut step = 0;
    for world in [2, 1, 3, 2, 5] {
        let [on_disk, in_memory] = &mut rules;
        let mut stores = ranks(world);
        if step > 0 {
            for store in &mut stores {
                store.restore(on_disk.stamp(), on_disk.as_ref()).unwrap();
            }
        }
        for _ in 0..6 {
            take_step(&mut undisturbed, in_memory.as_mut(), step);
            for store in &mut stores {
                take_step_of(store, store.range, on_disk.as_ref(), step);
            }
            on_disk.finish_step(LR);
            step += 1;
        }
        let now = on_disk.stamp();
        stores.iter_mut().for_each(|store| store.flush(now).unwrap());
        stores.iter_mut().for_each(|store| store.protect(now).unwrap());
        // Lost by the kill: rows that are new, and rows that move again.
        for store in &mut stores {
            take_step_of(store, store.range, on_disk.as_ref(), 1000 + step);
        }
    }
    let mut stores = ranks(1);
    stores[0].restore(rules[0].stamp(), rules[0].as_ref()).unwrap();
    assert_eq!(exported(&stores[0]), exported(&undisturbed));
}

#[test]
fn rows_that_are_far_apart_lie_together_on_disk() {
    use std::os::unix::fs::MetadataExt;
    let folder = tempfile::tempdir().unwrap();
    let config = HeadConfig { classes: 100_000_000, ..on_disk(folder.path(), Storage::F32) };
    let mut store = store_of(&config);
    let rows: Vec<u32> = (0..10_000).map(|i| i * 9_999).collect();
    store.prepare(&rows).unwrap();
    for name in ["rows-0-100000000", "places-0-100000000"] {
        let bytes_of_row = if name.starts_with("rows") { store.frame.stride() } else { 16 };
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
    for name in ["rows-0-100000000", "places-0-100000000"] {
        assert!(blocks(name) <= 1 << 20, "{name}: {}", blocks(name));
    }
}

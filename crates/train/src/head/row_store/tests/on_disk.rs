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
    store.flush(rule.stamp()).unwrap();
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

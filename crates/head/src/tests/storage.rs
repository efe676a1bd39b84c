//! Ranks and storages: the same steps on any number of them, in memory and on disk.

// G = global batch, D = embedding

use super::*;

/// Runs a few steps on `world` ranks, each with its share of the batch; the shares may be empty.
fn losses_over_ranks(config: &HeadConfig, world: usize) -> (Vec<f64>, Tensor) {
    let work = |member: LocalMember| {
        let rank = member.rank();
        let parts = Parts::of_config(config, Box::new(member)).unwrap();
        let mut head = Head::with_parts(config, parts).unwrap();
        let mut losses = Vec::new();
        for step in 0..STEPS {
            let (embeddings_gd, labels) = batch(config, 10, step);
            // Uneven shares: the first ranks get the larger ones.
            let share = ClassRange::of_rank(10, rank, world);
            let (first, n_rows) = (share.first() as i64, share.len() as i64);
            let own = first as usize..(first + n_rows) as usize;
            let own_bd = embeddings_gd.narrow(0, first, n_rows);
            losses.push(head.step(&own_bd, &labels[own], step, 0.1).unwrap().loss);
        }
        (losses, weight_of(&mut head))
    };
    let mut outcomes: Vec<(Vec<f64>, Tensor)> = std::thread::scope(|scope| {
        let ranks: Vec<_> = LocalMember::group(world)
            .into_iter()
            .map(|member| scope.spawn(|| work(member)))
            .collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    });
    let weights: Vec<Tensor> = outcomes.iter().map(|(_, weight)| weight.shallow_clone()).collect();
    (outcomes.swap_remove(0).0, Tensor::cat(&weights, 0))
}

#[test]
fn any_number_of_ranks_takes_the_same_steps() {
    for (sample_rate, scale) in [(0.2, 64.0), (0.0, 64.0), (0.2, 100.0)] {
        let config = HeadConfig { sample_rate, scale, ..HeadConfig::new(103, 16) };
        let (losses, weight_cd) = losses_over_ranks(&config, 1);
        for world in [2, 4, 12] {
            let (of_ranks, of_ranks_cd) = losses_over_ranks(&config, world);
            for (one, many) in losses.iter().zip(&of_ranks) {
                assert!((one - many).abs() <= 1e-5 * one, "{world} ranks: {many} for {one}");
            }
            assert!(relative_error(&of_ranks_cd, &weight_cd) < 1e-5, "{world} ranks");
        }
    }
}

/// A head's configuration with its centres in each place, in each format; the folder is removed with
/// what is returned beside it.
fn in_every_storage(config: &HeadConfig) -> Vec<(HeadConfig, Option<tempfile::TempDir>)> {
    let mut all = Vec::new();
    for storage in [Storage::F32, Storage::Bf16] {
        let config = HeadConfig { weights: storage, state: storage, ..config.clone() };
        let folder = tempfile::tempdir().unwrap();
        let centres = Placement::File(folder.path().join("centres"));
        all.push((HeadConfig { centres, ..config.clone() }, Some(folder)));
        all.push((config, None));
    }
    all
}

#[test]
fn any_number_of_ranks_takes_the_same_steps_in_every_storage() {
    let plain = HeadConfig { sample_rate: 0.2, ..HeadConfig::new(103, 16) };
    for (config, _folder) in in_every_storage(&plain) {
        // In bf16 a sum that another order of adding changes in its last bit may be rounded to the
        // other neighbour, 1/256 away.
        let bound = if config.weights == Storage::Bf16 { 1.0 / 256.0 } else { 1e-5 };
        let (losses, weight_cd) = losses_over_ranks(&config, 1);
        for world in [2, 4] {
            if let Placement::File(path) = &config.centres {
                std::fs::remove_dir_all(path).unwrap();
            }
            let (of_ranks, of_ranks_cd) = losses_over_ranks(&config, world);
            for (one, many) in losses.iter().zip(&of_ranks) {
                assert!((one - many).abs() <= bound * one, "{world} ranks: {many} for {one}");
            }
            let error = relative_error(&of_ranks_cd, &weight_cd);
            assert!(error <= bound, "{world} ranks: {error} in {:?}", config.weights);
        }
    }
}

#[test]
fn a_head_killed_after_a_checkpoint_goes_on_bit_for_bit_in_every_storage() {
    let dense = HeadConfig { sample_rate: 0.2, ..HeadConfig::new(90, 12) };
    let adamw = CentreOptimizer::Adamw { beta1: 0.9, beta2: 0.999, eps: 1e-8 };
    let row_wise = CentreOptimizer::RowAdagrad { eps: 1e-8 };
    let sparse = |optimizer| HeadConfig { update: Update::Sparse, optimizer, ..dense.clone() };
    let plain = [dense.clone(), sparse(CentreOptimizer::Sgd), sparse(adamw), sparse(row_wise)];
    for (config, _folder) in plain.iter().flat_map(in_every_storage) {
        let run = |head: &mut Head, steps: std::ops::Range<u64>| -> Vec<f64> {
            let step = |step| {
                let (embeddings_gd, labels) = batch(&config, 8, step);
                head.step(&embeddings_gd, &labels, step, 0.05).unwrap().loss
            };
            steps.map(step).collect()
        };
        let mut killed = Head::new(&config).unwrap();
        run(&mut killed, 0..4);
        let state = killed.checkpoint(false).unwrap();
        killed.checkpointed().unwrap();
        // Rows move on after the checkpoint, in the same file where there is one.
        let losses = run(&mut killed, 4..12);
        let weight_cd = killed.state_as_it_is().unwrap().swap_remove(0).1;
        drop(killed);
        let mut resumed = Head::new(&config).unwrap();
        resumed.load_state(&state).unwrap();
        assert_eq!(run(&mut resumed, 4..12), losses, "{config:?}");
        assert_eq!(resumed.state_as_it_is().unwrap()[0].1, weight_cd, "{config:?}");
    }
}

/// Some steps of heads of one world, each rank with its share of the batch; the losses, and what each
/// rank's checkpoint holds in the end.
fn run_ranks(
    config: &HeadConfig,
    world: usize,
    from: Option<&[Vec<(String, Tensor)>]>,
    steps: std::ops::Range<u64>,
) -> (Vec<f64>, Vec<Vec<(String, Tensor)>>) {
    let work = |member: LocalMember, then: Vec<Vec<(String, Tensor)>>| {
        let rank = member.rank();
        let parts = Parts::of_config(config, Box::new(member)).unwrap();
        let mut head = Head::with_parts(config, parts).unwrap();
        let own = head.range().ids();
        // The trainer gives a rank the files of those that had its classes.
        let holds = |state: &&Vec<(String, Tensor)>| {
            let range = &state.iter().find(|(name, _)| name == "centres.range").unwrap().1;
            let [start, end] = [0, 1].map(|i| range.int64_value(&[i]) as u64);
            start < own.end && own.start < end
        };
        let mut pieces: Vec<Box<dyn SavedTensors + '_>> = Vec::new();
        for state in then.iter().filter(holds) {
            pieces.push(Box::new(&state[..]));
        }
        if !pieces.is_empty() {
            head.load(&mut pieces, None).unwrap();
        }
        let mut losses = Vec::new();
        for step in steps.clone() {
            let (embeddings_gd, labels) = batch(config, 12, step);
            let share = ClassRange::of_rank(12, rank, world);
            let first = share.first() as usize;
            let own_bd = embeddings_gd.narrow(0, first as i64, share.len() as i64);
            let labels = &labels[first..first + share.len()];
            losses.push(head.step(&own_bd, labels, step, 0.05).unwrap().loss);
        }
        let state = head.checkpoint(false).unwrap();
        // No rank goes on before all have flushed, as the trainer sees to.
        head.parts.comm.all_gather(&[]).unwrap();
        head.checkpointed().unwrap();
        // Lost by a kill.
        let (embeddings_gd, labels) = batch(config, 12, 1000);
        head.step(&embeddings_gd, &labels, 1000, 0.05).unwrap();
        (losses, state)
    };
    let copies = |state: &Vec<(String, Tensor)>| -> Vec<(String, Tensor)> {
        state.iter().map(|(name, tensor)| (name.clone(), tensor.copy())).collect()
    };
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let ranks: Vec<_> = LocalMember::group(world)
            .into_iter()
            .map(|member| {
                let then = from.unwrap_or_default().iter().map(copies).collect();
                scope.spawn(|| work(member, then))
            })
            .collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    });
    let (losses, states): (Vec<_>, Vec<_>) = outcomes.into_iter().unzip();
    (losses.into_iter().next().unwrap(), states)
}

#[test]
fn centres_saved_on_some_ranks_resume_on_others_in_memory_and_in_files() {
    let plain = HeadConfig { sample_rate: 0.2, ..HeadConfig::new(103, 16) };
    for (config, _folder) in in_every_storage(&plain) {
        let bound = if config.weights == Storage::Bf16 { 1.0 / 256.0 } else { 1e-5 };
        let one = HeadConfig { centres: Placement::Host, ..config.clone() };
        let (expected, _) = run_ranks(&one, 1, None, 0..12);
        let (mut found, mut saved): (Vec<f64>, Option<Vec<_>>) = (Vec::new(), None);
        for (world, steps) in [(4, 0..3), (1, 3..5), (3, 5..8), (3, 8..10), (2, 10..12)] {
            let (losses, states) = run_ranks(&config, world, saved.as_deref(), steps);
            found.extend(losses);
            saved = Some(states);
        }
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() <= bound * expected, "{found}, not {expected}");
        }
    }
}

#[test]
fn files_that_no_checkpoint_needs_any_more_are_removed_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let config = HeadConfig {
        sample_rate: 0.5,
        centres: Placement::File(folder.path().join("centres")),
        ..HeadConfig::new(30, 8)
    };
    let rows = || {
        let names = std::fs::read_dir(folder.path().join("centres")).unwrap();
        let mut names: Vec<String> =
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name.starts_with("rows-"));
        names.sort();
        names
    };
    let (_, two) = run_ranks(&config, 2, None, 0..3);
    assert_eq!(rows(), ["rows-0-15-1", "rows-15-30-1"]);
    let (_, one) = run_ranks(&config, 1, Some(&two), 3..6);
    assert_eq!(rows(), ["rows-0-15-1", "rows-0-30-4", "rows-15-30-1"]);
    // The checkpoint before, of two ranks, can still be gone back to.
    run_ranks(&config, 2, Some(&two), 3..3);
    let (_, one) = run_ranks(&config, 1, Some(&one), 6..9);
    assert_eq!(rows(), ["rows-0-30-4"]);
    run_ranks(&config, 1, Some(&one), 9..10);
}

#[test]
fn files_of_another_rank_that_are_not_there_are_named_and_no_centre_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("centres");
    let centres = Placement::File(path.clone());
    let config = HeadConfig { sample_rate: 0.5, centres, ..HeadConfig::new(30, 8) };
    let (_, two) = run_ranks(&config, 2, None, 0..3);
    for kind in ["rows", "places", "times"] {
        // This is what one rank sees where each kept its files on the disk of its machine.
        let (here, elsewhere) = (path.join(format!("{kind}-15-30-1")), folder.path().join(kind));
        std::fs::rename(&here, &elsewhere).unwrap();
        let mut pieces: Vec<Box<dyn SavedTensors + '_>> = Vec::new();
        for state in &two {
            pieces.push(Box::new(&state[..]));
        }
        let error = Head::new(&config).unwrap().load(&mut pieces, None).unwrap_err();
        assert!(matches!(error, HeadError::CentresDamaged { .. }), "{error}");
        let expected = format!("{}: is missing, but the checkpoint needs it", here.display());
        assert_eq!(error.to_string(), expected);
        std::fs::rename(&elsewhere, &here).unwrap();
    }
    // With all of them in one folder the run goes on as if nothing had been tried.
    let (losses, _) = run_ranks(&config, 1, Some(&two), 3..6);
    let in_memory = HeadConfig { centres: Placement::Host, ..config };
    let (expected, _) = run_ranks(&in_memory, 1, None, 0..6);
    for (found, expected) in losses.iter().zip(&expected[3..]) {
        assert!((found - expected).abs() <= 1e-5 * expected, "{found}, not {expected}");
    }
}

#[test]
fn centres_move_between_files_memory_and_a_device() {
    let folder = tempfile::tempdir().unwrap();
    let host = HeadConfig { sample_rate: 0.2, ..HeadConfig::new(90, 12) };
    let file =
        HeadConfig { centres: Placement::File(folder.path().join("centres")), ..host.clone() };
    let device = HeadConfig { centres: Placement::Device, ..host.clone() };
    let steps = |head: &mut Head, steps: std::ops::Range<u64>| {
        for step in steps {
            let (embeddings_gd, labels) = batch(&host, 8, step);
            head.step(&embeddings_gd, &labels, step, 0.05).unwrap();
        }
    };
    let mut undisturbed = Head::new(&host).unwrap();
    steps(&mut undisturbed, 0..9);
    let expected = undisturbed.state_as_it_is().unwrap().swap_remove(0).1;

    let mut in_file = Head::new(&file).unwrap();
    steps(&mut in_file, 0..3);
    let saved = in_file.checkpoint(false).unwrap();
    in_file.checkpointed().unwrap();
    drop(in_file);
    let path = folder.path().join("centres");
    let mut in_memory = Head::new(&host).unwrap();
    in_memory.load(&mut [Box::new(&saved[..])], Some(&path)).unwrap();
    steps(&mut in_memory, 3..6);
    let saved = in_memory.checkpoint(false).unwrap();
    let mut on_device = Head::new(&device).unwrap();
    on_device.load_state(&saved).unwrap();
    steps(&mut on_device, 6..9);
    let found = on_device.state_as_it_is().unwrap().swap_remove(0).1;
    assert!(relative_error(&found, &expected) < 1e-5);
    // And back into another folder.
    let saved = on_device.checkpoint(false).unwrap();
    let other =
        HeadConfig { centres: Placement::File(folder.path().join("other")), ..host.clone() };
    let mut in_file = Head::new(&other).unwrap();
    in_file.load_state(&saved).unwrap();
    let back = in_file.state_as_it_is().unwrap().swap_remove(0).1;
    assert_eq!(back, found);
    // One that holds a run is not taken over.
    drop(in_file);
    let mut taken = Head::new(&file).unwrap();
    let error = taken.load_state(&saved).unwrap_err().to_string();
    assert!(error.contains("holds the centres of a run that has saved"), "{error}");
}

#[test]
fn steps_during_a_save_change_nothing_of_what_is_saved() {
    for storage in [Storage::F32, Storage::Bf16] {
        for centres in [Placement::Host, Placement::Device] {
            let config = HeadConfig {
                sample_rate: 0.3,
                weights: storage,
                state: storage,
                centres,
                ..HeadConfig::new(500, 16)
            };
            let steps = |head: &mut Head, steps: std::ops::Range<u64>| {
                for step in steps {
                    let (embeddings_gd, labels) = batch(&config, 8, step);
                    head.step(&embeddings_gd, &labels, step, 0.05).unwrap();
                }
            };
            let mut head = Head::new(&config).unwrap();
            steps(&mut head, 0..4);
            let expected = head.checkpoint(false).unwrap();
            let snapshot = head.begin_save(false).unwrap();
            let rows = snapshot.rows.unwrap();
            head.shrink_save(7);
            let found = std::thread::scope(|scope| {
                let found = scope.spawn(move || snapshot::collect(rows).unwrap());
                steps(&mut head, 4..12);
                head.finish_save().unwrap();
                found.join().unwrap()
            });
            assert_eq!(found.len(), 4);
            for (name, tensor) in &found {
                let saved = &expected.iter().find(|(other, _)| other == name).unwrap().1;
                assert_eq!(tensor, saved, "{name}");
                assert!(tensor.size()[0] < 500, "untouched rows are not saved");
            }
        }
    }
}

#[test]
fn a_writer_whose_head_is_gone_is_told() {
    let config = HeadConfig { sample_rate: 0.5, ..HeadConfig::new(40, 8) };
    let mut head = Head::new(&config).unwrap();
    let (embeddings_gd, labels) = batch(&config, 8, 0);
    head.step(&embeddings_gd, &labels, 0, 0.05).unwrap();
    let rows = head.begin_save(false).unwrap().rows.unwrap();
    drop(head);
    let error = snapshot::collect(rows).unwrap_err();
    assert!(matches!(error, HeadError::SaveAbandoned), "{error}");
}

#[test]
fn a_reader_finds_every_centre_as_the_head_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("centres");
    let host = HeadConfig { sample_rate: 0.2, ..HeadConfig::new(90, 12) };
    for centres in [Placement::Host, Placement::File(path.clone())] {
        let config = HeadConfig { centres, ..host.clone() };
        let mut head = Head::new(&config).unwrap();
        for step in 0..4 {
            let (embeddings_gd, labels) = batch(&config, 8, step);
            head.step(&embeddings_gd, &labels, step, 0.05).unwrap();
        }
        let saved = head.checkpoint(false).unwrap();
        head.checkpointed().unwrap();
        let expected = head.state().unwrap().swap_remove(0).1;
        let pieces: Vec<Box<dyn SavedTensors + '_>> = vec![Box::new(&saved[..])];
        let mut reader = CentreReader::open(pieces, &config, Some(&path)).unwrap();
        let mut found = Vec::new();
        for classes in [0..40, 40..41, 41..90] {
            found.extend(reader.read(classes).unwrap());
        }
        assert_eq!(Tensor::from_slice(&found).view([90, 12]), expected);
    }
}

#[test]
fn a_saved_centre_that_is_not_finite_is_refused_by_its_number() {
    let config = HeadConfig { sample_rate: 0.2, ..HeadConfig::new(90, 12) };
    for (name, value) in [("centres.weight", f64::NAN), ("centres.momentum", f64::INFINITY)] {
        let mut head = Head::new(&config).unwrap();
        let (embeddings_gd, labels) = batch(&config, 8, 0);
        head.step(&embeddings_gd, &labels, 0, 0.05).unwrap();
        let saved = head.checkpoint(true).unwrap();
        let tensor = |name: &str| &saved.iter().find(|(found, _)| found == name).unwrap().1;
        let centre = tensor("centres.class").int64_value(&[1]) as u64;
        let _ = tensor(name).get(1).get(3).fill_(value);
        let pieces: Vec<Box<dyn SavedTensors + '_>> = vec![Box::new(&saved[..])];
        let mut reader = CentreReader::open(pieces, &config, None).unwrap();
        reader.read(0..centre).unwrap();
        let (part, value) = match name {
            "centres.weight" => ("weight", "NaN"),
            _ => ("optimizer state", "inf"),
        };
        let expected = format!(
            "the head's state: the {part} of centre {centre}, in row 1, holds {value}, but has to be \
             finite"
        );
        let of_resume = Head::new(&config).unwrap().load_state(&saved).unwrap_err();
        for error in [reader.read(centre..90).unwrap_err(), of_resume] {
            assert_eq!(error.to_string(), expected);
            assert!(error.hint().is_some());
        }
    }
}

#[test]
fn updates_that_were_put_off_and_are_not_finite_are_refused_by_their_row() {
    let config = HeadConfig { sample_rate: 0.2, ..HeadConfig::new(90, 12) };
    let mut head = Head::new(&config).unwrap();
    for step in 0..3 {
        let (embeddings_gd, labels) = batch(&config, 8, step);
        head.step(&embeddings_gd, &labels, step, 0.05).unwrap();
    }
    let saved = head.checkpoint(false).unwrap();
    let (_, missed) = saved.iter().find(|(name, _)| name == "centres.missed").unwrap();
    let _ = missed.get(1).get(2).fill_(f64::NAN);
    let error = Head::new(&config).unwrap().load_state(&saved).unwrap_err();
    let expected = "head state `centres.missed`: holds NaN in row 1, but has to be finite";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_centre_in_a_file_that_is_not_finite_is_refused_by_its_place_when_it_is_first_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("centres");
    let centres = Placement::File(path.clone());
    let config = HeadConfig { centres, sample_rate: 1.0, ..HeadConfig::new(90, 12) };
    let mut head = Head::new(&config).unwrap();
    head.set_centres(&[5, 7], &[[0.5; 12], [f32::INFINITY; 12]].concat()).unwrap();
    let saved = head.checkpoint(false).unwrap();
    head.checkpointed().unwrap();
    drop(head);
    let expected = "the weight of centre 7, in row 1, holds inf, but has to be finite";
    let check = |error: HeadError| {
        let error = error.to_string();
        assert!(error.starts_with(&format!("{}/rows-", path.display())), "{error}");
        assert!(error.ends_with(expected), "{error}");
    };
    let pieces: Vec<Box<dyn SavedTensors + '_>> = vec![Box::new(&saved[..])];
    let mut reader = CentreReader::open(pieces, &config, Some(&path)).unwrap();
    reader.read(0..7).unwrap();
    check(reader.read(7..8).unwrap_err());
    let mut resumed = Head::new(&config).unwrap();
    resumed.load_state(&saved).unwrap();
    let (embeddings_gd, labels) = batch(&config, 8, 0);
    check(resumed.step(&embeddings_gd, &labels, 0, 0.05).unwrap_err());
}

#[test]
fn centres_on_disk_are_not_looked_for_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let file = HeadConfig {
        centres: Placement::File(folder.path().to_path_buf()),
        ..HeadConfig::new(10, 4)
    };
    let state = Head::new(&file).unwrap().checkpoint(true).unwrap();
    let mut host = Head::new(&HeadConfig::new(10, 4)).unwrap();
    assert_eq!(
        host.load_state(&state).unwrap_err().to_string(),
        "head state `centres.in_place`: names centres on disk, but the head has them in memory"
    );
}

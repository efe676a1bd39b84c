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
    let adamw = Optimizer::Adamw { beta1: 0.9, beta2: 0.999, eps: 1e-8 };
    let row_wise = Optimizer::RowAdagrad { eps: 1e-8 };
    let sparse = |optimizer| HeadConfig { update: Update::Sparse, optimizer, ..dense.clone() };
    let plain = [dense.clone(), sparse(Optimizer::Sgd), sparse(adamw), sparse(row_wise)];
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

#[test]
fn a_file_of_centres_saved_on_some_ranks_resumes_on_others() {
    let folder = tempfile::tempdir().unwrap();
    let config = HeadConfig {
        sample_rate: 0.2,
        centres: Placement::File(folder.path().join("centres")),
        ..HeadConfig::new(103, 16)
    };
    let heads = |world: usize| -> Vec<Head> {
        let ranks = LocalMember::group(world).into_iter();
        let head = |member| Parts::of_config(&config, Box::new(member)).unwrap();
        ranks.map(|member| Head::with_parts(&config, head(member)).unwrap()).collect()
    };
    let (losses, _) = std::thread::scope(|scope| {
        let ranks: Vec<_> = heads(4)
            .into_iter()
            .map(|mut head| {
                let config = &config;
                scope.spawn(move || {
                    let share = ClassRange::of_rank(12, head.parts.comm.rank(), 4);
                    let own = share.first() as usize..share.first() as usize + share.len();
                    let step = |head: &mut Head, step| {
                        let (embeddings_gd, labels) = batch(config, 12, step);
                        let own_bd = embeddings_gd.narrow(0, own.start as i64, own.len() as i64);
                        head.step(&own_bd, &labels[own.clone()], step, 0.05).unwrap().loss
                    };
                    let _: Vec<f64> = (0..3).map(|s| step(&mut head, s)).collect();
                    let state = head.checkpoint(false).unwrap();
                    // No rank goes on before all have flushed, as the trainer sees to.
                    head.parts.comm.all_gather(&[]).unwrap();
                    head.checkpointed().unwrap();
                    ((3..6).map(|s| step(&mut head, s)).collect::<Vec<_>>(), state)
                })
            })
            .collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).next().unwrap()
    });
    let folder_state = {
        let mut head = Head::new(&config).unwrap();
        let number = |name: &str, n: i64| (name.to_owned(), Tensor::from_slice(&[n]));
        // What rank 0 saved holds for all ranks: times and missed steps, no rows.
        let mut once =
            Head::new(&HeadConfig { centres: Placement::Host, ..config.clone() }).unwrap();
        for step in 0..3 {
            let (embeddings_gd, labels) = batch(&config, 12, step);
            once.step(&embeddings_gd, &labels, step, 0.05).unwrap();
        }
        let mut state = once.state_as_it_is().unwrap();
        state.retain(|(name, _)| name.ends_with("steps") || name.ends_with("missed"));
        state.push(number("centres.in_place", 4));
        head.load_state(&state).unwrap();
        (3..6)
            .map(|step| {
                let (embeddings_gd, labels) = batch(&config, 12, step);
                head.step(&embeddings_gd, &labels, step, 0.05).unwrap().loss
            })
            .collect::<Vec<_>>()
    };
    for (one, four) in folder_state.iter().zip(&losses) {
        assert!((one - four).abs() <= 1e-5 * four, "{one} on one rank, {four} on four");
    }
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

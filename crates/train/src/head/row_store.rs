//! Centres in memory, the host's own or a mapped file.

use std::ops::Range;

use rayon::prelude::*;

use super::{
    HeadError,
    centre_folder::CentreFolder,
    config::{HeadConfig, Placement},
    layout::Rounding,
    memory::Memory,
    range::ClassRange,
    row,
    row_tile::{Frame, RowTile, Scratch},
    store::{CentreStore, CentreTile, DurableCentres},
    update::{Stamp, UNTOUCHED, UntouchedRows, UpdateRule},
};

/// Rows of weight and optimizer state, side by side. A row that was never sampled is all zeros in
/// memory that the operating system has not even handed out; its initial value is a function of the
/// seed and its class.
///
/// In a file there is room for two copies of a row. The one that the last checkpoint needs is never
/// written over, so that a run killed at any moment finds it; disk space is taken by the copies
/// written, in units of the file system's blocks.
pub struct RowStore {
    frame: Frame,
    n_rows: usize,
    bytes: Memory,
    stamps: Memory,
    folder: Option<CentreFolder>,
}

impl RowStore {
    /// The rows of `range`, where `config` wants them, at their initial values.
    ///
    /// A folder that holds a run is left as it is until the first step or a restore.
    ///
    /// # Errors
    ///
    /// [`HeadError::Memory`] if the machine does not grant the address space;
    /// [`HeadError::CentreFile`] and [`HeadError::Io`] if the folder of the file cannot be used.
    pub fn new(config: &HeadConfig, range: ClassRange) -> Result<RowStore, HeadError> {
        let layout = config.row_layout();
        let n_slots = if matches!(config.centres, Placement::File(_)) { 2 } else { 1 };
        let frame = Frame {
            layout,
            seed: config.seed,
            first_class: range.first(),
            n_slots,
            floor: UNTOUCHED,
        };
        let n_rows = range.len();
        let refused = || HeadError::Memory { rows: n_rows, row_bytes: layout.size_bytes() };
        let n_bytes = n_rows.checked_mul(frame.stride()).ok_or_else(refused)?;
        let n_stamp_bytes = n_rows * n_slots * size_of::<Stamp>();
        let (bytes, stamps, folder) = match &config.centres {
            Placement::Host => {
                let granted = |n| Memory::anonymous(n).map_err(|_| refused());
                (granted(n_bytes)?, granted(n_stamp_bytes)?, None)
            }
            Placement::File(path) => {
                let folder = CentreFolder::open(path, config, range, frame.stride())?;
                let (bytes, stamps) = folder.map()?;
                (bytes, stamps, Some(folder))
            }
        };
        Ok(RowStore { frame, n_rows, bytes, stamps, folder })
    }

    fn stamps_of(&self, row: usize) -> &[Stamp] {
        &self.stamps.as_slice()[row * self.frame.n_slots..][..self.frame.n_slots]
    }

    fn bytes_of(&self, row: usize) -> &[u8] {
        &self.bytes.as_slice()[row * self.frame.stride()..][..self.frame.stride()]
    }

    fn touched<'a>(&'a self, rows: &'a [u32]) -> impl Iterator<Item = (usize, usize)> + 'a {
        let newest = |&row: &u32| (row as usize, Frame::newest(self.stamps_of(row as usize)));
        let touched = rows.iter().map(newest).filter(|(_, (_, stamp))| *stamp != UNTOUCHED);
        touched.map(|(row, (slot, _))| (row, slot))
    }
}

impl CentreStore for RowStore {
    fn n_rows(&self) -> usize {
        self.n_rows
    }

    fn tiles<'a>(&'a mut self, rows: &'a [u32], tile_rows: usize) -> Vec<Box<dyn CentreTile + 'a>> {
        let frame = self.frame;
        let mut bytes: &mut [u8] = self.bytes.as_mut_slice();
        let mut stamps: &mut [Stamp] = self.stamps.as_mut_slice();
        let mut done = 0;
        let tile = |rows: &'a [u32]| -> Box<dyn CentreTile + 'a> {
            let (first, end) = (rows[0] as usize, rows[rows.len() - 1] as usize + 1);
            let (skipped, len) = (first - done, end - first);
            done = end;
            let (stride, n_slots) = (frame.stride(), frame.n_slots);
            Box::new(RowTile {
                frame,
                first,
                rows,
                bytes: cut(&mut bytes, skipped * stride, len * stride),
                stamps: cut(&mut stamps, skipped * n_slots, len * n_slots),
            })
        };
        rows.chunks(tile_rows).map(tile).collect()
    }

    fn prepare(&mut self, rows: &[u32], step: u64) -> Result<(), HeadError> {
        let Some(folder) = &mut self.folder else { return Ok(()) };
        folder.begin()?;
        let Some(folder) = &self.folder else { return Ok(()) };
        folder.check_room(step, rows.len(), self.frame.layout.size_bytes(), || {
            rows.len() - self.touched(rows).count()
        })
    }

    fn prefetch(&mut self, rows: &[u32]) {
        if self.folder.is_none() {
            return;
        }
        let (stride, size) = (self.frame.stride(), self.frame.layout.size_bytes());
        let starts = self.touched(rows).map(|(row, slot)| (row * stride + slot * size) as u64);
        let starts = starts.collect();
        if let Some(folder) = &mut self.folder {
            folder.prefetch(starts, size);
        }
    }

    fn wants_prefetch(&self) -> bool {
        self.folder.is_some()
    }

    fn catch_up(&mut self, rule: &dyn UpdateRule) -> Result<UntouchedRows, HeadError> {
        let frame = self.frame;
        // On disk a row that was never touched goes on costing nothing.
        let leave = self.folder.is_some();
        let bytes = self.bytes.as_mut_slice::<u8>().par_chunks_mut(frame.stride());
        let stamps = self.stamps.as_mut_slice::<Stamp>().par_chunks_mut(frame.n_slots);
        let rows = bytes.zip(stamps).enumerate();
        rows.for_each_init(
            || Scratch::new(&frame.layout),
            |scratch, (row, (bytes, stamps))| {
                let (_, stamp) = Frame::newest(stamps);
                if leave && stamp == UNTOUCHED {
                    return;
                }
                let Some(flow) = rule.missed(stamp) else { return };
                frame.read(row, bytes, stamps, true, scratch);
                row::advance(&flow, &mut scratch.weight, &mut scratch.state);
                frame.write(row, scratch, rule.stamp(), bytes, stamps);
            },
        );
        Ok(if leave { UntouchedRows::LeftAlone } else { UntouchedRows::CaughtUp })
    }

    fn stamps(&self) -> Vec<Stamp> {
        let stamps: &[Stamp] = self.stamps.as_slice();
        stamps.chunks(self.frame.n_slots).map(|row| Frame::newest(row).1).collect()
    }

    fn export(
        &self,
        rows: Range<usize>,
        weight: &mut [f32],
        state: &mut [f32],
    ) -> Result<(), HeadError> {
        let layout = self.frame.layout;
        let out = weight.par_chunks_mut(layout.dim()).zip(state.par_chunks_mut(layout.n_state()));
        out.zip(rows).for_each_init(
            || Scratch::new(&layout),
            |scratch, ((weight, state), row)| {
                self.frame.read(row, self.bytes_of(row), self.stamps_of(row), true, scratch);
                weight.copy_from_slice(&scratch.weight);
                state.copy_from_slice(&scratch.state);
            },
        );
        Ok(())
    }

    fn import(
        &mut self,
        rows: Range<usize>,
        weight: &[f32],
        state: &[f32],
        stamps: &[Stamp],
    ) -> Result<(), HeadError> {
        if let Some(folder) = &mut self.folder {
            folder.begin()?;
        }
        let (layout, stride, n_slots) =
            (self.frame.layout, self.frame.stride(), self.frame.n_slots);
        let values = weight.chunks(layout.dim()).zip(state.chunks(layout.n_state()));
        for ((row, (weight, state)), &stamp) in rows.zip(values).zip(stamps) {
            let bytes = &mut self.bytes.as_mut_slice::<u8>()[row * stride..][..layout.size_bytes()];
            if stamp != UNTOUCHED {
                layout.write(weight, state, Rounding::Nearest, bytes);
            }
            let row_stamps = &mut self.stamps.as_mut_slice::<Stamp>()[row * n_slots..][..n_slots];
            row_stamps.fill(UNTOUCHED);
            row_stamps[0] = stamp;
        }
        Ok(())
    }

    fn durable(&mut self) -> Option<&mut dyn DurableCentres> {
        self.folder.is_some().then_some(self as &mut dyn DurableCentres)
    }
}

impl DurableCentres for RowStore {
    fn flush(&mut self, now: Stamp) -> Result<(), HeadError> {
        let Some(folder) = &mut self.folder else { return Ok(()) };
        folder.begin()?;
        folder.flush(now)
    }

    fn protect(&mut self, now: Stamp) -> Result<(), HeadError> {
        if let Some(folder) = &mut self.folder {
            folder.protect(now)?;
            self.frame.floor = now;
        }
        Ok(())
    }

    fn restore(&mut self, now: Stamp, rule: &dyn UpdateRule) -> Result<(), HeadError> {
        let Some(folder) = &mut self.folder else { return Ok(()) };
        let stretches = folder.restore(now)?;
        let stamps = self.stamps.as_mut_slice::<Stamp>();
        for stretch in stretches {
            let first = stretch.start / self.frame.n_slots;
            let rows = stamps[stretch].chunks_mut(self.frame.n_slots);
            for (row, stamps) in rows.enumerate() {
                // What a run left that was killed after that time.
                stamps.iter_mut().filter(|stamp| **stamp > now).for_each(|s| *s = UNTOUCHED);
                let (_, stamp) = Frame::newest(stamps);
                if !rule.knows(stamp) {
                    return Err(folder.damaged(first + row, stamp));
                }
            }
        }
        self.frame.floor = now;
        Ok(())
    }
}

/// Drops `skipped` elements from the front of `rest` and splits off the next `len`.
fn cut<'a, T>(rest: &mut &'a mut [T], skipped: usize, len: usize) -> &'a mut [T] {
    let (_, tail) = std::mem::take(rest).split_at_mut(skipped);
    let (cut, tail) = tail.split_at_mut(len);
    *rest = tail;
    cut
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;
    use crate::head::{
        config::Update,
        layout::Storage,
        random::{fill_normal, scramble},
        store::TileGradient,
        update::{Flow, Motion, Sgd, rule},
    };

    const DIM: usize = 24;

    fn config(n_rows: u64) -> HeadConfig {
        HeadConfig { seed: 3, ..HeadConfig::new(n_rows, DIM) }
    }

    fn store_of(config: &HeadConfig) -> RowStore {
        RowStore::new(config, ClassRange::of_rank(config.classes, 0, 1)).unwrap()
    }

    fn store(n_rows: u64) -> RowStore {
        store_of(&config(n_rows))
    }

    fn exported(store: &RowStore) -> (Vec<f32>, Vec<f32>) {
        let n_rows = store.n_rows();
        let (mut weight, mut momentum) = (vec![0.0; n_rows * DIM], vec![0.0; n_rows * DIM]);
        store.export(0..n_rows, &mut weight, &mut momentum).unwrap();
        (weight, momentum)
    }

    /// A few rows, ascending, and a gradient for them.
    fn tile(step: u64, n_rows: u64) -> (Vec<u32>, Vec<f32>) {
        let rows: Vec<u32> = (0..n_rows)
            .filter(|row| scramble(step * n_rows + row).is_multiple_of(20))
            .map(|r| r as u32)
            .collect();
        let mut gradient = vec![0.0; rows.len() * DIM];
        fill_normal(scramble(step), 0.01, &mut gradient);
        (rows, gradient)
    }

    /// Torch's SGD on every row in f64, with the same gradients by the unit rows.
    fn eager_step(rows: &[u32], gradient: &[f32], sgd: &Sgd, state: &mut [(Vec<f64>, Vec<f64>)]) {
        for (row, (w, v)) in state.iter_mut().enumerate() {
            let length = w.iter().map(|w| w * w).sum::<f64>().sqrt();
            let mut g = vec![0.0; DIM];
            if let Ok(at) = rows.binary_search(&(row as u32)) {
                let by_unit = &gradient[at * DIM..][..DIM];
                let along: f64 =
                    by_unit.iter().zip(&*w).map(|(&g, w)| f64::from(g) * w / length).sum();
                for ((g, &by_unit), w) in g.iter_mut().zip(by_unit).zip(&*w) {
                    *g = (f64::from(by_unit) - along * w / length) / length;
                }
            }
            for ((w, v), g) in w.iter_mut().zip(v).zip(g) {
                *v = sgd.momentum * *v + g + sgd.weight_decay * *w;
                *w -= sgd.lr * *v;
            }
        }
    }

    #[test]
    fn rows_moved_lazily_for_500_steps_are_where_sgd_in_every_step_takes_them() {
        let n_rows = 150;
        let mut lazy = store(n_rows);
        let mut rule = rule(&config(n_rows));
        let (weight, momentum) = exported(&lazy);
        let wide = |values: &[f32]| values.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
        let mut eager: Vec<_> =
            weight.chunks(DIM).zip(momentum.chunks(DIM)).map(|(w, v)| (wide(w), wide(v))).collect();
        for step in 0..500 {
            let lr = 0.1 * (1.0 - step as f64 / 500.0);
            let (rows, gradient) = tile(step, n_rows);
            let shape = [rows.len() as i64, DIM as i64];
            let tile_gradient = TileGradient {
                as_negatives_td: &Tensor::from_slice(&gradient).view(shape),
                as_positives: &[],
                unit_embeddings_gd: &Tensor::zeros([0, DIM as i64], (Kind::Float, Device::Cpu)),
            };
            for mut tile in lazy.tiles(&rows, rows.len().max(1)) {
                tile.update(rule.as_ref(), &tile_gradient, lr).unwrap();
            }
            let Motion::Sgd(sgd) = rule.motion(lr) else { panic!("not SGD") };
            eager_step(&rows, &gradient, &sgd, &mut eager);
            rule.finish_step(lr);
        }
        lazy.catch_up(rule.as_ref()).unwrap();
        let (weight, momentum) = exported(&lazy);
        for (row, (w, v)) in eager.iter().enumerate() {
            for (found, expected) in [(&weight, w), (&momentum, v)] {
                let largest = expected.iter().fold(0f64, |most, e| most.max(e.abs()));
                let found = &found[row * DIM..][..DIM];
                for (&found, expected) in found.iter().zip(expected) {
                    let error = (f64::from(found) - expected).abs() / largest;
                    assert!(error < 1e-5, "row {row}: {error:e}");
                }
            }
        }
    }

    #[test]
    fn an_untouched_row_is_exported_as_it_is_read() {
        let mut store = store(200);
        let (before, _) = exported(&store);
        let rule = rule(&HeadConfig { update: Update::Sparse, ..config(200) });
        let mut unit_td = Tensor::zeros([2, DIM as i64], (Kind::Float, Device::Cpu));
        store.tiles(&[5, 199], 2)[0].unit_rows(rule.as_ref(), &mut unit_td).unwrap();
        assert_eq!(exported(&store).0, before);
        let lengths = Tensor::from_slice(&before).view([200, DIM as i64]);
        let lengths = lengths.index_select(0, &Tensor::from_slice(&[5i64, 199]));
        let expected = &lengths / lengths.norm_scalaropt_dim(2, [1i64], true);
        let error = (unit_td - expected).abs().max().double_value(&[]);
        assert!(error < 1e-6, "{error:e}");
    }

    #[test]
    fn a_row_starts_the_same_whatever_rank_owns_it() {
        let whole = exported(&store(103)).0;
        let parts: Vec<f32> = (0..4)
            .flat_map(|rank| {
                let range = ClassRange::of_rank(103, rank, 4);
                exported(&RowStore::new(&config(103), range).unwrap()).0
            })
            .collect();
        assert_eq!(parts, whole);
    }

    #[test]
    fn memory_that_no_machine_has_is_an_error() {
        let config = HeadConfig::new(u64::from(u32::MAX), 1 << 58);
        let error =
            RowStore::new(&config, ClassRange::of_rank(config.classes, 0, 1)).err().unwrap();
        assert!(matches!(error, HeadError::Memory { .. }));
    }

    #[test]
    fn a_row_first_used_late_has_missed_every_step_before() {
        let mut store = store(2);
        let mut rule =
            rule(&HeadConfig { momentum: 0.5, weight_decay: 0.25, ..HeadConfig::new(2, DIM) });
        let (before, _) = exported(&store);
        rule.finish_step(1.0);
        assert_eq!(rule.missed(UNTOUCHED), Some(Flow { ww: 0.75, wv: -0.5, vw: 0.25, vv: 0.5 }));
        store.catch_up(rule.as_ref()).unwrap();
        let (weight, momentum) = exported(&store);
        for ((w, v), start) in weight.iter().zip(&momentum).zip(&before) {
            assert_eq!((*w, *v), (0.75 * start, 0.25 * start));
        }
    }

    /// One step of SGD on the rows of [`tile`].
    fn take_step(store: &mut RowStore, rule: &mut dyn UpdateRule, step: u64) {
        let (rows, gradient) = tile(step, store.n_rows() as u64);
        let shape = [rows.len() as i64, DIM as i64];
        let tile_gradient = TileGradient {
            as_negatives_td: &Tensor::from_slice(&gradient).view(shape),
            as_positives: &[],
            unit_embeddings_gd: &Tensor::zeros([0, DIM as i64], (Kind::Float, Device::Cpu)),
        };
        store.prepare(&rows, step).unwrap();
        for mut tile in store.tiles(&rows, rows.len().max(1)) {
            tile.update(rule, &tile_gradient, 0.05).unwrap();
        }
        rule.finish_step(0.05);
    }

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
    fn a_row_whose_time_is_damaged_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let config = on_disk(folder.path(), Storage::F32);
        let mut rule = rule(&config);
        let mut store = store_of(&config);
        (0..3).for_each(|step| take_step(&mut store, rule.as_mut(), step));
        store.catch_up(rule.as_ref()).unwrap();
        rule.caught_up(UntouchedRows::LeftAlone);
        store.flush(rule.stamp()).unwrap();
        drop(store);
        // The times of row 7: 2, which is before the earliest step that is remembered.
        let path = folder.path().join("stamps");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[7 * 8..][..8].copy_from_slice(&[2, 0, 0, 0, 0, 0, 0, 0]);
        std::fs::write(&path, bytes).unwrap();
        let error = store_of(&config).restore(rule.stamp(), rule.as_ref()).unwrap_err().to_string();
        assert!(error.ends_with("class 7 is of step 2, which no row can be"), "{error}");
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
        store.prepare(&[], 0).unwrap();
        assert_eq!(exported(&store), untouched);
        store.flush(rule.stamp()).unwrap();
        drop(store);
        let error = store_of(&config).prepare(&[], 0).unwrap_err().to_string();
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
        store.prepare(&rows, 0).unwrap();
        for mut tile in store.tiles(&rows, 2) {
            tile.update(rule.as_ref(), &gradient, 0.1).unwrap();
        }
        rule.finish_step(0.1);
        store.flush(rule.stamp()).unwrap();
        let blocks = |name| std::fs::metadata(folder.path().join(name)).unwrap().blocks() * 512;
        assert!(blocks("rows") <= 1 << 20 && blocks("stamps") <= 1 << 20, "{}", blocks("rows"));
    }
}

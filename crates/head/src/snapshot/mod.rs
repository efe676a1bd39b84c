//! Saving the centres of a rank as tensors of a checkpoint, and restoring them.

// C = classes of this rank, D = embedding, N = touched rows, K = steps that rows may have missed.

mod saved;
mod saving;
pub mod shards;

use std::path::Path;

use tch::{Device, Kind, Tensor};

use super::{
    ClassRange, Head, HeadError, Parts,
    centres::{
        CentreStore,
        file::holds_centres,
        row::{self, RowLayout},
    },
    config::{CentreOptimizer, HeadConfig},
    elements::{with_elements, with_elements_mut},
    optim::{Dense, FIRST, Stamp, UNTOUCHED, UpdateHistory, UpdateMap, UpdateRule},
};
pub use saved::CentreReader;
use saved::Source;
pub use saving::{Column, RowPiece, RowPieces, Snapshot};
use saving::{STAMP, WEIGHT};
pub(crate) use saving::{Saving, save_bytes_max};

/// `[2]` i64, the rank's first class and the one after its last, global ids.
const RANGE: &str = "centres.range";
/// `[1]` i64, global id of the class in the first row of tensors that have one for each class.
const FIRST_CLASS: &str = "centres.first_class";
/// `[1]` i64, the seed that untouched rows follow from.
const SEED: &str = "centres.seed";
/// `[1]` i64, 1 + the number of steps that the head has taken.
const STEPS: &str = "centres.steps";
/// `[K, 4]` f64, row k: what the last k + 1 steps do to weight and momentum, as [`UpdateMap`] has it.
const MISSED: &str = "centres.missed";
/// `[1, 4]` f64, what the steps before those do; for rows that were never touched alone.
const BEFORE: &str = "centres.missed_before";
/// `[1]` i64: the rows are in files, as of this number of steps plus 1.
const IN_PLACE: &str = "centres.in_place";
/// `[4]` i64: first class, class after the last, and time of birth in the names of these files, and
/// their places in use.
const FILE: &str = "centres.file";
/// i64, the sum of each block of 4,096 of these places, see `docs/centres.md`.
const BLOCKS: &str = "centres.blocks";

/// The optimizer's state, `[.., n]`.
fn state_name(optimizer: CentreOptimizer) -> &'static str {
    match optimizer {
        CentreOptimizer::Sgd => "centres.momentum",
        CentreOptimizer::Adamw { .. } => "centres.moments",
        CentreOptimizer::RowAdagrad { .. } => "centres.squares",
    }
}

type Named = Vec<(String, Tensor)>;

fn numbers(name: &str, values: &[i64]) -> (String, Tensor) {
    (name.to_owned(), Tensor::from_slice(values))
}

impl Head {
    /// Applies to every row that a step has moved the updates that were put off until it is next sampled.
    /// Finding these rows is O(C).
    ///
    /// Rows are rounded when they are caught up, so a run that is to be repeated bit for bit must
    /// do it at the same steps.
    ///
    /// # Errors
    ///
    /// [`HeadError`] if the rows cannot be reached.
    pub fn catch_up(&mut self) -> Result<(), HeadError> {
        self.settle();
        self.finish_save()?;
        let (store, rule) = (&mut self.parts.store, &mut self.parts.rule);
        if store.catch_up(rule.as_ref())? {
            rule.caught_up();
        }
        Ok(())
    }

    /// Allocates every centre, as a long run does in the end. O(C).
    ///
    /// # Errors
    ///
    /// [`HeadError`] if there is no room for them.
    pub fn touch_all(&mut self) -> Result<(), HeadError> {
        self.settle();
        self.finish_save()?;
        let Parts { store, rule, .. } = &mut self.parts;
        touch_all(store.as_mut(), rule.as_ref(), &self.config)
    }

    /// Begins to save this rank's centres as they are now, or caught up.
    ///
    /// Centres in files stay there: they are flushed, and a few numbers say what to go back to. Rows
    /// in memory, those that a step has moved alone, are handed over while [`Head::step`] goes on;
    /// [`Head::finish_save`] hands over what is left. Beside what [`RowPieces`] has of each row,
    /// the tensors are `centres.range`, `centres.seed`, `centres.steps`, and where updates are put
    /// off `centres.missed`, `[K, 4]` f64: with `n` in `centres.steps`, a row of stamp s has missed
    /// the last n − s steps, and row n − s − 1 of `missed` is `ww, wv, vw, vv` of the map that makes
    /// up for them, `w' = ww·w + wv·v`, `v' = vw·w + vv·v`. A row that is not in the checkpoint was
    /// never touched: it has missed all K, and before them what `centres.missed_before`, `[1, 4]` f64,
    /// has, if it is there.
    ///
    /// Once the checkpoint is safe, and before the next step if centres are in files,
    /// [`Head::checkpointed`] must be called.
    ///
    /// # Errors
    ///
    /// [`HeadError`] if the rows cannot be reached or the disk refuses.
    pub fn begin_save(&mut self, catch_up: bool) -> Result<Snapshot, HeadError> {
        self.settle();
        self.finish_save()?;
        let is_in_files = self.parts.store.in_files().is_some();
        if catch_up && !is_in_files {
            self.catch_up()?;
        }
        let memory = self.parts.rule.memory();
        let range = self.centres().ids();
        let mut tensors = vec![
            numbers(RANGE, &[range.start as i64, range.end as i64]),
            numbers(SEED, &[self.config.seed as i64]),
        ];
        push_memory(&mut tensors, &memory);
        let mut rows = None;
        if let Some(centres) = self.parts.store.in_files() {
            tensors.push(numbers(IN_PLACE, &[memory.now.into()]));
            if let Some(record) = centres.flush(memory.now)? {
                let (name, n_used) = (&record.name, record.n_used as i64);
                let (start, end) = (name.classes.start as i64, name.classes.end as i64);
                tensors.push(numbers(FILE, &[start, end, name.born.into(), n_used]));
                let blocks: Vec<i64> = record.blocks.iter().map(|&sum| sum as i64).collect();
                tensors.push(numbers(BLOCKS, &blocks));
            }
        } else {
            let (layout, name) =
                (RowLayout::of_config(&self.config), state_name(self.config.optimizer));
            let store = self.parts.store.as_ref();
            let (saving, pieces) = Saving::begin(store, layout, name, range.start)?;
            (self.saving, rows) = (Some(saving), Some(pieces));
        }
        Ok(Snapshot { tensors, rows })
    }

    /// Hands over all rows of the save that is under way, and waits until they were taken.
    ///
    /// # Errors
    ///
    /// [`HeadError`] if the rows cannot be reached.
    pub fn finish_save(&mut self) -> Result<(), HeadError> {
        match self.saving.take() {
            Some(mut saving) => saving.finish(self.parts.store.as_ref()),
            None => Ok(()),
        }
    }

    /// Called once the checkpoint that [`Head::begin_save`] began is on disk. From now on, centres in files
    /// keep the copies that this checkpoint and the one before it need.
    ///
    /// # Errors
    ///
    /// [`HeadError`] if the disk refuses.
    pub fn checkpointed(&mut self) -> Result<(), HeadError> {
        let now = self.parts.rule.stamp();
        self.parts.store.in_files().map_or(Ok(()), |centres| centres.protect(now))
    }

    /// Refuses to begin a new run over centres in files that belong to another. Nothing is written.
    ///
    /// # Errors
    ///
    /// [`HeadError::CentreFile`] if the folder holds a run that has saved, [`HeadError`] if it cannot be
    /// read.
    pub fn check_free(&mut self) -> Result<(), HeadError> {
        self.parts.store.in_files().map_or(Ok(()), |centres| centres.check_free())
    }

    /// Sets how many rows the save that has just begun hands over at a time, and how many it copies.
    #[cfg(test)]
    pub(crate) fn shrink_save(&mut self, n_rows: usize) {
        self.saving.as_mut().expect("a save has begun").shrink(n_rows);
    }

    /// Replaces centres by those of another head, without optimizer state, as if the rank began with them.
    ///
    /// * `rows`: of this rank, strictly ascending
    /// * `weight`: `[rows, D]`, row by row
    ///
    /// # Errors
    ///
    /// [`HeadError`] if the rows cannot be reached, or there is no room for them.
    pub fn set_centres(&mut self, rows: &[u32], weight: &[f32]) -> Result<(), HeadError> {
        self.settle();
        let state = vec![0.0; rows.len() * RowLayout::of_config(&self.config).n_state()];
        let stamps = vec![self.parts.rule.stamp(); rows.len()];
        self.parts.store.import(rows, weight, &state, &stamps)
    }

    /// A save in memory: what a checkpoint of this rank holds.
    ///
    /// # Errors
    ///
    /// As [`Head::begin_save`].
    pub fn checkpoint(&mut self, catch_up: bool) -> Result<Named, HeadError> {
        let Snapshot { mut tensors, rows } = self.begin_save(catch_up)?;
        let Some(rows) = rows else { return Ok(tensors) };
        tensors.extend(std::thread::scope(|scope| {
            let collected = scope.spawn(move || collect(rows));
            self.finish_save()?;
            collected.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?);
        Ok(tensors)
    }

    /// Catches up, then copies out this rank's centres and the state of their optimizer, a row for
    /// every class, touched or not.
    ///
    /// The tensors are `centres.weight`, `[C, D]` f32, then `centres.momentum`, `[C, D]` f32, under
    /// SGD (`centres.moments`, `[C, 2 D]`, under `AdamW`; `centres.squares`, `[C, 1]`, under
    /// row-wise Adagrad), `centres.first_class`, `[1]` i64, the global id of row 0, and
    /// `centres.steps`, `[1]` i64, 1 + the steps taken.
    ///
    /// # Errors
    ///
    /// [`HeadError`] if the rows cannot be reached or memory runs out.
    pub fn state(&mut self) -> Result<Named, HeadError> {
        self.catch_up()?;
        let mut state = self.rows()?;
        let rule = self.parts.rule.as_ref();
        let memory = rule.memory();
        if !memory.is_empty() {
            // Rows that a catch-up leaves alone.
            let stamps = self.parts.store.stamps(0..self.centres().len())?;
            let [weight_cd, state_cn] = &mut state[..2] else { unreachable!("two were pushed") };
            make_up(rule, &stamps, &mut weight_cd.1, &mut state_cn.1);
        }
        push_memory(&mut state, &UpdateHistory::at(memory.now));
        Ok(state)
    }

    /// The same without catching up, so that nothing of the run changes.
    ///
    /// Where updates are put off, `centres.stamp`, `[C]` i32, and `centres.missed` come beside the
    /// tensors of [`Head::state`], as in [`Head::begin_save`]; the stamp of an untouched row is 0.
    ///
    /// # Errors
    ///
    /// As [`Head::state`].
    pub fn state_as_it_is(&mut self) -> Result<Named, HeadError> {
        self.settle();
        let mut state = self.rows()?;
        let memory = self.parts.rule.memory();
        if !memory.is_empty() {
            let stamps = self.parts.store.stamps(0..self.centres().len())?;
            let stamps: Vec<i32> = stamps.iter().map(|&stamp| stamp as i32).collect();
            state.push((STAMP.to_owned(), Tensor::from_slice(&stamps)));
        }
        push_memory(&mut state, &memory);
        Ok(state)
    }

    /// The centres of this rank; a class has several side by side under a loss with sub-centres.
    fn centres(&self) -> ClassRange {
        self.range.of_centres(self.config.margin.sub_centres())
    }

    fn rows(&self) -> Result<Named, HeadError> {
        let n_state = RowLayout::of_config(&self.config).n_state();
        let empty = |width: usize| {
            Tensor::f_empty([self.centres().len() as i64, width as i64], (Kind::Float, Device::Cpu))
                .map_err(HeadError::torch("copy the centres"))
        };
        let (mut weight_cd, mut state_cn) = (empty(self.config.dim)?, empty(n_state)?);
        let store = &self.parts.store;
        with_elements_mut(&mut weight_cd, |weight| {
            with_elements_mut(&mut state_cn, |state| store.export(0..store.n_rows(), weight, state))
        })?;
        Ok(vec![
            (WEIGHT.to_owned(), weight_cd),
            (state_name(self.config.optimizer).to_owned(), state_cn),
            numbers(FIRST_CLASS, &[self.centres().first() as i64]),
        ])
    }

    /// Restores what [`Head::checkpoint`], [`Head::state`] or [`Head::state_as_it_is`] returned, on this or
    /// on other ranks. The classes in it must cover this rank's. Tensors of other names are ignored.
    ///
    /// # Errors
    ///
    /// As [`Head::load`].
    pub fn load_state(&mut self, state: &[(String, Tensor)]) -> Result<(), HeadError> {
        self.load(&mut [Box::new(state)], None)
    }

    /// Restores the centres of a checkpoint.
    ///
    /// * `pieces`: what ranks wrote whose classes cover this rank's, in the order of their classes
    /// * `folder`: where the centres were in files, if they were
    ///
    /// # Errors
    ///
    /// [`HeadError::State`] if a tensor is missing, of another shape or does not cover the rank's
    /// classes; [`HeadError::CentreNotFinite`]; [`HeadError::CentreFile`] and [`HeadError::CentresDamaged`] if
    /// files do not hold what the checkpoint needs. Rows in files that the head goes on in are not read here,
    /// but when a step first needs them. The head is then not to be used, but for another load.
    pub fn load(
        &mut self,
        pieces: &mut [Box<dyn SavedTensors + '_>],
        folder: Option<&Path>,
    ) -> Result<(), HeadError> {
        self.settle();
        // What became of the steps before is over.
        self.begun = None;
        self.finish_save()?;
        let memory = memory_of(pieces)?;
        let own = self.centres();
        let own_folder = self.parts.store.in_files().map(|centres| centres.folder().to_path_buf());
        // A folder that was moved is where the head has it now.
        let folder = own_folder.as_deref().filter(|own| holds_centres(own)).or(folder);
        let mut sources =
            Source::find(pieces, &self.config, &memory, folder.or(own_folder.as_deref()))?;
        Source::check_cover(&sources, own.ids())?;
        let (store, rule) = (self.parts.store.as_mut(), self.parts.rule.as_mut());
        let remembers = rule.remember(&memory);
        let in_place = match (&sources[..], store.in_files()) {
            ([source], Some(centres)) => source.in_place(centres, own),
            _ => None,
        };
        if let Some(record) = in_place {
            if !remembers {
                let problem = "needs `update = \"dense\"`, as rows have updates to catch up with";
                return Err(refused(MISSED, problem.to_owned()));
            }
            let centres = store.in_files().expect("it was just there");
            return centres.restore(&record, memory.now, rule);
        }
        let own_folder =
            own_folder.is_some_and(|own| sources.iter().any(|source| source.is_in(&own)));
        let owed = (!remembers).then(|| Dense::of_memory(&memory));
        store.begin_import(memory.now, own_folder)?;
        for source in &mut sources {
            source.import(pieces, own.ids(), &self.config, &memory, &mut |mut rows| {
                if let Some(owed) = &owed {
                    rows.make_up(owed);
                }
                // Where nothing is missed, a row of any time is up to date.
                rows.stamps.iter_mut().filter(|s| !rule.knows(**s)).for_each(|s| *s = memory.now);
                store.import(&rows.rows, &rows.weight, &rows.state, &rows.stamps)
            })?;
        }
        match owed {
            Some(owed) if owed.missed(UNTOUCHED).is_some() => touch_all(store, &owed, &self.config),
            _ => Ok(()),
        }
    }
}

/// Rows that were read from a checkpoint, with their numbers in the store that takes them.
struct LoadedRows {
    pub rows: Vec<u32>,
    pub weight: Vec<f32>,
    pub state: Vec<f32>,
    pub stamps: Vec<Stamp>,
}

impl LoadedRows {
    /// Applies to every row the updates that it has missed.
    pub fn make_up(&mut self, rule: &dyn UpdateRule) {
        let LoadedRows { rows, weight, state, stamps } = self;
        let n_rows = rows.len().max(1);
        let (dim, n_state) = (weight.len() / n_rows, state.len() / n_rows);
        let numbers = weight.chunks_mut(dim.max(1)).zip(state.chunks_mut(n_state.max(1)));
        for ((weight, state), stamp) in numbers.zip(stamps) {
            if let Some(flow) = rule.missed(*stamp) {
                row::advance(&flow, weight, state);
            }
            *stamp = rule.stamp();
        }
    }
}

/// Applies to the untouched rows of a store the updates that they have missed, which allocates them.
fn touch_all(
    store: &mut dyn CentreStore,
    rule: &dyn UpdateRule,
    config: &HeadConfig,
) -> Result<(), HeadError> {
    const ROWS: usize = 1 << 14;
    let (dim, n_state) = (config.dim, RowLayout::of_config(config).n_state());
    for start in (0..store.n_rows()).step_by(ROWS) {
        let range = start..(start + ROWS).min(store.n_rows());
        let mut weight = vec![0.0; range.len() * dim];
        let mut state = vec![0.0; range.len() * n_state];
        store.export(range.clone(), &mut weight, &mut state)?;
        let stamps = store.stamps(range)?;
        let untouched = |&i: &usize| stamps[i] == UNTOUCHED;
        let indices: Vec<usize> = (0..stamps.len()).filter(untouched).collect();
        let of = |values: &[f32], width: usize| -> Vec<f32> {
            indices.iter().flat_map(|i| &values[i * width..][..width]).copied().collect()
        };
        let mut rows = LoadedRows {
            rows: indices.iter().map(|i| (start + i) as u32).collect(),
            weight: of(&weight, dim),
            state: of(&state, n_state),
            stamps: vec![UNTOUCHED; indices.len()],
        };
        rows.make_up(rule);
        store.import(&rows.rows, &rows.weight, &rows.state, &rows.stamps)?;
    }
    Ok(())
}

/// Joins the pieces that a head hands over into whole tensors.
pub(crate) fn collect(mut rows: RowPieces) -> Result<Named, HeadError> {
    let mut parts: Vec<Vec<Tensor>> = rows.columns.iter().map(|_| Vec::new()).collect();
    while let Some(piece) = rows.next_piece()? {
        parts.iter_mut().zip(piece.columns).for_each(|(parts, column)| parts.push(column));
    }
    let joined = rows.columns.iter().zip(parts).map(|(column, parts)| {
        let shape: Vec<i64> = [0].into_iter().chain(column.width).collect();
        let empty = Tensor::zeros(shape, (column.kind, Device::Cpu));
        let parts: Vec<Tensor> = [empty].into_iter().chain(parts).collect();
        let all = Tensor::f_cat(&parts, 0).map_err(HeadError::torch("copy the centres"))?;
        Ok((column.name.clone(), all))
    });
    joined.collect()
}

/// Applies to rows of `[C, D]` weights and momenta the updates that they have missed.
fn make_up(rule: &dyn UpdateRule, stamps: &[Stamp], weight_cd: &mut Tensor, state_cd: &mut Tensor) {
    let dim = weight_cd.size()[1] as usize;
    with_elements_mut(weight_cd, |weight: &mut [f32]| {
        with_elements_mut(state_cd, |momentum: &mut [f32]| {
            let rows = weight.chunks_mut(dim).zip(momentum.chunks_mut(dim));
            for ((weight, momentum), &stamp) in rows.zip(stamps) {
                if let Some(flow) = rule.missed(stamp) {
                    row::advance(&flow, weight, momentum);
                }
            }
        });
    });
}

fn push_memory(state: &mut Named, memory: &UpdateHistory) {
    let flows = |flows: &[UpdateMap]| {
        let values: Vec<f64> = flows.iter().flat_map(|f| [f.ww, f.wv, f.vw, f.vv]).collect();
        Tensor::from_slice(&values).view([-1, 4])
    };
    state.push((STEPS.to_owned(), Tensor::from_slice(&[i64::from(memory.now)])));
    if !memory.missed.is_empty() {
        state.push((MISSED.to_owned(), flows(&memory.missed)));
    }
    if memory.before != UpdateMap::IDENTITY {
        state.push((BEFORE.to_owned(), flows(&[memory.before])));
    }
}

/// Tensors of a checkpoint, of one of the ranks that wrote it.
pub trait SavedTensors {
    /// The file, or what stands for it in errors.
    fn origin(&self) -> String;

    /// Shape and kind of a tensor; `None` if there is none of this name.
    ///
    /// # Errors
    ///
    /// [`HeadError::Model`] if the file is not one that can be read, here and below.
    fn spec(&self, name: &str) -> Result<Option<(Vec<i64>, Kind)>, HeadError>;

    /// A whole tensor, which is there, on the CPU.
    ///
    /// # Errors
    ///
    /// As above.
    fn read(&mut self, name: &str) -> Result<Tensor, HeadError>;

    /// Some of its rows.
    ///
    /// # Errors
    ///
    /// As above.
    fn read_rows(&mut self, name: &str, rows: std::ops::Range<i64>) -> Result<Tensor, HeadError>;
}

impl SavedTensors for &[(String, Tensor)] {
    fn origin(&self) -> String {
        "the head's state".to_owned()
    }

    fn spec(&self, name: &str) -> Result<Option<(Vec<i64>, Kind)>, HeadError> {
        let found = self.iter().find(|(found, _)| found == name);
        Ok(found.map(|(_, tensor)| (tensor.size(), tensor.kind())))
    }

    fn read(&mut self, name: &str) -> Result<Tensor, HeadError> {
        let found = self.iter().find(|(found, _)| found == name);
        let missing = || refused(name, "is missing".to_owned());
        found.map(|(_, tensor)| tensor.shallow_clone()).ok_or_else(missing)
    }

    fn read_rows(&mut self, name: &str, rows: std::ops::Range<i64>) -> Result<Tensor, HeadError> {
        Ok(self.read(name)?.narrow(0, rows.start, rows.end - rows.start))
    }
}

/// The updates that saved rows may have yet to take, which every rank has saved.
fn memory_of(pieces: &mut [Box<dyn SavedTensors + '_>]) -> Result<UpdateHistory, HeadError> {
    let mut first = None;
    for piece in pieces {
        let memory = memory_of_piece(piece.as_mut())?;
        match &first {
            None => first = Some(memory),
            Some(first) if *first == memory => {}
            Some(first) => {
                let problem = format!(
                    "is {} of one rank and {} of another, or {MISSED} differs",
                    first.now, memory.now
                );
                return Err(refused(STEPS, problem));
            }
        }
    }
    first.ok_or_else(|| refused(WEIGHT, "is missing".to_owned()))
}

fn memory_of_piece(piece: &mut dyn SavedTensors) -> Result<UpdateHistory, HeadError> {
    let missed = flows_of(piece, MISSED)?;
    let before = flows_of(piece, BEFORE)?.first().copied().unwrap_or(UpdateMap::IDENTITY);
    let least = FIRST + missed.len() as Stamp;
    // States of before there was this tensor begin to count at the earliest step they know of.
    let now = match integers(piece, STEPS, 1)? {
        Some(values) => stamp(STEPS, values[0])?,
        None => least,
    };
    if now < least {
        let n_missed = missed.len();
        return Err(refused(STEPS, format!("is {now}, but {n_missed} steps are in {MISSED}")));
    }
    Ok(UpdateHistory { now, missed, before })
}

fn flows_of(piece: &mut dyn SavedTensors, name: &str) -> Result<Vec<UpdateMap>, HeadError> {
    let Some((size, kind)) = piece.spec(name)? else { return Ok(Vec::new()) };
    // No head remembers more steps than fit into its clock.
    if kind != Kind::Double
        || !matches!(size[..], [n, 4] if (0..i64::from(Stamp::MAX)).contains(&n))
    {
        return Err(refused(name, format!("is {size:?} {kind:?}, not [steps, 4] Double")));
    }
    let tensor = piece.read(name)?.contiguous();
    with_elements(&tensor, |values: &[f64]| {
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            let problem = format!("holds {} in row {}, but has to be finite", values[at], at / 4);
            return Err(refused(name, problem));
        }
        let map = |&[ww, wv, vw, vv]: &[f64; 4]| UpdateMap { ww, wv, vw, vv };
        Ok(values.as_chunks().0.iter().map(map).collect())
    })
}

/// A tensor of `len` whole numbers, if it is there.
fn integers(
    piece: &mut dyn SavedTensors,
    name: &str,
    len: usize,
) -> Result<Option<Vec<i64>>, HeadError> {
    let Some((size, kind)) = piece.spec(name)? else { return Ok(None) };
    if kind != Kind::Int64 || size.iter().product::<i64>() != len as i64 {
        let one =
            if len == 1 { "one 64-bit integer" } else { "as many 64-bit integers as belong in it" };
        return Err(refused(name, format!("is not {one}")));
    }
    let tensor = piece.read(name)?.contiguous();
    Ok(Some(with_elements(&tensor, |values: &[i64]| values.to_vec())))
}

/// A time that a checkpoint states.
fn stamp(name: &str, value: i64) -> Result<Stamp, HeadError> {
    Stamp::try_from(value).map_err(|_| refused(name, format!("is {value}")))
}

/// The error of a tensor that cannot be used.
fn refused(name: &str, problem: String) -> HeadError {
    HeadError::State { name: name.to_owned(), problem }
}

//! Saving and restoring the centres.

// C = classes of this rank, K = steps that rows may have missed.

pub mod shards;

use std::ops::Range;

use tch::{Device, Kind, Tensor};

use super::{
    ClassRange, Head, HeadError,
    centres::row,
    config::{HeadConfig, Optimizer},
    elements::{with_elements, with_elements_mut},
    optim::{Dense, FIRST, Flow, Memory, Stamp, UNTOUCHED, UpdateRule},
};

/// `[C, D]` f32, the centres, not normalised.
const WEIGHT: &str = "centres.weight";
/// `[1]` i64, global id of the class in the first row; the others follow one by one.
const FIRST_CLASS: &str = "centres.first_class";
/// `[1]` i64, 1 + the number of steps that the head has taken.
const STEPS: &str = "centres.steps";
/// `[C]` i32, the same as of when a row last moved; 0 if it is still initial.
const STAMP: &str = "centres.stamp";
/// `[K, 4]` f64, row k: what the last k + 1 steps do to weight and momentum, as [`Flow`] has it.
const MISSED: &str = "centres.missed";
/// `[1, 4]` f64, what the steps before those do; for rows of stamp 0 alone.
const BEFORE: &str = "centres.missed_before";
/// `[1]` i64: the rows are in the folder of the centres, as of this number of steps plus 1.
const IN_PLACE: &str = "centres.in_place";

/// The optimizer's state, `[C, n]` f32.
fn state_name(optimizer: Optimizer) -> &'static str {
    match optimizer {
        Optimizer::Sgd => "centres.momentum",
        Optimizer::Adamw { .. } => "centres.moments",
        Optimizer::RowAdagrad { .. } => "centres.squares",
    }
}

impl Head {
    /// Gives every row the updates that were put off until it is next sampled. O(C), but for rows of
    /// a file that were never touched, which may go on waiting.
    ///
    /// Rows are rounded when they are caught up, so a run that is to be repeated bit for bit must
    /// do it at the same steps; [`Head::state_as_it_is`] saves at any other.
    ///
    /// # Errors
    ///
    /// [`HeadError`] if the rows cannot be reached.
    pub fn catch_up(&mut self) -> Result<(), HeadError> {
        let (store, rule) = (&mut self.parts.store, &mut self.parts.rule);
        let untouched = store.catch_up(rule.as_ref())?;
        rule.caught_up(untouched);
        Ok(())
    }

    /// What a checkpoint of this rank must hold so that [`Head::load_state`] can go on from it.
    ///
    /// Centres in memory are copied out, caught up or as they are. Centres on disk stay there: they
    /// are flushed, and a few numbers say which time to go back to. Once the checkpoint is safe, and
    /// before the next step, [`Head::checkpointed`] must be called.
    ///
    /// # Errors
    ///
    /// [`HeadError`] if the rows cannot be reached, memory runs out or the disk refuses.
    pub fn checkpoint(&mut self, catch_up: bool) -> Result<Vec<(String, Tensor)>, HeadError> {
        let memory = self.parts.rule.memory();
        let Some(centres) = self.parts.store.durable() else {
            return if catch_up { self.state() } else { self.state_as_it_is() };
        };
        centres.flush(memory.now)?;
        let number = |n: i64| Tensor::from_slice(&[n]);
        let mut state = vec![
            (IN_PLACE.to_owned(), number(memory.now.into())),
            (FIRST_CLASS.to_owned(), number(self.centres().first() as i64)),
        ];
        push_memory(&mut state, &memory);
        Ok(state)
    }

    /// Told that what [`Head::checkpoint`] gave is safe: from now on the centres on disk as of then
    /// are kept, and no longer those of the checkpoint before.
    ///
    /// # Errors
    ///
    /// [`HeadError`] if the disk refuses.
    pub fn checkpointed(&mut self) -> Result<(), HeadError> {
        let now = self.parts.rule.stamp();
        self.parts.store.durable().map_or(Ok(()), |centres| centres.protect(now))
    }

    /// Catches up, then copies out this rank's centres and the state of their optimizer.
    ///
    /// The tensors are `centres.weight`, `[C, D]` f32, then `centres.momentum`, `[C, D]` f32, under
    /// SGD (`centres.moments`, `[C, 2 D]`, under `AdamW`; `centres.squares`, `[C, 1]`, under
    /// row-wise Adagrad), `centres.first_class`, `[1]` i64, the global id of row 0, and
    /// `centres.steps`, `[1]` i64, 1 + the steps taken.
    ///
    /// # Errors
    ///
    /// [`HeadError`] if the rows cannot be reached or memory runs out.
    pub fn state(&mut self) -> Result<Vec<(String, Tensor)>, HeadError> {
        self.catch_up()?;
        let mut state = self.rows()?;
        let rule = self.parts.rule.as_ref();
        if rule.missed(UNTOUCHED).is_some() {
            // Rows that a catch-up leaves alone.
            let stamps = self.parts.store.stamps();
            let [weight_cd, state_cn] = &mut state[..2] else { unreachable!("two were pushed") };
            make_up(rule, &stamps, &mut weight_cd.1, &mut state_cn.1);
        }
        push_memory(&mut state, &Memory::at(rule.stamp()));
        Ok(state)
    }

    /// Copies out the rows without catching them up, so that saving changes nothing of the run.
    ///
    /// Where updates are put off, `centres.stamp`, `[C]` i32, and `centres.missed`, `[K, 4]` f64,
    /// come beside the tensors of [`Head::state`]: with `n` in `centres.steps`, a row of stamp s ≥ 1
    /// has missed the last n − s steps, and row n − s − 1 of `missed` is `ww, wv, vw, vv` of the map
    /// that makes up for them, `w' = ww·w + wv·v`, `v' = vw·w + vv·v`. A row of stamp 0 has missed
    /// all K, and before them what `centres.missed_before`, `[1, 4]` f64, has, if it is there.
    ///
    /// # Errors
    ///
    /// As [`Head::state`].
    pub fn state_as_it_is(&self) -> Result<Vec<(String, Tensor)>, HeadError> {
        let mut state = self.rows()?;
        let memory = self.parts.rule.memory();
        if !memory.is_empty() {
            let stamps: Vec<i32> = self.parts.store.stamps().iter().map(|&s| s as i32).collect();
            state.push((STAMP.to_owned(), Tensor::from_slice(&stamps)));
        }
        push_memory(&mut state, &memory);
        Ok(state)
    }

    /// The centres of this rank; a class has several side by side under a loss with sub-centres.
    fn centres(&self) -> ClassRange {
        self.range.of_centres(self.config.margin.sub_centres())
    }

    fn rows(&self) -> Result<Vec<(String, Tensor)>, HeadError> {
        let n_state = row::RowLayout::of_config(&self.config).n_state();
        let empty = |width: usize| {
            Tensor::f_empty([self.centres().len() as i64, width as i64], (Kind::Float, Device::Cpu))
                .map_err(HeadError::torch("copy the centres"))
        };
        let (mut weight_cd, mut state_cn) = (empty(self.config.dim)?, empty(n_state)?);
        let store = &self.parts.store;
        with_elements_mut(&mut weight_cd, |weight| {
            with_elements_mut(&mut state_cn, |state| store.export(0..store.n_rows(), weight, state))
        })?;
        let first_class = Tensor::from_slice(&[self.centres().first() as i64]);
        Ok(vec![
            (WEIGHT.to_owned(), weight_cd),
            (state_name(self.config.optimizer).to_owned(), state_cn),
            (FIRST_CLASS.to_owned(), first_class),
        ])
    }

    /// Puts back what [`Head::checkpoint`], [`Head::state`] or [`Head::state_as_it_is`] gave, here
    /// or on other ranks: any stretch of classes that covers this rank's will do. Tensors of other
    /// names are passed over.
    ///
    /// # Errors
    ///
    /// [`HeadError::State`] if a tensor is missing, of another shape or does not cover the rank's
    /// classes; the head is then unchanged. [`HeadError::CentreFile`] if the folder does not hold what
    /// the checkpoint needs.
    pub fn load_state(&mut self, state: &[(String, Tensor)]) -> Result<(), HeadError> {
        let memory = memory_of(state)?;
        let own = self.centres().ids();
        let (store, rule) = (&mut self.parts.store, &mut self.parts.rule);
        if state.iter().any(|(name, _)| name == IN_PLACE) {
            let problem = || "names centres on disk, but the head has them in memory".to_owned();
            let centres = store.durable().ok_or_else(|| refused(IN_PLACE, problem()))?;
            let now = integer(state, IN_PLACE)?;
            if now != memory.now {
                return Err(refused(IN_PLACE, format!("is {now}, but {STEPS} is {}", memory.now)));
            }
            if !rule.remember(&memory) {
                let problem = "needs `update = \"dense\"`, as rows have updates to catch up with";
                return Err(refused(MISSED, problem.to_owned()));
            }
            return centres.restore(now, rule.as_ref());
        }
        let piece = Piece::of_state(state, &self.config)?;
        let stamps = stamps_of(state, piece.weight_cd.size()[0], &memory)?;
        let rows = piece.rows_of(own)?;
        let own = |tensor: &Tensor| tensor.narrow(0, rows.start as i64, rows.len() as i64);
        let (mut weight_cd, mut state_cn) = (own(piece.weight_cd), own(piece.state_cn));
        let mut stamps = match stamps {
            Some(stamps) => stamps[rows].to_vec(),
            None => vec![memory.now; rows.len()],
        };
        if !rule.remember(&memory) {
            (weight_cd, state_cn) = (weight_cd.copy(), state_cn.copy());
            make_up(&Dense::of_memory(&memory), &stamps, &mut weight_cd, &mut state_cn);
            stamps.fill(memory.now);
        }
        with_elements(&weight_cd, |weight| {
            with_elements(&state_cn, |state| {
                store.import(0..store.n_rows(), weight, state, &stamps)
            })
        })
    }
}

/// Gives rows of `[C, D]` weights and momenta what they have missed.
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

fn push_memory(state: &mut Vec<(String, Tensor)>, memory: &Memory) {
    let flows = |flows: &[Flow]| {
        let values: Vec<f64> = flows.iter().flat_map(|f| [f.ww, f.wv, f.vw, f.vv]).collect();
        Tensor::from_slice(&values).view([-1, 4])
    };
    state.push((STEPS.to_owned(), Tensor::from_slice(&[i64::from(memory.now)])));
    if !memory.missed.is_empty() {
        state.push((MISSED.to_owned(), flows(&memory.missed)));
    }
    if memory.before != Flow::IDENTITY {
        state.push((BEFORE.to_owned(), flows(&[memory.before])));
    }
}

/// The updates that saved rows may have yet to take.
fn memory_of(state: &[(String, Tensor)]) -> Result<Memory, HeadError> {
    let has = |name: &str| state.iter().any(|(found, _)| found == name);
    let missed = if has(MISSED) { flows_of(find(state, MISSED)?, MISSED)? } else { Vec::new() };
    let before = if has(BEFORE) { flows_of(find(state, BEFORE)?, BEFORE)? } else { Vec::new() };
    let before = before.first().copied().unwrap_or(Flow::IDENTITY);
    let least = FIRST + missed.len() as Stamp;
    // States of before there was this tensor begin to count at the earliest step they know of.
    let now = if has(STEPS) { integer(state, STEPS)? } else { least };
    if now < least {
        return Err(refused(
            STEPS,
            format!("is {now}, but {} steps are in {MISSED}", missed.len()),
        ));
    }
    Ok(Memory { now, missed, before })
}

fn flows_of(tensor: &Tensor, name: &str) -> Result<Vec<Flow>, HeadError> {
    let (size, kind) = (tensor.size(), tensor.kind());
    if kind != Kind::Double || !matches!(size[..], [_, 4]) {
        return Err(refused(name, format!("is {size:?} {kind:?}, not [steps, 4] Double")));
    }
    Ok(with_elements(tensor, |values: &[f64]| {
        values.as_chunks().0.iter().map(|&[ww, wv, vw, vv]| Flow { ww, wv, vw, vv }).collect()
    }))
}

/// `None` if the rows had been caught up.
fn stamps_of(
    state: &[(String, Tensor)],
    n_classes: i64,
    memory: &Memory,
) -> Result<Option<Vec<Stamp>>, HeadError> {
    let Ok(stamp_c) = find(state, STAMP) else { return Ok(None) };
    if stamp_c.size() != [n_classes] || stamp_c.kind() != Kind::Int {
        let (size, kind) = (stamp_c.size(), stamp_c.kind());
        return Err(refused(STAMP, format!("is {size:?} {kind:?}, not [{n_classes}] Int")));
    }
    let stamps = with_elements(stamp_c, |stamps: &[i32]| stamps.to_vec());
    let (oldest, newest) = (memory.now - memory.missed.len() as Stamp, memory.now);
    let known = |stamp: i32| {
        Stamp::try_from(stamp).is_ok_and(|s| s == UNTOUCHED || (oldest..=newest).contains(&s))
    };
    if let Some(stamp) = stamps.iter().find(|&&stamp| !known(stamp)) {
        let least = if oldest == FIRST { "0".to_owned() } else { format!("0 or {oldest}") };
        return Err(refused(STAMP, format!("holds {stamp}, not {least} to {newest}")));
    }
    Ok(Some(stamps.into_iter().map(|s| s as Stamp).collect()))
}

/// A checked stretch of classes.
struct Piece<'a> {
    weight_cd: &'a Tensor,
    state_cn: &'a Tensor,
    ids: Range<u64>,
}

impl<'a> Piece<'a> {
    fn of_state(
        state: &'a [(String, Tensor)],
        config: &HeadConfig,
    ) -> Result<Piece<'a>, HeadError> {
        let (dim, n_state) =
            (config.dim as i64, row::RowLayout::of_config(config).n_state() as i64);
        let state_name = state_name(config.optimizer);
        let weight_cd = find(state, WEIGHT)?;
        let state_cn = find(state, state_name)?;
        let first_class = find(state, FIRST_CLASS)?;
        let n_classes = match weight_cd.size()[..] {
            [n_classes, width] if width == dim => n_classes,
            _ => {
                let problem = format!("is {:?}, not [classes, {dim}]", weight_cd.size());
                return Err(refused(WEIGHT, problem));
            }
        };
        let (found, expected) = (state_cn.size(), [n_classes, n_state]);
        if found != expected {
            return Err(refused(state_name, format!("is {found:?}, not {expected:?}")));
        }
        for (name, tensor) in [(WEIGHT, weight_cd), (state_name, state_cn)] {
            if tensor.kind() != Kind::Float {
                return Err(refused(name, format!("is {:?}, not Float", tensor.kind())));
            }
        }
        if first_class.numel() != 1 || first_class.kind() != Kind::Int64 {
            return Err(refused(FIRST_CLASS, "is not one 64-bit integer".to_owned()));
        }
        let first = first_class.reshape([1]).int64_value(&[0]);
        let ids = u64::try_from(first)
            .ok()
            .and_then(|first| Some(first..first.checked_add(n_classes as u64)?));
        let ids = ids.ok_or_else(|| refused(FIRST_CLASS, format!("is {first}")))?;
        Ok(Piece { weight_cd, state_cn, ids })
    }

    /// The rows of the piece that hold `wanted`.
    fn rows_of(&self, wanted: Range<u64>) -> Result<Range<usize>, HeadError> {
        let Range { start, end } = self.ids;
        if wanted.start < start || wanted.end > end {
            let problem = format!(
                "holds classes {start} to {end} (exclusive), but {} to {} are needed",
                wanted.start, wanted.end
            );
            return Err(refused(WEIGHT, problem));
        }
        Ok((wanted.start - start) as usize..(wanted.end - start) as usize)
    }
}

fn find<'a>(state: &'a [(String, Tensor)], name: &str) -> Result<&'a Tensor, HeadError> {
    let found = state.iter().find(|(found, _)| found == name);
    found.map(|(_, tensor)| tensor).ok_or_else(|| refused(name, "is missing".to_owned()))
}

/// A tensor that holds one time.
fn integer(state: &[(String, Tensor)], name: &str) -> Result<Stamp, HeadError> {
    let tensor = find(state, name)?;
    if tensor.numel() != 1 || tensor.kind() != Kind::Int64 {
        return Err(refused(name, "is not one 64-bit integer".to_owned()));
    }
    let value = tensor.reshape([1]).int64_value(&[0]);
    Stamp::try_from(value).map_err(|_| refused(name, format!("is {value}")))
}

fn refused(name: &str, problem: String) -> HeadError {
    HeadError::State { name: name.to_owned(), problem }
}

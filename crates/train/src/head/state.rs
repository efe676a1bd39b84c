//! Saving and restoring the centres.

// C = classes of this rank, K = steps that rows may have missed.

use std::ops::Range;

use tch::{Device, Kind, Tensor};

use super::{
    Head, HeadError,
    elements::{with_elements, with_elements_mut},
    update::{Dense, Flow, Stamp, UNTOUCHED},
};

/// `[C, D]` f32, the centres, not normalised.
const WEIGHT: &str = "centres.weight";
/// `[C, D]` f32, their momentum.
const MOMENTUM: &str = "centres.momentum";
/// `[1]` i64, global id of the class in the first row; the others follow one by one.
const FIRST_CLASS: &str = "centres.first_class";
/// `[C]` i32, 1 + the number of steps of the memory that a row has had; 0 if it is still initial.
const STAMP: &str = "centres.stamp";
/// `[K, 4]` f64, row k: what the last k + 1 steps do to weight and momentum, as [`Flow`] has it.
const MISSED: &str = "centres.missed";

impl Head {
    /// Gives every row the updates that were put off until it is next sampled. O(C).
    ///
    /// Rows are rounded when they are caught up, so a run that is to be repeated bit for bit must
    /// do it at the same steps; [`Head::state_as_it_is`] saves at any other.
    ///
    /// # Errors
    ///
    /// [`HeadError`] if the rows cannot be reached.
    pub fn catch_up(&mut self) -> Result<(), HeadError> {
        let (store, rule) = (&mut self.parts.store, &mut self.parts.rule);
        store.catch_up(rule.as_ref())?;
        rule.caught_up();
        store.restamp(rule.stamp());
        Ok(())
    }

    /// Catches up, then copies out this rank's centres and their momentum.
    ///
    /// The tensors are `centres.weight` and `centres.momentum`, `[C, D]` f32, and
    /// `centres.first_class`, `[1]` i64: the global id of row 0.
    ///
    /// # Errors
    ///
    /// [`HeadError`] if the rows cannot be reached or memory runs out.
    pub fn state(&mut self) -> Result<Vec<(String, Tensor)>, HeadError> {
        self.catch_up()?;
        self.rows()
    }

    /// Copies out the rows without catching them up, so that saving changes nothing of the run.
    ///
    /// Where updates are put off, `centres.stamp`, `[C]` i32, and `centres.missed`, `[K, 4]` f64,
    /// come beside the tensors of [`Head::state`]: a row of stamp s ≥ 1 has missed the last
    /// K + 1 − s steps, and row K − s of `missed` is `ww, wv, vw, vv` of the map that makes up for
    /// them, `w' = ww·w + wv·v`, `v' = vw·w + vv·v`. A row of stamp 0 has missed all K.
    ///
    /// # Errors
    ///
    /// As [`Head::state`].
    pub fn state_as_it_is(&self) -> Result<Vec<(String, Tensor)>, HeadError> {
        let mut state = self.rows()?;
        let memory = self.parts.rule.memory();
        if !memory.is_empty() {
            let stamps: Vec<i32> = self.parts.store.stamps().iter().map(|&s| s as i32).collect();
            let flows: Vec<f64> = memory.iter().flat_map(|f| [f.ww, f.wv, f.vw, f.vv]).collect();
            state.push((STAMP.to_owned(), Tensor::from_slice(&stamps)));
            state.push((MISSED.to_owned(), Tensor::from_slice(&flows).view([-1, 4])));
        }
        Ok(state)
    }

    fn rows(&self) -> Result<Vec<(String, Tensor)>, HeadError> {
        let shape = [self.range.len() as i64, self.config.dim as i64];
        let empty = || {
            Tensor::f_empty(shape, (Kind::Float, Device::Cpu))
                .map_err(HeadError::torch("copy the centres"))
        };
        let (mut weight_cd, mut momentum_cd) = (empty()?, empty()?);
        let store = &self.parts.store;
        with_elements_mut(&mut weight_cd, |weight| {
            with_elements_mut(&mut momentum_cd, |momentum| {
                store.export(0..store.n_rows(), weight, momentum)
            })
        })?;
        let first_class = Tensor::from_slice(&[self.range.first() as i64]);
        Ok(vec![
            (WEIGHT.to_owned(), weight_cd),
            (MOMENTUM.to_owned(), momentum_cd),
            (FIRST_CLASS.to_owned(), first_class),
        ])
    }

    /// Puts back what [`Head::state`] or [`Head::state_as_it_is`] gave, here or on other ranks: any
    /// stretch of classes that covers this rank's will do. Tensors of other names are passed over.
    ///
    /// # Errors
    ///
    /// [`HeadError::State`] if a tensor is missing, of another shape or does not cover the rank's
    /// classes; the head is then unchanged.
    pub fn load_state(&mut self, state: &[(String, Tensor)]) -> Result<(), HeadError> {
        let piece = Piece::of_state(state, self.config.dim)?;
        let lag = Lag::of_state(state, piece.weight_cd.size()[0])?;
        let rows = piece.rows_of(self.range.ids())?;
        let (first, n_rows) = (rows.start as i64, rows.len() as i64);
        let (weight_cd, momentum_cd) =
            (piece.weight_cd.narrow(0, first, n_rows), piece.momentum_cd.narrow(0, first, n_rows));
        let (store, rule) = (&mut self.parts.store, &mut self.parts.rule);
        rule.caught_up();
        let stamps = match &lag {
            Some(lag) => lag.stamps[rows].to_vec(),
            None => vec![rule.stamp(); rows.len()],
        };
        with_elements(&weight_cd, |weight| {
            with_elements(&momentum_cd, |momentum| {
                store.import(0..store.n_rows(), weight, momentum, &stamps)
            })
        })?;
        if let Some(Lag { memory, .. }) = lag
            && !rule.remember(&memory)
        {
            store.catch_up(&Dense::of_memory(memory))?;
            store.restamp(rule.stamp());
        }
        Ok(())
    }
}

/// The updates that saved rows have yet to take.
struct Lag {
    stamps: Vec<Stamp>,
    memory: Vec<Flow>,
}

impl Lag {
    /// `None` if the rows had been caught up.
    fn of_state(state: &[(String, Tensor)], n_classes: i64) -> Result<Option<Lag>, HeadError> {
        let Ok(stamp_c) = find(state, STAMP) else { return Ok(None) };
        let missed = find(state, MISSED)?;
        if stamp_c.size() != [n_classes] || stamp_c.kind() != Kind::Int {
            let (size, kind) = (stamp_c.size(), stamp_c.kind());
            return Err(refused(STAMP, format!("is {size:?} {kind:?}, not [{n_classes}] Int")));
        }
        let n_steps = match missed.size()[..] {
            [n_steps, 4] if missed.kind() == Kind::Double => n_steps,
            _ => {
                let (size, kind) = (missed.size(), missed.kind());
                return Err(refused(
                    MISSED,
                    format!("is {size:?} {kind:?}, not [steps, 4] Double"),
                ));
            }
        };
        let stamps = with_elements(stamp_c, |stamps: &[i32]| stamps.to_vec());
        let newest = i64::from(UNTOUCHED) + 1 + n_steps;
        if let Some(stamp) = stamps.iter().find(|&&s| !(0..=newest).contains(&s.into())) {
            return Err(refused(STAMP, format!("holds {stamp}, not 0 to {newest}")));
        }
        let memory = with_elements(missed, |values: &[f64]| {
            values.as_chunks().0.iter().map(|&[ww, wv, vw, vv]| Flow { ww, wv, vw, vv }).collect()
        });
        Ok(Some(Lag { stamps: stamps.into_iter().map(|s| s as Stamp).collect(), memory }))
    }
}

/// A checked stretch of classes.
struct Piece<'a> {
    weight_cd: &'a Tensor,
    momentum_cd: &'a Tensor,
    ids: Range<u64>,
}

impl<'a> Piece<'a> {
    fn of_state(state: &'a [(String, Tensor)], dim: usize) -> Result<Piece<'a>, HeadError> {
        let weight_cd = find(state, WEIGHT)?;
        let momentum_cd = find(state, MOMENTUM)?;
        let first_class = find(state, FIRST_CLASS)?;
        let n_classes = match weight_cd.size()[..] {
            [n_classes, width] if width == dim as i64 => n_classes,
            _ => {
                let problem = format!("is {:?}, not [classes, {dim}]", weight_cd.size());
                return Err(refused(WEIGHT, problem));
            }
        };
        if momentum_cd.size() != weight_cd.size() {
            let (found, expected) = (momentum_cd.size(), weight_cd.size());
            return Err(refused(MOMENTUM, format!("is {found:?}, not {expected:?}")));
        }
        for (name, tensor) in [(WEIGHT, weight_cd), (MOMENTUM, momentum_cd)] {
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
        Ok(Piece { weight_cd, momentum_cd, ids })
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

fn refused(name: &str, problem: String) -> HeadError {
    HeadError::State { name: name.to_owned(), problem }
}

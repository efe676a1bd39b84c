//! Saving and restoring the centres.

// C = classes of this rank.

use std::ops::Range;

use tch::{Device, Kind, Tensor};

use super::{
    Head, HeadError,
    elements::{with_elements, with_elements_mut},
};

/// `[C, D]` f32, the centres, not normalised.
const WEIGHT: &str = "centres.weight";
/// `[C, D]` f32, their momentum.
const MOMENTUM: &str = "centres.momentum";
/// `[1]` i64, global id of the class in the first row; the others follow one by one.
const FIRST_CLASS: &str = "centres.first_class";

impl Head {
    /// Gives every row the updates that were put off until it is next sampled. O(C).
    ///
    /// Rows are rounded when they are caught up, so a run that is to be repeated bit for bit must
    /// do it at the same steps, as one that saves at the same steps does.
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

    /// Puts back what [`Head::state`] gave, here or on other ranks: any stretch of classes that
    /// covers this rank's will do. Tensors of other names are passed over.
    ///
    /// # Errors
    ///
    /// [`HeadError::State`] if a tensor is missing, of another shape or does not cover the rank's
    /// classes; the head is then unchanged.
    pub fn load_state(&mut self, state: &[(String, Tensor)]) -> Result<(), HeadError> {
        let piece = Piece::of_state(state, self.config.dim)?;
        let rows = piece.rows_of(self.range.ids())?;
        let (first, n_rows) = (rows.start as i64, rows.len() as i64);
        let (weight_cd, momentum_cd) =
            (piece.weight_cd.narrow(0, first, n_rows), piece.momentum_cd.narrow(0, first, n_rows));
        let (store, rule) = (&mut self.parts.store, &mut self.parts.rule);
        rule.caught_up();
        with_elements(&weight_cd, |weight| {
            with_elements(&momentum_cd, |momentum| {
                store.import(0..store.n_rows(), weight, momentum, rule.stamp())
            })
        })
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

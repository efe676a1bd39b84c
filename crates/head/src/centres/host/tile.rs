//! A tile of centres in memory: read, normalised and moved row by row.

// T = rows of the tile, D = embedding.

use std::{ops::Range, path::Path, sync::Arc};

use half::bf16;
use pfc_model::vectors;
use tch::{Kind, Tensor};

use crate::{
    HeadError,
    centres::{
        CentreTile, TileGradient,
        file::{COPIES, Entry, PlacedRow, damaged_row},
        row::{self, NotFinite, Rounding, RowLayout},
    },
    config::Storage,
    elements::{Number, with_elements, with_elements_mut},
    optim::{Motion, Stamp, UNTOUCHED, UpdateRule},
    rng::{Purpose, fill_normal, key, scramble},
};

/// Standard deviation of the initial centres, as in `arcface_torch`.
const INITIAL_DEVIATION: f32 = 0.01;

/// Rows that are loaded into the cache together before any of them is computed on.
const TOUCH_ROWS: usize = 8;

/// What the rows of a store have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame {
    pub layout: RowLayout,
    pub seed: u64,
    /// Class of row 0.
    pub first_class: u64,
    /// Copies of a row that there is room for: 1 in memory, [`COPIES`] in a file, where each has a
    /// checksum.
    pub n_copies: usize,
    /// The times of two checkpoints, the older one first. The newest copy that is no newer than
    /// either is not written over.
    pub protected: [Stamp; 2],
}

/// A row that no step can go on from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BadRow {
    /// The store's row.
    pub row: usize,
    /// A number that is not finite; `None` if its bytes are not those that were written.
    pub number: Option<NotFinite>,
}

impl BadRow {
    pub fn damaged(row: usize) -> BadRow {
        BadRow { row, number: None }
    }

    /// * `path`: the file of the rows
    /// * `place`: of the row in it
    pub fn error(self, path: &Path, place: usize, centre: u64) -> HeadError {
        match self.number {
            None => damaged_row(path, place, centre),
            Some(number) => {
                let origin = path.display().to_string();
                HeadError::centre_not_finite(origin, place as u64, centre, number)
            }
        }
    }
}

/// A row in f32, between its storage and the arithmetic.
pub(super) struct Scratch {
    pub weight: Vec<f32>,
    pub state: Vec<f32>,
    gradient: Vec<f32>,
}

impl Scratch {
    pub fn new(layout: &RowLayout) -> Scratch {
        let numbers = |n| vec![0.0; n];
        let (weight, gradient) = (numbers(layout.dim()), numbers(layout.dim()));
        Scratch { weight, state: numbers(layout.n_state()), gradient }
    }
}

impl Frame {
    /// Bytes from one row to the next.
    pub fn stride(&self) -> usize {
        self.n_copies * self.layout.size_bytes()
    }

    /// The copy that is written next.
    #[inline(always)]
    fn next_copy(&self, entry: &Entry) -> usize {
        let (newest, stamp) = entry.newest();
        let [_, newer] = self.protected;
        if self.n_copies == 1 || stamp == UNTOUCHED || stamp > newer {
            return newest;
        }
        let kept = self.protected.map(|time| entry.newest_at(time).map(|(copy, _)| copy));
        let free = |copy: &usize| !kept.contains(&Some(*copy));
        (0..COPIES).find(free).expect("two copies of three are kept at most")
    }

    /// The bytes of one copy of those of all.
    #[inline(always)]
    fn copy_at(&self, copy: usize) -> Range<usize> {
        let size = self.layout.size_bytes();
        copy * size..(copy + 1) * size
    }

    /// Writes the initial value of `row`, as the format of the weights can hold it.
    #[inline(always)]
    pub fn fill_initial(&self, row: usize, weight: &mut [f32]) {
        let class = self.first_class + row as u64;
        fill_normal(key(self.seed, Purpose::InitialCentre, class), INITIAL_DEVIATION, weight);
        if self.layout.weights() == Storage::Bf16 {
            for w in weight {
                *w = Number::to_f32(<bf16 as Number>::of_f32(*w));
            }
        }
    }

    /// Reads a row that no step has moved.
    #[inline(always)]
    pub(super) fn read_initial(&self, row: usize, to: &mut Scratch) {
        self.fill_initial(row, &mut to.weight);
        to.state.fill(0.0);
    }

    /// Reads the newest copy as it is; the state only if it is asked for. In a file its numbers must be those
    /// that were written, and finite.
    #[inline(always)]
    pub(super) fn read(
        &self,
        row: usize,
        place: (&Entry, &[u8]),
        with_state: bool,
        to: &mut Scratch,
    ) -> Result<(), BadRow> {
        let Some(bytes) = self.newest_copy(row, place)? else {
            self.read_initial(row, to);
            return Ok(());
        };
        self.layout.read_weight(bytes, &mut to.weight);
        let mut state = &[][..];
        if with_state {
            self.layout.read_state(bytes, &mut to.state);
            state = &to.state;
        }
        // A checkpoint in files is taken up without its rows: this is where they are first read.
        if self.n_copies > 1
            && let number @ Some(_) = row::not_finite(&to.weight, state)
        {
            return Err(BadRow { row, number });
        }
        Ok(())
    }

    /// The bytes of a row's newest copy; `None` if no step has moved it.
    #[inline(always)]
    pub fn newest_copy<'a>(
        &self,
        row: usize,
        (entry, bytes): (&Entry, &'a [u8]),
    ) -> Result<Option<&'a [u8]>, BadRow> {
        let (copy, stamp) = entry.newest();
        if stamp == UNTOUCHED {
            return Ok(None);
        }
        let bytes = &bytes[self.copy_at(copy)];
        if self.n_copies > 1 && !entry.vouches_for(copy, bytes) {
            return Err(BadRow::damaged(row));
        }
        Ok(Some(bytes))
    }

    /// Writes a copy whose stamp is `stamp`: first the numbers, then the stamp that vouches for them.
    #[inline(always)]
    pub(super) fn write(&self, row: usize, from: &Scratch, stamp: Stamp, to: &mut PlacedRow<'_>) {
        let copy = self.next_copy(to.entry);
        let rounding = Rounding::Stochastic(self.rounding_key(row, stamp));
        let bytes = &mut to.bytes[self.copy_at(copy)];
        self.layout.write(&from.weight, &from.state, rounding, bytes);
        to.written(copy, self.copy_at(copy), stamp);
    }

    /// Writes a copy whose numbers are as they were saved: rounded to the nearest, if at all.
    pub fn put_back(&self, weight: &[f32], state: &[f32], stamp: Stamp, to: &mut PlacedRow<'_>) {
        let copy = self.next_copy(to.entry);
        self.layout.write(weight, state, Rounding::Nearest, &mut to.bytes[self.copy_at(copy)]);
        to.written(copy, self.copy_at(copy), stamp);
    }

    #[inline(always)]
    pub fn rounding_key(&self, row: usize, stamp: Stamp) -> u64 {
        scramble(self.rounding_base(stamp).wrapping_add(row as u64))
    }

    /// What becomes the key of a row when the row's number is added and the sum scrambled.
    pub fn rounding_base(&self, stamp: Stamp) -> u64 {
        key(self.seed, Purpose::Rounding, stamp.into()).wrapping_add(self.first_class)
    }
}

/// Some rows, and where they lie.
pub(super) struct RowTile<'a> {
    pub frame: Frame,
    /// Where the rows are, for errors.
    pub origin: Arc<Path>,
    /// Rows of the store, strictly ascending.
    pub rows: &'a [u32],
    /// One for each.
    pub places: Vec<PlacedRow<'a>>,
}

impl RowTile<'_> {
    /// Loads a byte of every cache line of a few rows.
    ///
    /// Rows are far apart in memory, and the work on one is too long for the processor to look
    /// ahead to the next; loads with nothing in between wait for the memory all at once.
    #[inline(always)]
    fn touch(&self, rows: Range<usize>, with_state: bool) {
        const LINE: usize = 64;
        let layout = self.frame.layout;
        let n_bytes = if with_state { layout.size_bytes() } else { layout.weight_bytes() };
        let mut seen = 0;
        for place in &self.places[rows] {
            let (copy, stamp) = place.entry.newest();
            if stamp == UNTOUCHED {
                // A load would have the system map a page that the store to it maps again.
                continue;
            }
            for line in place.bytes[self.frame.copy_at(copy)][..n_bytes].chunks(LINE) {
                seen |= line[0];
            }
        }
        std::hint::black_box(seen);
    }

    /// The positions of the tile's rows in the batches that are touched together.
    fn batches(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let n_rows = self.rows.len();
        (0..n_rows).step_by(TOUCH_ROWS).map(move |start| start..(start + TOUCH_ROWS).min(n_rows))
    }

    /// Reads the `i`-th row as it is after the steps that it has missed; the state only where it is
    /// asked for or has a part in that.
    #[inline(always)]
    fn read(
        &self,
        i: usize,
        rule: &dyn UpdateRule,
        with_state: bool,
        to: &mut Scratch,
    ) -> Result<(), BadRow> {
        let PlacedRow { entry, bytes, .. } = &self.places[i];
        let missed = rule.missed(entry.newest().1);
        let with_state = with_state || missed.is_some();
        self.frame.read(self.rows[i] as usize, (entry, bytes), with_state, to)?;
        if let Some(flow) = missed {
            row::advance(&flow, &mut to.weight, &mut to.state);
        }
        Ok(())
    }

    #[inline(always)]
    fn write_units<T: Number>(&self, rule: &dyn UpdateRule, out: &mut [T]) -> Result<(), BadRow> {
        let dim = self.frame.layout.dim();
        let mut scratch = Scratch::new(&self.frame.layout);
        let any_missed = rule.missed(UNTOUCHED).is_some();
        for batch in self.batches() {
            self.touch(batch.clone(), any_missed);
            for i in batch {
                self.read(i, rule, false, &mut scratch)?;
                let inverse_length = row::inverse_length(&scratch.weight);
                for (out, w) in out[i * dim..][..dim].iter_mut().zip(&scratch.weight) {
                    *out = T::of_f32(w * inverse_length);
                }
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn move_rows<T: Number>(
        &mut self,
        rule: &dyn UpdateRule,
        motion: &Motion,
        negatives: &[T],
        gradient: &TileGradient<'_>,
        unit_embeddings: &[f32],
    ) -> Result<(), BadRow> {
        let (frame, dim) = (self.frame, self.frame.layout.dim());
        let mut scratch = Scratch::new(&frame.layout);
        let mut pulls = gradient.as_positives.iter().peekable();
        for batch in self.batches() {
            self.touch(batch.clone(), true);
            for i in batch {
                self.read(i, rule, true, &mut scratch)?;
                let Scratch { weight, state, gradient } = &mut scratch;
                for (out, value) in gradient.iter_mut().zip(&negatives[i * dim..][..dim]) {
                    *out = value.to_f32();
                }
                while let Some(pull) = pulls.next_if(|pull| pull.row == i) {
                    let unit = &unit_embeddings[pull.sample * dim..][..dim];
                    row::add_scaled(gradient, pull.slope, unit);
                }
                row::before_normalisation(gradient, weight);
                row::step(motion, gradient, weight, state);
                let row = self.rows[i] as usize;
                frame.write(row, &scratch, rule.stamp_after(), &mut self.places[i]);
            }
        }
        Ok(())
    }

    fn move_rows_in_vectors<T: Number>(
        &mut self,
        rule: &dyn UpdateRule,
        gradient: &TileGradient<'_>,
        lr: f64,
    ) -> Result<(), BadRow> {
        let motion = rule.motion(lr);
        with_elements(gradient.as_negatives_td, |negatives: &[T]| {
            with_elements(gradient.unit_embeddings_gd, |unit_embeddings: &[f32]| {
                vectors().dispatch(|| {
                    self.move_rows(rule, &motion, negatives, gradient, unit_embeddings)
                })
            })
        })
    }

    fn error_of(&self, bad: BadRow) -> HeadError {
        let at = self.rows.binary_search(&(bad.row as u32));
        let place = at.map_or(0, |at| self.places[at].number);
        bad.error(&self.origin, place as usize, self.frame.first_class + bad.row as u64)
    }
}

impl CentreTile for RowTile<'_> {
    fn n_rows(&self) -> usize {
        self.rows.len()
    }

    fn unit_rows(&mut self, rule: &dyn UpdateRule, unit_td: &mut Tensor) -> Result<(), HeadError> {
        let arch = vectors();
        let written = match unit_td.kind() {
            Kind::BFloat16 => with_elements_mut(unit_td, |out| {
                arch.dispatch(|| self.write_units::<bf16>(rule, out))
            }),
            _ => with_elements_mut(unit_td, |out| {
                arch.dispatch(|| self.write_units::<f32>(rule, out))
            }),
        };
        written.map_err(|bad| self.error_of(bad))
    }

    fn update(
        &mut self,
        rule: &dyn UpdateRule,
        gradient: &TileGradient<'_>,
        lr: f64,
    ) -> Result<(), HeadError> {
        let moved = match gradient.as_negatives_td.kind() {
            Kind::BFloat16 => self.move_rows_in_vectors::<bf16>(rule, gradient, lr),
            _ => self.move_rows_in_vectors::<f32>(rule, gradient, lr),
        };
        moved.map_err(|bad| self.error_of(bad))
    }
}

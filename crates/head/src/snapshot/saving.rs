//! Saving the centres, piece by piece, while the head goes on.
//!
//! A save hands the rows that steps have moved to whoever writes them, in the formats that they are
//! kept in and in the order of their classes. The steps go on meanwhile: rows that a step is about to
//! move and that have not been handed over are copied first. What is copied or on its way takes a
//! sixteenth of the centres at most; where a step would need more, it waits for the writer.

// R = rows of a piece, D = embedding, N = numbers of a row's state.

use std::{collections::BTreeMap, ops::Range};

use crossbeam_channel::{Receiver, Sender, bounded};
use tch::{Kind, Tensor};

use crate::{
    HeadError,
    centres::{CentreStore, row::RowLayout},
    optim::{Stamp, UNTOUCHED},
};

/// `[N]` i64, global ids of the classes whose rows follow, ascending.
pub(super) const CLASS: &str = "centres.class";
/// `[N]` i32, 1 + the steps that the head had taken when each row last moved.
pub(super) const STAMP: &str = "centres.stamp";
/// `[N, D]`, the centres, not normalised.
pub(super) const WEIGHT: &str = "centres.weight";

/// Memory of a save: a share of the rows, within bounds.
const SHARE: u64 = 16;
const BYTES_LEAST: u64 = 16 << 20;
const BYTES_MOST: u64 = 512 << 20;
/// Pieces that wait for the writer at most.
const WAITING: usize = 4;

/// Bytes that a save of so many rows has in memory at the most.
pub(crate) fn save_bytes_max(n_rows: u64, row_bytes: u64) -> u64 {
    (n_rows * row_bytes / SHARE).clamp(BYTES_LEAST, BYTES_MOST)
}

/// What a checkpoint keeps of a rank's centres.
#[derive(Debug)]
pub struct Snapshot {
    /// Numbers and tensors that are small.
    pub tensors: Vec<(String, Tensor)>,
    /// The rows, unless they are in files of their own.
    pub rows: Option<RowPieces>,
}

/// Name, kind and width of what is kept of each row.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// Name of the tensor.
    pub name: String,
    /// Kind of its elements.
    pub kind: Kind,
    /// Numbers a row; `None` for a tensor of one axis.
    pub width: Option<i64>,
}

/// Rows on their way from the head to a writer.
#[derive(Debug)]
pub struct RowPieces {
    /// What is kept of each row.
    pub columns: Vec<Column>,
    /// Number of rows.
    pub n_rows: i64,
    pieces: Receiver<RowPiece>,
    n_received: i64,
}

/// Some rows, one after the other.
#[derive(Debug)]
pub struct RowPiece {
    /// Number of the first of them.
    pub first: i64,
    /// As many rows of every column, on the CPU.
    pub columns: Vec<Tensor>,
}

impl RowPieces {
    /// The next rows, once the head hands them over; `None` after the last.
    ///
    /// # Errors
    ///
    /// [`HeadError::SaveAbandoned`] if the head is gone before it has handed over all.
    pub fn next_piece(&mut self) -> Result<Option<RowPiece>, HeadError> {
        if self.n_received == self.n_rows {
            return Ok(None);
        }
        let piece = self.pieces.recv().map_err(|_| HeadError::SaveAbandoned)?;
        self.n_received += piece.columns.first().map_or(0, |column| column.size()[0]);
        Ok(Some(piece))
    }
}

/// The part of a save that the head still has to do.
#[derive(Debug)]
pub(crate) struct Saving {
    first_class: u64,
    /// A bit a row: it had moved when the save began, and has not been handed over.
    pending: Vec<u64>,
    /// Rows of the store that make a piece; those that no step had moved are not in it.
    region_rows: usize,
    /// The region that is handed over next.
    region: usize,
    n_sent: i64,
    /// Rows that a step has moved since, as they were, by region.
    aside: BTreeMap<usize, Vec<Rows>>,
    aside_bytes: usize,
    aside_bytes_max: usize,
    row_bytes: usize,
    pieces: Sender<RowPiece>,
}

/// Rows of a store, ascending, copied out of it.
#[derive(Debug)]
struct Rows {
    rows: Vec<u32>,
    stamps: Vec<Stamp>,
    weight_rd: Tensor,
    state_rn: Tensor,
}

impl Saving {
    /// Begins to save the rows of `store`, as they are now.
    ///
    /// # Errors
    ///
    /// [`HeadError`] if they cannot be reached.
    pub fn begin(
        store: &dyn CentreStore,
        layout: RowLayout,
        state_name: &str,
        first_class: u64,
    ) -> Result<(Saving, RowPieces), HeadError> {
        let pending = touched(store)?;
        let n_rows: usize = pending.iter().map(|word| word.count_ones() as usize).sum();
        let row_bytes = layout.size_bytes();
        let bytes_max = save_bytes_max(n_rows as u64, row_bytes as u64) as usize;
        let region_rows = (bytes_max / 2 / (WAITING + 2) / row_bytes).clamp(1, 1 << 16);
        let (sender, pieces) = bounded(WAITING);
        let saving = Saving {
            first_class,
            pending,
            region_rows,
            region: 0,
            n_sent: 0,
            aside: BTreeMap::new(),
            aside_bytes: 0,
            aside_bytes_max: bytes_max / 2,
            row_bytes,
            pieces: sender,
        };
        let column = |name: &str, kind, width| Column { name: name.to_owned(), kind, width };
        let columns = vec![
            column(CLASS, Kind::Int64, None),
            column(STAMP, Kind::Int, None),
            column(WEIGHT, layout.weights().kind(), Some(layout.dim() as i64)),
            column(state_name, layout.states().kind(), Some(layout.n_state() as i64)),
        ];
        Ok((saving, RowPieces { columns, n_rows: n_rows as i64, pieces, n_received: 0 }))
    }

    #[cfg(test)]
    pub fn shrink(&mut self, n_rows: usize) {
        (self.region_rows, self.aside_bytes_max) = (n_rows, n_rows * self.row_bytes);
    }

    /// Hands over what the writer takes without waiting. Returns whether all is done, here and below.
    pub fn go_on(&mut self, store: &dyn CentreStore) -> Result<bool, HeadError> {
        while !self.pieces.is_full() {
            if self.hand_over(store)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Hands over everything, waiting for the writer.
    pub fn finish(&mut self, store: &dyn CentreStore) -> Result<(), HeadError> {
        while !self.hand_over(store)? {}
        Ok(())
    }

    /// Copies those of `rows` that have not been handed over, which are about to move.
    ///
    /// * `rows`: strictly ascending
    pub fn before_step(
        &mut self,
        rows: &[u32],
        store: &dyn CentreStore,
    ) -> Result<bool, HeadError> {
        loop {
            let moving: Vec<u32> =
                rows.iter().copied().filter(|&row| self.is_pending(row as usize)).collect();
            let n_bytes = moving.len() * self.row_bytes;
            if self.aside_bytes + n_bytes <= self.aside_bytes_max {
                self.put_aside(moving, store)?;
                return self.go_on(store);
            }
            if self.hand_over(store)? {
                return Ok(true);
            }
        }
    }

    fn put_aside(&mut self, moving: Vec<u32>, store: &dyn CentreStore) -> Result<(), HeadError> {
        if moving.is_empty() {
            return Ok(());
        }
        let all = Rows::copy(moving, store)?;
        self.aside_bytes += all.rows.len() * self.row_bytes;
        let mut start = 0;
        while start < all.rows.len() {
            let region = all.rows[start] as usize / self.region_rows;
            let is_in = |&row: &u32| row as usize / self.region_rows <= region;
            let len = all.rows[start..].partition_point(is_in);
            self.aside.entry(region).or_default().push(all.part(start..start + len));
            start += len;
        }
        for row in all.rows {
            self.pending[row as usize / 64] &= !(1 << (row % 64));
        }
        Ok(())
    }

    fn is_pending(&self, row: usize) -> bool {
        self.pending[row / 64] >> (row % 64) & 1 == 1
    }

    /// Hands over the next region, waiting for the writer if need be.
    fn hand_over(&mut self, store: &dyn CentreStore) -> Result<bool, HeadError> {
        let start = self.region * self.region_rows;
        if start >= store.n_rows() {
            return Ok(true);
        }
        let end = (start + self.region_rows).min(store.n_rows());
        let rows = self.take_pending(start..end);
        let aside = self.aside.remove(&self.region).unwrap_or_default();
        self.region += 1;
        let n_aside: usize = aside.iter().map(|part| part.rows.len()).sum();
        self.aside_bytes -= n_aside * self.row_bytes;
        if rows.is_empty() && n_aside == 0 {
            return Ok(false);
        }
        let piece = Rows::joined(Rows::copy(rows, store)?, aside)?;
        let first = self.n_sent;
        self.n_sent += piece.rows.len() as i64;
        let class = |&row: &u32| (self.first_class + u64::from(row)) as i64;
        let classes: Vec<i64> = piece.rows.iter().map(class).collect();
        let stamps: Vec<i32> = piece.stamps.iter().map(|&stamp| stamp as i32).collect();
        let columns = vec![
            Tensor::from_slice(&classes),
            Tensor::from_slice(&stamps),
            piece.weight_rd,
            piece.state_rn,
        ];
        // A writer that has failed says so itself; nothing is left to do for it.
        Ok(self.pieces.send(RowPiece { first, columns }).is_err())
    }

    fn take_pending(&mut self, rows: Range<usize>) -> Vec<u32> {
        let pending = rows.filter(|&row| self.is_pending(row));
        let taken: Vec<u32> = pending.map(|row| row as u32).collect();
        for row in &taken {
            self.pending[*row as usize / 64] &= !(1 << (row % 64));
        }
        taken
    }
}

impl Rows {
    fn copy(rows: Vec<u32>, store: &dyn CentreStore) -> Result<Rows, HeadError> {
        let stamps = store.stamps_of(&rows)?;
        let (weight_rd, state_rn) = store.copy_out(&rows)?;
        Ok(Rows { rows, stamps, weight_rd, state_rn })
    }

    /// A copy of some of them.
    fn part(&self, range: Range<usize>) -> Rows {
        let copy =
            |tensor: &Tensor| tensor.narrow(0, range.start as i64, range.len() as i64).copy();
        Rows {
            rows: self.rows[range.clone()].to_vec(),
            stamps: self.stamps[range.clone()].to_vec(),
            weight_rd: copy(&self.weight_rd),
            state_rn: copy(&self.state_rn),
        }
    }

    /// All of them in ascending order.
    fn joined(own: Rows, others: Vec<Rows>) -> Result<Rows, HeadError> {
        if others.is_empty() {
            return Ok(own);
        }
        let mut order = own.order(0);
        let (mut weights, mut states) = (vec![own.weight_rd], vec![own.state_rn]);
        for other in others {
            order.extend(other.order(order.len() as i64));
            weights.push(other.weight_rd);
            states.push(other.state_rn);
        }
        order.sort_unstable();
        let indices: Vec<i64> = order.iter().map(|&(_, _, index)| index).collect();
        let indices = Tensor::from_slice(&indices);
        let join = |parts: &[Tensor]| {
            Tensor::f_cat(parts, 0)
                .and_then(|all| all.f_index_select(0, &indices))
                .map_err(HeadError::torch("copy centres"))
        };
        Ok(Rows {
            weight_rd: join(&weights)?,
            state_rn: join(&states)?,
            rows: order.iter().map(|&(row, _, _)| row).collect(),
            stamps: order.iter().map(|&(_, stamp, _)| stamp).collect(),
        })
    }

    /// Row, stamp and position of each, counted from `first`.
    fn order(&self, first: i64) -> Vec<(u32, Stamp, i64)> {
        let rows = self.rows.iter().zip(&self.stamps).zip(first..);
        rows.map(|((&row, &stamp), index)| (row, stamp, index)).collect()
    }
}

/// A bit for each row, set if a step has moved it.
fn touched(store: &dyn CentreStore) -> Result<Vec<u64>, HeadError> {
    const WORDS: usize = 1 << 12;
    let n_rows = store.n_rows();
    let mut bits = vec![0u64; n_rows.div_ceil(64)];
    for (i, words) in bits.chunks_mut(WORDS).enumerate() {
        let start = i * WORDS * 64;
        let stamps = store.stamps(start..(start + words.len() * 64).min(n_rows))?;
        for (at, _) in stamps.iter().enumerate().filter(|(_, stamp)| **stamp != UNTOUCHED) {
            words[at / 64] |= 1 << (at % 64);
        }
    }
    Ok(bits)
}

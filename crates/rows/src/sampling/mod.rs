//! Which rows of centres take part in a step, and at which of its slots each stands.

mod plan;
mod pprn;

use std::borrow::Cow;

use super::range::ClassRange;
pub use plan::{BlockShare, DrawPlan};
pub use pprn::Pprn;

/// A sampler that broke its promise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("step {step}: the sampled rows are unusable: {problem}")]
pub struct SampleError {
    /// Training step.
    pub step: u64,
    /// Which promise, and where.
    pub problem: String,
}

/// What a sampler is asked.
#[derive(Debug, Clone, Copy)]
pub struct Draw<'a> {
    /// Training step.
    pub step: u64,
    /// Global ids of the classes in the global batch, ascending, each once.
    pub positives: &'a [u64],
    /// The classes of this rank.
    pub range: ClassRange,
}

/// Chooses the rows of centres of a step.
pub trait Sampler: Send {
    /// This rank's rows, counted from the start of its range, strictly ascending; every positive of
    /// the range is among them.
    fn draw(&mut self, draw: &Draw<'_>) -> Vec<u32>;

    /// The same draw for others to carry out, where this rank has all classes and blocks of them draw by
    /// themselves; `None` if the sampler knows no such plan. It takes little time beside the draw itself.
    fn plan(&mut self, draw: &Draw<'_>) -> Option<DrawPlan> {
        let _ = draw;
        None
    }

    /// Rows that the draw of `step` will most likely hold, ascending, as far as they can be told
    /// without its labels.
    fn likely(&mut self, step: u64, range: ClassRange) -> Vec<u32> {
        let _ = (step, range);
        Vec::new()
    }
}

/// Rows of a slot table's stretch, on average, if they are spread evenly.
const ROWS_OF_STRETCH: usize = 4;

/// Rows of centres that take part in a step on this rank; the place of a row among them is its slot.
#[derive(Debug)]
pub struct SampledRows {
    rows: Vec<u32>,
    /// A stretch is `2^shift` rows of the rank. The slots of stretch `k` are `starts[k] ..
    /// starts[k + 1]`.
    starts: Vec<u32>,
    shift: u32,
}

impl SampledRows {
    /// Holds a sampler to its promise: rows below `n_rows`, strictly ascending. Time and memory are
    /// linear in the rows drawn.
    ///
    /// # Errors
    ///
    /// [`SampleError`] if it is broken.
    pub fn check(rows: Vec<u32>, n_rows: usize, step: u64) -> Result<SampledRows, SampleError> {
        let problem = if let Some(at) = rows.windows(2).position(|pair| pair[0] >= pair[1]) {
            format!("row {} follows row {}", rows[at + 1], rows[at])
        } else if let Some(&last) = rows.last().filter(|&&last| last as usize >= n_rows) {
            format!("row {last} is past the last of {n_rows}")
        } else {
            return Ok(SampledRows::new(rows, n_rows));
        };
        Err(SampleError { step, problem })
    }

    fn new(rows: Vec<u32>, n_rows: usize) -> SampledRows {
        let stretch_rows = ROWS_OF_STRETCH * n_rows.div_ceil(rows.len().max(1));
        let shift = stretch_rows.next_power_of_two().ilog2();
        let n_stretches = (n_rows >> shift) + 1;
        let mut starts = Vec::with_capacity(n_stretches + 1);
        for (slot, &row) in rows.iter().enumerate() {
            // The stretches up to that of this row which have not begun yet begin here.
            starts.resize(starts.len().max((row >> shift) as usize + 1), slot as u32);
        }
        starts.resize(n_stretches + 1, rows.len() as u32);
        SampledRows { rows, starts, shift }
    }

    /// All of them, strictly ascending.
    #[must_use]
    pub fn as_slice(&self) -> &[u32] {
        &self.rows
    }

    /// The same, handed out.
    #[must_use]
    pub fn into_rows(self) -> Vec<u32> {
        self.rows
    }

    /// The rows of their centres, of which each class has `k`, side by side.
    #[must_use]
    pub fn centres(&self, k: usize) -> Cow<'_, [u32]> {
        if k == 1 { Cow::Borrowed(&self.rows) } else { Cow::Owned(centres_of(&self.rows, k)) }
    }

    /// The slot of `row`, a row of the rank, if it was drawn. Takes the same time however many rows
    /// there are, if they are spread as a sampler spreads them.
    #[must_use]
    pub fn slot_of(&self, row: u32) -> Option<usize> {
        let stretch = (row >> self.shift) as usize;
        let (start, end) = (self.starts[stretch] as usize, self.starts[stretch + 1] as usize);
        Some(start + self.rows[start..end].binary_search(&row).ok()?)
    }
}

/// The rows of the `k` centres of each class.
#[must_use]
pub fn centres_of(classes: &[u32], k: usize) -> Vec<u32> {
    let k = k as u32;
    classes.iter().flat_map(|class| class * k..(class + 1) * k).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_row_has_the_slot_that_counting_gives_it(
            n_rows in 1usize..5000,
            rows in proptest::collection::btree_set(0u32..5000, 0..300),
        ) {
            let rows: Vec<u32> = rows.into_iter().filter(|&row| (row as usize) < n_rows).collect();
            let sampled = SampledRows::check(rows.clone(), n_rows, 0).unwrap();
            for row in 0..n_rows as u32 {
                let below = rows.iter().filter(|&&r| r < row).count();
                let expected = rows.contains(&row).then_some(below);
                prop_assert_eq!(sampled.slot_of(row), expected);
            }
        }
    }

    #[test]
    fn the_table_of_slots_follows_the_rows_drawn_and_not_the_classes() {
        let n_rows = u32::MAX as usize;
        let rows: Vec<u32> = (0..1000).map(|i| i * 4_000_000).collect();
        let sampled = SampledRows::check(rows, n_rows, 0).unwrap();
        assert!(sampled.starts.len() <= 1002, "{}", sampled.starts.len());
        let longest = sampled.starts.windows(2).map(|pair| pair[1] - pair[0]).max();
        // Between 4 and 8 of evenly spread ones, and one more where a stretch is cut off.
        assert!(longest <= Some(9), "{longest:?}");
    }

    #[test]
    fn a_sampler_that_breaks_its_promise_is_named_with_the_row() {
        let check = |rows: &[u32], problem: &str| {
            let error = SampledRows::check(rows.to_vec(), 10, 7).unwrap_err().to_string();
            assert!(error.contains("step 7") && error.contains(problem), "{error}");
        };
        check(&[1, 3, 3], "row 3 follows row 3");
        check(&[1, 10], "row 10 is past the last of 10");
    }
}

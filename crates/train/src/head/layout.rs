//! How a row of centres lies in memory: weight and optimizer state side by side, in f32 or bf16.

use bytemuck::cast_slice;
use half::bf16;
use serde::{Deserialize, Serialize};
use tch::Kind;

use super::{elements::Number, round};

/// Rows start at a cache line.
const ALIGNMENT: usize = 64;

/// Number format in which centres or their optimizer state are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Storage {
    /// Single precision.
    #[default]
    F32,
    /// bfloat16: half the memory. A step is rounded up or down at random, so that it is right on
    /// average; rounded to the nearest, steps below 1/256 of a number would be lost.
    Bf16,
}

impl Storage {
    /// Bytes of one number.
    #[must_use]
    pub fn size_bytes(self) -> usize {
        match self {
            Storage::F32 => 4,
            Storage::Bf16 => 2,
        }
    }

    /// The kind of a tensor of such numbers.
    pub(super) fn kind(self) -> Kind {
        match self {
            Storage::F32 => Kind::Float,
            Storage::Bf16 => Kind::BFloat16,
        }
    }

    #[inline(always)]
    fn read(self, bytes: &[u8], out: &mut [f32]) {
        match self {
            Storage::F32 => out.copy_from_slice(&cast_slice(bytes)[..out.len()]),
            Storage::Bf16 => {
                let values: &[bf16] = cast_slice(bytes);
                for (out, value) in out.iter_mut().zip(values) {
                    *out = Number::to_f32(*value);
                }
            }
        }
    }

    #[inline(always)]
    fn write(self, values: &[f32], rounding: Rounding, bytes: &mut [u8]) {
        match self {
            Storage::F32 => {
                bytemuck::cast_slice_mut(bytes)[..values.len()].copy_from_slice(values);
            }
            Storage::Bf16 => {
                let out: &mut [bf16] = bytemuck::cast_slice_mut(bytes);
                match rounding {
                    Rounding::Nearest => {
                        for (out, value) in out.iter_mut().zip(values) {
                            *out = Number::of_f32(*value);
                        }
                    }
                    Rounding::Stochastic(key) => round::stochastic(values, key, out),
                }
            }
        }
    }
}

/// How numbers are brought into a shorter format.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rounding {
    /// To the nearest, of two to the even one.
    Nearest,
    /// Up or down, with probabilities that make it right on average; a function of the key.
    Stochastic(u64),
}

/// The bytes of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowLayout {
    dim: usize,
    n_state: usize,
    weight: Storage,
    state: Storage,
}

impl RowLayout {
    /// * `dim`: numbers of the weight
    /// * `n_state`: numbers of the optimizer's state
    #[must_use]
    pub fn new((dim, weight): (usize, Storage), (n_state, state): (usize, Storage)) -> RowLayout {
        RowLayout { dim, n_state, weight, state }
    }

    /// Numbers of the weight.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Numbers of the optimizer's state.
    #[must_use]
    pub fn n_state(&self) -> usize {
        self.n_state
    }

    /// Number format of the weight.
    #[must_use]
    pub fn weights(&self) -> Storage {
        self.weight
    }

    /// Number format of the state.
    #[must_use]
    pub fn states(&self) -> Storage {
        self.state
    }

    /// Bytes of the weight.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        self.dim * self.weight.size_bytes()
    }

    /// Bytes from one row to the next, a multiple of 64.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        (self.state_at() + self.n_state * self.state.size_bytes()).next_multiple_of(ALIGNMENT)
    }

    /// Where the state begins; a multiple of 4, so that either format is aligned.
    fn state_at(&self) -> usize {
        self.weight_bytes().next_multiple_of(4)
    }

    /// Bytes of the state.
    #[must_use]
    pub fn state_bytes(&self) -> usize {
        self.n_state * self.state.size_bytes()
    }

    /// The bytes of a row that are its weight.
    pub(super) fn weight_of<'a>(&self, row: &'a [u8]) -> &'a [u8] {
        &row[..self.weight_bytes()]
    }

    /// The bytes of a row that are its state.
    pub(super) fn state_of<'a>(&self, row: &'a [u8]) -> &'a [u8] {
        &row[self.state_at()..][..self.state_bytes()]
    }

    #[inline(always)]
    pub(super) fn read_weight(&self, row: &[u8], weight: &mut [f32]) {
        self.weight.read(&row[..self.weight_bytes()], weight);
    }

    #[inline(always)]
    pub(super) fn read_state(&self, row: &[u8], state: &mut [f32]) {
        let at = self.state_at();
        self.state.read(&row[at..at + self.n_state * self.state.size_bytes()], state);
    }

    /// * `rounding`: for the weight; the state takes the next key
    #[inline(always)]
    pub(super) fn write(&self, weight: &[f32], state: &[f32], rounding: Rounding, row: &mut [u8]) {
        let at = self.state_at();
        self.weight.write(weight, rounding, &mut row[..self.weight_bytes()]);
        let rounding = match rounding {
            Rounding::Stochastic(key) => Rounding::Stochastic(key.wrapping_add(1)),
            Rounding::Nearest => Rounding::Nearest,
        };
        let end = at + self.n_state * self.state.size_bytes();
        self.state.write(state, rounding, &mut row[at..end]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_holds_what_was_written_side_by_side() {
        for (weight, state, size) in [
            (Storage::F32, Storage::F32, 64),
            (Storage::Bf16, Storage::Bf16, 64),
            (Storage::Bf16, Storage::F32, 64),
        ] {
            let layout = RowLayout::new((5, weight), (3, state));
            assert_eq!(layout.size_bytes(), size);
            // Cast from a type of the alignment that mappings have.
            let mut memory = [0u64; 8];
            let row = bytemuck::bytes_of_mut(&mut memory);
            let (w, v) = ([1.0, -2.5, 0.125, 3.0, 4.0], [7.0, -0.5, 96.0]);
            layout.write(&w, &v, Rounding::Stochastic(3), row);
            let (mut found_w, mut found_v) = ([0.0; 5], [0.0; 3]);
            layout.read_weight(row, &mut found_w);
            layout.read_state(row, &mut found_v);
            assert_eq!((found_w, found_v), (w, v), "{weight:?} {state:?}");
        }
    }

    #[test]
    fn rows_of_512_take_4_kib_in_f32_and_half_of_it_in_bf16() {
        let size = |storage| RowLayout::new((512, storage), (512, storage)).size_bytes();
        assert_eq!((size(Storage::F32), size(Storage::Bf16)), (4096, 2048));
        let row_wise = RowLayout::new((512, Storage::Bf16), (1, Storage::F32));
        assert_eq!(row_wise.size_bytes(), 1088);
    }
}

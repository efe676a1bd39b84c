//! N:N: all pairs of a labelled set, as the multi-racial and masked-face benchmarks compare them.
//!
//! A million faces make half a trillion pairs, of which only the highest impostor scores decide TAR
//! at a small FAR. They are counted by their exact f32 value above a floor, in bounded memory, so
//! that every figure is exact; genuine pairs are few and all kept. The floor is guessed from a
//! sample and lowered if it proves too high, which costs time and never accuracy.

mod counts;
mod pairs;
mod result;

pub use counts::KeyCounts;
pub use pairs::{AllPairs, Group, Labels, Tally};
pub use result::{Rates, TarAt};

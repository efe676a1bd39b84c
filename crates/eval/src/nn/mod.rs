//! N:N verification: all pairs of a labelled set, by group and of all.
//!
//! No scorer of the multi-racial benchmark is public; this one follows its description: every pair
//! of two images counts, genuine if of one person, and a group's figures are of pairs within it.

mod judge;
mod labels;
mod state;

pub use judge::{AllPairsTarRow, GroupRow, NnReport, Options, judge};
pub use labels::Labels;
pub use state::State;

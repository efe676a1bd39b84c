//! What cleaning found in a data set, what people decided about it, and the data set with that applied.
//!
//! Cleaning never rewrites a data set. Every run appends one file to the [`DecisionLog`] beside it,
//! `decisions/000.arrow`, `decisions/001.arrow` and so on: who decided ([`RunInfo`]) and one
//! [`Decision`] a line. [`State`] is the sum of all runs, and a [`View`] is the data set with it
//! applied, which is what readers see. Taking a run back moves its file to `decisions/undone`.
//!
//! A finding is about a *subject*, a row or an identity, and often a *partner* that it was compared
//! with. [`Questions`] are the findings that somebody should look at, each asked once, and
//! answers become decisions whose reason begins with [`REVIEWED`]. What a person decided stands:
//! passes do not decide about these rows again, and identities that were said to be different people
//! are never joined.
//!
//! # The file of a run
//!
//! It is Arrow IPC as the shards are, and like them not compressed: its reader holds every length
//! against the bytes that are there before anything is decoded, and a compressed buffer states how
//! large it becomes. A decision takes about 60 bytes, so one of every tenth row of 17 million takes
//! 100 MB, a thousandth of the images. The schema's metadata holds the description under `pfc.run`,
//! and a checksum of it and of all decisions under `pfc.checksum`.
//!
//! | column | type | |
//! |---|---|---|
//! | `row` | uint64 | the row decided about; for `merge` and `different` one that shows the identity |
//! | `action` | utf8 | `keep`, `drop`, `relabel`, `merge`, `suspect` or `different` |
//! | `reason` | utf8 | the finding, as `near_duplicate`; after `reviewed_` where a person decided |
//! | `label` | uint32 | the row's label, or the identity that `merge` and `different` are about |
//! | `target` | uint32 | the label that `relabel` and `merge` give, or the other person of `different`; 2³²−1 for none |
//! | `partner` | uint64 | the row it was compared with; 2⁶⁴−1 for none |
//! | `score` | float32 | what was measured, in the unit of the reason; NaN for nothing |
//! | `threshold` | float32 | the bound that it crossed; NaN for none |

mod carry;
mod check;
mod decision;
mod error;
mod file;
mod kept;
mod kind;
mod links;
mod log;
mod old;
mod questions;
mod state;
pub mod table;
mod view;

pub use carry::carried;
pub use check::check_log;
pub use decision::{Action, Decision, REVIEWED};
pub use error::FindingsError;
pub use file::{RunInfo, is_reason};
pub use kept::KeptRows;
pub use kind::Kind;
pub use links::Links;
pub use log::{DECISIONS_DIR, DecisionLog, Run};
pub use questions::{Question, Questions};
pub use state::State;
pub use view::{People, Reading, View};

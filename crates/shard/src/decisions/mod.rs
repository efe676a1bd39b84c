//! What cleaning decided about the rows of a data set, as a log beside it.
//!
//! Cleaning never rewrites a data set. Every run appends one file, `decisions/000.arrow`,
//! `decisions/001.arrow` and so on: who decided ([`RunInfo`]) and one [`Decision`] a line. What a
//! reader makes of the rows is the sum of all runs, a [`View`]. Taking a run back moves its file to
//! `decisions/undone`.
//!
//! The file is Arrow IPC as the shards are, and like them not compressed: its reader holds every length
//! against the bytes that are there before anything is decoded, and a compressed buffer states how
//! large it becomes. A decision takes about 60 bytes, so one of every tenth row of 17 million takes
//! 100 MB, a thousandth of the images.
//!
//! The schema's metadata holds the description under `pfc.run`, and a checksum of it and of all
//! decisions under `pfc.checksum`.
//!
//! | column | type | |
//! |---|---|---|
//! | `row` | uint64 | the row decided about; for `merge` one that shows the identity |
//! | `action` | utf8 | `keep`, `drop`, `relabel`, `merge` or `suspect` |
//! | `reason` | utf8 | the finding, as `exact_duplicate` |
//! | `label` | uint32 | the row's label in the data set |
//! | `target` | uint32 | label that `relabel` and `merge` give; 2³²−1 for none |
//! | `partner` | uint64 | the row it was compared with; 2⁶⁴−1 for none |
//! | `score` | float32 | what was measured, in the unit of the reason; NaN for nothing |
//! | `threshold` | float32 | the bound that it crossed; NaN for none |

mod file;
mod log;
mod view;

use std::{fmt, str::FromStr};

pub use file::{RunInfo, is_reason};
pub use log::{DECISIONS_DIR, DecisionLog, Run};
pub use view::View;

/// What becomes of a row, or of an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// Stays, whatever earlier runs say, and later passes leave it alone.
    Keep,
    /// Is left out.
    Drop,
    /// Belongs to identity `target`.
    Relabel,
    /// All rows of identity `label` belong to identity `target`.
    Merge,
    /// Nothing yet: a finding that somebody should look at.
    Suspect,
}

impl Action {
    /// All of them.
    pub const ALL: [Action; 5] =
        [Action::Keep, Action::Drop, Action::Relabel, Action::Merge, Action::Suspect];

    /// Its name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Action::Keep => "keep",
            Action::Drop => "drop",
            Action::Relabel => "relabel",
            Action::Merge => "merge",
            Action::Suspect => "suspect",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Action {
    type Err = String;

    fn from_str(text: &str) -> Result<Action, String> {
        let found = Action::ALL.into_iter().find(|action| action.name() == text);
        found.ok_or_else(|| {
            format!("`{text}` is no action; keep, drop, relabel, merge and suspect are")
        })
    }
}

/// One line of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// Row of the data set.
    pub row: u64,
    /// What becomes of it.
    pub action: Action,
    /// The finding, in lower case with underscores; 64 bytes at most.
    pub reason: String,
    /// The row's label in the data set.
    pub label: u32,
    /// The identity that `relabel` and `merge` give. Labels from `n_identities` on are new
    /// identities, numbered in the order in which they are first named.
    pub target: Option<u32>,
    /// The row it was compared with.
    pub partner: Option<u64>,
    /// What was measured; NaN for nothing.
    pub score: f32,
    /// The bound that was crossed; NaN for none.
    pub threshold: f32,
}

impl Decision {
    /// A decision without target, partner and figures.
    pub fn new(row: u64, label: u32, action: Action, reason: &str) -> Decision {
        let (target, partner) = (None, None);
        let (score, threshold) = (f32::NAN, f32::NAN);
        Decision { row, action, reason: reason.into(), label, target, partner, score, threshold }
    }

    /// With what was measured and the bound that was crossed.
    #[must_use]
    pub fn scored(self, score: f32, threshold: f32) -> Decision {
        Decision { score, threshold, ..self }
    }

    /// With the row it was compared with.
    #[must_use]
    pub fn with_partner(self, partner: u64) -> Decision {
        Decision { partner: Some(partner), ..self }
    }

    /// With the identity it gives.
    #[must_use]
    pub fn with_target(self, target: u32) -> Decision {
        Decision { target: Some(target), ..self }
    }
}

//! A finding about a row or a pair, and what is decided about it.

use std::{fmt, str::FromStr};

/// Prefix of the reason of a person's decision; the finding that was asked about follows.
pub const REVIEWED: &str = "reviewed_";

/// What becomes of a row, or of an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// The row stays, whatever earlier runs decided, and later passes do not decide about it.
    Keep,
    /// The row is left out.
    Drop,
    /// The row belongs to identity `target`.
    Relabel,
    /// All rows of identity `label` belong to identity `target`.
    Merge,
    /// Nothing is changed: it is a finding that a person should look at.
    Suspect,
    /// Identities `label` and `target` are two people and are never joined.
    Different,
}

impl Action {
    /// All actions.
    pub const ALL: [Action; 6] = [
        Action::Keep,
        Action::Drop,
        Action::Relabel,
        Action::Merge,
        Action::Suspect,
        Action::Different,
    ];

    /// Its name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Action::Keep => "keep",
            Action::Drop => "drop",
            Action::Relabel => "relabel",
            Action::Merge => "merge",
            Action::Suspect => "suspect",
            Action::Different => "different",
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
            let known = Action::ALL.map(Action::name).join(", ");
            format!("unknown action `{text}`; the actions are {known}")
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
    /// The finding, in lower case with underscores, 64 bytes at most; [`REVIEWED`] and the finding
    /// where a person decided.
    pub reason: String,
    /// The row's label in the data set.
    pub label: u32,
    /// The identity that `relabel` and `merge` give, and that `different` sets apart. Labels from `n_identities` on are new
    /// identities, numbered in the order in which they are first named.
    pub target: Option<u32>,
    /// The row it was compared with.
    pub partner: Option<u64>,
    /// The value that was measured; NaN if there is none.
    pub score: f32,
    /// The bound that the value crossed; NaN if there is none.
    pub threshold: f32,
}

impl Decision {
    /// A decision without target, partner and figures.
    pub fn new(row: u64, label: u32, action: Action, reason: &str) -> Decision {
        let (target, partner) = (None, None);
        let (score, threshold) = (f32::NAN, f32::NAN);
        Decision { row, action, reason: reason.into(), label, target, partner, score, threshold }
    }

    /// Adds the measured value and the bound that it crossed.
    #[must_use]
    pub fn scored(self, score: f32, threshold: f32) -> Decision {
        Decision { score, threshold, ..self }
    }

    /// Adds the row that it was compared with.
    #[must_use]
    pub fn with_partner(self, partner: u64) -> Decision {
        Decision { partner: Some(partner), ..self }
    }

    /// Adds the target identity.
    #[must_use]
    pub fn with_target(self, target: u32) -> Decision {
        Decision { target: Some(target), ..self }
    }

    /// Whether a person made the decision, and not a pass.
    pub fn is_verdict(&self) -> bool {
        self.reason.starts_with(REVIEWED)
    }

    /// The finding, without the prefix of a person's decision.
    pub fn finding(&self) -> &str {
        self.reason.strip_prefix(REVIEWED).unwrap_or(&self.reason)
    }
}

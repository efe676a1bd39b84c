//! Section `[checkpoint]`: when the run is saved.

use serde::{Deserialize, Serialize};

use super::{eval::EvalConfig, section::section, value::BadValue};

section! {
    /// Section `[checkpoint]`: when the run is saved.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct CheckpointConfig {
        /// Steps between checkpoints; 0 saves after every epoch. The end, and Ctrl-C, always save.
        pub every_steps: u64,
        /// Checkpoints to keep, the newest ones; at least 1. With 2 or more, one may be damaged. Where
        /// centres are in files, the newest two can be gone back to, however many are kept.
        pub keep: usize,
        /// The set of `[eval]` by whose accuracy one more checkpoint is kept, and `best.ckpt` points at
        /// it; empty keeps none. Only measured steps that are saved count.
        pub best: String,
        /// Whether the run goes on while a checkpoint is written. Network and optimizer are copied first;
        /// of the centres, those that a step is about to move, up to a sixteenth of all: a step that moves
        /// more waits for the writing. Where a CPU computes, writing slows the step beside it. Centres in
        /// files are flushed on the spot in any case.
        pub in_background: bool,
    }
}

impl Default for CheckpointConfig {
    fn default() -> CheckpointConfig {
        CheckpointConfig { every_steps: 0, keep: 3, best: String::new(), in_background: true }
    }
}

impl CheckpointConfig {
    /// Refuses to keep none, and a best of a set that there is not.
    ///
    /// # Errors
    ///
    /// [`BadValue`].
    pub fn validate(&self, eval: &EvalConfig) -> Result<(), BadValue> {
        BadValue::unless(self.keep > 0, "checkpoint.keep", 0, "1 or more")?;
        let is_known = self.best.is_empty() || eval.sets.iter().any(|set| set.name == self.best);
        let bound = "empty or the name of one of eval.sets";
        BadValue::unless(is_known, "checkpoint.best", format!("`{}`", self.best), bound)
    }
}

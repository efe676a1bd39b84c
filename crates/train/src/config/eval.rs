//! Section `[eval]`: how the model is measured during training.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    section::section,
    value::{BadValue, require_path},
};

section! {
    /// Section `[eval]`: how the model is measured on the way.
    #[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct EvalConfig {
        /// Steps between measurements; 0 measures after every epoch. Step 0, the untrained network, and
        /// the last step are measured in either case.
        pub every_steps: u64,
        /// What to measure on.
        pub sets: Vec<EvalSet>,
    }
}

section! {
    /// One `[[eval.sets]]`: a list of pairs and the folder that holds their images, or a pack.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct EvalSet {
        /// The name of the set in logs, which no other set has.
        pub name: String,
        /// Folder that the list's paths start from.
        #[serde(default, skip_serializing_if = "is_empty")]
        pub data: PathBuf,
        /// A verification pack of InsightFace, such as `lfw.bin`; instead of `data` and `pairs`.
        #[serde(default, skip_serializing_if = "is_empty")]
        pub pack: PathBuf,
        /// The list: LFW's `pairs.txt` (ten folds) or `pairsDevTest.txt` (one list), or lines of two
        /// paths and 1 or 0.
        #[serde(default, skip_serializing_if = "is_empty")]
        pub pairs: PathBuf,
        /// Where `data` is a packed data set, whether its rows are read as they were packed, without the decisions
        /// beside it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        pub as_packed: bool,
    }
}

fn is_empty(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

impl EvalConfig {
    /// Refuses sets that cannot be told apart or found.
    ///
    /// # Errors
    ///
    /// [`BadValue`] for the first of them.
    pub fn validate(&self) -> Result<(), BadValue> {
        for (i, set) in self.sets.iter().enumerate() {
            let is_new = self.sets[..i].iter().all(|other| other.name != set.name);
            let name = format!("`{}`", set.name);
            let bound = "a name that no other set has";
            BadValue::unless(is_new && !set.name.is_empty(), "eval.sets.name", name, bound)?;
            if is_empty(&set.pack) {
                require_path("eval.sets.data", &set.data)?;
                require_path("eval.sets.pairs", &set.pairs)?;
            } else {
                let alone = is_empty(&set.data) && is_empty(&set.pairs);
                let bound = "the only one of `data`, `pairs` and `pack`, or left out";
                BadValue::unless(alone, "eval.sets.pack", set.pack.display(), bound)?;
            }
        }
        Ok(())
    }
}

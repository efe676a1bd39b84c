//! Section `[data]`: what is trained on.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{
    section::section,
    value::{BadValue, require_path},
};

section! {
    /// Section `[data]`: what is trained on.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct DataConfig {
        /// A data set that `pfc-ingest pack` wrote.
        pub path: PathBuf,
        /// Whether the data set is read as it was packed; else decisions beside it are applied: rows that
        /// they leave out are not seen, and identities are those that they make.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        pub as_packed: bool,
        /// Threads that decode; 0 chooses. One thread decodes some ten thousand images a second.
        pub loader_threads: usize,
        /// Batches made ahead of the step, in memory.
        pub batches_ahead: usize,
        /// Mirror half of the images left to right, other ones each epoch.
        pub mirror: bool,
        /// What an image that cannot be read or decoded does: `stop` ends the run; `skip` puts another one
        /// in its place, the same in every run, and lists it in `unreadable.jsonl` of the run's folder.
        pub on_error: OnError,
        /// How often images are shown: `""` shows each once an epoch; `"quality:COLUMN"` draws as many images an
        /// epoch in proportion to a measure of `pfc-ingest quality`, such as `quality:fiqa`: one of twice the mean
        /// is shown twice on average, and one of 0 never. An image whose measure is not known counts as the mean.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub weights: String,
        /// Made-up images instead of `path`, to try the speed of a recipe without data:
        /// `{ identities = 360232, images = 17091657 }`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub synthetic: Option<Synthetic>,
    }
}

/// What becomes of a run that comes upon an unreadable image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// It ends.
    #[default]
    Stop,
    /// It goes on with another image.
    Skip,
}

impl Default for DataConfig {
    fn default() -> DataConfig {
        DataConfig {
            path: PathBuf::new(),
            as_packed: false,
            loader_threads: 0,
            batches_ahead: 3,
            mirror: true,
            on_error: OnError::Stop,
            weights: String::new(),
            synthetic: None,
        }
    }
}

impl DataConfig {
    /// Refuses what cannot load.
    ///
    /// # Errors
    ///
    /// [`BadValue`] for the first such value.
    pub fn validate(&self) -> Result<(), BadValue> {
        match &self.synthetic {
            Some(synthetic) => synthetic.validate()?,
            None => require_path("data.path", &self.path)?,
        }
        let is_weighted = !self.weights.is_empty();
        let (key, bound) = ("data.weights", "`\"\"` or `\"quality:COLUMN\"`");
        let is_known = !is_weighted || self.quality_column().is_some();
        BadValue::unless(is_known, key, &self.weights, bound)?;
        let bound = "not set with data.synthetic, which has no measures";
        BadValue::unless(!is_weighted || self.synthetic.is_none(), key, &self.weights, bound)?;
        let threads = self.loader_threads;
        let bound = "from 0 (chosen) to 1024";
        BadValue::unless(threads <= 1024, "data.loader_threads", threads, bound)?;
        let ahead = self.batches_ahead;
        let bound = "from 1 to 1024";
        BadValue::unless((1..=1024).contains(&ahead), "data.batches_ahead", ahead, bound)
    }

    /// The measure that images are drawn by, if they are.
    pub fn quality_column(&self) -> Option<&str> {
        self.weights.strip_prefix("quality:").filter(|column| !column.is_empty())
    }

    /// Threads that decode, with 0 resolved: one beside a CPU, whose cores compute; several beside
    /// a GPU.
    pub fn n_threads(&self, on_gpu: bool) -> usize {
        match (self.loader_threads, on_gpu) {
            (0, false) => 1,
            (0, true) => std::thread::available_parallelism().map_or(1, usize::from).min(8),
            (n, _) => n,
        }
    }
}

section! {
    /// `data.synthetic`: how many made-up faces of how many made-up people.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Synthetic {
        /// People, from 2 to 2^32 - 1.
        pub identities: u32,
        /// Images of them all; at least one of each.
        pub images: u64,
    }
}

impl Synthetic {
    /// Refuses a set that has no two people, or people without an image.
    ///
    /// # Errors
    ///
    /// [`BadValue`].
    pub fn validate(&self) -> Result<(), BadValue> {
        let Synthetic { identities, images } = *self;
        let key = "data.synthetic.identities";
        BadValue::unless(identities >= 2, key, identities, "2 or more")?;
        let fits = (u64::from(identities)..=1 << 40).contains(&images);
        let bound = format!("from data.synthetic.identities, {identities}, to {}", 1u64 << 40);
        BadValue::unless(fits, "data.synthetic.images", images, bound)
    }
}

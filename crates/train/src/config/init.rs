//! Section `[init]`: what a run begins with.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{
    section::section,
    value::{BadValue, is_given},
};

section! {
    /// Section `[init]`: what a run begins with. A run that is resumed has no use for it.
    #[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct InitConfig {
        /// Weights of the backbone: a checkpoint, a state dict of PyTorch or safetensors; empty draws
        /// them.
        pub model: PathBuf,
        /// The data set that the centres were trained on: those of the checkpoint `model`, or `centres`. If
        /// it is given, the centres of identities that have a name in common come over; those of new
        /// identities are drawn, and those of identities that are gone are left out.
        pub data: PathBuf,
        /// Class centres: a checkpoint, a folder of `arcface_torch` with `softmax_fc_gpu_0.pt` or
        /// `checkpoint_gpu_0.pt` and the files of the other ranks, or what `pfc-train export --centres`
        /// wrote. Without `data` they are those of this data set's identities, in its order.
        pub centres: PathBuf,
    }
}

impl InitConfig {
    /// Refuses a data set without centres that were trained on it.
    ///
    /// # Errors
    ///
    /// [`BadValue`].
    pub fn validate(&self) -> Result<(), BadValue> {
        let has_centres = is_given(&self.model) || is_given(&self.centres);
        let fits = !is_given(&self.data) || has_centres;
        let bound = "left out if there is no init.model or init.centres";
        BadValue::unless(fits, "init.data", self.data.display(), bound)
    }

    /// Whether centres of another run are taken over.
    pub fn carries_centres(&self) -> bool {
        is_given(&self.data) || is_given(&self.centres)
    }
}

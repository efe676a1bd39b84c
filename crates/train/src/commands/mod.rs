//! The commands of `pfc-train`, a module each.

pub(crate) mod bench;
pub(crate) mod check;
pub(crate) mod export;
pub(crate) mod model;
pub(crate) mod plan;
pub(crate) mod recipe;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod verify;
pub(crate) mod watch;

use std::path::PathBuf;

use crate::{
    TrainError,
    config::{self, Config, Override},
};

/// A configuration file and the values that replace some of its own.
#[derive(Debug, clap::Args)]
struct ConfigArgs {
    /// TOML file; `pfc-train recipe` prints some to start from
    #[arg(value_name = "CONFIG")]
    config: PathBuf,
    /// Change one value, for example optim.lr=0.05; may be given several times
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    overrides: Vec<Override>,
}

impl ConfigArgs {
    /// The configuration with the number of threads settled, as results depend on it. Its values are still
    /// to be validated, before any is used.
    fn load(&self, local_world: usize) -> Result<Config, TrainError> {
        let mut config = config::load(&self.config, &self.overrides)?;
        config.train.threads = config.train.n_threads(local_world);
        Ok(config)
    }
}

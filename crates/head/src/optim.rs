//! The rule by which the rows of a head move.

use super::config::{HeadConfig, Update};
pub(crate) use pfc_rows::optim::FIRST;
pub use pfc_rows::optim::{
    AdamW, Dense, Motion, RowAdagrad, Sgd, Sparse, Stamp, UNTOUCHED, UpdateHistory, UpdateMap,
    UpdateRule,
};

/// The rule that `config` names.
#[must_use]
pub fn rule(config: &HeadConfig) -> Box<dyn UpdateRule> {
    let HeadConfig { optimizer, momentum, weight_decay, .. } = *config;
    match config.update {
        Update::Dense => Box::new(Dense::new(momentum, weight_decay)),
        Update::Sparse => Box::new(Sparse::new(optimizer, momentum, weight_decay)),
    }
}

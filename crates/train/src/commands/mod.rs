//! The commands of `pfc-train`, but for `run` and `check`.

pub(crate) mod bench;
pub(crate) mod export;
pub(crate) mod model;
pub(crate) mod plan;

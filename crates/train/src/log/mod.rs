//! What a run says while it goes and leaves behind: lines, figures as JSON, TensorBoard's events, the
//! table at the end.

pub mod history;
pub(crate) mod journal;
pub mod metrics;
pub(crate) mod run_log;
pub(crate) mod summary;
pub(crate) mod tally;
pub(crate) mod tensorboard;

pub use journal::StartRecord;
pub use metrics::Score;

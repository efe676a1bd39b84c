//! Why something cannot be drawn.

use pfc_durable::DurableError;

/// A chart that cannot be drawn or written.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The drawing library refuses.
    #[error("cannot draw the chart: {reason}")]
    Draw {
        /// What it says.
        reason: String,
    },
    /// The operating system refused.
    #[error(transparent)]
    Durable(#[from] DurableError),
}

impl ReportError {
    /// The way out, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            ReportError::Draw { .. } => None,
            ReportError::Durable(source) => source.hint(),
        }
    }
}

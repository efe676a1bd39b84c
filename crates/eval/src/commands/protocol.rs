//! What several commands share.

use pfc_metrics::bootstrap::Bootstrap;
use pfc_report::chart::{self, Curve, Histogram, PlotPath};

use crate::EvalError;

/// Between two pieces of work: has the user pressed Ctrl-C?
///
/// # Errors
///
/// [`EvalError::Interrupted`] if so.
pub(super) fn asked_to_stop() -> Result<(), EvalError> {
    if pfc_cli::interrupt::requested() { Err(EvalError::Interrupted) } else { Ok(()) }
}

/// How many sets are resampled for confidence intervals.
#[derive(Debug, Clone, clap::Args)]
pub struct BootstrapArgs {
    /// Resampled sets behind the 95 % confidence intervals; 0 leaves them out
    #[arg(long, value_name = "N", default_value_t = 200)]
    bootstrap: u32,
    /// Seed of the resampling
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    seed: u64,
}

impl BootstrapArgs {
    pub(super) fn get(&self) -> Bootstrap {
        Bootstrap { n_replicates: self.bootstrap, seed: self.seed, ..Bootstrap::default() }
    }
}

/// Charts of accept and reject rates, and of the scores behind them.
#[derive(Debug, Clone, clap::Args)]
pub struct CurveArgs {
    /// Draw the ROC curve to this SVG or PNG file
    #[arg(long, value_name = "FILE")]
    plot: Option<PlotPath>,
    /// Draw the DET curve to this SVG or PNG file
    #[arg(long, value_name = "FILE")]
    det: Option<PlotPath>,
    /// Draw the histogram of the scores (of the first set or table, the largest gallery, or all
    /// groups) to this SVG or PNG file
    #[arg(long, value_name = "FILE")]
    histogram: Option<PlotPath>,
}

impl CurveArgs {
    /// Draws what was asked for; `scores` are those of the set that the histogram shows.
    pub(super) fn draw(
        &self,
        curves: &[Curve<'_>],
        scores: Option<&Histogram>,
    ) -> Result<(), EvalError> {
        if let Some(to) = &self.plot {
            chart::roc(curves).write(to)?;
        }
        if let Some(to) = &self.det {
            chart::det(curves).write(to)?;
        }
        match (&self.histogram, scores) {
            (Some(to), Some(scores)) => Ok(chart::histogram(scores).write(to)?),
            _ => Ok(()),
        }
    }
}

//! What several commands share.

use pfc_metrics::bootstrap::Bootstrap;

use crate::{
    EvalError,
    plot::{self, Curve, PlotPath},
};

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

/// Charts of accept and reject rates.
#[derive(Debug, Clone, clap::Args)]
pub struct CurveArgs {
    /// Draw the ROC curve to this SVG or PNG file
    #[arg(long, value_name = "FILE")]
    plot: Option<PlotPath>,
    /// Draw the DET curve to this SVG or PNG file
    #[arg(long, value_name = "FILE")]
    det: Option<PlotPath>,
}

impl CurveArgs {
    /// Draws what was asked for.
    pub(super) fn draw(&self, curves: &[Curve<'_>]) -> Result<(), EvalError> {
        if let Some(to) = &self.plot {
            plot::roc(curves).write(to)?;
        }
        match &self.det {
            Some(to) => plot::det(curves).write(to),
            None => Ok(()),
        }
    }
}

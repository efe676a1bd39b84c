//! `--require`, which every evaluation has.

use pfc_cli::Outcome;

use crate::{
    EvalError,
    document::Findings,
    require::{Requirement, unmet},
};

/// What the figures must be; flatten it into a command's arguments.
#[derive(Debug, Clone, clap::Args)]
pub struct RequireArgs {
    /// End with exit code 1 unless a figure keeps a bound, as in 'accuracy>=0.99' or 'tar@1e-4>=0.9';
    /// may be given several times
    #[arg(long, value_name = "FIGURE>=BOUND")]
    require: Vec<Requirement>,
}

impl RequireArgs {
    /// Says on standard error which bounds are not kept.
    ///
    /// # Errors
    ///
    /// [`EvalError::NoFigure`] if a figure is not among the findings.
    pub fn check(&self, findings: &Findings) -> Result<Outcome, EvalError> {
        let unmet = unmet(&self.require, findings);
        let unmet = unmet.map_err(|reason| EvalError::NoFigure { reason })?;
        unmet.iter().for_each(|sentence| pfc_cli::tell(sentence));
        Ok(if unmet.is_empty() { Outcome::Clean } else { Outcome::Findings })
    }
}

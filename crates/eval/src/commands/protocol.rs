//! What the commands of the large protocols share.

use pfc_metrics::bootstrap::Bootstrap;
use serde::Serialize;

/// Version of the JSON layout.
pub const SCHEMA: u32 = 1;

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

/// A report with where it comes from.
#[derive(Debug, Serialize)]
struct Document<'a, R> {
    schema: u32,
    tool: String,
    command: &'a str,
    /// The model or features, as given on the command line.
    model: String,
    #[serde(flatten)]
    report: &'a R,
}

/// Prints a report as JSON, with the version of its layout.
pub(super) fn print_json(
    command: &str,
    model: String,
    report: &impl Serialize,
) -> std::io::Result<()> {
    let tool = format!("pfc-eval {}", env!("CARGO_PKG_VERSION"));
    pfc_cli::print_json(&Document { schema: SCHEMA, tool, command, model, report })
}

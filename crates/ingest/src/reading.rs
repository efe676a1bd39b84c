//! How commands read a data set: with its decisions applied, unless `--as-packed` is given.

use std::path::Path;

use pfc_findings::{Reading, View};

use crate::IngestError;

/// The option of commands that read a data set.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct ReadArgs {
    /// Read the data set as it was packed: do not apply the decisions beside it
    #[arg(long)]
    as_packed: bool,
}

impl ReadArgs {
    /// Opens the data set in `dir` and prints a line where decisions change what is in it.
    ///
    /// # Errors
    ///
    /// [`IngestError`] if the data set or a run of decisions cannot be read.
    pub fn open(self, dir: &Path) -> Result<View, IngestError> {
        let view = View::open(dir, Reading::from_switch(self.as_packed))?;
        if let Some(notice) = view.notice("--as-packed") {
            tracing::warn!("{}: {notice}", dir.display());
        }
        Ok(view)
    }
}

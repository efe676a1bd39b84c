//! Class centres, whatever holds them: the checkpoint of a run, with its rows in it or in files beside
//! it, or files of `arcface_torch`.

use std::{ops::Range, path::Path};

use pfc_head::CentreReader;
use pfc_model::{centres::CentreFiles, checkpoint::MANIFEST};

use super::SavedRun;
use crate::TrainError;

/// Rows that are read at a time by whoever goes through all of them.
pub(crate) const CHUNK_ROWS: u64 = 1 << 13;

/// The matrix `[C, D]` of the class centres, up to date and not normalised, read some rows at a time.
pub(crate) enum Centres {
    /// Of a checkpoint that a run wrote.
    OfRun(Box<CentreReader<'static>>),
    /// Of `arcface_torch`, or as `pfc-train export --centres` writes them.
    OfFiles(CentreFiles),
}

impl Centres {
    /// Opens the centres at a path: of a checkpoint folder, or of other files.
    ///
    /// * `folder`: where a run's centres in files are now, instead of where its configuration says
    ///
    /// # Errors
    ///
    /// As [`SavedRun::open`], [`SavedRun::centres`] and [`CentreFiles::open`].
    pub fn open(path: &Path, folder: Option<&Path>) -> Result<Centres, TrainError> {
        if !path.join(MANIFEST).exists() {
            return Ok(Centres::OfFiles(CentreFiles::open(path)?));
        }
        Centres::of_run(&SavedRun::open(path)?, folder)
    }

    /// Opens the centres of a checkpoint that a run wrote.
    ///
    /// # Errors
    ///
    /// As [`SavedRun::centres`].
    pub fn of_run(run: &SavedRun, folder: Option<&Path>) -> Result<Centres, TrainError> {
        Ok(Centres::OfRun(Box::new(run.centres(folder)?)))
    }

    /// Number of centres C: of classes, or of all their sub-centres.
    pub fn n_rows(&self) -> u64 {
        match self {
            Centres::OfRun(reader) => reader.n_centres(),
            Centres::OfFiles(files) => files.n_rows(),
        }
    }

    /// Numbers of a centre D.
    pub fn dim(&self) -> usize {
        match self {
            Centres::OfRun(reader) => reader.dim(),
            Centres::OfFiles(files) => files.dim(),
        }
    }

    /// Some rows, one after the other. Whoever reads all goes through them in order.
    ///
    /// # Errors
    ///
    /// [`TrainError::Head`] or [`TrainError::Model`] if they cannot be read, or are not those that were
    /// written.
    pub fn read(&mut self, rows: Range<u64>) -> Result<Vec<f32>, TrainError> {
        Ok(match self {
            Centres::OfRun(reader) => reader.read(rows)?,
            Centres::OfFiles(files) => files.read(rows)?,
        })
    }
}

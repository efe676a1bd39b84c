//! The state of a run after one step, apart from what goes on with it.

use std::path::{Path, PathBuf};

use pfc_head::{
    self as head,
    shards::{self, Written},
};
use pfc_model::checkpoint::{BACKBONE, Progress, Writer};
use tch::{Device, Tensor};

use super::{OPTIMIZER, TRAINED};
use crate::{TrainError, step::Trainer};

type Named = Vec<(String, Tensor)>;

/// What one rank has to write of a checkpoint.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// Where the files go until the checkpoint is whole.
    pub(super) folder: PathBuf,
    /// This rank, and how many there are.
    pub(super) place: (usize, usize),
    pub(super) centres: head::Snapshot,
    /// Of the first rank.
    pub(super) whole: Option<Whole>,
}

/// What is the same on all ranks.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) writer: Writer,
    pub(super) files: Vec<(&'static str, Named)>,
    pub(super) progress: Progress,
}

/// The files of one rank.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) written: Written,
    /// Of the first rank: the checkpoint that they belong to.
    pub(super) checkpoint: Option<(Writer, Progress)>,
}

/// Why a rank could not write its files.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: TrainError,
    /// Of the first rank: the checkpoint, whose folder goes when this is dropped.
    pub(super) writer: Option<Writer>,
}

/// The backbone and its optimizer.
///
/// * `apart`: whether the tensors are copied, so that training may go on
pub(super) fn files_of(trainer: &Trainer, apart: bool) -> Vec<(&'static str, Named)> {
    let mut files = vec![(BACKBONE, trainer.measured().state_dict())];
    if trainer.ema.is_some() {
        files.push((TRAINED, trainer.backbone.state_dict()));
    }
    files.push((OPTIMIZER, trainer.optimizer.state()));
    if apart {
        let tensors = files.iter_mut().flat_map(|(_, named)| named).map(|(_, tensor)| tensor);
        tensors.for_each(|tensor| *tensor = copied(tensor));
    }
    files
}

/// A copy in host memory.
fn copied(tensor: &Tensor) -> Tensor {
    tch::no_grad(|| match tensor.device() {
        Device::Cpu => tensor.copy(),
        _ => tensor.to_device(Device::Cpu),
    })
}

impl Snapshot {
    /// Writes the files.
    ///
    /// # Errors
    ///
    /// [`Failed`].
    pub(super) fn write(self) -> Result<Files, Box<Failed>> {
        let Snapshot { folder, place, centres, mut whole } = self;
        let written = write_files(&folder, place, centres, whole.as_mut());
        let (writer, progress) = match whole {
            Some(Whole { writer, progress, .. }) => (Some(writer), Some(progress)),
            None => (None, None),
        };
        match written {
            Ok(written) => Ok(Files { written, checkpoint: writer.zip(progress) }),
            Err(error) => Err(Box::new(Failed { error, writer })),
        }
    }
}

fn write_files(
    folder: &Path,
    place: (usize, usize),
    centres: head::Snapshot,
    whole: Option<&mut Whole>,
) -> Result<Written, TrainError> {
    // First, as a step may wait for it.
    let written = shards::write(folder, place, centres)?;
    if let Some(Whole { writer, files, .. }) = whole {
        for (name, tensors) in files {
            writer.tensors(name, tensors)?;
        }
    }
    Ok(written)
}

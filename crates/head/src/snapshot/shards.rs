//! The centres of a checkpoint: a file per rank that wrote it, read by any number of ranks.

use std::{ops::Range, path::Path};

use pfc_model::{
    ModelError,
    tensors::{ColumnWriter, FileSum, TensorFile, TensorSpec},
};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::{ClassRange, HeadError, SavedTensors, Snapshot};

/// A file that a rank has written for the first rank to list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    name: String,
    size: u64,
    xxh3: [u64; 2],
}

/// What the file of `rank` of `world` is called.
#[must_use]
pub fn name_of(rank: usize, world: usize) -> String {
    match world {
        1 => "centres.safetensors".to_owned(),
        _ => format!("centres-{rank:05}-of-{world:05}.safetensors"),
    }
}

/// Writes this rank's centres into `folder`, that of a checkpoint being written, as the head hands
/// them over.
///
/// # Errors
///
/// [`HeadError::Model`] if the file cannot be written, [`HeadError::SaveAbandoned`] if the head is gone
/// before it has handed over all.
pub fn write(
    folder: &Path,
    (rank, world): (usize, usize),
    snapshot: Snapshot,
) -> Result<Written, HeadError> {
    let name = name_of(rank, world);
    let Snapshot { tensors, mut rows } = snapshot;
    let mut specs: Vec<TensorSpec> =
        tensors.iter().map(|(name, tensor)| TensorSpec::of(name, tensor)).collect();
    if let Some(rows) = &rows {
        specs.extend(rows.columns.iter().map(|column| TensorSpec {
            name: column.name.clone(),
            kind: column.kind,
            shape: [rows.n_rows].into_iter().chain(column.width).collect(),
        }));
    }
    let mut writer = ColumnWriter::create(&folder.join(&name), specs)?;
    for (name, tensor) in &tensors {
        writer.put(name, 0, tensor)?;
    }
    if let Some(rows) = &mut rows {
        while let Some(piece) = rows.next_piece()? {
            for (column, tensor) in rows.columns.iter().zip(&piece.columns) {
                writer.put(&column.name, piece.first, tensor)?;
            }
        }
    }
    let FileSum { size, xxh3 } = writer.finish()?;
    Ok(Written { name, size, xxh3: [(xxh3 >> 64) as u64, xxh3 as u64] })
}

impl Written {
    /// The file's name within the checkpoint.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Size and checksum of the file.
    #[must_use]
    pub fn sum(&self) -> FileSum {
        let [high, low] = self.xxh3.map(u128::from);
        FileSum { size: self.size, xxh3: high << 64 | low }
    }
}

/// The names of the files that hold the classes of `range`, in the order of these.
#[must_use]
pub fn names_for(range: &ClassRange, world_then: usize) -> Vec<String> {
    ranks_then(range, world_then).map(|rank| name_of(rank, world_then)).collect()
}

/// The ranks of then that held classes of `range`; one of them for a rank without classes.
fn ranks_then(range: &ClassRange, world_then: usize) -> Range<usize> {
    let (own, classes) = (range.ids(), range.classes());
    if range.is_empty() {
        return 0..1;
    }
    let owner_of = |class| ClassRange::owner_of(class, classes, world_then);
    owner_of(own.start)..owner_of(own.end - 1) + 1
}

/// What [`Head::load`](crate::Head::load) takes for the classes of `range`, out of the files
/// that `world_then` ranks wrote. Rows are read as they are asked for.
///
/// # Errors
///
/// [`HeadError::Model`] if a file is missing or damaged.
pub fn open(
    mut file: impl FnMut(&str) -> Result<TensorFile, ModelError>,
    range: &ClassRange,
    world_then: usize,
) -> Result<Vec<Box<dyn SavedTensors>>, HeadError> {
    let mut pieces: Vec<Box<dyn SavedTensors>> = Vec::new();
    for name in names_for(range, world_then) {
        pieces.push(Box::new(Saved(file(&name)?)));
    }
    Ok(pieces)
}

/// A file of a checkpoint, as the head reads it.
#[derive(Debug)]
pub struct Saved(pub TensorFile);

impl SavedTensors for Saved {
    fn origin(&self) -> String {
        self.0.path().display().to_string()
    }

    fn spec(&self, name: &str) -> Result<Option<(Vec<i64>, Kind)>, HeadError> {
        if !self.0.names().any(|found| found == name) {
            return Ok(None);
        }
        let spec = self.0.spec(name)?;
        Ok(Some((spec.shape, spec.kind)))
    }

    fn read(&mut self, name: &str) -> Result<Tensor, HeadError> {
        Ok(self.0.read(name)?)
    }

    fn read_rows(&mut self, name: &str, rows: Range<i64>) -> Result<Tensor, HeadError> {
        Ok(self.0.read_rows(name, rows)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_takes_its_classes_from_the_files_that_hold_them() {
        let names = |rank, world| names_for(&ClassRange::of_rank(10, rank, world), 4);
        let file = |rank| name_of(rank, 4);
        // Four ranks held 0..3, 3..6, 6..8 and 8..10.
        assert_eq!(names(0, 2), [file(0), file(1)]);
        assert_eq!(names(1, 2), [file(1), file(2), file(3)]);
        assert_eq!(names(11, 12), [file(0)]);
        let alone = names_for(&ClassRange::of_rank(10, 1, 2), 1);
        assert_eq!(alone, ["centres.safetensors"]);
    }
}

//! The centres of a checkpoint: a file per rank that wrote it, read by any number of ranks.

use std::{ops::Range, path::Path};

use pfc_model::{
    ModelError,
    tensors::{self, FileSum, TensorFile},
};
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::ClassRange;

/// Tensors that are the same on every rank; all others have a row per class.
const SHARED: [&str; 4] =
    ["centres.missed", "centres.missed_before", "centres.steps", "centres.in_place"];
/// Global id of the class in the first row, different in every file.
const FIRST_CLASS: &str = "centres.first_class";

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

/// Writes this rank's centres into `folder`, that of a checkpoint being written.
///
/// # Errors
///
/// As [`tensors::write`].
pub fn write(
    folder: &Path,
    (rank, world): (usize, usize),
    state: &[(String, Tensor)],
) -> Result<Written, ModelError> {
    let name = name_of(rank, world);
    let FileSum { size, xxh3 } = tensors::write(&folder.join(&name), state)?;
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

/// One file of those that hold the classes of a rank.
struct Piece {
    name: String,
    /// The classes in the file.
    held: Range<u64>,
    /// Those of them that are wanted.
    wanted: Range<u64>,
}

/// The names of the files that hold the classes of `range`.
#[must_use]
pub fn names_for(range: &ClassRange, world_then: usize) -> Vec<String> {
    pieces(range, world_then).into_iter().map(|piece| piece.name).collect()
}

/// What [`Head::load_state`](crate::Head::load_state) takes for the classes of `range`, out of
/// the files that `world_then` ranks wrote. Reads those classes alone.
///
/// * `open`: opens a file of the checkpoint by its name
///
/// # Errors
///
/// [`ModelError`] if a file is missing, damaged, or holds other classes than its name says.
pub fn read(
    open: impl Fn(&str) -> Result<TensorFile, ModelError>,
    range: &ClassRange,
    world_then: usize,
) -> Result<Vec<(String, Tensor)>, ModelError> {
    let mut parts: Vec<(String, Vec<Tensor>)> = Vec::new();
    for Piece { name: file_name, held, wanted } in pieces(range, world_then) {
        let mut file = open(&file_name)?;
        let first = file.read(FIRST_CLASS)?;
        if first.numel() != 1 || first.reshape([1]).int64_value(&[0]) != held.start as i64 {
            let found = first.numel().to_string();
            return Err(ModelError::TensorShape {
                origin: file_name,
                key: format!("{FIRST_CLASS} ({found} numbers, not {})", held.start),
                found: first.size(),
                expected: vec![1],
            });
        }
        let rows = (wanted.start - held.start) as i64..(wanted.end - held.start) as i64;
        let names: Vec<String> = file.names().map(str::to_owned).collect();
        for name in names.into_iter().filter(|name| name != FIRST_CLASS) {
            let is_shared = SHARED.contains(&name.as_str());
            let tensor =
                if is_shared { file.read(&name)? } else { file.read_rows(&name, rows.clone())? };
            match parts.iter_mut().find(|(known, _)| *known == name) {
                Some(_) if is_shared => {}
                Some((_, tensors)) => tensors.push(tensor),
                None => parts.push((name, vec![tensor])),
            }
        }
    }
    let joined = parts.into_iter().map(|(name, mut tensors)| {
        let tensor = if tensors.len() == 1 { tensors.remove(0) } else { Tensor::cat(&tensors, 0) };
        (name, tensor)
    });
    let first = Tensor::from_slice(&[range.first() as i64]);
    Ok(joined.chain([(FIRST_CLASS.to_owned(), first)]).collect())
}

fn pieces(range: &ClassRange, world_then: usize) -> Vec<Piece> {
    let (own, classes) = (range.ids(), range.classes());
    let piece = |rank: usize| {
        let held = ClassRange::of_rank(classes, rank, world_then).ids();
        let wanted = held.start.max(own.start)..held.end.min(own.end);
        Piece { name: name_of(rank, world_then), held, wanted }
    };
    if range.is_empty() {
        // A rank without classes still needs tensors without rows.
        let Piece { name, held, .. } = piece(0);
        return vec![Piece { name, wanted: held.start..held.start, held }];
    }
    let owner_of = |class| ClassRange::owner_of(class, classes, world_then);
    (owner_of(own.start)..=owner_of(own.end - 1)).map(piece).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(rank: usize, world: usize, world_then: usize) -> Vec<(String, Range<u64>)> {
        let range = ClassRange::of_rank(10, rank, world);
        pieces(&range, world_then).into_iter().map(|p| (p.name, p.wanted)).collect()
    }

    #[test]
    fn a_rank_takes_its_classes_from_the_files_that_hold_them() {
        let file = |rank| name_of(rank, 4);
        // Four ranks held 0..3, 3..6, 6..8 and 8..10.
        assert_eq!(wanted(0, 2, 4), [(file(0), 0..3), (file(1), 3..5)]);
        assert_eq!(wanted(1, 2, 4), [(file(1), 5..6), (file(2), 6..8), (file(3), 8..10)]);
        assert_eq!(wanted(1, 2, 1), [("centres.safetensors".to_owned(), 5..10)]);
        assert_eq!(wanted(11, 12, 4), [(file(0), 0..0)]);
    }
}

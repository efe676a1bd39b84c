//! Class centres in the files of `arcface_torch`, one of each rank, and in one of ours.
//!
//! Rank k keeps its classes in `softmax_fc_gpu_k.pt`, in `checkpoint_gpu_k.pt` beside other things, or,
//! before 2022, in `rank_k_softmax_weight.pt`. Of C classes on W ranks, each has C / W in their order, and
//! the first C mod W ranks one more.

// C = classes, D = numbers of a centre.

use std::{
    fs::File,
    io::BufReader,
    ops::Range,
    path::{Path, PathBuf},
};

use pfc_durable::{AtomicFile, DurableError};
use pfc_torchfile::{Dtype, StateEntry, StateFile, StateWriter, TorchFileError};
use tch::{Kind, Tensor};

use crate::{
    ModelError, bytes,
    tensors::{self, TensorFile},
    weights::kind,
};

/// Name of the matrix in a file of `arcface_torch`.
const WEIGHT: &str = "weight";

/// Where `arcface_torch` keeps them: in `softmax_fc_gpu_0.pt`, in `checkpoint_gpu_0.pt`, and, until 2021, as a
/// single tensor in `rank_0_softmax_weight.pt`.
const TORCH_KEYS: [&str; 3] = [WEIGHT, "state_dict_softmax_fc.weight", ""];
/// Name of the matrix in a safetensors file.
pub const MATRIX: &str = "centres.weight";

/// The matrix `[C, D]` of all centres in files that are read row by row.
#[derive(Debug)]
pub struct CentreFiles {
    origin: PathBuf,
    parts: Vec<Rows>,
    n_rows: u64,
    dim: usize,
}

/// What one file has.
#[derive(Debug)]
struct Rows {
    path: PathBuf,
    n_rows: u64,
    dim: usize,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Torch { file: StateFile<BufReader<File>>, index: usize, kind: Kind },
    Safetensors(TensorFile),
}

impl CentreFiles {
    /// Opens a folder that has the file of every rank, the file of a single one, or a safetensors file
    /// with `centres.weight`.
    ///
    /// # Errors
    ///
    /// [`ModelError::NotCentres`] if there are no centres, a rank's file is missing or the files do not
    /// belong together; [`ModelError::TorchFile`], [`ModelError::TensorFile`] and [`ModelError::Durable`] for
    /// files that cannot be read.
    pub fn open(path: &Path) -> Result<CentreFiles, ModelError> {
        let refuse = |reason: String| ModelError::NotCentres { path: path.to_path_buf(), reason };
        let files = if path.is_dir() { files_of_ranks(path)? } else { vec![path.to_path_buf()] };
        if files.is_empty() {
            return Err(refuse("has no softmax_fc_gpu_0.pt or checkpoint_gpu_0.pt".to_owned()));
        }
        let parts = files.iter().map(|file| Rows::open(file)).collect::<Result<Vec<_>, _>>()?;
        let (dim, n_rows) = (parts[0].dim, parts.iter().map(|part| part.n_rows).sum::<u64>());
        let world = parts.len() as u64;
        for (rank, part) in parts.iter().enumerate() {
            let name = part.path.file_name().unwrap_or_default().display();
            if part.dim != dim {
                return Err(refuse(format!("{name} has centres of {}, not {dim}", part.dim)));
            }
            let share = n_rows / world + u64::from((rank as u64) < n_rows % world);
            if part.n_rows != share {
                return Err(refuse(format!(
                    "{name} has {} centres, but {share} of {n_rows} are those of rank {rank} of \
                     {world}: is a file missing?",
                    part.n_rows
                )));
            }
        }
        Ok(CentreFiles { origin: path.to_path_buf(), parts, n_rows, dim })
    }

    /// Number of centres C.
    #[must_use]
    pub fn n_rows(&self) -> u64 {
        self.n_rows
    }

    /// Numbers of a centre D.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Some centres, row by row in f32.
    ///
    /// # Errors
    ///
    /// [`ModelError::NotCentres`] if there are no such rows, or one holds a NaN or an infinity; and as
    /// [`open`](CentreFiles::open).
    pub fn read(&mut self, rows: Range<u64>) -> Result<Vec<f32>, ModelError> {
        let refuse = |reason| ModelError::NotCentres { path: self.origin.clone(), reason };
        if rows.start > rows.end || rows.end > self.n_rows {
            return Err(refuse(format!("has no centres {rows:?}, but {}", self.n_rows)));
        }
        let mut out = Vec::with_capacity((rows.end - rows.start) as usize * self.dim);
        let mut first = 0;
        for part in &mut self.parts {
            let end = first + part.n_rows;
            let own = rows.start.max(first)..rows.end.min(end);
            if own.start < own.end {
                out.extend(part.read(own.start - first..own.end - first)?);
            }
            first = end;
        }
        if let Some(at) = out.iter().position(|value| !value.is_finite()) {
            let row = rows.start + (at / self.dim.max(1)) as u64;
            return Err(refuse(format!("holds a number of centre {row} that is not finite")));
        }
        Ok(out)
    }
}

/// The files of all ranks in a folder, in order; none if there is not even the first.
fn files_of_ranks(folder: &Path) -> Result<Vec<PathBuf>, ModelError> {
    let names: [fn(usize) -> String; 3] = [
        |rank| format!("softmax_fc_gpu_{rank}.pt"),
        |rank| format!("checkpoint_gpu_{rank}.pt"),
        |rank| format!("rank_{rank}_softmax_weight.pt"),
    ];
    let path = |name: fn(usize) -> String, rank: usize| folder.join(name(rank));
    let Some(name) = names.into_iter().find(|name| path(*name, 0).is_file()) else {
        return Ok(Vec::new());
    };
    let files: Vec<PathBuf> =
        (0..).map(|rank| path(name, rank)).take_while(|file| file.is_file()).collect();
    // One that is missing in the middle would make the others look like a smaller world.
    let (world, look_ahead) = (files.len(), 1 << 12);
    let beyond = (world..look_ahead).map(|rank| path(name, rank)).find(|file| file.is_file());
    match beyond {
        None => Ok(files),
        Some(file) => Err(ModelError::NotCentres {
            path: folder.to_path_buf(),
            reason: format!(
                "has {}, but no {}",
                file.file_name().unwrap_or_default().display(),
                name(world)
            ),
        }),
    }
}

impl Rows {
    fn open(path: &Path) -> Result<Rows, ModelError> {
        let refuse = |reason: String| ModelError::NotCentres { path: path.to_path_buf(), reason };
        let is_safetensors = path.extension().is_some_and(|ending| ending == "safetensors");
        let (source, shape) = if is_safetensors {
            let file = TensorFile::open(path)?;
            if !file.names().any(|name| name == MATRIX) {
                return Err(refuse(format!("has no tensor `{MATRIX}`")));
            }
            let shape = file.spec(MATRIX)?.shape.iter().map(|&side| side as u64).collect();
            (Source::Safetensors(file), shape)
        } else {
            let file = File::open(path).map_err(ModelError::io("open", path))?;
            let file = StateFile::parse(BufReader::new(file))
                .map_err(|source| ModelError::TorchFile { path: path.to_path_buf(), source })?;
            let found = file.tensors().iter().position(|info| TORCH_KEYS.contains(&&info.key[..]));
            let index = found.ok_or_else(|| refuse(format!("has no tensor `{WEIGHT}`")))?;
            let info = &file.tensors()[index];
            let (kind, shape) = (kind(info.dtype), info.shape.clone());
            (Source::Torch { file, index, kind }, shape)
        };
        match shape[..] {
            [n_rows, dim @ 1..=65_536] => {
                Ok(Rows { path: path.to_path_buf(), n_rows, dim: dim as usize, source })
            }
            _ => Err(refuse(format!("has centres of shape {shape:?}, not [classes, embedding]"))),
        }
    }

    /// Numbers of its own rows.
    fn read(&mut self, rows: Range<u64>) -> Result<Vec<f32>, ModelError> {
        let shape = [(rows.end - rows.start) as i64, self.dim as i64];
        let tensor = match &mut self.source {
            Source::Safetensors(file) => {
                file.read_rows(MATRIX, rows.start as i64..rows.end as i64)?
            }
            Source::Torch { file, index, kind } => {
                let mut tensor = Tensor::f_empty(shape, (*kind, tch::Device::Cpu))
                    .map_err(ModelError::torch("read centres"))?;
                bytes::with_bytes_mut(&mut tensor, |bytes| file.read_rows(*index, rows, bytes))
                    .map_err(|source| ModelError::TorchFile { path: self.path.clone(), source })?;
                tensor
            }
        };
        let tensor = tensor.to_kind(Kind::Float).contiguous();
        Ok(bytes::with_bytes(&tensor, bytemuck::pod_collect_to_vec))
    }
}

/// A file of centres that is being written.
pub struct CentreWriter {
    path: PathBuf,
    out: Out,
}

enum Out {
    Torch(Box<StateWriter<AtomicFile>>),
    Safetensors(tensors::ColumnWriter, i64),
}

impl CentreWriter {
    /// Begins `softmax_fc_gpu_k.pt` of one rank, whose `load_state_dict` takes it.
    ///
    /// # Errors
    ///
    /// [`ModelError::Durable`] and [`ModelError::TorchFile`], here and below.
    pub fn torch(path: &Path, n_rows: u64, dim: usize) -> Result<CentreWriter, ModelError> {
        let shape = vec![n_rows, dim as u64];
        let spec = StateEntry { key: WEIGHT.to_owned(), dtype: Dtype::F32, shape };
        let writer =
            StateWriter::new(AtomicFile::create(path)?, vec![spec]).map_err(failed(path))?;
        Ok(CentreWriter { path: path.to_path_buf(), out: Out::Torch(Box::new(writer)) })
    }

    /// Begins a safetensors file with `centres.weight`.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn safetensors(path: &Path, n_rows: u64, dim: usize) -> Result<CentreWriter, ModelError> {
        let shape = vec![n_rows as i64, dim as i64];
        let spec = tensors::TensorSpec { name: MATRIX.to_owned(), kind: Kind::Float, shape };
        let writer = tensors::ColumnWriter::create(path, vec![spec])?;
        Ok(CentreWriter { path: path.to_path_buf(), out: Out::Safetensors(writer, 0) })
    }

    /// Appends some rows of `dim` numbers.
    ///
    /// # Errors
    ///
    /// As above.
    ///
    /// # Panics
    ///
    /// If they are more than the file is for.
    pub fn append(&mut self, rows: &[f32], dim: usize) -> Result<(), ModelError> {
        match &mut self.out {
            Out::Torch(writer) => {
                writer.append(bytemuck::cast_slice(rows)).map_err(failed(&self.path))
            }
            Out::Safetensors(writer, first) => {
                let rows = Tensor::from_slice(rows).view([-1, dim as i64]);
                writer.put(MATRIX, *first, &rows)?;
                *first += rows.size()[0];
                Ok(())
            }
        }
    }

    /// Syncs the file and gives it its name.
    ///
    /// # Errors
    ///
    /// As above.
    ///
    /// # Panics
    ///
    /// If rows are missing.
    pub fn finish(self) -> Result<(), ModelError> {
        match self.out {
            Out::Torch(writer) => Ok(writer.finish().map_err(failed(&self.path))?.commit()?),
            Out::Safetensors(writer, _) => writer.finish().map(drop),
        }
    }
}

impl std::fmt::Debug for CentreWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CentreWriter").field("path", &self.path).finish_non_exhaustive()
    }
}

fn failed(path: &Path) -> impl Fn(TorchFileError) -> ModelError {
    let path = path.to_path_buf();
    move |error| match error {
        TorchFileError::Io(source) => DurableError::at("write", &path)(source).into(),
        source => ModelError::TorchFile { path: path.clone(), source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of three numbers, each its place in the matrix.
    fn rows(rows: Range<u64>) -> Vec<f32> {
        (rows.start * 3..rows.end * 3).map(|value| value as f32).collect()
    }

    fn write(writer: CentreWriter, from: Range<u64>) {
        let mut writer = writer;
        for row in from {
            writer.append(&rows(row..row + 1), 3).unwrap();
        }
        writer.finish().unwrap();
    }

    fn torch(folder: &Path, name: &str, from: Range<u64>) {
        let n_rows = from.end - from.start;
        write(CentreWriter::torch(&folder.join(name), n_rows, 3).unwrap(), from);
    }

    #[test]
    fn centres_of_all_ranks_are_read_in_their_order_from_files_of_each_name() {
        for name in ["softmax_fc_gpu_{}.pt", "checkpoint_gpu_{}.pt", "rank_{}_softmax_weight.pt"] {
            let folder = tempfile::tempdir().unwrap();
            // Seven classes on three ranks.
            for (rank, own) in [0..3, 3..5, 5..7].into_iter().enumerate() {
                torch(folder.path(), &name.replace("{}", &rank.to_string()), own);
            }
            let mut files = CentreFiles::open(folder.path()).unwrap();
            assert_eq!((files.n_rows(), files.dim()), (7, 3));
            for wanted in [0..7, 2..6, 4..4, 6..7] {
                assert_eq!(files.read(wanted.clone()).unwrap(), rows(wanted));
            }
            assert!(files.read(5..8).is_err());
        }
    }

    #[test]
    fn a_safetensors_file_and_one_rank_alone_are_read_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("centres.safetensors");
        write(CentreWriter::safetensors(&path, 5, 3).unwrap(), 0..5);
        assert_eq!(CentreFiles::open(&path).unwrap().read(1..4).unwrap(), rows(1..4));
        torch(folder.path(), "any.pt", 0..4);
        let mut file = CentreFiles::open(&folder.path().join("any.pt")).unwrap();
        assert_eq!(file.read(0..4).unwrap(), rows(0..4));
    }

    #[test]
    fn files_that_do_not_belong_together_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let refused = || CentreFiles::open(folder.path()).unwrap_err().to_string();
        assert!(refused().contains("has no softmax_fc_gpu_0.pt"), "{}", refused());
        torch(folder.path(), "softmax_fc_gpu_0.pt", 0..3);
        torch(folder.path(), "softmax_fc_gpu_2.pt", 5..7);
        assert!(refused().ends_with("has softmax_fc_gpu_2.pt, but no softmax_fc_gpu_1.pt"));
        torch(folder.path(), "softmax_fc_gpu_1.pt", 0..9);
        let expected = "softmax_fc_gpu_0.pt has 3 centres, but 5 of 14 are those of rank 0 of 3";
        assert!(refused().contains(expected), "{}", refused());
    }
}

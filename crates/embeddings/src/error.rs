//! Why embeddings cannot be read, computed or written.

use std::path::{Path, PathBuf};

use pfc_durable::{DurableError, FolderError, faults::is_of_system};
use pfc_image::ImageError;
use pfc_onnx::OnnxError;
use pfc_shard::ShardError;
use pfc_sources::COMPRESSED_ARROW;

/// Embeddings that cannot be had or kept.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddingError {
    /// A file that does not hold the rows that are wanted of it.
    #[error("{}: {what}", path.display())]
    Rows {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A file whose numbers cannot be used where they lie.
    #[error("{}: not a file of embeddings: {reason}", path.display())]
    InPlace {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A file that is not as it was written.
    #[error("{}: is not as it was written: its checksum is another one", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// Another process computes the same rows.
    #[error("{}: another process is at work on this file", part.display())]
    Busy {
        /// What it has so far.
        part: PathBuf,
    },
    /// An output that cannot hold what is wanted.
    #[error("{}: cannot hold the embeddings: {reason}", path.display())]
    Output {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: &'static str,
    },
    /// A folder of kept embeddings that belong to something else.
    #[error("{}: kept from another run: {reason}", path.display())]
    Cache {
        /// What describes the folder.
        path: PathBuf,
        /// What differs.
        reason: String,
    },
    /// An image that cannot be brought to the size that networks take.
    #[error("an image of the data set cannot be resized")]
    Resize(#[source] ImageError),
    /// The user stopped it.
    #[error("interrupted after {done} of {total} images")]
    Interrupted {
        /// Images done.
        done: u64,
        /// Images in all.
        total: u64,
    },
    /// A network that cannot be used.
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    /// A data set that cannot be read.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// A folder is in use or may not be written.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The operating system refused.
    #[error(transparent)]
    Durable(#[from] DurableError),
}

impl EmbeddingError {
    /// Whether the system failed, which says nothing of any file.
    pub fn is_of_system(&self) -> bool {
        match self {
            EmbeddingError::Durable(error) => is_of_system(&error.source),
            EmbeddingError::Shard(error) => error.is_of_system(),
            _ => false,
        }
    }

    pub(crate) fn rows(path: &Path, what: impl Into<String>) -> EmbeddingError {
        EmbeddingError::Rows { path: path.to_path_buf(), what: what.into() }
    }

    pub(crate) fn in_place(path: &Path, reason: impl Into<String>) -> EmbeddingError {
        EmbeddingError::InPlace { path: path.to_path_buf(), reason: reason.into() }
    }

    pub(crate) fn damaged(path: &Path) -> EmbeddingError {
        EmbeddingError::Damaged { path: path.to_path_buf() }
    }

    /// The way out, where there is one.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            EmbeddingError::Rows { what, .. } if what.contains(COMPRESSED_ARROW) => {
                "write it without compression, as `feather.write_feather(table, path, \
                 compression=\"uncompressed\")` does, or as .npy"
                    .into()
            }
            EmbeddingError::Rows { .. } => {
                "give one embedding a row, in the order of the rows, as `numpy.save(\"e.npy\", e)` \
                 of [rows, numbers] does; or a .npz, .arrow or .safetensors, in which `names` (or \
                 `source`) may say which image each is of"
                    .into()
            }
            EmbeddingError::InPlace { .. } => {
                "float32 arrays of two dimensions are read, one embedding a row, from .safetensors \
                 or .npy (in Python: numpy.save(name, x.astype('<f4')); `pfc-eval embed SET NAME.npy \
                 --labels NAME.txt` writes such a file and who its rows are)"
                    .into()
            }
            EmbeddingError::Damaged { path } => {
                format!("remove {}: what it was made of is computed again", path.display())
            }
            EmbeddingError::Busy { .. } => {
                "wait for it and run the same command again: it then finds them done".into()
            }
            EmbeddingError::Output { .. } => {
                "name a file that ends in .npy, .arrow or .safetensors; the latter two can keep \
                 mirrored embeddings beside the others"
                    .into()
            }
            EmbeddingError::Cache { path, .. } => format!(
                "name another folder, or delete `{}` if its embeddings are not needed",
                path.parent().unwrap_or(path).display()
            ),
            EmbeddingError::Interrupted { .. } => {
                "run the same command again; nothing half-written was left behind".into()
            }
            EmbeddingError::Resize(source) => return source.hint(),
            EmbeddingError::Onnx(source) => return source.hint(),
            EmbeddingError::Shard(source) => return source.hint(),
            EmbeddingError::Folder(source) => return source.hint(),
            EmbeddingError::Durable(source) => return source.hint(),
        };
        Some(hint)
    }
}

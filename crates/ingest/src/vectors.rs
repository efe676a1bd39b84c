//! Where a command takes the embeddings of a data set's rows from: a file, or a network that computes them.

use std::path::{Path, PathBuf};

use pfc_embeddings::{EmbedOptions, Embeddings, with_model};
use pfc_shard::Dataset;

use crate::IngestError;

/// The options of commands that use embeddings of all rows.
#[derive(Debug, Clone, clap::Args)]
pub struct VectorArgs {
    /// Embeddings of all rows: .npy, .npz, .arrow or .safetensors
    #[arg(long, value_name = "FILE", conflicts_with = "model")]
    embeddings: Option<PathBuf>,
    /// Network to embed with; what it gives is kept in DATASET/embeddings
    #[arg(long, value_name = "FILE.onnx")]
    model: Option<PathBuf>,
    /// Do not add the embedding of the mirror image to that of each image
    #[arg(long, requires = "model")]
    no_mirror: bool,
}

impl VectorArgs {
    /// Whether either is named.
    pub fn is_given(&self) -> bool {
        self.embeddings.is_some() || self.model.is_some()
    }

    /// The file that is named.
    pub fn file(&self) -> Option<&Path> {
        self.embeddings.as_deref()
    }

    /// Embeddings of the rows of the data set in `dir` by the network that is named, if one is, and the rows
    /// whose images it could not be given.
    ///
    /// # Errors
    ///
    /// Those of [`with_model`].
    pub fn compute(
        &self,
        dir: &Path,
        dataset: &Dataset,
        quiet: bool,
    ) -> Result<Option<(Embeddings, Vec<u64>)>, IngestError> {
        let Some(model) = &self.model else { return Ok(None) };
        let options = EmbedOptions { plain: self.no_mirror, quiet };
        Ok(Some(with_model(model, dir, dataset, options)?))
    }

    /// The options as they were given, files by their names alone.
    pub fn stated(&self) -> impl Iterator<Item = String> {
        let file = |option: &str, path: &Option<PathBuf>| {
            let name = path.as_ref()?.file_name().unwrap_or_default().to_string_lossy();
            Some(format!("--{option}={name}"))
        };
        let mirror = self.no_mirror.then(|| "--no-mirror".to_owned());
        let all = [file("embeddings", &self.embeddings), file("model", &self.model), mirror];
        all.into_iter().flatten()
    }
}

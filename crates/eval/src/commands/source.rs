//! Where embeddings come from: a model, or a file made earlier.

use std::path::PathBuf;

use pfc_embeddings::FeatureFile;
use pfc_metrics::Rows;
use pfc_model::MirroredEmbeddings;

use super::model::{ModelArgs, ModelOptions};
use crate::EvalError;

/// A model to run, or its embeddings; flatten it into a command's arguments.
#[derive(Debug, Clone, clap::Args)]
#[command(group = clap::ArgGroup::new("source").required(true).args(["model", "features"]))]
pub struct SourceArgs {
    /// The model: a checkpoint folder, .onnx, TorchScript, or a state dict as .pth or .safetensors
    #[arg(long, value_name = "MODEL")]
    model: Option<PathBuf>,
    /// Embeddings made earlier instead of a model: .safetensors with `embs` and, of the mirror
    /// images, `embs_f`; or .npy; float32, one row per face in the order of the lists
    #[arg(long, value_name = "FILE")]
    features: Option<PathBuf>,
    /// Embeddings of the mirror images, if --features does not hold them
    #[arg(long, value_name = "FILE", requires = "features")]
    mirrored: Option<PathBuf>,
    /// Keep the model's embeddings in this folder; an interrupted run resumes, and a later run with
    /// the same model needs no model pass
    #[arg(long, value_name = "FOLDER", requires = "model")]
    pub(super) cache: Option<PathBuf>,
    #[command(flatten)]
    options: ModelOptions,
}

/// Embeddings, wherever they are.
pub(super) enum Source {
    Files { features: FeatureFile, mirrored: Option<FeatureFile> },
    Memory { embeddings: MirroredEmbeddings, dim: usize },
}

impl SourceArgs {
    /// The model, if embeddings are to be made.
    pub(super) fn model(&self) -> Option<ModelArgs> {
        let model = self.model.clone()?;
        Some(ModelArgs { model, options: self.options.clone() })
    }

    /// What the figures are of, for the report.
    pub(super) fn name(&self) -> String {
        let path = self.model.as_ref().or(self.features.as_ref());
        path.map_or(String::new(), |path| path.display().to_string())
    }

    /// The files of `--features`.
    ///
    /// # Panics
    ///
    /// If there is a model instead.
    pub(super) fn files(&self) -> Result<Source, EvalError> {
        let path = self.features.as_ref().expect("clap wants a model or features");
        let features = FeatureFile::open(path)?;
        let mirrored = self.mirrored.as_deref().map(FeatureFile::open).transpose()?;
        Ok(Source::Files { features, mirrored })
    }
}

impl Source {
    /// Embeddings of the images and, where there are any, of their mirror images.
    pub(super) fn rows(&self) -> Result<(Rows<'_>, Option<Rows<'_>>), EvalError> {
        match self {
            Source::Memory { embeddings, dim } => {
                let rows = |values| Rows::new(values, *dim);
                Ok((rows(&embeddings.original)?, Some(rows(&embeddings.mirrored)?)))
            }
            Source::Files { features, mirrored } => {
                let original = features.rows(&["embs", "embeddings", "features"])?;
                features.note_zeros(original);
                let mirrored = match mirrored {
                    Some(file) => Some(file.rows(&["embs_f", "embs", "embeddings", "features"])?),
                    None => features.optional_rows("embs_f")?,
                };
                Ok((original, mirrored))
            }
        }
    }
}

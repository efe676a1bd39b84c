//! Why a file is not read as a state dict.

use std::io;

use pfc_pickle::PickleError;

/// A state dict that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TorchFileError {
    /// The operating system refused.
    #[error("cannot read or write")]
    Io(#[from] io::Error),
    /// Neither a zip archive nor a pickle of PyTorch.
    #[error("not a file of torch.save: {reason}")]
    NotATorchFile {
        /// What is wrong with it.
        reason: String,
    },
    /// A pickle with something that has no place in a state dict.
    #[error("its pickle `{name}` is refused")]
    Pickle {
        /// Which pickle of the file.
        name: &'static str,
        /// Where and why.
        #[source]
        source: PickleError,
    },
    /// A TorchScript program where weights are wanted.
    #[error("a TorchScript program, not a state dict")]
    TorchScript,
    /// Sound, but without a dictionary of tensors.
    #[error("it holds no state dict: {reason}")]
    NoStateDict {
        /// What it holds.
        reason: String,
    },
    /// A tensor that does not fit its storage.
    #[error("tensor `{key}`: {reason}")]
    Tensor {
        /// Its name.
        key: String,
        /// What does not fit.
        reason: String,
    },
}

impl TorchFileError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            TorchFileError::NotATorchFile { .. } => Some(
                "it was cut short, or another program wrote it: compare its size with the original"
                    .to_owned(),
            ),
            TorchFileError::Pickle { .. } => Some(
                "only weights are read, never code: save them in Python with \
                 `torch.save(model.state_dict(), path)`"
                    .to_owned(),
            ),
            TorchFileError::TorchScript => Some(
                "`pfc-eval … --model FILE --trust-code` runs a TorchScript program as it is, if you \
                 trust whoever made it; weights alone are in the file that \
                 `torch.save(model.state_dict(), path)` writes"
                    .to_owned(),
            ),
            TorchFileError::NoStateDict { .. } => Some(
                "save the backbone alone: `torch.save(backbone.state_dict(), path)`".to_owned(),
            ),
            TorchFileError::Io(_) | TorchFileError::Tensor { .. } => None,
        }
    }

    pub(crate) fn not_a_file(reason: impl Into<String>) -> TorchFileError {
        TorchFileError::NotATorchFile { reason: reason.into() }
    }
}

//! Vectors in and out: embeddings as files of other programs have them, embeddings of a data set
//! by row, embeddings that a network computes and that are kept.
//!
//! [`Embeddings`] are those of the rows of a data set and stay on disk; [`FeatureFile`] is an array
//! that is used where it lies; [`with_model`] computes those of a data set; [`cache`] keeps those
//! of any images part by part; [`sink`] and [`mod@write`] write them. Whatever a file holds, it is rows
//! of numbers or an [`EmbeddingError`].

mod arrow;
mod by_row;
pub mod cache;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod in_place;
pub mod kept;
mod layout;
mod model;
mod npy;
mod npz;
pub mod part;
mod safetensors_file;
pub mod sink;
pub mod write;

pub use by_row::{Embeddings, Opened, write_rows};
pub use error::EmbeddingError;
pub use in_place::FeatureFile;
pub use layout::DIM_MAX;
pub use model::{DIR, EmbedOptions, face_sized, is_kept_name, with_model};

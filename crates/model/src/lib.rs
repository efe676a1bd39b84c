//! Backbones, checkpoints and the embedder.
//!
//! A [`Backbone`] turns aligned 112×112 faces into embeddings. Parameter names, shapes and orders
//! are InsightFace's, so that weights move between the two without renaming. A [`checkpoint`] keeps
//! one on disk, [`weights`] come from the files of other programs, [`export`] writes such files, and
//! an [`Embedder`] runs any of them over images, whatever it was made from.

pub mod allocator;
pub mod bytes;
pub mod centres;
pub mod checkpoint;
pub mod compiled;
pub mod elements;
pub mod export;
pub mod libtorch;
pub mod tensors;
pub mod weights;

mod activation_checkpointing;
mod backbone;
mod batch_norm;
mod conv;
mod device;
mod embed;
mod embedder;
mod error;
mod graph;
mod inference;
mod init;
mod iresnet;
mod layers;
mod mobilefacenet;
mod net;
mod normed;
mod precision;
mod recognise;
mod script;
mod spec;
mod state;
#[cfg(test)]
mod testing;
mod vit;

pub use activation_checkpointing::CheckpointedForward;
pub use backbone::Backbone;
pub use device::{all_memory, free_memory, memory_in_use};
pub use embed::{Embed, MirroredEmbeddings};
pub use embedder::{Embedder, EmbedderOptions};
pub use error::ModelError;
pub use inference::Inference;
pub use pfc_onnx::{Account, ChannelOrder, InputOptions, InputSpec, OnnxError, Provider};
pub use pfc_rows::vectors;
pub use precision::{Bf16, Choice, Emulated, Precision, Work, slowdown};
pub use spec::{Architecture, BackboneSpec, EMBEDDING_MAX, IMAGE_SIZE, Network};
pub use state::check_finite;

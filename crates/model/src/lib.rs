//! Backbones, checkpoints and the embedder.
//!
//! A [`Backbone`] turns aligned 112×112 faces into embeddings. Parameter names, shapes and orders
//! are InsightFace's, so that weights move between the two without renaming. A [`checkpoint`] keeps
//! one on disk, an [`Embedder`] runs one over images.

pub mod bytes;
pub mod checkpoint;
pub mod tensors;

mod allocator;
mod backbone;
mod conv;
mod embedder;
mod error;
mod init;
mod iresnet;
mod layers;
mod mobilefacenet;
mod spec;
mod state;
#[cfg(test)]
mod testing;
mod vit;

pub use backbone::Backbone;
pub use embedder::{Embed, Embedder, MirroredEmbeddings};
pub use error::ModelError;
pub use spec::{Architecture, BackboneSpec, EMBEDDING_MAX, IMAGE_SIZE, Network, Precision};

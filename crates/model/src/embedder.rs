//! Images in, embeddings out.

// N = images, E = embedding.

use std::path::Path;

use tch::{Device, Kind, Tensor};

use crate::{Backbone, IMAGE_SIZE, ModelError, Precision, checkpoint};

/// Bytes of one RGB image.
const IMAGE_BYTES: usize = (IMAGE_SIZE * IMAGE_SIZE * 3) as usize;

/// Images per pass: beyond this a CPU gains nothing, and r200 keeps below 1 GB.
const BATCH: usize = 64;

/// Anything that turns aligned faces into embeddings.
pub trait Embed {
    /// Numbers in an embedding, E.
    fn embedding(&self) -> usize;

    /// Embeddings of `n` images, `[n, E]` row by row, not normalised.
    ///
    /// `rgb` holds `n` images of 112×112×3 bytes: rows from the top, pixels from the left, red first.
    ///
    /// # Errors
    ///
    /// [`ModelError::Pixels`] if `rgb` has another size, [`ModelError::Torch`] if libtorch fails.
    fn embed(&self, rgb: &[u8], n: usize) -> Result<Vec<f32>, ModelError>;

    /// As [`embed`](Embed::embed), of the images and of their mirror images.
    ///
    /// # Errors
    ///
    /// As [`embed`](Embed::embed).
    fn embed_with_mirror(&self, rgb: &[u8], n: usize) -> Result<MirroredEmbeddings, ModelError>;
}

/// Embeddings of images and of the same images mirrored left to right, `[n, E]` each.
#[derive(Debug, Clone, PartialEq)]
pub struct MirroredEmbeddings {
    /// As they are.
    pub original: Vec<f32>,
    /// Mirrored.
    pub mirrored: Vec<f32>,
}

/// A model in use.
#[derive(Debug)]
pub struct Embedder {
    backbone: Backbone,
}

impl Embedder {
    /// The model of a checkpoint folder.
    ///
    /// # Errors
    ///
    /// As [`checkpoint::open_backbone`].
    pub fn open(path: &Path, device: Device) -> Result<Embedder, ModelError> {
        Ok(Embedder { backbone: checkpoint::open_backbone(path, device)? })
    }

    /// What the large layers compute in; f32 unless set.
    pub fn set_precision(&mut self, precision: Precision) {
        self.backbone.set_precision(precision);
    }
}

impl From<Backbone> for Embedder {
    fn from(backbone: Backbone) -> Embedder {
        Embedder { backbone }
    }
}

impl Embed for Embedder {
    fn embedding(&self) -> usize {
        Embed::embedding(&self.backbone)
    }

    fn embed(&self, rgb: &[u8], n: usize) -> Result<Vec<f32>, ModelError> {
        self.backbone.embed(rgb, n)
    }

    fn embed_with_mirror(&self, rgb: &[u8], n: usize) -> Result<MirroredEmbeddings, ModelError> {
        self.backbone.embed_with_mirror(rgb, n)
    }
}

/// In evaluation mode, whatever the network is used for otherwise.
impl Embed for Backbone {
    fn embedding(&self) -> usize {
        Backbone::embedding(self) as usize
    }

    fn embed(&self, rgb: &[u8], n: usize) -> Result<Vec<f32>, ModelError> {
        let mut out = Vec::with_capacity(n * Embed::embedding(self));
        for batch in batches(rgb, n)? {
            let images = self.images(batch)?;
            out.extend(rows(&tch::no_grad(|| self.forward(&images, false)))?);
        }
        Ok(out)
    }

    fn embed_with_mirror(&self, rgb: &[u8], n: usize) -> Result<MirroredEmbeddings, ModelError> {
        let (mut original, mut mirrored) = (Vec::new(), Vec::new());
        for batch in batches(rgb, n)? {
            let images = self.images(batch)?;
            let flipped = images.f_flip([3]).map_err(ModelError::torch("mirror images"))?;
            original.extend(rows(&tch::no_grad(|| self.forward(&images, false)))?);
            mirrored.extend(rows(&tch::no_grad(|| self.forward(&flipped, false)))?);
        }
        Ok(MirroredEmbeddings { original, mirrored })
    }
}

impl Backbone {
    /// Pixels as the network takes them.
    fn images(&self, rgb: &[u8]) -> Result<Tensor, ModelError> {
        let n = (rgb.len() / IMAGE_BYTES) as i64;
        let failed = || ModelError::torch("prepare images");
        let pixels = Tensor::f_from_slice(rgb).map_err(failed())?;
        let pixels = pixels.f_to_device(self.device()).map_err(failed())?;
        let pixels = pixels.f_to_kind(Kind::Float).map_err(failed())?;
        let images = ((pixels - 127.5) / 127.5).view([n, IMAGE_SIZE, IMAGE_SIZE, 3]);
        Ok(images.permute([0, 3, 1, 2]))
    }
}

fn batches(rgb: &[u8], n: usize) -> Result<std::slice::Chunks<'_, u8>, ModelError> {
    let expected = n.saturating_mul(IMAGE_BYTES);
    if rgb.len() != expected {
        return Err(ModelError::Pixels { n, found: rgb.len(), expected });
    }
    Ok(rgb.chunks(BATCH * IMAGE_BYTES))
}

fn rows(embeddings: &Tensor) -> Result<Vec<f32>, ModelError> {
    let flat = embeddings.f_to_kind(Kind::Float).and_then(|rows| rows.f_reshape(-1));
    flat.and_then(|flat| Vec::try_from(&flat)).map_err(ModelError::torch("copy embeddings"))
}

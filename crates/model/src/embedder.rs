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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Architecture;

    fn embedder() -> Embedder {
        tch::set_num_threads(1);
        let architecture = Architecture::IResNet { layers: [1; 4], widths: [8, 8, 8, 8] };
        Backbone::with_architecture(architecture, 12, Device::Cpu, 1).unwrap().into()
    }

    fn faces(n: usize) -> Vec<u8> {
        (0..n * IMAGE_BYTES).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
    }

    fn mirrored(rgb: &[u8]) -> Vec<u8> {
        let row = IMAGE_SIZE as usize * 3;
        rgb.chunks(row).flat_map(|row| row.rchunks(3).flatten().copied()).collect()
    }

    fn close(a: &[f32], b: &[f32]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5)
    }

    #[test]
    fn pixels_reach_the_network_normalised_and_in_planes() {
        let mut rgb = vec![0; IMAGE_BYTES];
        // Row 2, column 5: red 255, green 128, blue 0.
        let at = (2 * 112 + 5) * 3;
        (rgb[at], rgb[at + 1]) = (255, 128);
        let images = embedder().backbone.images(&rgb).unwrap();
        assert_eq!(images.size(), [1, 3, 112, 112]);
        let pixel = |channel| images.double_value(&[0, channel, 2, 5]);
        assert_eq!(pixel(0), 1.0);
        assert!((pixel(1) - 0.5 / 127.5).abs() < 1e-7);
        assert_eq!(pixel(2), -1.0);
        assert_eq!(images.double_value(&[0, 0, 5, 2]), -1.0);
    }

    #[test]
    fn mirrored_embeddings_are_those_of_the_mirrored_image() {
        let (embedder, rgb) = (embedder(), faces(2));
        let both = embedder.embed_with_mirror(&rgb, 2).unwrap();
        assert!(close(&both.original, &embedder.embed(&rgb, 2).unwrap()));
        assert!(close(&both.mirrored, &embedder.embed(&mirrored(&rgb), 2).unwrap()));
        assert!(!close(&both.mirrored, &both.original));
    }

    #[test]
    fn embeddings_come_row_by_row_over_batches() {
        let (embedder, n) = (embedder(), BATCH + 1);
        let rgb = faces(n);
        let all = embedder.embed(&rgb, n).unwrap();
        assert_eq!(all.len(), n * embedder.embedding());
        let last = embedder.embed(&rgb[BATCH * IMAGE_BYTES..], 1).unwrap();
        assert!(close(&all[BATCH * 12..], &last));
        assert!(embedder.embed(&[], 0).unwrap().is_empty());
    }

    #[test]
    fn pixels_that_are_not_n_images_are_refused() {
        let error = embedder().embed(&faces(1)[1..], 1).unwrap_err();
        assert_eq!(error.to_string(), "37631 bytes of pixels for 1 images, which take 37632");
        assert!(embedder().embed_with_mirror(&faces(1), usize::MAX).is_err());
    }
}

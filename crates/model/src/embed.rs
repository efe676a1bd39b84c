//! Images in, embeddings out: the one thing every model does.

// N = images, E = embedding.

use std::sync::OnceLock;

use pfc_onnx::{ChannelOrder, FACE_BYTES};
use tch::{Device, Kind, Tensor};

use crate::{Backbone, IMAGE_SIZE, InputSpec, ModelError, all_memory, libtorch::guarded};

/// Images per pass on a CPU, which gains nothing beyond; r200 keeps below 1 GB.
const BATCH_ON_CPU: usize = 64;
/// Memory of a card that an image takes in the largest network: 256 keep below 4 GB in r200.
const IMAGE_BYTES: u64 = 16 << 20;

/// Images per pass.
pub(crate) fn batch_size(device: Device) -> usize {
    /// Of one machine; cards of others beyond these are asked each time.
    static CARDS: [OnceLock<usize>; 16] = [const { OnceLock::new() }; 16];
    let ask = || batch_on_card(all_memory(device));
    match device {
        Device::Cpu => BATCH_ON_CPU,
        Device::Cuda(index) => CARDS.get(index).map_or_else(ask, |card| *card.get_or_init(ask)),
        _ => ask(),
    }
}

/// Images per pass that fill a card of `all_bytes` of memory: the power of two from 64 to 1,024 of which the
/// largest network takes a sixteenth of it at most; 256 where it does not tell. Of the card alone, so that
/// nothing depends on what else is there.
fn batch_on_card(all_bytes: Option<u64>) -> usize {
    let Some(all_bytes) = all_bytes else { return 256 };
    let n_images = (all_bytes / 16 / IMAGE_BYTES).max(1);
    (1usize << n_images.ilog2()).clamp(BATCH_ON_CPU, 1024)
}

/// Anything that turns aligned faces into embeddings.
pub trait Embed {
    /// Numbers in an embedding, E.
    fn embedding(&self) -> usize;

    /// Images that are embedded in one pass: with more at a time nothing is gained.
    fn batch_size(&self) -> usize {
        batch_size(Device::Cpu)
    }

    /// Embeddings of `n` images, `[n, E]` row by row, not normalised.
    ///
    /// `rgb` holds `n` images of 112×112×3 bytes: rows from the top, pixels from the left, red first.
    ///
    /// # Errors
    ///
    /// [`ModelError::Pixels`] if `rgb` has another size, [`ModelError::EmbeddingNotFinite`] for NaN or
    /// infinity, [`ModelError::Memory`], [`ModelError::Torch`], [`ModelError::Script`] or
    /// [`ModelError::Onnx`] if the network fails.
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

/// In evaluation mode, whatever the network is used for otherwise.
impl Embed for Backbone {
    fn embedding(&self) -> usize {
        Backbone::embedding(self) as usize
    }

    fn batch_size(&self) -> usize {
        batch_size(self.device())
    }

    fn embed(&self, rgb: &[u8], n: usize) -> Result<Vec<f32>, ModelError> {
        embed(rgb, n, &InputSpec::insightface(), self.device(), |images| {
            Ok(tch::no_grad(|| self.forward(images, false)))
        })
    }

    fn embed_with_mirror(&self, rgb: &[u8], n: usize) -> Result<MirroredEmbeddings, ModelError> {
        embed_with_mirror(rgb, n, &InputSpec::insightface(), self.device(), |images| {
            Ok(tch::no_grad(|| self.forward(images, false)))
        })
    }
}

/// Runs `forward` over batches of normalised images.
pub(crate) fn embed(
    rgb: &[u8],
    n: usize,
    input: &InputSpec,
    device: Device,
    forward: impl Fn(&Tensor) -> Result<Tensor, ModelError>,
) -> Result<Vec<f32>, ModelError> {
    guarded("embed images", || {
        let mut out = Vec::new();
        let size = batch_size(device);
        for (i, batch) in batches(rgb, n, size)?.enumerate() {
            out.extend(rows(&forward(&images(batch, input, device)?)?, i * size)?);
        }
        Ok(out)
    })
}

/// As [`embed`], of mirror images too.
pub(crate) fn embed_with_mirror(
    rgb: &[u8],
    n: usize,
    input: &InputSpec,
    device: Device,
    forward: impl Fn(&Tensor) -> Result<Tensor, ModelError>,
) -> Result<MirroredEmbeddings, ModelError> {
    guarded("embed images", || {
        let (mut original, mut mirrored) = (Vec::new(), Vec::new());
        let size = batch_size(device);
        for (i, batch) in batches(rgb, n, size)?.enumerate() {
            let images = images(batch, input, device)?;
            let flipped = images.f_flip([3]).map_err(ModelError::torch("mirror images"))?;
            original.extend(rows(&forward(&images)?, i * size)?);
            mirrored.extend(rows(&forward(&flipped)?, i * size)?);
        }
        Ok(MirroredEmbeddings { original, mirrored })
    })
}

/// Pixels as a network takes them: `[N, 3, H, W]`, normalised, on its device.
pub(crate) fn images(rgb: &[u8], input: &InputSpec, device: Device) -> Result<Tensor, ModelError> {
    let n = (rgb.len() / FACE_BYTES) as i64;
    let failed = || ModelError::torch("prepare images");
    if (input.height, input.width) != (IMAGE_SIZE as usize, IMAGE_SIZE as usize) {
        let mut values = vec![0.0; n as usize * input.n_values()];
        let faces = rgb.chunks_exact(FACE_BYTES).zip(values.chunks_exact_mut(input.n_values()));
        faces.for_each(|(face, out)| input.write(face, out));
        let images = Tensor::f_from_slice(&values).map_err(failed())?;
        let images = images.f_to_device(device).map_err(failed())?;
        return Ok(images.view([n, 3, input.height as i64, input.width as i64]));
    }
    let pixels = Tensor::f_from_slice(rgb).map_err(failed())?;
    let pixels = pixels.f_to_device(device).map_err(failed())?;
    let mut pixels_nhwc = pixels.view([n, IMAGE_SIZE, IMAGE_SIZE, 3]);
    if input.channels == ChannelOrder::Bgr {
        pixels_nhwc = pixels_nhwc.f_flip([3]).map_err(failed())?;
    }
    let pixels_nhwc = pixels_nhwc.f_to_kind(Kind::Float).map_err(failed())?;
    let per_channel = |values: &[f32; 3]| Tensor::from_slice(values).to_device(device);
    let images_nhwc = (pixels_nhwc - per_channel(&input.mean)) / per_channel(&input.std);
    Ok(images_nhwc.permute([0, 3, 1, 2]))
}

fn batches(rgb: &[u8], n: usize, size: usize) -> Result<std::slice::Chunks<'_, u8>, ModelError> {
    let expected = n.saturating_mul(FACE_BYTES);
    if rgb.len() != expected {
        return Err(ModelError::Pixels { n, found: rgb.len(), expected });
    }
    Ok(rgb.chunks(size * FACE_BYTES))
}

/// The embeddings `[N, E]` of a batch as numbers, all of them finite.
///
/// * `first`: number of the first image, for errors
fn rows(embeddings: &Tensor, first: usize) -> Result<Vec<f32>, ModelError> {
    let flat = embeddings.f_to_kind(Kind::Float).and_then(|rows| rows.f_reshape(-1));
    let flat = flat.and_then(|flat| Vec::try_from(&flat));
    let flat: Vec<f32> = flat.map_err(ModelError::torch("copy embeddings"))?;
    let embedding = embeddings.size().last().map_or(1, |&size| size.max(1) as usize);
    // Every figure made from a NaN or an infinity would be wrong without a word.
    match flat.iter().position(|value| !value.is_finite()) {
        None => Ok(flat),
        Some(at) => Err(ModelError::EmbeddingNotFinite {
            model: "the network".to_owned(),
            image: first + at / embedding,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Architecture;

    fn backbone() -> Backbone {
        tch::set_num_threads(1);
        let architecture = Architecture::IResNet { layers: [1; 4], widths: [8, 8, 8, 8] };
        Backbone::with_architecture(architecture, 12, Device::Cpu, 1).unwrap()
    }

    fn faces(n: usize) -> Vec<u8> {
        (0..n * FACE_BYTES).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
    }

    fn close(a: &[f32], b: &[f32]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5)
    }

    #[test]
    fn pixels_reach_the_network_normalised_and_in_planes() {
        let mut rgb = vec![0; FACE_BYTES];
        // Row 2, column 5: red 255, green 128, blue 0.
        let at = (2 * 112 + 5) * 3;
        (rgb[at], rgb[at + 1]) = (255, 128);
        let spec = InputSpec::insightface();
        let found = images(&rgb, &spec, Device::Cpu).unwrap();
        assert_eq!(found.size(), [1, 3, 112, 112]);
        let pixel = |channel| found.double_value(&[0, channel, 2, 5]);
        assert_eq!(pixel(0), 1.0);
        assert!((pixel(1) - 0.5 / 127.5).abs() < 1e-7);
        assert_eq!(pixel(2), -1.0);
        assert_eq!(found.double_value(&[0, 0, 5, 2]), -1.0);
        let bgr = InputSpec { channels: ChannelOrder::Bgr, ..spec };
        let bgr = images(&rgb, &bgr, Device::Cpu).unwrap();
        assert_eq!(bgr, found.flip([1]));
    }

    #[test]
    fn a_pass_fills_a_card_by_its_memory() {
        let gib = |n: u64| Some(n << 30);
        // A sixteenth of 141 GiB holds 564 images of 16 MiB, of 80 GiB 320, of 24 GiB 96.
        let all = [gib(141), gib(80), gib(24), gib(8), gib(1000), Some(0), None].map(batch_on_card);
        assert_eq!(all, [512, 256, 64, 64, 1024, 64, 256]);
        assert_eq!(batch_size(Device::Cpu), 64);
    }

    #[test]
    fn mirrored_embeddings_are_those_of_the_mirrored_image() {
        let (backbone, rgb) = (backbone(), faces(2));
        let both = backbone.embed_with_mirror(&rgb, 2).unwrap();
        let mirrored: Vec<u8> = rgb.chunks(FACE_BYTES).flat_map(pfc_onnx::mirrored).collect();
        assert!(close(&both.original, &backbone.embed(&rgb, 2).unwrap()));
        assert!(close(&both.mirrored, &backbone.embed(&mirrored, 2).unwrap()));
        assert!(!close(&both.mirrored, &both.original));
    }

    #[test]
    fn embeddings_come_row_by_row_over_batches() {
        let backbone = backbone();
        let size = Embed::batch_size(&backbone);
        let n = size + 1;
        let rgb = faces(n);
        let all = backbone.embed(&rgb, n).unwrap();
        assert_eq!(all.len(), n * Embed::embedding(&backbone));
        let last = backbone.embed(&rgb[size * FACE_BYTES..], 1).unwrap();
        assert!(close(&all[size * 12..], &last));
        assert!(backbone.embed(&[], 0).unwrap().is_empty());
    }

    #[test]
    fn pixels_that_are_not_n_images_are_refused() {
        let error = backbone().embed(&faces(1)[1..], 1).unwrap_err();
        assert_eq!(error.to_string(), "37631 bytes of pixels for 1 images, which take 37632");
        assert!(backbone().embed_with_mirror(&faces(1), usize::MAX).is_err());
    }
}

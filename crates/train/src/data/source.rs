//! What is trained on: a packed data set, or faces made up on the spot.

use std::sync::Arc;

use pfc_findings::{Reading, View};
use pfc_image::{ImageSize, decode_rgb, mirror_rgb, normalise};
use pfc_model::checkpoint::DataIdentity;
use pfc_shard::{MANIFEST_FILE, QualityTable, ShardError, hash::content_hash, mix};

use super::draw::Draw;
use crate::{
    TrainError,
    config::{DataConfig, Synthetic},
    error::LoadError,
};

impl Synthetic {
    /// Who is on an image: people take turns.
    fn label(&self, row: u64) -> u32 {
        (row % u64::from(self.identities)) as u32
    }

    /// Noise over a colour that is the person's, so that there is something to learn. A function of the
    /// row; it takes a fraction of the time that decoding does.
    fn draw(&self, row: u64, rgb: &mut [u8]) {
        let colour = mix(u64::from(self.label(row)) ^ 0x5EED_FACE).to_le_bytes();
        let mut state = mix(row);
        for (i, bytes) in rgb.chunks_mut(8).enumerate() {
            state = mix(state.wrapping_add(i as u64));
            let noise = state.to_le_bytes();
            for (j, value) in bytes.iter_mut().enumerate() {
                // Three quarters noise, one quarter the colour of the channel.
                *value = noise[j] / 4 * 3 + colour[(i * 8 + j) % 3] / 4;
            }
        }
    }
}

/// Labelled images by row.
#[derive(Debug, Clone)]
pub enum Source {
    /// A data set that `pfc-ingest pack` wrote, as decisions leave it unless told otherwise.
    Packed(Arc<View>),
    /// The same, of which images are drawn by weights.
    Weighted(Arc<Weighted>),
    /// Made up as they are asked for.
    Synthetic(Synthetic),
}

/// A data set, and how often its images are drawn.
#[derive(Debug)]
pub struct Weighted {
    view: View,
    draw: Draw,
    /// What the weights are, with their checksum.
    weights: String,
}

impl Weighted {
    /// Weighs the images by a measure of `pfc-ingest quality`.
    ///
    /// # Errors
    ///
    /// [`TrainError::Shard`] if the data set has no such measure, [`TrainError::Weights`] if it cannot be drawn
    /// by.
    fn open(view: View, config: &DataConfig, column: &str) -> Result<Weighted, TrainError> {
        let dir = config.path.clone();
        let missing = || ShardError::NotMeasured { dir };
        let table = QualityTable::open(&config.path)?.ok_or_else(missing)?;
        let values = table.column(column)?;
        let of_place =
            |place: u64| values.get(view.row(place) as usize).copied().unwrap_or(f32::NAN);
        let draw = Draw::new((0..view.len()).map(of_place).collect());
        let key = config.weights.clone();
        let draw = draw.map_err(|source| TrainError::Weights { key: key.clone(), source })?;
        Ok(Weighted { view, draw, weights: format!("{key} {}", table.checksum()) })
    }
}

impl From<Arc<View>> for Source {
    fn from(dataset: Arc<View>) -> Source {
        Source::Packed(dataset)
    }
}

impl Source {
    /// What the section `[data]` names.
    ///
    /// # Errors
    ///
    /// [`TrainError::Shard`], [`TrainError::ImageSize`] for images of another size than networks take, and
    /// [`TrainError::Weights`].
    pub fn open(config: &DataConfig) -> Result<Source, TrainError> {
        if let Some(synthetic) = config.synthetic {
            return Ok(Source::Synthetic(synthetic));
        }
        let path = config.path.clone();
        let dataset = View::open(&path, Reading::from_switch(config.as_packed))?;
        let (found, expected) = (dataset.manifest().image_size, ImageSize::FACE);
        if found != expected {
            return Err(TrainError::ImageSize { path, found, expected });
        }
        Ok(match config.quality_column() {
            None => Source::Packed(Arc::new(dataset)),
            Some(column) => Source::Weighted(Arc::new(Weighted::open(dataset, config, column)?)),
        })
    }

    /// Number of images.
    #[allow(clippy::len_without_is_empty)] // No source is trained on that is.
    pub fn len(&self) -> u64 {
        match self {
            Source::Packed(dataset) => dataset.len(),
            Source::Weighted(weighted) => weighted.view.len(),
            Source::Synthetic(synthetic) => synthetic.images,
        }
    }

    /// Number of people, which is classes.
    pub fn n_identities(&self) -> u32 {
        match self {
            Source::Packed(dataset) => dataset.n_identities(),
            Source::Weighted(weighted) => weighted.view.n_identities(),
            Source::Synthetic(synthetic) => synthetic.identities,
        }
    }

    /// The data set, if the images are not made up.
    pub fn dataset(&self) -> Option<&View> {
        match self {
            Source::Packed(dataset) => Some(dataset),
            Source::Weighted(weighted) => Some(&weighted.view),
            Source::Synthetic(_) => None,
        }
    }

    /// The row that is shown where the plan of an epoch has `row`: the same one, or what the weights draw.
    pub fn drawn(&self, row: u64, seed: u64, epoch: u64) -> u64 {
        match self {
            Source::Weighted(weighted) => weighted.draw.row(row, seed, epoch),
            Source::Packed(_) | Source::Synthetic(_) => row,
        }
    }

    /// What tells it from other data.
    ///
    /// # Errors
    ///
    /// [`TrainError::Durable`] if the data set's manifest cannot be read.
    pub fn identity(&self, config: &DataConfig) -> Result<DataIdentity, TrainError> {
        let checksum = match self {
            Source::Packed(_) | Source::Weighted(_) => {
                let manifest = config.path.join(MANIFEST_FILE);
                let bytes = std::fs::read(&manifest).map_err(TrainError::io("read", &manifest))?;
                format!("{:032x}", content_hash(&bytes))
            }
            Source::Synthetic(_) => "synthetic".to_owned(),
        };
        let weights = match self {
            Source::Weighted(weighted) => Some(weighted.weights.clone()),
            Source::Packed(_) | Source::Synthetic(_) => None,
        };
        let (n_images, n_identities) = (self.len(), self.n_identities().into());
        let decisions = self.dataset().and_then(View::decisions).map(|sum| sum.to_string());
        Ok(DataIdentity { n_images, n_identities, checksum, decisions, weights })
    }

    /// Puts an image, normalised and mirrored if asked, into `out`, and gives its label.
    ///
    /// * `rgb`: room for the decoded image, 112·112·3 bytes
    /// * `out`: `[112, 112, 3]`
    ///
    /// # Errors
    ///
    /// [`LoadError::Row`] and [`LoadError::Image`].
    pub fn load(
        &self,
        row: u64,
        mirror: bool,
        rgb: &mut [u8],
        out: &mut [f32],
    ) -> Result<i64, LoadError> {
        let label = self.decode(row, rgb)?;
        normalise(rgb, ImageSize::FACE.width.into(), mirror, out);
        Ok(label)
    }

    /// Puts an image as bytes, mirrored if asked, into `out`, and gives its label.
    ///
    /// * `out`: `[112, 112, 3]`
    ///
    /// # Errors
    ///
    /// As [`load`](Source::load).
    pub fn load_bytes(&self, row: u64, mirror: bool, out: &mut [u8]) -> Result<i64, LoadError> {
        let label = self.decode(row, out)?;
        if mirror {
            mirror_rgb(out, ImageSize::FACE.width.into());
        }
        Ok(label)
    }

    /// Decodes an image, and gives its label.
    fn decode(&self, row: u64, rgb: &mut [u8]) -> Result<i64, LoadError> {
        let label = match self {
            Source::Packed(dataset) => decode(dataset, row, rgb)?,
            Source::Weighted(weighted) => decode(&weighted.view, row, rgb)?,
            Source::Synthetic(synthetic) => {
                synthetic.draw(row, rgb);
                synthetic.label(row)
            }
        };
        Ok(label.into())
    }
}

/// Decodes the image at `place` of a data set, and gives its label.
fn decode(dataset: &View, place: u64, rgb: &mut [u8]) -> Result<u32, LoadError> {
    let face = dataset.get(place).map_err(|source| LoadError::Row { row: place, source })?;
    let row = dataset.row(place);
    let of_image = |source| LoadError::Image { row, face: face.source.to_owned(), source };
    decode_rgb(face.image, ImageSize::FACE, rgb).map_err(of_image)?;
    Ok(face.label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_faces_are_a_function_of_their_row_and_have_every_label() {
        let synthetic = Synthetic { identities: 5, images: 12 };
        let source = Source::Synthetic(synthetic);
        let load = |row| {
            let (mut rgb, mut out) = (vec![0; 112 * 112 * 3], vec![0.0; 112 * 112 * 3]);
            let label = source.load(row, false, &mut rgb, &mut out).unwrap();
            (label, out)
        };
        let labels: Vec<i64> = (0..12).map(|row| load(row).0).collect();
        assert_eq!(labels, [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]);
        assert!(load(3) == load(3));
        assert!(load(3).1 != load(8).1, "two images of one person are the same");
        assert!(load(7).1.iter().all(|value| (-1.0..=1.0).contains(value)));
    }

    #[test]
    fn a_set_without_people_or_with_people_without_an_image_is_refused() {
        let validate = |identities, images| Synthetic { identities, images }.validate();
        assert!(validate(2, 2).is_ok());
        assert!(validate(1, 9).unwrap_err().to_string().contains("2 or more"));
        assert!(
            validate(5, 4).unwrap_err().to_string().contains("from data.synthetic.identities, 5")
        );
    }
}

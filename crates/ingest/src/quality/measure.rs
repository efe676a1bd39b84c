//! The measures of a face.

use std::ops::Range;

use pfc_clean::files::detail;
use pfc_detect::Finder;
use pfc_embeddings::{Embeddings, face_sized};
use pfc_image::{Pixels, align, exposure, measure};
use pfc_onnx::OnnxModel;
use pfc_shard::{Dataset, DetectionRow, Detections, NOT_DETECTED};
use rayon::prelude::*;

use crate::IngestError;

/// Measures of the pixels of the crop.
const OF_PIXELS: [&str; 6] = ["sharpness", "brightness", "contrast", "dark", "bright", "detail"];
/// Measures of where the face was found in its photograph.
const OF_DETECTION: [&str; 6] = ["score", "size", "eyes", "yaw", "pitch", "roll"];
/// The column that is NaN of an image that cannot be decoded, and of no other.
pub const UNDECODABLE: &str = "dark";

/// What faces are measured with.
pub struct Recipe<'a> {
    pub dataset: &'a Dataset,
    /// Where a detector found the faces when they were packed.
    pub found: Option<Detections>,
    /// Finds landmarks in the crops of which that is not known.
    pub finder: Option<Finder>,
    pub embeddings: Option<Embeddings>,
    /// Scores crops.
    pub score: Option<OnnxModel>,
}

/// A row that has been looked at.
struct Measured {
    values: Vec<f32>,
    /// The crop as networks take it, where a network is to score it.
    crop: Option<Vec<u8>>,
}

impl Recipe<'_> {
    /// Names of the measures, in the order of the table.
    pub fn columns(&self) -> Vec<String> {
        let norm = self.embeddings.iter().map(|_| "norm");
        let fiqa = self.score.iter().map(|_| "fiqa");
        let all = OF_PIXELS.into_iter().chain(OF_DETECTION).chain(norm).chain(fiqa);
        all.map(str::to_owned).collect()
    }

    /// The measures of some rows, row by row, on all threads.
    ///
    /// # Errors
    ///
    /// [`IngestError`] for a fault of the data set, a network or the system; no image is one.
    pub fn measure(&self, rows: Range<u64>) -> Result<Vec<f32>, IngestError> {
        let measured: Vec<Result<Measured, IngestError>> =
            rows.into_par_iter().map(|row| self.row(row)).collect();
        let mut measured: Vec<Measured> = measured.into_iter().collect::<Result<_, _>>()?;
        if let Some(model) = &self.score {
            let crops: Vec<&[u8]> = measured.iter().filter_map(|m| m.crop.as_deref()).collect();
            let mut scores = model.embed(&crops.concat(), crops.len())?.into_iter();
            for Measured { values, crop } in &mut measured {
                let score = crop.as_ref().and_then(|_| scores.next());
                values.push(score.unwrap_or(f32::NAN));
            }
        }
        Ok(measured.into_iter().flat_map(|m| m.values).collect())
    }

    /// All measures of a row but the score of a network.
    fn row(&self, row: u64) -> Result<Measured, IngestError> {
        let face = self.dataset.get(row)?;
        let size = face.size();
        let mut rgb = vec![0; size.rgb_bytes()];
        let is_decoded = match face.decode(row, &mut rgb) {
            Err(error) if error.is_of_image() => false,
            decoded => decoded.map(|()| true)?,
        };
        let pixels = Pixels::rgb(size.width.into(), size.height.into(), rgb);
        let mut values = Vec::with_capacity(16);
        values.extend(match is_decoded {
            true => {
                let luma = pixels.luma();
                let (width, height) = (usize::from(size.width), usize::from(size.height));
                let quality =
                    if face.quality.is_known() { face.quality } else { measure(&luma, width) };
                let light = exposure(&luma);
                let detail = f32::from(detail(&luma, width, height));
                let pfc_image::Quality { sharpness, brightness, contrast } = quality;
                [sharpness, brightness, contrast, light.dark, light.bright, detail]
            }
            false => [f32::NAN; 6],
        });
        values.extend(self.of_detection(row, is_decoded.then_some(&pixels))?);
        if let Some(embeddings) = &self.embeddings {
            values.push(embeddings.norm(row, &mut vec![0.0; embeddings.dim()])?);
        }
        let crop = (is_decoded && self.score.is_some())
            .then(|| face_sized(pixels.into_rgb(), size))
            .transpose()?;
        Ok(Measured { values, crop })
    }

    /// The measures of where the face lies, in its photograph or, where that is not known, in its crop.
    fn of_detection(
        &self,
        row: u64,
        pixels: Option<&Pixels>,
    ) -> Result<[f32; OF_DETECTION.len()], IngestError> {
        let found = self.found.as_ref().map_or(Ok(NOT_DETECTED), |found| found.get(row))?;
        if found[5..].iter().all(|value| !value.is_nan()) {
            return Ok(of_photograph(&found));
        }
        let (Some(finder), Some(pixels)) = (&self.finder, pixels) else {
            return Ok([f32::NAN; OF_DETECTION.len()]);
        };
        let Ok(face) = finder.one(pixels)? else { return Ok([f32::NAN; OF_DETECTION.len()]) };
        let angles = [face.pose.yaw, face.pose.pitch, face.pose.roll].map(|angle| angle as f32);
        let [yaw, pitch, roll] = angles;
        // How large it was in its photograph the crop does not tell.
        Ok([face.detection.score, f32::NAN, f32::NAN, yaw, pitch, roll])
    }
}

/// Score, shorter side of the box, distance of the eyes, and pose of a face as it was found.
fn of_photograph(found: &DetectionRow) -> [f32; OF_DETECTION.len()] {
    let [score, left, top, right, bottom, points @ ..] = *found;
    let (points, _) = points.as_chunks::<2>();
    let points: [align::Point; 5] = std::array::from_fn(|i| points[i].map(f64::from));
    let eyes = (points[1][0] - points[0][0]).hypot(points[1][1] - points[0][1]);
    let pose = align::pose(&points);
    let [yaw, pitch, roll] = [pose.yaw, pose.pitch, pose.roll].map(|angle| angle as f32);
    [score, (right - left).min(bottom - top), eyes as f32, yaw, pitch, roll]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detection_tells_size_and_pose() {
        let mut found = [0.0; 15];
        found[..5].copy_from_slice(&[0.75, 10.0, 20.0, 70.0, 100.0]);
        // The template, doubled and turned by a quarter clockwise.
        for (i, [x, y]) in align::TEMPLATE.into_iter().enumerate() {
            found[5 + 2 * i] = 300.0 - 2.0 * y as f32;
            found[6 + 2 * i] = 2.0 * x as f32;
        }
        let [score, size, eyes, yaw, pitch, roll] = of_photograph(&found);
        assert_eq!((score, size), (0.75, 60.0));
        let distance = (73.5318_f32 - 38.2946).hypot(51.5014 - 51.6963);
        assert!((eyes - 2.0 * distance).abs() < 1e-3, "{eyes}");
        assert!(yaw.abs() < 2.0 && pitch.abs() < 1.0 && (roll - 90.0).abs() < 1.0, "{roll}");
        assert!(of_photograph(&NOT_DETECTED).iter().all(|value| value.is_nan()));
    }
}

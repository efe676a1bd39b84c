//! Faces of a data set as a contact sheet.

use image::RgbImage;
use pfc_cli::{interrupt, units};
use pfc_findings::View;
use pfc_image::decode_rgb;
use pfc_report::sheet::{self, Plan, Tile};

use crate::IngestError;

/// A drawn sheet.
pub struct Sheet {
    pub pixels: RgbImage,
    /// Faces that could not be decoded.
    pub n_broken: u64,
}

/// Draws `rows` of the data set in their order; those that are left out too, under the identity that
/// they were packed with. Captions say who it is if `names` is true.
///
/// # Errors
///
/// [`IngestError::Shard`] if a row cannot be read, [`IngestError::Interrupted`].
pub fn draw(
    view: &View,
    rows: &[u64],
    title: String,
    columns: Option<u32>,
    names: bool,
) -> Result<Sheet, IngestError> {
    let size = view.manifest().image_size;
    let plan = Plan { title, columns, size, lines: if names { 3 } else { 2 } };
    let mut n_broken = 0;
    let pixels = sheet::draw(&plan, rows.len(), |i| {
        if interrupt::requested() {
            return Err(IngestError::Interrupted { done: i as u64, total: rows.len() as u64 });
        }
        let row = rows[i];
        let (face, name) = match view.face(row)? {
            Some(face) => (face, view.people().name(face.label)),
            None => {
                let face = view.dataset().get(row)?;
                (face, view.dataset().identities().name(face.label))
            }
        };
        let mut rgb = vec![0; size.rgb_bytes()];
        let is_decoded = decode_rgb(face.image, size, &mut rgb).is_ok();
        n_broken += u64::from(!is_decoded);
        let file = face.source.rsplit('/').next().unwrap_or(face.source);
        let name = names.then(|| name.to_owned());
        let captions = [Some(units::count(row)), name, Some(file.to_owned())];
        let captions = captions.into_iter().flatten().collect();
        Ok(Tile { rgb: is_decoded.then_some(rgb), captions })
    })?;
    Ok(Sheet { pixels, n_broken })
}

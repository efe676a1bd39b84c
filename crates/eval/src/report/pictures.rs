//! Faces as data URIs.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use pfc_image::{ImageFolder, Pixels, encode_jpeg};
use pfc_report::html::data_uri;
use pfc_sources::verification_set;

use crate::{
    faces::{FACE_SIDE, IMAGE_BYTES_MAX, decode},
    files::read_regular_file,
    pack::Pack,
    worst::Source,
};

/// Enough to look at a face; the page stays small.
const QUALITY: u8 = 85;

/// Reads faces of sets; each pack once.
#[derive(Debug, Default)]
pub struct Pictures {
    packs: HashMap<PathBuf, Result<Pack, String>>,
}

impl Pictures {
    /// The face of this name as a JPEG of 112×112, or why there is none.
    pub fn data_uri(&mut self, source: &Source, name: &str) -> Result<String, String> {
        let bytes = match source {
            Source::Folder { root } => read_below(root, name)?,
            Source::Pack { path } => self.packed(path, name)?,
        };
        // Decoded and encoded anew, so that nothing but pixels gets into the page.
        let face = decode(&bytes).map_err(|_| format!("{name} cannot be decoded"))?;
        let side = FACE_SIDE as u32;
        let jpeg = encode_jpeg(&Pixels::rgb(side, side, face.rgb), QUALITY);
        Ok(data_uri(&jpeg.map_err(|error| error.to_string())?))
    }

    fn packed(&mut self, path: &Path, name: &str) -> Result<Vec<u8>, String> {
        let pack = self
            .packs
            .entry(path.to_owned())
            .or_insert_with(|| verification_set(path).map_err(|e| why_not(&e)));
        let pack = pack.as_ref().map_err(String::clone)?;
        let image = name.parse().ok().and_then(|i: usize| pack.images.get(i));
        image.cloned().ok_or_else(|| format!("image {name} is not in the pack"))
    }
}

/// The bytes of an image, which a result from elsewhere cannot move out of its folder.
fn read_below(root: &Path, name: &str) -> Result<Vec<u8>, String> {
    let below = ImageFolder::at(root).below(name).map_err(|leads_out| leads_out.to_string())?;
    read_regular_file(&root.join(below), IMAGE_BYTES_MAX).map_err(|error| why_not(&error))
}

/// An error and what it comes from, for a reader of the page.
fn why_not(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("faces")).unwrap();
        let face = image::RgbImage::from_pixel(112, 112, image::Rgb([9, 9, 9]));
        face.save(dir.path().join("secret.png")).unwrap();
        face.save(dir.path().join("faces/a.png")).unwrap();
        let source = Source::Folder { root: dir.path().join("faces") };
        let mut pictures = Pictures::default();
        assert!(
            pictures.data_uri(&source, "a.png").unwrap().starts_with("data:image/jpeg;base64,/9j/")
        );
        let absolute = dir.path().join("secret.png").display().to_string();
        for name in ["../secret.png", &absolute, "b.png"] {
            assert!(pictures.data_uri(&source, name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_pack_that_is_gone_is_said() {
        let source = Source::Pack { path: "gone.bin".into() };
        let reason = Pictures::default().data_uri(&source, "0").unwrap_err();
        assert!(reason.starts_with("gone.bin: ") && reason.contains("No such file"), "{reason}");
    }
}

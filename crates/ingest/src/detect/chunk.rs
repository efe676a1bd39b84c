//! Some pictures in a row: their faces are found and cut out on all threads, named in order, and written.

use std::{fs, ops::Range, path::Path};

use pfc_cli::Progress;
use pfc_detect::{Face, Finder, NoFace, nearest};
use pfc_image::{ImageError, ImageSize, Limits, Pixels, align, decode, has_image_extension};
use pfc_onnx::OnnxModel;
use pfc_shard::{Checksum, hash::content_hash};
use pfc_sources::Source;
use rayon::prelude::*;

use super::record::{ChunkRecord, FaceRecord};
use crate::{
    IngestError,
    crops::{CropFormat, Encoding},
    export::names::{self, Files, Folders},
    pack::quarantine::Line,
    reject::{Failure, Reject},
};

/// Pictures of a chunk.
const CHUNK: u64 = 256;
/// Pictures of a chunk where faces are compared with those of the identity's other pictures, all of which lie in
/// one chunk unless they are more.
const CHUNK_MAX: u64 = 2048;
/// Faces of a picture that are embedded, the largest of it.
const EMBEDDED_MAX: usize = 8;

/// What becomes of a picture.
pub struct Recipe {
    pub finder: Finder,
    pub take: Take,
    pub size: ImageSize,
    pub limits: Limits,
    pub encoding: Encoding,
}

/// Which of the faces are taken that keep the bounds.
#[derive(Debug)]
pub enum Take {
    /// The first.
    One,
    /// All.
    All,
    /// The one that is most like the identity's others by this network.
    Nearest(Box<OnnxModel>),
}

/// The entries of each chunk.
pub fn chunks<'s>(
    source: &'s dyn Source,
    take: &Take,
) -> impl Iterator<Item = Range<u64>> + use<'s> {
    let index = source.index();
    let by_identity = matches!(take, Take::Nearest(_));
    let mut start = 0;
    std::iter::from_fn(move || {
        if start >= index.len() {
            return None;
        }
        let mut end = (start + CHUNK).min(index.len());
        while by_identity
            && end < index.len()
            && end - start < CHUNK_MAX
            && index.label(end) == index.label(end - 1)
        {
            end += 1;
        }
        let chunk = start..end;
        start = end;
        Some(chunk)
    })
}

/// Which crop goes where: the same names in every run, as they follow from the order alone.
pub struct Names {
    folders: Folders,
    files: Files,
    format: CropFormat,
}

impl Names {
    pub fn of(source: &dyn Source, format: CropFormat) -> Names {
        let folders =
            Folders::new((0..).zip(source.index().identities()).collect::<Vec<_>>().into_iter());
        Names { folders, files: Files::default(), format }
    }

    /// Gives the names of a chunk that is done again, so that those after it are as they were.
    pub fn replay(&mut self, record: &ChunkRecord) {
        for face in &record.faces {
            self.path(face.label, &face.picture, face.face);
        }
    }

    /// The path of face `number`, from 1, of a picture.
    fn path(&mut self, label: u32, picture: &str, number: u32) -> String {
        let name = picture.rsplit(['/', '\\']).next().unwrap_or(picture);
        let (stem, extension) = match name.rfind('.').filter(|&dot| dot > 0) {
            Some(dot) if has_image_extension(name.as_ref()) => name.split_at(dot),
            _ => (name, ""),
        };
        let number = if number > 1 { format!(".face{number}") } else { String::new() };
        match self.format {
            CropFormat::Jpg => {
                let name = format!("{stem}{number}{extension}");
                self.files.path(&self.folders, label, &name)
            }
            CropFormat::Png => {
                // Unique as a JPEG's name, and so with another extension.
                let path = self.files.path(&self.folders, label, &format!("{stem}{number}.jpg"));
                format!("{}.png", path.strip_suffix(".jpg").unwrap_or(&path))
            }
        }
    }

    /// Writes the table of folders that are not called as their identities, if there are any.
    ///
    /// # Errors
    ///
    /// [`IngestError::Durable`].
    pub fn write_table(&self, source: &dyn Source, out: &Path) -> Result<(), IngestError> {
        if self.folders.n_renamed == 0 {
            return Ok(());
        }
        let identities: Vec<(u32, &str)> = (0..).zip(source.index().identities()).collect();
        names::write_folder_table(&identities, |label| self.folders.folder(label), out, out)
    }
}

/// Faces of a picture, the first of them first.
struct Found {
    size: [u32; 2],
    faces: Vec<(Face, Vec<u8>)>,
    /// Of each face, where they are compared.
    embeddings: Vec<Vec<f32>>,
}

/// Finds, cuts out and writes the faces of some pictures.
///
/// # Errors
///
/// [`IngestError`] for a fault of the system or of the network; no picture is one.
pub fn make(
    source: &dyn Source,
    entries: Range<u64>,
    recipe: &Recipe,
    names: &mut Names,
    out: &Path,
    progress: &Progress,
) -> Result<ChunkRecord, IngestError> {
    let find = |entry: u64| {
        let found = find(source, entry, recipe);
        progress.add(1);
        found
    };
    let mut found: Vec<Result<Found, Failure>> =
        entries.clone().into_par_iter().map(find).collect();
    if matches!(recipe.take, Take::Nearest(_)) {
        keep_nearest(source, entries.start, &mut found);
    }
    let mut record = ChunkRecord { faces: Vec::new(), quarantine: Vec::new() };
    let mut crops = Vec::new();
    for (entry, found) in entries.zip(found) {
        let picture = source.path(entry);
        let Found { size, faces, .. } = match found {
            Ok(found) => found,
            Err(Failure::Fatal(error)) => return Err(error),
            Err(Failure::Reject(reject)) => {
                record.quarantine.push(Line::new(&picture, &reject));
                continue;
            }
        };
        let label = source.index().label(entry);
        for (number, (face, bytes)) in (1..).zip(faces) {
            let crop = names.path(label, &picture, number);
            let checksum = Checksum(content_hash(&bytes));
            crops.push((out.join(&crop), bytes));
            let face = FaceRecord::new(crop, checksum, &picture, label, number, &face, size);
            record.faces.push(face);
        }
    }
    let written: Vec<Result<(), IngestError>> = crops.par_iter().map(write).collect();
    written.into_iter().collect::<Result<(), _>>()?;
    Ok(record)
}

fn write((path, bytes): &(std::path::PathBuf, Vec<u8>)) -> Result<(), IngestError> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(IngestError::at("create", folder))?;
    fs::write(path, bytes).map_err(IngestError::at("write", path))
}

/// The faces of one picture that may be taken, cut out.
fn find(source: &dyn Source, entry: u64, recipe: &Recipe) -> Result<Found, Failure> {
    let of_image = |error: ImageError| Failure::of(error.into(), || source.path(entry));
    let pixels = decode(&source.read(entry)?, recipe.limits).map_err(of_image)?;
    let found: Result<Vec<Face>, NoFace> = match recipe.take {
        Take::One => recipe.finder.one(&pixels)?.map(|face| vec![face]),
        Take::All | Take::Nearest(_) => recipe.finder.all(&pixels)?,
    };
    let mut faces = found.map_err(Reject::from)?;
    let mut embeddings = Vec::new();
    if let Take::Nearest(model) = &recipe.take {
        faces.truncate(EMBEDDED_MAX);
        embeddings = embed(model, &pixels, &faces)?;
    }
    let crop = |face: Face| {
        let pixels = cut(&pixels, &face, recipe.size)?;
        Ok((face, recipe.encoding.encode(&pixels)?))
    };
    let faces: Result<Vec<(Face, Vec<u8>)>, ImageError> = faces.into_iter().map(crop).collect();
    Ok(Found { size: [pixels.width, pixels.height], faces: faces.map_err(of_image)?, embeddings })
}

fn cut(pixels: &Pixels, face: &Face, size: ImageSize) -> Result<Pixels, ImageError> {
    let points = face.detection.landmarks.map(|point| point.map(f64::from));
    Ok(align::cut(pixels, &points, size)?)
}

/// Embeddings of faces, each of length 1.
fn embed(model: &OnnxModel, pixels: &Pixels, faces: &[Face]) -> Result<Vec<Vec<f32>>, Failure> {
    let mut rgb = Vec::new();
    for face in faces {
        // They were cut out once before.
        if let Ok(crop) = cut(pixels, face, ImageSize::FACE) {
            rgb.extend(crop.into_rgb());
        }
    }
    let rows = model.embed(&rgb, faces.len()).map_err(|error| Failure::Fatal(error.into()))?;
    let unit = |row: &[f32]| {
        let length = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt().max(1e-30);
        row.iter().map(|v| (f64::from(*v) / length) as f32).collect()
    };
    Ok(rows.chunks_exact(model.embedding()).map(unit).collect())
}

/// Leaves of each picture the face that is most like those of the identity's other pictures.
fn keep_nearest(source: &dyn Source, first: u64, found: &mut [Result<Found, Failure>]) {
    let label = |i: usize| source.index().label(first + i as u64);
    let mut start = 0;
    while start < found.len() {
        let end = (start..found.len()).find(|&i| label(i) != label(start)).unwrap_or(found.len());
        let of_identity = &mut found[start..end];
        let pictures: Vec<Vec<Vec<f32>>> = of_identity
            .iter_mut()
            .map(|found| found.as_mut().map_or(Vec::new(), |f| std::mem::take(&mut f.embeddings)))
            .collect();
        for (found, taken) in of_identity.iter_mut().zip(nearest(&pictures)) {
            if let Ok(Found { faces, .. }) = found {
                faces.truncate(taken + 1);
                faces.drain(..taken);
            }
        }
        start = end;
    }
}

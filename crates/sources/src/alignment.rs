//! Whether faces are cut out of images, and by whose landmarks.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use pfc_image::align::Landmarks;

use crate::{
    error::SourceError,
    landmarks::{LandmarkFormat, LandmarkTable},
    reject::Reject,
    source::{Source, stamp},
};

/// Entries that are looked at to see whether a source states landmarks.
const ENTRIES_TO_LOOK_AT: u64 = 256;

/// The options of commands that cut faces out of the images of a source.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct AlignOptions {
    /// Cut each face out by its landmarks: a list as `pfc-ingest align` reads it, by the paths that
    /// the images have in the input
    #[arg(long, value_name = "FILE")]
    landmarks: Option<PathBuf>,
    /// Cut each face out by the landmarks that the input, a list, states beside its path
    #[arg(long, conflicts_with = "landmarks")]
    align: bool,
    /// Order of the numbers in the list of landmarks, if it has no header
    #[arg(long, value_enum, default_value_t, requires = "landmarks")]
    landmark_format: LandmarkFormat,
}

impl AlignOptions {
    /// Reads the list of landmarks, if there is one.
    ///
    /// # Errors
    ///
    /// [`SourceError::Landmarks`].
    pub fn open(&self) -> Result<Alignment, SourceError> {
        Ok(match &self.landmarks {
            Some(path) => Alignment::List(LandmarkTable::read(path, self.landmark_format)?),
            None if self.align => Alignment::OfSource,
            None => Alignment::None,
        })
    }

    /// The list of landmarks.
    pub fn list(&self) -> Option<&Path> {
        self.landmarks.as_deref()
    }

    /// The arguments that decide what the crops are, for the manifest.
    pub fn content_arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        if let Some(landmarks) = &self.landmarks {
            let format = self.landmark_format.to_possible_value();
            let format = format.map(|value| value.get_name().to_owned()).unwrap_or_default();
            arguments.push(format!("--landmarks={}", landmarks.display()));
            arguments.push(format!("--landmark-format={format}"));
        }
        if self.align {
            arguments.push("--align=true".into());
        }
        arguments
    }
}

/// Whether faces are cut out of the images, and by whose landmarks.
#[derive(Debug)]
pub enum Alignment {
    /// Images are crops already.
    None,
    /// A list states them beside the paths of its images.
    OfSource,
    /// A list of their own.
    List(LandmarkTable),
}

impl Alignment {
    /// The landmarks of image `entry`; nothing if it is to be taken as it is.
    ///
    /// # Errors
    ///
    /// [`Reject::NoLandmarks`] if it should be aligned and cannot, or what is wrong with its line.
    pub fn landmarks(&self, source: &dyn Source, entry: u64) -> Result<Option<Landmarks>, Reject> {
        let landmarks = match self {
            Alignment::None => return Ok(None),
            Alignment::OfSource => source.landmarks(entry),
            Alignment::List(table) => {
                let path = source.path(entry);
                let landmarks = table.get(&path);
                if let (None, Some(problem)) = (landmarks, table.problem(&path)) {
                    return Err(Reject::BadLine(problem.to_owned()));
                }
                landmarks
            }
        };
        landmarks.map(Some).ok_or(Reject::NoLandmarks)
    }

    /// What tells the crop of image `entry` from another: as [`Source::stamp`], and its landmarks.
    pub fn stamp(&self, source: &dyn Source, entry: u64) -> u128 {
        let of_image = source.stamp(entry);
        let bits = |landmarks: Landmarks| landmarks.map(|p| p.map(f32::to_bits)).concat();
        match self.landmarks(source, entry) {
            Ok(None) => of_image,
            with => {
                let bits = with.ok().flatten().map(bits).unwrap_or_default();
                let facts: Vec<u64> = bits.into_iter().map(u64::from).collect();
                stamp(&format!("{of_image:032x}"), &facts)
            }
        }
    }

    /// A sentence for the user where `source` states landmarks that nobody asked for.
    pub fn notice(&self, source: &dyn Source) -> Option<String> {
        let n = source.index().len().min(ENTRIES_TO_LOOK_AT);
        let is_unused = matches!(self, Alignment::None)
            && (0..n).any(|entry| source.landmarks(entry).is_some());
        is_unused.then(|| {
            format!(
                "{}: landmarks stand beside the paths and are not used; --align cuts the faces out",
                source.name()
            )
        })
    }
}

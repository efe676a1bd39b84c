//! MegaFace with the files of its devkit.
//!
//! [`MegaFaceSet`] is what is judged: probes, galleries of distractors and, if wanted, lists of noisy
//! images. Distractors are read piece by piece, so memory does not grow with their number.

pub mod feature;
mod folder;
mod judge;
mod lists;
mod report;
mod store;

pub use folder::FeatureFolder;
pub use judge::{MegaFaceSet, Options, judge};
pub use lists::{Gallery, ProbeList, is_dataset, parse_noises, read_noises};
pub use report::{DistractorTarRow, DistractorsRow, MegaFaceReport};
pub use store::{Noises, Store};

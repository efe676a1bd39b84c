//! Faces in photographs: where they are, their five landmarks, and which of them to take.
//!
//! A [`Detector`] runs a network that the user has as an ONNX file. What the network is, and so what it wants
//! and how its outputs are read, is recognised by the shapes of its outputs ([`Family`]). A [`Finder`] adds
//! what makes a face usable and which one is taken; [`pfc_image::align`] cuts it out.
//!
//! Outputs are taken to be hostile: any shape, NaN, infinite boxes and millions of candidates end in an error
//! or in no face.

mod canvas;
mod centerface;
mod choice;
mod detection;
mod detector;
mod error;
mod family;
#[doc(hidden)]
pub mod fuzzing;
mod levels;
mod nearest;
mod options;
mod retinaface;
mod table;
mod views;

pub use choice::{Bounds, Choice, Face, Finder, NoFace};
pub use detection::Detection;
pub use detector::{Detector, Opening, Search};
pub use error::DetectError;
pub use family::Family;
pub use nearest::nearest;
pub use options::{DetectorArgs, OneFace, SearchArgs};

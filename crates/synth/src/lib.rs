//! Procedural faces whose identity can be learned, but not trivially.
//!
//! `face` draws who someone is, `shot` how a picture of them was taken; `scene` says where each pixel
//! lies on the face, `paint` calls the painters for its colour, and `camera` makes a JPEG of it. A
//! picture depends on (seed, identity, image) alone. [`write()`] makes a folder of them.

mod camera;
mod colour;
mod error;
mod face;
mod features;
mod hair;
mod junk;
mod noise;
mod paint;
mod pairs;
mod plan;
mod scene;
mod shot;
mod skin;
mod worn;
mod write;

pub use camera::{SIDE, photograph, photograph_at_quality};
pub use error::SynthError;
pub use plan::{Noise, World};
pub use write::{Summary, write};

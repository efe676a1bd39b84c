//! Five landmarks of a face to a crop, 112×112 or another size, in the pose that networks are
//! trained on.
//!
//! [`similarity`] finds the turn, scale and shift that bring the landmarks closest to the template,
//! [`warp`] takes the pixels along. Both follow what `InsightFace`'s tools do, so that a crop made
//! here gives the embedding that published figures were made with.

mod judge;
mod pose;
mod similarity;
mod warp;

pub use crate::template::{Landmarks, Point, TEMPLATE};
pub use judge::{are_fractions, judge};
pub use pose::{Pose, pose};
pub use similarity::{
    AlignError, Matrix, RESIDUAL_MAX, align, align_to, five_of_68, residual, similarity,
};
pub use warp::{CROP, Image, cut, warp, warp_to};

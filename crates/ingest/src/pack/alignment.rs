//! Where the landmarks come from by which faces are cut out.

use pfc_image::align::Point;
use pfc_sources::Source;

use crate::{landmarks::LandmarkTable, reject::Reject};

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
    /// The five points of image `entry`; nothing if it is to be taken as it is.
    ///
    /// # Errors
    ///
    /// [`Reject::NoLandmarks`] if it should be aligned and cannot.
    pub fn points(&self, source: &dyn Source, entry: u64) -> Result<Option<[Point; 5]>, Reject> {
        let points = match self {
            Alignment::None => return Ok(None),
            Alignment::OfSource => source.landmarks(entry).map(|stated| {
                let (pairs, _) = stated.as_chunks::<2>();
                std::array::from_fn(|i| pairs[i].map(f64::from))
            }),
            Alignment::List(table) => table.get(&source.path(entry)),
        };
        points.map(Some).ok_or(Reject::NoLandmarks)
    }
}

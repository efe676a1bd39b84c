//! Pixels turned upright.

use image::{DynamicImage, GrayImage, RgbImage, metadata::Orientation};

use crate::{Channels, Pixels};

/// Turns the pixels that a file stores as its orientation says.
pub(crate) fn upright(pixels: Pixels, orientation: Orientation) -> Pixels {
    if orientation == Orientation::NoTransforms {
        return pixels;
    }
    let channels = pixels.channels;
    let mut image = DynamicImage::from(pixels);
    image.apply_orientation(orientation);
    let (width, height) = (image.width(), image.height());
    match channels {
        Channels::Rgb => Pixels::rgb(width, height, image.into_rgb8().into_raw()),
        Channels::Grey => Pixels::grey(width, height, image.into_luma8().into_raw()),
    }
}

impl From<Pixels> for DynamicImage {
    fn from(pixels: Pixels) -> DynamicImage {
        let Pixels { width, height, channels, data } = pixels;
        let whole = "pixels hold width times height times channels bytes";
        match channels {
            Channels::Grey => GrayImage::from_raw(width, height, data).expect(whole).into(),
            Channels::Rgb => RgbImage::from_raw(width, height, data).expect(whole).into(),
        }
    }
}

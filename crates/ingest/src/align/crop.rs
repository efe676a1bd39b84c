//! One image and its landmarks to a crop.

use pfc_image::{
    Channels, ImageSize, Limits, Pixels,
    align::{Image, Point, align_to, warp_to},
    decode,
};

use crate::reject::Reject;

/// Decodes `bytes`, upright, and cuts the face out; grey stays grey. Beyond the image it is black.
///
/// # Errors
///
/// [`Reject::Landmarks`] or [`Reject::Image`].
pub fn crop(
    bytes: &[u8],
    points: &[Point; 5],
    size: ImageSize,
    limits: Limits,
) -> Result<Pixels, Reject> {
    let matrix = align_to(points, size)?;
    let Pixels { width, height, channels, data } = decode(bytes, limits)?;
    let rgb = match channels {
        Channels::Rgb => data,
        Channels::Grey => data.iter().flat_map(|&v| [v; 3]).collect(),
    };
    let image = Image::new(&rgb, width as usize, height as usize);
    let image = image.expect("decoded pixels fill their size");
    let warped = warp_to(&image, &matrix, size);
    let (width, height) = (size.width.into(), size.height.into());
    Ok(match channels {
        Channels::Rgb => Pixels::rgb(width, height, warped),
        Channels::Grey => Pixels::grey(width, height, warped.into_iter().step_by(3).collect()),
    })
}

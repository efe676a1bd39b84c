//! To the one size of a data set.

use fast_image_resize::{
    FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer,
    images::{TypedImage, TypedImageRef},
    pixels::{U8, U8x3},
};

use crate::{Channels, ImageError, ImageSize, Pixels};

/// What becomes of an image that has another shape than the crop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fit {
    /// Cut the longer side down to the middle. The rule of all programs.
    #[default]
    Crop,
    /// Fill the shorter side up with black.
    Pad,
    /// Squeeze the longer side.
    Stretch,
}

impl Fit {
    /// What was done, in words that follow a comma.
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Fit::Crop => "cut to the middle",
            Fit::Pad => "filled up with black",
            Fit::Stretch => "squeezed",
        }
    }
}

/// Resizes with a Lanczos filter of three lobes, which also averages when it shrinks. An image that
/// already has the size is returned as it is.
///
/// # Errors
///
/// [`ImageError::Corrupt`] if the resizer refuses, which sizes of at least one pixel never cause.
pub fn resize(pixels: Pixels, size: ImageSize, fit: Fit) -> Result<Pixels, ImageError> {
    let (width, height) = (u32::from(size.width), u32::from(size.height));
    if (pixels.width, pixels.height) == (width, height) {
        return Ok(pixels);
    }
    match fit {
        Fit::Crop => scale(pixels, width, height, true),
        Fit::Stretch => scale(pixels, width, height, false),
        Fit::Pad => {
            // The side that is longer for its share of the crop fills it.
            let (w, h) = (u64::from(pixels.width), u64::from(pixels.height));
            let (inner_width, inner_height) = if w * u64::from(height) >= h * u64::from(width) {
                (width, rounded(h * u64::from(width), w).max(1))
            } else {
                (rounded(w * u64::from(height), h).max(1), height)
            };
            let inner = scale(pixels, inner_width.min(width), inner_height.min(height), false)?;
            Ok(centred(&inner, width, height))
        }
    }
}

/// A rectangle of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// First column.
    pub left: u32,
    /// First row.
    pub top: u32,
    /// Columns, at least 1.
    pub width: u32,
    /// Rows, at least 1.
    pub height: u32,
}

/// A part of an image, scaled to `width`×`height`; what shrinks is averaged (bilinear filter, twice as
/// wide as a pixel of the result, which reads what lies around the part as well).
///
/// # Errors
///
/// [`ImageError::Corrupt`] if the part does not lie in the image, or one of the sizes is 0.
pub fn resize_part(
    pixels: &Pixels,
    part: Part,
    width: u32,
    height: u32,
) -> Result<Pixels, ImageError> {
    let Part { left, top, width: part_width, height: part_height } = part;
    let fits =
        |start: u32, n: u32, all: u32| n > 0 && start.checked_add(n).is_some_and(|end| end <= all);
    let is_inside = fits(left, part_width, pixels.width) && fits(top, part_height, pixels.height);
    if !is_inside || width == 0 || height == 0 {
        let reason = format!("cannot resize {part:?} of it to {width}x{height}");
        return Err(ImageError::Corrupt(reason));
    }
    let options = ResizeOptions::new()
        .resize_alg(ResizeAlg::Convolution(FilterType::Bilinear))
        .crop(left.into(), top.into(), part_width.into(), part_height.into());
    scale_with(pixels, width, height, &options)
}

fn scale(pixels: Pixels, width: u32, height: u32, crop: bool) -> Result<Pixels, ImageError> {
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3));
    let options = if crop { options.fit_into_destination(None) } else { options };
    scale_with(&pixels, width, height, &options)
}

fn scale_with(
    pixels: &Pixels,
    width: u32,
    height: u32,
    options: &ResizeOptions,
) -> Result<Pixels, ImageError> {
    let channels = pixels.channels;
    let mut data = vec![0; width as usize * height as usize * channels.count()];
    let mut target = Target { width, height, data: &mut data };
    let done = match channels {
        Channels::Grey => convolve::<U8>(pixels, &mut target, options),
        Channels::Rgb => convolve::<U8x3>(pixels, &mut target, options),
    };
    done.map_err(|e| ImageError::Corrupt(format!("cannot resize: {e}")))?;
    Ok(Pixels { width, height, channels, data })
}

struct Target<'a> {
    width: u32,
    height: u32,
    data: &'a mut [u8],
}

/// Typed by pixel, so that the compiler makes no code for the dozen kinds that never occur.
fn convolve<P: PixelTrait>(
    source: &Pixels,
    target: &mut Target<'_>,
    options: &ResizeOptions,
) -> Result<(), Box<dyn std::error::Error>> {
    let source = TypedImageRef::<P>::from_buffer(source.width, source.height, &source.data)?;
    let mut target = TypedImage::<P>::from_buffer(target.width, target.height, target.data)?;
    Ok(Resizer::new().resize_typed(&source, &mut target, options)?)
}

fn centred(inner: &Pixels, width: u32, height: u32) -> Pixels {
    let count = inner.channels.count();
    let (left, top) = ((width - inner.width) / 2, (height - inner.height) / 2);
    let mut data = vec![0; width as usize * height as usize * count];
    let row_bytes = inner.width as usize * count;
    for (y, row) in inner.data.chunks_exact(row_bytes).enumerate() {
        let start = ((top as usize + y) * width as usize + left as usize) * count;
        data[start..start + row_bytes].copy_from_slice(row);
    }
    Pixels { width, height, channels: inner.channels, data }
}

fn rounded(numerator: u64, denominator: u64) -> u32 {
    ((numerator + denominator / 2) / denominator) as u32
}

#[cfg(test)]
mod tests {
    use crate::*;

    /// 6×2: black, white, black thirds from left to right.
    fn thirds() -> Pixels {
        let row = [0, 0, 255, 255, 0, 0];
        Pixels::grey(6, 2, [row, row].concat())
    }

    #[test]
    fn cropping_keeps_the_middle() {
        let out = resize(thirds(), ImageSize::square(2), Fit::Crop).unwrap();
        assert_eq!(out, Pixels::grey(2, 2, vec![255; 4]));
    }

    #[test]
    fn padding_keeps_all_and_fills_with_black() {
        let out =
            resize(Pixels::grey(6, 2, vec![200; 12]), ImageSize::square(6), Fit::Pad).unwrap();
        let (black, grey) = ([0u8; 6], [200u8; 6]);
        assert_eq!(out.data, [black, black, grey, grey, black, black].concat());
    }

    #[test]
    fn a_part_is_cut_out_and_averaged() {
        let left = Part { left: 0, top: 0, width: 4, height: 2 };
        let out = resize_part(&thirds(), left, 2, 1).unwrap();
        // Black and white pairs. Pixels at 1/4 and 3/4 of the filter weigh 3/4 and 1/4; nothing lies left of the
        // part, so that 1/4 of white is shared by 7/4, and a black pixel right of it.
        assert_eq!(out.data, [36, 191]);
        let same = resize_part(&thirds(), Part { left: 2, top: 1, width: 2, height: 1 }, 2, 1);
        assert_eq!(same.unwrap().data, [255, 255]);
        for part in
            [Part { left: 5, ..left }, Part { width: 0, ..left }, Part { top: u32::MAX, ..left }]
        {
            assert!(resize_part(&thirds(), part, 2, 2).is_err(), "{part:?}");
        }
        assert!(resize_part(&thirds(), left, 0, 2).is_err());
    }

    #[test]
    fn a_line_of_one_pixel_can_be_resized() {
        for fit in [Fit::Crop, Fit::Pad, Fit::Stretch] {
            let out = resize(Pixels::rgb(500, 1, vec![9; 1500]), ImageSize::FACE, fit).unwrap();
            assert_eq!((out.width, out.height), (112, 112));
        }
    }

    #[test]
    fn a_flat_image_stays_flat_at_any_size() {
        let flat = Pixels::rgb(301, 299, vec![77; 301 * 299 * 3]);
        let out = resize(flat, ImageSize::FACE, Fit::Crop).unwrap();
        assert!(out.data.iter().all(|&v| v == 77));
    }
}

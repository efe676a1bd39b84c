//! What is kept of an image, so that it is decoded once for all passes.

use std::num::NonZeroU16;

use pfc_cli::{Progress, interrupt};
use pfc_image::{ImageSize, Pixels, Quality, measure};
use pfc_shard::hash::content_hash;
use rayon::prelude::*;

use super::perceptual::{perceptual_hashes, shrink};
use crate::{CleanError, Work};

/// Rows between two looks at whether the user wants to stop.
const CHUNK: u64 = 4096;
/// Grey levels by which a picture may differ from its reduced copy, enlarged again.
const DETAIL_LEVELS: f32 = 2.0;
/// Shares of the side to which a picture is reduced, to measure its detail.
const DETAIL_SIDES: [usize; 6] = [12, 16, 24, 32, 48, 64];
/// Grey levels by which a border may vary.
const BORDER_LEVELS: u8 = 10;

/// Side of the picture that is kept of an image.
pub const THUMBNAIL_SIDE: usize = 14;

/// An image in 272 bytes; `Option` of it takes no more.
#[derive(Debug, Clone, Copy)]
pub struct Signature {
    /// Hash of the bytes.
    pub content: u128,
    /// Hash of the decoded pixels.
    pub pixels: u128,
    /// Perceptual hash of the picture.
    pub perceptual: u64,
    /// Perceptual hash of its mirror image.
    pub mirrored: u64,
    /// Measures of the crop.
    pub quality: Quality,
    /// Shorter by longer side of what lies within flat borders.
    pub aspect: f32,
    /// Side of the smallest picture that holds all its detail; that of the image where none does.
    pub detail: NonZeroU16,
    /// Its luma, shrunk, row by row.
    pub thumbnail: [u8; THUMBNAIL_SIDE * THUMBNAIL_SIDE],
}

impl Signature {
    /// How far two pictures differ once their brightness is made equal: the mean of the differences of
    /// their thumbnails, in grey levels. The second one is turned left to right if `is_mirrored`.
    pub fn levels(&self, other: &Signature, is_mirrored: bool) -> f32 {
        let turned: [u8; THUMBNAIL_SIDE * THUMBNAIL_SIDE];
        let second = match is_mirrored {
            false => &other.thumbnail,
            true => {
                let at = |i: usize| {
                    i / THUMBNAIL_SIDE * THUMBNAIL_SIDE + THUMBNAIL_SIDE - 1 - i % THUMBNAIL_SIDE
                };
                turned = std::array::from_fn(|i| other.thumbnail[at(i)]);
                &turned
            }
        };
        let n = self.thumbnail.len() as i32;
        let pairs =
            || self.thumbnail.iter().zip(second).map(|(a, b)| i32::from(*a) - i32::from(*b));
        let sum: i32 = pairs().sum();
        // The sum is in levels times pixels, so that it is a whole number.
        let all: i32 = pairs().map(|difference| (difference * n - sum).abs()).sum();
        all as f32 / (n * n) as f32
    }
}

/// Decodes every row that is not left out, on all threads; also tells which rows cannot be decoded. Takes
/// about 150 µs per image, and 272 bytes per row.
///
/// # Errors
///
/// [`CleanError::Interrupted`], or [`CleanError::Shard`] for a row that cannot be read.
pub fn signatures(work: &Work<'_>) -> Result<(Vec<Option<Signature>>, Vec<u64>), CleanError> {
    let total = work.dataset.len();
    let progress = Progress::new("hash and measure", "images", total, work.quiet);
    let mut all = Vec::with_capacity(total as usize);
    let mut undecodable = Vec::new();
    for start in (0..total).step_by(CHUNK as usize) {
        if interrupt::requested() {
            return Err(CleanError::Interrupted { done: start, total, unit: "images" });
        }
        let rows = start..total.min(start + CHUNK);
        let of_row = |row: u64| match work.state.is_dropped(row) {
            true => Ok(None),
            false => signature(work, row).map(Some),
        };
        let chunk: Vec<Result<Option<Signature>, CleanError>> =
            rows.into_par_iter().map(of_row).collect();
        progress.add(chunk.len() as u64);
        for signature in chunk {
            all.push(match signature {
                Err(CleanError::Shard(error)) if error.is_of_image() => {
                    undecodable.push(all.len() as u64);
                    None
                }
                other => other?,
            });
        }
    }
    progress.finish();
    Ok((all, undecodable))
}

fn signature(work: &Work<'_>, row: u64) -> Result<Signature, CleanError> {
    let face = work.dataset.get(row)?;
    let size = face.size();
    let mut rgb = vec![0; size.rgb_bytes()];
    face.decode(row, &mut rgb)?;
    let pixels = Pixels::rgb(size.width.into(), size.height.into(), rgb);
    let ImageSize { width, height } = size;
    let (width, height) = (usize::from(width), usize::from(height));
    let luma = pixels.luma();
    let quality = if face.quality.is_known() { face.quality } else { measure(&luma, width) };
    let [perceptual, mirrored] = perceptual_hashes(&luma, width, height);
    let small = shrink(&luma, width, height, THUMBNAIL_SIDE, THUMBNAIL_SIDE);
    Ok(Signature {
        content: face.hash,
        pixels: content_hash(&pixels.data),
        perceptual,
        mirrored,
        quality,
        aspect: aspect(&luma, width),
        detail: NonZeroU16::new(detail(&luma, width, height)).unwrap_or(NonZeroU16::MIN),
        thumbnail: std::array::from_fn(|i| small[i].round() as u8),
    })
}

/// Shorter by longer side of what is left once flat lines at the edges are cut off; 1 of a picture
/// that is flat all over, which is another fault.
fn aspect(luma: &[u8], width: usize) -> f32 {
    let height = luma.len() / width.max(1);
    let flat = |line: &mut dyn Iterator<Item = u8>| {
        let (low, high) = line.fold((u8::MAX, 0), |(low, high), v| (low.min(v), high.max(v)));
        high.saturating_sub(low) <= BORDER_LEVELS
    };
    let row_is_flat = |y: usize| flat(&mut luma[y * width..(y + 1) * width].iter().copied());
    let column_is_flat = |x: usize| flat(&mut luma.iter().skip(x).step_by(width).copied());
    let rest = |n: usize, is_flat: &dyn Fn(usize) -> bool| {
        let before = (0..n).take_while(|i| is_flat(*i)).count();
        let after = (before..n).rev().take_while(|i| is_flat(*i)).count();
        n - before - after
    };
    let (rows, columns) = (rest(height, &row_is_flat), rest(width, &column_is_flat));
    let (shorter, longer) = (rows.min(columns), rows.max(columns));
    if shorter == 0 { 1.0 } else { shorter as f32 / longer as f32 }
}

/// Side in pixels of the smallest picture that holds all detail of `luma`, of some sides from 12 to 64; its own
/// shorter side where none of them does.
pub fn detail(luma: &[u8], width: usize, height: usize) -> u16 {
    let side = width.min(height);
    let holds_all = |small: &usize| {
        let shrunk = shrink(luma, width, height, *small, *small);
        is_near(luma, (width, height), &shrunk, *small)
    };
    let found = DETAIL_SIDES.into_iter().filter(|small| *small < side).find(holds_all);
    found.unwrap_or(side) as u16
}

/// Whether a picture and a small one enlarged linearly differ by [`DETAIL_LEVELS`] at most, as the root of the
/// mean square. Most pictures that differ by more do so clearly, which their first lines show.
fn is_near(luma: &[u8], (width, height): (usize, usize), small: &[f32], side: usize) -> bool {
    let taps = |n: usize| -> Vec<(usize, usize, f32)> {
        let scale = side as f32 / n as f32;
        let tap = |i: usize| {
            let at = ((i as f32 + 0.5) * scale - 0.5).clamp(0.0, (side - 1) as f32);
            let first = at as usize;
            (first, (first + 1).min(side - 1), at - first as f32)
        };
        (0..n).map(tap).collect()
    };
    let (across, down) = (taps(width), taps(height));
    // A little more than what the root is compared with, so that rounding decides nothing here.
    let most = 1.001 * DETAIL_LEVELS.powi(2) * luma.len() as f32;
    let mut sum = 0.0;
    for (y, row) in luma.chunks_exact(width).enumerate() {
        let (top, bottom, low) = down[y];
        for (pixel, &(left, right, far)) in row.iter().zip(&across) {
            let line =
                |r: usize| small[r * side + left] * (1.0 - far) + small[r * side + right] * far;
            let value = line(top) * (1.0 - low) + line(bottom) * low;
            sum += (f32::from(*pixel) - value).powi(2);
        }
        if sum > most {
            return false;
        }
    }
    (sum / luma.len() as f32).sqrt() <= DETAIL_LEVELS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_takes_the_memory_that_is_stated() {
        assert_eq!(size_of::<Option<Signature>>(), 272);
    }

    #[test]
    fn pictures_are_compared_whatever_their_brightness_and_as_mirror_images() {
        let of = |level: &dyn Fn(usize, usize) -> u8| Signature {
            content: 0,
            pixels: 0,
            perceptual: 0,
            mirrored: 0,
            quality: Quality::UNKNOWN,
            aspect: 1.0,
            detail: NonZeroU16::MIN,
            thumbnail: std::array::from_fn(|i| level(i % THUMBNAIL_SIDE, i / THUMBNAIL_SIDE)),
        };
        let slope = of(&|x, y| (7 * x + y) as u8);
        let brighter = of(&|x, y| (100 + 7 * x + y) as u8);
        let turned = of(&|x, y| (7 * (13 - x) + y) as u8);
        // Every other column is two levels brighter: one level from the mean on either side.
        let striped = of(&|x, y| (7 * x + y + 2 * (x % 2)) as u8);
        assert_eq!(slope.levels(&brighter, false), 0.0);
        assert_eq!(slope.levels(&turned, true), 0.0);
        assert!(slope.levels(&turned, false) > 40.0);
        assert_eq!(slope.levels(&striped, false), 1.0);
    }

    #[test]
    fn what_lies_between_borders_has_an_aspect() {
        let strip =
            |x: usize, y: usize| if (40..60).contains(&x) { (y * 37 + x * 11) as u8 } else { 0 };
        let luma: Vec<u8> = (0..100 * 100).map(|i| strip(i % 100, i / 100)).collect();
        assert_eq!(aspect(&luma, 100), 0.2);
        assert_eq!(aspect(&[7; 100], 10), 1.0);
    }

    #[test]
    fn detail_is_the_size_that_an_enlarged_picture_had() {
        let smooth: Vec<u8> = (0..112 * 112).map(|i| (i % 112) as u8).collect();
        assert_eq!(detail(&smooth, 112, 112), 12);
        let noise: Vec<u8> =
            (0..112 * 112u32).map(|i| (i.wrapping_mul(2654435761) >> 24) as u8).collect();
        assert_eq!(detail(&noise, 112, 112), 112);
    }
}

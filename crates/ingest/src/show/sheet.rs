//! The sheet itself: a grid of crops with captions.

use ab_glyph::FontRef;
use image::{Rgb, RgbImage};
use pfc_cli::interrupt;
use pfc_findings::View;
use pfc_image::{ImageSize, decode_rgb};
use pfc_shard::Face;

use super::text::{self, Line};
use crate::{IngestError, units};

/// Pixels around the sheet and between its cells.
const GAP: u32 = 6;
/// Height of the title and of a line of a caption.
const TITLE_HEIGHT: u32 = 26;
const LINE_HEIGHT: u32 = 14;
/// Font sizes in pixels.
const TITLE_PX: f32 = 20.0;
const CAPTION_PX: f32 = 13.0;
/// A sheet of few faces is as wide as its title, but no wider than this.
const TITLE_WIDTH_MAX: f32 = 800.0;
/// No cell is narrower, or its caption would say nothing.
const CELL_WIDTH_MIN: u32 = 96;
/// Memory of a sheet at most.
const SHEET_BYTES_MAX: u64 = 1 << 30;

const PAPER: Rgb<u8> = Rgb([255; 3]);
const INK: Rgb<u8> = Rgb([20; 3]);
const PALE_INK: Rgb<u8> = Rgb([95; 3]);
const BROKEN: Rgb<u8> = Rgb([200, 30, 30]);

/// How a sheet looks.
pub struct Plan {
    pub title: String,
    /// Faces per line; as makes it about square where not given.
    pub columns: Option<u32>,
    /// Whether captions say who it is.
    pub names: bool,
}

/// A drawn sheet.
pub struct Sheet {
    pub pixels: RgbImage,
    /// Faces that could not be decoded.
    pub n_broken: u64,
}

/// Most faces that a sheet of crops of `size` holds; 0 if not even one.
pub fn faces_max(size: ImageSize) -> u64 {
    let cell = Cell::of(size, true);
    let bytes = u64::from(cell.width + GAP) * u64::from(cell.height + GAP) * 3;
    SHEET_BYTES_MAX / bytes
}

/// Draws `rows` of the data set in their order, from left to right and top to bottom; those that are
/// left out too, under the identity that they were packed with.
///
/// # Errors
///
/// [`IngestError::Shard`] if a row cannot be read, [`IngestError::Interrupted`].
pub fn draw(view: &View, rows: &[u64], plan: &Plan) -> Result<Sheet, IngestError> {
    let size = view.manifest().image_size;
    let cell = Cell::of(size, plan.names);
    let n = rows.len().max(1) as u32;
    let columns = plan.columns.unwrap_or_else(|| n.isqrt() + u32::from(n.isqrt().pow(2) < n));
    let columns = columns.clamp(1, n);
    let height = TITLE_HEIGHT + GAP + n.div_ceil(columns) * (cell.height + GAP);
    let font = text::font();
    let title = Line { text: &plan.title, size_px: TITLE_PX, ink: INK };
    let width = title.width(&font).ceil().min(TITLE_WIDTH_MAX) as u32 + GAP;
    let width = GAP + width.max(columns * (cell.width + GAP));
    let mut sheet = Sheet { pixels: RgbImage::from_pixel(width, height, PAPER), n_broken: 0 };
    title.draw(&font, &mut sheet.pixels, (GAP, GAP / 2), width - 2 * GAP);
    for (i, &row) in (0..).zip(rows) {
        if interrupt::requested() {
            return Err(IngestError::Interrupted { done: i.into(), total: rows.len() as u64 });
        }
        let (face, name) = match view.face(row)? {
            Some(face) => (face, view.people().name(face.label)),
            None => {
                let face = view.dataset().get(row)?;
                (face, view.dataset().identities().name(face.label))
            }
        };
        let left = GAP + i % columns * (cell.width + GAP);
        let top = TITLE_HEIGHT + GAP + i / columns * (cell.height + GAP);
        sheet.picture(&face, (left, top));
        let name = plan.names.then_some(name);
        let captions =
            [Some(units::count(row)), name.map(str::to_owned), Some(end_of(face.source))];
        let captions = captions.iter().flatten().zip([INK, PALE_INK, PALE_INK]);
        let below = top + u32::from(size.height) + 1;
        for (line, (text, ink)) in (0..).zip(captions) {
            let line_top = below + line * LINE_HEIGHT;
            let caption = Line { text, size_px: CAPTION_PX, ink };
            caption.draw(&font, &mut sheet.pixels, (left, line_top), cell.width);
        }
    }
    Ok(sheet)
}

/// Pixels of a face with its caption.
struct Cell {
    width: u32,
    height: u32,
}

impl Cell {
    fn of(size: ImageSize, names: bool) -> Cell {
        let n_lines = if names { 3 } else { 2 };
        let height = u32::from(size.height) + 1 + n_lines * LINE_HEIGHT;
        Cell { width: u32::from(size.width).max(CELL_WIDTH_MIN), height }
    }
}

impl Sheet {
    fn picture(&mut self, face: &Face<'_>, (left, top): (u32, u32)) {
        let size = face.size();
        let mut rgb = vec![0; size.rgb_bytes()];
        let decoded = decode_rgb(face.image, size, &mut rgb).is_ok();
        let (width, height) = (u32::from(size.width), u32::from(size.height));
        self.n_broken += u64::from(!decoded);
        for y in 0..height {
            for x in 0..width {
                let at = ((y * width + x) * 3) as usize;
                let is_cross = (x * height).abs_diff(y * width) < 2 * width
                    || ((width - 1 - x) * height).abs_diff(y * width) < 2 * width;
                let pixel = match decoded {
                    true => Rgb([rgb[at], rgb[at + 1], rgb[at + 2]]),
                    false if is_cross => BROKEN,
                    false => Rgb([235; 3]),
                };
                self.pixels.put_pixel(left + x, top + y, pixel);
            }
        }
    }
}

/// File name of a path.
fn end_of(source: &str) -> String {
    source.rsplit('/').next().unwrap_or(source).to_owned()
}

/// The font that captions are set in.
pub type Font = FontRef<'static>;

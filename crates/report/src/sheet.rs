//! Contact sheets: a grid of crops with captions.

use image::{Rgb, RgbImage};
use pfc_image::ImageSize;

use crate::text::{self, Line};

/// Pixels around the sheet and between its cells.
const GAP: u32 = 6;
/// Pixels more behind a group of faces that belong together.
const GROUP_GAP: u32 = 18;
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
/// Lines of a caption at most.
const LINES_MAX: u32 = 3;
/// Memory of a sheet at most.
const SHEET_BYTES_MAX: u64 = 1 << 30;

const PAPER: Rgb<u8> = Rgb([255; 3]);
const INK: Rgb<u8> = Rgb([20; 3]);
const PALE_INK: Rgb<u8> = Rgb([95; 3]);
const BROKEN: Rgb<u8> = Rgb([200, 30, 30]);

/// How a sheet looks.
#[derive(Debug)]
pub struct Plan {
    /// Over the sheet.
    pub title: String,
    /// Faces per line; as makes it about square where not given.
    pub columns: Option<u32>,
    /// Faces that belong together, behind which a wider gap follows; 1 if none do.
    pub group: u32,
    /// Size of all crops.
    pub size: ImageSize,
    /// Lines of every caption.
    pub lines: u32,
}

/// One face on a sheet.
#[derive(Debug)]
pub struct Tile {
    /// Red, green, blue of every pixel; a crossed-out field where there are none.
    pub rgb: Option<Vec<u8>>,
    /// The lines of its caption.
    pub captions: Vec<String>,
}

/// Most faces that a sheet of crops of `size` holds; 0 if not even one.
pub fn faces_max(size: ImageSize) -> u64 {
    let cell = Cell::of(size, LINES_MAX);
    let bytes = u64::from(cell.width + GAP) * u64::from(cell.height + GAP) * 3;
    SHEET_BYTES_MAX / bytes
}

/// Draws `n` faces in their order, from left to right and top to bottom, as `tile` gives them.
///
/// # Errors
///
/// Those of `tile`.
pub fn draw<E>(
    plan: &Plan,
    n: usize,
    mut tile: impl FnMut(usize) -> Result<Tile, E>,
) -> Result<RgbImage, E> {
    let cell = Cell::of(plan.size, plan.lines);
    let n_fields = n.max(1) as u32;
    let square = || n_fields.isqrt() + u32::from(n_fields.isqrt().pow(2) < n_fields);
    let columns = plan.columns.unwrap_or_else(square).clamp(1, n_fields);
    let height = TITLE_HEIGHT + GAP + n_fields.div_ceil(columns) * (cell.height + GAP);
    let font = text::font();
    let title = Line { text: &plan.title, size_px: TITLE_PX, ink: INK };
    let width = title.width(&font).ceil().min(TITLE_WIDTH_MAX) as u32 + GAP;
    let group = plan.group.max(1);
    let group_gap = |column: u32| if group > 1 { column / group * GROUP_GAP } else { 0 };
    let width = GAP + width.max(columns * (cell.width + GAP) + group_gap(columns - 1));
    let mut sheet = RgbImage::from_pixel(width, height, PAPER);
    title.draw(&font, &mut sheet, (GAP, GAP / 2), width - 2 * GAP);
    for i in 0..n {
        let Tile { rgb, captions } = tile(i)?;
        let (line, column) = (i as u32 / columns, i as u32 % columns);
        let left = GAP + column * (cell.width + GAP) + group_gap(column);
        let top = TITLE_HEIGHT + GAP + line * (cell.height + GAP);
        picture(&mut sheet, plan.size, rgb.as_deref(), (left, top));
        let below = top + u32::from(plan.size.height) + 1;
        for (line, text) in (0..plan.lines).zip(&captions) {
            let ink = if line == 0 { INK } else { PALE_INK };
            let caption = Line { text, size_px: CAPTION_PX, ink };
            let corner = (left, below + line * LINE_HEIGHT);
            caption.draw(&font, &mut sheet, corner, cell.width);
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
    fn of(size: ImageSize, lines: u32) -> Cell {
        let height = u32::from(size.height) + 1 + lines * LINE_HEIGHT;
        Cell { width: u32::from(size.width).max(CELL_WIDTH_MIN), height }
    }
}

fn picture(sheet: &mut RgbImage, size: ImageSize, rgb: Option<&[u8]>, (left, top): (u32, u32)) {
    let (width, height) = (u32::from(size.width), u32::from(size.height));
    for y in 0..height {
        for x in 0..width {
            let at = ((y * width + x) * 3) as usize;
            let is_cross = (x * height).abs_diff(y * width) < 2 * width
                || ((width - 1 - x) * height).abs_diff(y * width) < 2 * width;
            let pixel = match rgb.and_then(|rgb| rgb.get(at..at + 3)) {
                Some(pixel) => Rgb([pixel[0], pixel[1], pixel[2]]),
                None if is_cross => BROKEN,
                None => Rgb([235; 3]),
            };
            sheet.put_pixel(left + x, top + y, pixel);
        }
    }
}

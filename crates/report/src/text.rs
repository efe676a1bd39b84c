//! Text on pictures, in a font that comes along, since a server may have none.
//!
//! By hand and not by `imageproc`: it would be all that is used of that crate.

use ab_glyph::{Font as _, FontRef, PxScale, ScaleFont, point};
use image::{Rgb, RgbImage};

/// The font of all text.
pub type Font = FontRef<'static>;

/// The font, which comes along.
pub fn font() -> Font {
    FontRef::try_from_slice(epaint_default_fonts::UBUNTU_LIGHT).expect("the font is a font")
}

/// A line of text and how it looks.
pub struct Line<'a> {
    pub text: &'a str,
    pub size_px: f32,
    pub ink: Rgb<u8>,
}

impl Line<'_> {
    /// Pixels from its beginning to its end.
    pub fn width(&self, font: &Font) -> f32 {
        let scaled = font.as_scaled(PxScale::from(self.size_px));
        self.text.chars().map(|c| scaled.h_advance(scaled.glyph_id(c))).sum()
    }

    /// Draws with the upper left corner at `corner`. What is wider than `width_max` pixels loses its
    /// beginning, since the ends of paths say most.
    pub fn draw(&self, font: &Font, canvas: &mut RgbImage, corner: (u32, u32), width_max: u32) {
        let scaled = font.as_scaled(PxScale::from(self.size_px));
        let text = fit(self.text, width_max as f32, |text| Line { text, ..*self }.width(font));
        let mut caret = point(corner.0 as f32, corner.1 as f32 + scaled.ascent());
        for c in text.chars() {
            let mut glyph = scaled.scaled_glyph(c);
            glyph.position = caret;
            caret.x += scaled.h_advance(glyph.id);
            let Some(outline) = font.outline_glyph(glyph) else { continue };
            let bounds = outline.px_bounds();
            outline.draw(|x, y, coverage| {
                let (x, y) = (bounds.min.x + x as f32, bounds.min.y + y as f32);
                if x >= 0.0 && y >= 0.0 {
                    blend(canvas, (x as u32, y as u32), self.ink, coverage);
                }
            });
        }
    }
}

/// The longest end of `text` that fits, after an ellipsis if something is missing.
fn fit(text: &str, width_max: f32, width_of: impl Fn(&str) -> f32) -> String {
    if width_of(text) <= width_max {
        return text.to_owned();
    }
    let ends = text.char_indices().skip(1).map(|(start, _)| format!("…{}", &text[start..]));
    ends.into_iter().find(|end| width_of(end) <= width_max).unwrap_or_default()
}

fn blend(canvas: &mut RgbImage, (x, y): (u32, u32), ink: Rgb<u8>, coverage: f32) {
    if let Some(pixel) = canvas.get_pixel_mut_checked(x, y) {
        for (paper, ink) in pixel.0.iter_mut().zip(ink.0) {
            let mixed = f32::from(*paper) * (1.0 - coverage) + f32::from(ink) * coverage;
            *paper = mixed.round() as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_is_too_wide_keeps_its_end() {
        let width = |text: &str| text.chars().count() as f32;
        assert_eq!(fit("Aaron_0001.jpg", 14.0, width), "Aaron_0001.jpg");
        assert_eq!(fit("Aaron_0001.jpg", 9.0, width), "…0001.jpg");
        assert_eq!(fit("añ", 1.0, width), "");
    }

    #[test]
    fn text_leaves_ink_within_its_width_and_none_beyond() {
        let mut canvas = RgbImage::from_pixel(80, 20, Rgb([255; 3]));
        let line = Line { text: "a long name of someone", size_px: 13.0, ink: Rgb([0; 3]) };
        line.draw(&font(), &mut canvas, (10, 2), 40);
        let inked = |x: u32| (0..20).any(|y| canvas.get_pixel(x, y).0[0] < 128);
        assert!((10..50).filter(|x| inked(*x)).count() > 15);
        assert!((52..80).all(|x| !inked(x)));
    }
}

//! Parts of a picture that are looked at, and at which size.
//!
//! Networks find faces of some 10 to some 300 pixels. A picture is looked at as a whole first, scaled down to
//! the size that the network is given. Finer levels, each of twice the resolution, are cut into tiles that
//! overlap by a quarter, so that a face on the border of one lies within another.

use pfc_image::{Part, Pixels, align::Landmarks};

use crate::detection::Detection;

/// A part of a picture, scaled and put on a canvas.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct View {
    pub(crate) part: Part,
    /// Columns that the part is scaled to.
    pub(crate) width: u32,
    /// Rows that the part is scaled to.
    pub(crate) height: u32,
    /// The column of the canvas where it begins.
    pub(crate) left: u32,
    /// The row of the canvas where it begins.
    pub(crate) top: u32,
    /// Rows and columns that the network is given.
    pub(crate) canvas: [usize; 2],
}

/// The sizes that a network takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Pixels of the longer side at most.
    pub(crate) size: u32,
    /// How many times a picture is enlarged at most; 1 never enlarges.
    pub(crate) enlarge: u32,
    /// Sides are multiples of this.
    pub(crate) multiple: usize,
    /// Rows and columns, where the network takes no others.
    pub(crate) fixed: Option<[usize; 2]>,
}

/// Of a tile's side: how much it has in common with the next.
const OVERLAP: f64 = 0.25;
/// Of a tile's side: a box that ends so close to the border of a tile may have been cut off there.
const BORDER: f64 = 0.02;

impl Frame {
    /// The whole picture, enlarged as far as the frame allows.
    pub(crate) fn whole(&self, pixels: &Pixels) -> View {
        let part = Part { left: 0, top: 0, width: pixels.width, height: pixels.height };
        self.view(part, self.scale(pixels.width, pixels.height))
    }

    /// The whole picture at half the size in the middle: networks miss faces that fill what they see.
    pub(crate) fn afar(&self, pixels: &Pixels) -> View {
        let whole = self.whole(pixels);
        let (width, height) = (whole.width.div_ceil(2), whole.height.div_ceil(2));
        let middle = |side: usize, n: u32| (side as u32).saturating_sub(n) / 2;
        let [rows, columns] = whole.canvas;
        View { width, height, left: middle(columns, width), top: middle(rows, height), ..whole }
    }

    /// Tiles of the picture at 2^`level` times the resolution of the whole, at most at its own; nothing if the
    /// level before had that already.
    pub(crate) fn tiles(&self, pixels: &Pixels, level: u32) -> Vec<View> {
        let whole = self.scale(pixels.width, pixels.height);
        let factor = f64::from(1_u32 << level.min(16));
        if whole * factor / 2.0 >= 1.0 {
            return Vec::new();
        }
        let scale = (whole * factor).min(1.0);
        let [rows, columns] = match self.fixed {
            Some(sides) => sides.map(|side| side as f64),
            None => [f64::from(self.size); 2],
        };
        let across = spans(pixels.width, columns / scale);
        let down = spans(pixels.height, rows / scale);
        let tile = |&(top, height): &(u32, u32)| {
            across
                .iter()
                .map(move |&(left, width)| self.view(Part { left, top, width, height }, scale))
        };
        down.iter().flat_map(tile).collect()
    }

    /// By which a part is scaled to fit.
    fn scale(&self, width: u32, height: u32) -> f64 {
        let fits = match self.fixed {
            Some([rows, columns]) => {
                (columns as f64 / f64::from(width)).min(rows as f64 / f64::from(height))
            }
            None => f64::from(self.size) / f64::from(width.max(height)),
        };
        fits.min(f64::from(self.enlarge.max(1)))
    }

    fn view(&self, part: Part, scale: f64) -> View {
        let scaled = |side: u32, most: usize| {
            ((f64::from(side) * scale).round() as u32).clamp(1, most.max(1) as u32)
        };
        let [rows, columns] = self.fixed.unwrap_or([usize::MAX >> 33; 2]);
        let (width, height) = (scaled(part.width, columns), scaled(part.height, rows));
        let up = |side: u32| (side as usize).next_multiple_of(self.multiple);
        let canvas = self.fixed.unwrap_or([up(height), up(width)]);
        View { part, width, height, left: 0, top: 0, canvas }
    }
}

/// Stretches of `span` pixels that cover a side of `n` and overlap, as (start, length).
fn spans(n: u32, span: f64) -> Vec<(u32, u32)> {
    let span = (span.round() as u32).clamp(1, n);
    let step = (f64::from(span) * (1.0 - OVERLAP)).max(1.0);
    let rest = n - span;
    let n_steps = (f64::from(rest) / step).ceil() as u32;
    let start = |i: u32| match n_steps {
        0 => 0,
        _ => (u64::from(rest) * u64::from(i) / u64::from(n_steps)) as u32,
    };
    (0..=n_steps).map(|i| (start(i), span)).collect()
}

impl View {
    /// Whether it is the picture as it is.
    pub(crate) fn is_whole(&self, pixels: &Pixels) -> bool {
        let whole = Part { left: 0, top: 0, width: pixels.width, height: pixels.height };
        self.part == whole && (self.width, self.height) == (pixels.width, pixels.height)
    }

    /// A face on the canvas as one in the picture; nothing if the border of a tile may have cut it off.
    pub(crate) fn back(&self, found: Detection, pixels: &Pixels) -> Option<Detection> {
        let Part { left, top, width, height } = self.part;
        let x = |x: f32| {
            (f64::from(x) - f64::from(self.left)) * f64::from(width) / f64::from(self.width)
                + f64::from(left)
        };
        let y = |y: f32| {
            (f64::from(y) - f64::from(self.top)) * f64::from(height) / f64::from(self.height)
                + f64::from(top)
        };
        let [a, b, c, d] = found.bounds;
        let bounds = [x(a), y(b), x(c), y(d)];
        let (right, bottom) = (left + width, top + height);
        let margin = BORDER * f64::from(width.max(height));
        let is_cut = left > 0 && bounds[0] < f64::from(left) + margin
            || top > 0 && bounds[1] < f64::from(top) + margin
            || right < pixels.width && bounds[2] > f64::from(right) - margin
            || bottom < pixels.height && bounds[3] > f64::from(bottom) - margin;
        let landmarks: Landmarks = found.landmarks.map(|[px, py]| [x(px) as f32, y(py) as f32]);
        let bounds = bounds.map(|v| v as f32);
        (!is_cut).then_some(Detection { bounds, landmarks, ..found })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: Frame = Frame { size: 640, enlarge: 1, multiple: 32, fixed: None };

    fn picture(width: u32, height: u32) -> Pixels {
        Pixels::grey(width, height, vec![0; (width * height) as usize])
    }

    fn face(bounds: [f32; 4]) -> Detection {
        Detection { score: 0.9, bounds, landmarks: [[bounds[0], bounds[1]]; 5] }
    }

    #[test]
    fn a_picture_is_scaled_down_and_never_up_and_padded_to_multiples() {
        let view = FRAME.whole(&picture(250, 200));
        assert_eq!((view.width, view.height, view.canvas), (250, 200, [224, 256]));
        assert!(view.is_whole(&picture(250, 200)));
        let view = FRAME.whole(&picture(1920, 1080));
        assert_eq!((view.width, view.height, view.canvas), (640, 360, [384, 640]));
        let fixed = Frame { fixed: Some([320, 320]), ..FRAME };
        let view = fixed.whole(&picture(640, 100));
        assert_eq!((view.width, view.height, view.canvas), (320, 50, [320, 320]));
        assert_eq!(fixed.whole(&picture(5000, 1)).height, 1);
    }

    #[test]
    fn a_picture_is_enlarged_where_that_is_asked_for_up_to_the_size() {
        let twice = Frame { enlarge: 2, ..FRAME };
        let view = twice.whole(&picture(250, 200));
        assert_eq!((view.width, view.height, view.canvas), (500, 400, [416, 512]));
        let back = view.back(face([100.0, 50.0, 200.0, 150.0]), &picture(250, 200)).unwrap();
        assert_eq!(back.bounds, [50.0, 25.0, 100.0, 75.0]);
        let small = Frame { size: 320, ..twice };
        let view = small.whole(&picture(250, 200));
        assert_eq!((view.width, view.height), (320, 256));
        // What is as large as that is scaled down as before, and an enlarged picture has no finer levels.
        assert_eq!(twice.whole(&picture(1920, 1080)).width, 640);
        assert_eq!(twice.tiles(&picture(250, 200), 1), []);
    }

    #[test]
    fn faces_come_back_to_their_places_in_the_picture() {
        let pixels = picture(1280, 720);
        let whole = FRAME.whole(&pixels);
        let back = whole.back(face([10.0, 20.0, 60.0, 80.0]), &pixels).unwrap();
        assert_eq!(back.bounds, [20.0, 40.0, 120.0, 160.0]);
        assert_eq!(back.landmarks[0], [20.0, 40.0]);
        // 320x180 in the middle of a canvas of 640x384.
        let afar = FRAME.afar(&pixels);
        assert_eq!((afar.left, afar.top, afar.width, afar.height), (160, 102, 320, 180));
        let back = afar.back(face([165.0, 112.0, 170.0, 122.0]), &pixels).unwrap();
        assert_eq!(back.bounds, [20.0, 40.0, 40.0, 80.0]);
    }

    #[test]
    fn tiles_cover_the_picture_and_a_cut_face_is_left_to_the_next() {
        let pixels = picture(2000, 1000);
        assert_eq!(FRAME.tiles(&picture(640, 480), 1), []);
        let tiles = FRAME.tiles(&pixels, 1);
        let spans: Vec<(u32, u32)> = tiles.iter().map(|t| (t.part.left, t.part.width)).collect();
        assert_eq!(spans, [(0, 1000), (500, 1000), (1000, 1000)]);
        assert!(tiles.iter().all(|tile| (tile.width, tile.height) == (640, 640)), "{tiles:?}");
        // The right border of the first tile, and the left border of the picture.
        assert_eq!(tiles[0].back(face([600.0, 10.0, 639.0, 50.0]), &pixels), None);
        assert!(tiles[0].back(face([0.0, 10.0, 40.0, 50.0]), &pixels).is_some());
        // Up to the picture's own resolution: 0.32, 0.64, 1.
        assert_eq!(FRAME.tiles(&pixels, 2)[0].part.width, 640);
        assert_eq!(FRAME.tiles(&pixels, 3), []);
    }
}

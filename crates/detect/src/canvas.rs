//! What a network is given: a part of a picture on black, its pixels as the network wants them.

use pfc_image::{ImageError, Pixels, resize_part};

use crate::views::View;

/// How pixels become values: (pixel − mean) / std, by channel in the network's order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Colours {
    pub(crate) is_bgr: bool,
    pub(crate) mean: [f32; 3],
    pub(crate) std: f32,
}

impl Colours {
    /// The value of each byte, for each channel of the network.
    fn values(&self) -> [[f32; 256]; 3] {
        let value = |channel: usize, byte: usize| (byte as f32 - self.mean[channel]) / self.std;
        std::array::from_fn(|channel| std::array::from_fn(|byte| value(channel, byte)))
    }
}

/// `[3, height, width]` values of what is seen.
///
/// # Errors
///
/// [`ImageError::Corrupt`] if the view does not lie in the picture.
pub(crate) fn paint(
    pixels: &Pixels,
    view: &View,
    colours: &Colours,
) -> Result<Vec<f32>, ImageError> {
    let [height, width] = view.canvas;
    let area = height * width;
    let values = colours.values();
    let mut planes: Vec<f32> =
        values.iter().flat_map(|of_byte| std::iter::repeat_n(of_byte[0], area)).collect();
    let scaled;
    let seen = match view.is_whole(pixels) {
        true => pixels,
        false => {
            scaled = resize_part(pixels, view.part, view.width, view.height)?;
            &scaled
        }
    };
    let n_channels = seen.channels.count();
    let row_bytes = seen.width as usize * n_channels;
    for (y, row) in seen.data.chunks_exact(row_bytes).enumerate() {
        let start = (view.top as usize + y) * width + view.left as usize;
        for (channel, of_byte) in values.iter().enumerate() {
            let from = match (n_channels, colours.is_bgr) {
                (1, _) => 0,
                (_, true) => 2 - channel,
                (_, false) => channel,
            };
            let out = &mut planes[channel * area + start..][..seen.width as usize];
            for (value, pixel) in out.iter_mut().zip(row.chunks_exact(n_channels)) {
                *value = of_byte[usize::from(pixel[from])];
            }
        }
    }
    Ok(planes)
}

#[cfg(test)]
mod tests {
    use pfc_image::Part;

    use super::*;

    #[test]
    fn pixels_come_in_the_order_and_range_of_the_network_and_the_rest_is_black() {
        let pixels = Pixels::rgb(2, 1, vec![10, 20, 30, 40, 50, 60]);
        let view = View {
            part: Part { left: 0, top: 0, width: 2, height: 1 },
            width: 2,
            height: 1,
            left: 1,
            top: 1,
            canvas: [2, 3],
        };
        let bgr = Colours { is_bgr: true, mean: [1.0, 2.0, 3.0], std: 1.0 };
        let planes = paint(&pixels, &view, &bgr).unwrap();
        let expected = [
            [-1.0, -1.0, -1.0, -1.0, 29.0, 59.0],
            [-2.0, -2.0, -2.0, -2.0, 18.0, 48.0],
            [-3.0, -3.0, -3.0, -3.0, 7.0, 37.0],
        ];
        assert_eq!(planes, expected.as_flattened());
        let rgb = Colours { is_bgr: false, mean: [0.0; 3], std: 10.0 };
        let grey = Pixels::grey(2, 1, vec![100, 200]);
        let planes = paint(&grey, &view, &rgb).unwrap();
        assert_eq!(planes, [0.0, 0.0, 0.0, 0.0, 10.0, 20.0].repeat(3));
    }
}

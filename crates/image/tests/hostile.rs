//! Whatever landmarks and images say, there is a crop or an error.

use pfc_image::align::{CROP, Image, align, warp};
use proptest::prelude::*;

proptest! {
    #[test]
    fn any_landmarks_give_a_crop_or_an_error(points in proptest::array::uniform10(any::<f64>())) {
        let landmarks = [0, 2, 4, 6, 8].map(|i| [points[i], points[i + 1]]);
        let image = Image::new(&[200; 2 * 3 * 3], 2, 3).unwrap();
        if let Ok(matrix) = align(&landmarks) {
            prop_assert_eq!(warp(&image, &matrix).len(), CROP * CROP * 3);
        }
    }

    #[test]
    fn any_matrix_gives_a_crop(m in proptest::array::uniform6(any::<f64>())) {
        let image = Image::new(&[200; 2 * 3 * 3], 2, 3).unwrap();
        let crop = warp(&image, &[[m[0], m[1], m[2]], [m[3], m[4], m[5]]]);
        prop_assert_eq!(crop.len(), CROP * CROP * 3);
    }
}

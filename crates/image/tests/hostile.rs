//! Whatever landmarks and images say, there is a crop or an error.

use std::{fs, path::Path};

use pfc_image::{
    Fit, ImageSize, Limits,
    align::{CROP, Image, align, warp},
    decode, resize,
};
use proptest::prelude::*;

/// Damaged copies of each picture.
const COPIES: usize = 60;

/// Every picture of the zoo, of each format and with what says how it is turned, damaged. What is decoded can be used.
#[test]
fn no_damage_to_a_picture_is_more_than_an_error() {
    let zoo = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/zoo");
    let limits = Limits { pixels_max: 1 << 14 };
    let size = ImageSize { width: 8, height: 8 };
    let mut n_decoded = 0;
    for entry in fs::read_dir(zoo).expect("the zoo is there") {
        let path = entry.expect("it can be listed").path();
        if path.extension().is_some_and(|ending| ending == "rgb" || ending == "py") {
            continue;
        }
        let seed = fs::read(&path).expect("a picture can be read");
        for bytes in pfc_testing::damaged(&seed, COPIES) {
            let Ok(pixels) = decode(&bytes, limits) else { continue };
            let n_bytes = pixels.width as usize * pixels.height as usize * pixels.channels.count();
            assert_eq!(pixels.data.len(), n_bytes, "{}", path.display());
            assert!(resize(pixels, size, Fit::Crop).is_ok(), "{}", path.display());
            n_decoded += 1;
        }
    }
    assert!(n_decoded > 100, "{n_decoded}");
}

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

//! Inputs of `pack` other than folders and RecordIO: shared ways of looking at what became of them.

mod bins;
mod cases;
mod choice;
mod lists;
mod messages;
mod parts;
mod tables;
mod tars;
mod zoo;

use crate::common::{Bench, picture};

/// A JPEG of the final size, different for every `i`.
fn face(i: u8) -> Vec<u8> {
    let mut picture = picture(112, 112);
    picture.put_pixel(0, 0, image::Rgb([i, i, i]));
    picture.pixels_mut().take(2000).for_each(|pixel| pixel.0[2] = i.wrapping_mul(37));
    let mut bytes = Vec::new();
    let encoder = jpeg_encoder::Encoder::new(&mut bytes, 90);
    encoder.encode(&picture, 112, 112, jpeg_encoder::ColorType::Rgb).unwrap();
    bytes
}

/// Source, label, name of the identity and bytes of every row of a data set, by source.
fn rows(bench: &Bench, dataset: &str) -> Vec<(String, u32, String, Vec<u8>)> {
    let dataset = bench.dataset(dataset);
    let row = |row| {
        let face = dataset.get(row).unwrap();
        let identity = dataset.identities().name(face.label).to_owned();
        (face.source.to_owned(), face.label, identity, face.image.to_vec())
    };
    let mut rows: Vec<_> = (0..dataset.len()).map(row).collect();
    rows.sort();
    rows
}

/// Checks all rows, given by source; `face(i)` is the image of the row with number i.
#[track_caller]
fn check_rows(bench: &Bench, dataset: &str, expected: &[(&str, u32, &str, u8)]) {
    let found = rows(bench, dataset);
    let found: Vec<_> =
        found.iter().map(|(s, l, n, image)| (&s[..], *l, &n[..], &image[..])).collect();
    let faces: Vec<Vec<u8>> = expected.iter().map(|row| face(row.3)).collect();
    let expected: Vec<_> =
        expected.iter().zip(&faces).map(|(row, face)| (row.0, row.1, row.2, &face[..])).collect();
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!((found.0, found.1, found.2), (expected.0, expected.1, expected.2));
        assert!(found.3 == expected.3, "{}: other bytes", found.0);
    }
    assert_eq!(found.len(), expected.len());
}

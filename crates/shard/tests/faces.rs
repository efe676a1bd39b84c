//! Walking a data set in the order of training.

#![allow(clippy::unwrap_used)] // helpers of tests may

use pfc_image::decode_rgb;
use pfc_shard::{
    DEFAULT_SHARD_BYTES, Dataset, DatasetSpec, DatasetWriter, EpochOrder, Face, ImageSize, Quality,
};
use tempfile::TempDir;

const SIZE: ImageSize = ImageSize { width: 16, height: 8 };
const N_ROWS: u64 = 1_000;

/// Rows of four identities; the left half of each image is dark.
fn dataset() -> (TempDir, Dataset) {
    let dir = tempfile::tempdir().unwrap();
    let spec = DatasetSpec {
        lineage: vec![],
        image_size: SIZE,
        seed: 0,
        shard_bytes: DEFAULT_SHARD_BYTES,
        sources: vec![],
        tool: "test".into(),
        arguments: vec![],
    };
    let halves: Vec<u8> = (0..16 * 8).map(|i| if i % 16 < 8 { 10 } else { 200 }).collect();
    let mut jpeg = Vec::new();
    jpeg_encoder::Encoder::new(&mut jpeg, 100)
        .encode(&halves, 16, 8, jpeg_encoder::ColorType::Luma)
        .unwrap();
    let mut writer = DatasetWriter::create(dir.path(), spec).unwrap();
    for row in 0..N_ROWS {
        let label = (row % 4) as u32;
        writer.push(Face::new(&jpeg, label, "a.jpg", SIZE, Quality::default())).unwrap();
    }
    writer.finish(["a", "b", "c", "d"].into_iter().collect()).unwrap();
    let dataset = Dataset::open(dir.path()).unwrap();
    (dir, dataset)
}

#[test]
fn faces_come_in_the_order_of_the_share_however_far_rows_are_asked_for_ahead() {
    let (_dir, dataset) = dataset();
    let order = EpochOrder::new(N_ROWS, 3, 1);
    let places: Vec<_> = order.share(10, 1, 2).collect();
    for n in [0, 1, 7, 256, 10_000] {
        let faces = dataset.faces(order.share(10, 1, 2)).ahead(n);
        assert_eq!(faces.len(), places.len());
        let visited: Vec<_> = faces.map(Result::unwrap).collect();
        assert!(visited.iter().map(|v| v.place).eq(places.iter().copied()), "{n} ahead");
        assert!(visited.iter().all(|v| u64::from(v.face.label) == v.place.row % 4));
    }
}

#[test]
fn an_image_is_mirrored_where_its_place_says_so() {
    let (_dir, dataset) = dataset();
    let (mut plain, mut pixels) = (vec![0; SIZE.rgb_bytes()], vec![0; SIZE.rgb_bytes()]);
    let mut n_mirrored = 0;
    for visit in dataset.faces(EpochOrder::new(N_ROWS, 0, 0).share(0, 0, 1)).take(50) {
        let visit = visit.unwrap();
        decode_rgb(visit.face.image, SIZE, &mut plain).unwrap();
        visit.decode_rgb(&mut pixels).unwrap();
        let is_dark_left = pixels[0] < 100;
        assert_eq!(is_dark_left, !visit.place.mirror);
        assert_eq!(plain == pixels, !visit.place.mirror);
        n_mirrored += u32::from(visit.place.mirror);
    }
    assert!((10..40).contains(&n_mirrored));
}

#[test]
fn the_rows_of_an_identity_are_found() {
    let (_dir, dataset) = dataset();
    let expected: Vec<u64> = (2..N_ROWS).step_by(4).collect();
    assert_eq!(dataset.rows_of(2).unwrap(), expected);
    assert!(dataset.rows_of(4).unwrap().is_empty());
}

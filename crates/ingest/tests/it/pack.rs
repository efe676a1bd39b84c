//! `pfc-ingest pack`: what becomes of images and files of all sorts.

use std::fs;

use image::{DynamicImage, GrayImage, ImageBuffer, ImageFormat, Luma, RgbaImage};
use pfc_image::{ImageSize, decode_rgb};
use pfc_shard::Face;

use crate::common::{Bench, encode, jpeg, picture, stderr};

/// A PNG whose header promises `width`×`height` pixels, without them.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = encode(picture(2, 2), ImageFormat::Png);
    bytes[16..20].copy_from_slice(&width.to_be_bytes());
    bytes[20..24].copy_from_slice(&height.to_be_bytes());
    // The checksum covers the chunk's type and content.
    let crc = crc32(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// The CRC-32 of PNG, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
    let fold = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc));
    !bytes.iter().fold(u32::MAX, fold)
}

/// A JPEG header that promises 65,535 pixels a side.
fn huge_jpeg() -> Vec<u8> {
    let mut bytes = jpeg(16, 16);
    let frame = bytes.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    bytes[frame + 5..frame + 9].fill(0xff);
    bytes
}

fn grey16() -> DynamicImage {
    let ramp = ImageBuffer::from_fn(120, 120, |x, _| Luma([x as u16 * 546]));
    DynamicImage::ImageLuma16(ramp)
}

fn mixed(bench: &Bench) {
    let grey = GrayImage::from_fn(64, 64, |x, y| Luma([(x + y) as u8]));
    let clear = RgbaImage::from_pixel(50, 80, image::Rgba([200, 100, 50, 128]));
    bench.write("raw/a/crop.jpg", &jpeg(112, 112));
    bench.write("raw/a/large.jpg", &jpeg(300, 200));
    bench.write("raw/a/png-in-disguise.jpg", &encode(picture(112, 112), ImageFormat::Png));
    bench.write("raw/a/without_extension", &jpeg(112, 112));
    bench.write("raw/part/b/grey.pgm", &encode(grey, ImageFormat::Pnm));
    bench.write("raw/part/b/deep.png", &encode(grey16(), ImageFormat::Png));
    bench.write("raw/part/b/clear.png", &encode(clear, ImageFormat::Png));
    bench.write("raw/part/c/windows.bmp", &encode(picture(90, 90), ImageFormat::Bmp));
    bench.write("raw/part/c/web.webp", &encode(picture(130, 140), ImageFormat::WebP));
    bench.write("raw/README.txt", b"Faces of three people.\n");
    bench.write("raw/a/notes.txt", b"None.\n");
    bench.write("raw/loose.jpg", &jpeg(112, 112));
}

fn row<'a>(dataset: &'a pfc_shard::Dataset, source: &str) -> Face<'a> {
    let faces = (0..dataset.len()).map(|row| dataset.get(row).unwrap());
    faces.into_iter().find(|face| face.source == source).unwrap_or_else(|| panic!("no {source}"))
}

fn pixels(face: &Face<'_>) -> Vec<u8> {
    let mut rgb = vec![0; ImageSize::FACE.rgb_bytes()];
    decode_rgb(face.image, ImageSize::FACE, &mut rgb).unwrap();
    rgb
}

#[test]
fn formats_are_told_by_content_and_all_become_jpegs_of_one_size() {
    let bench = Bench::new();
    mixed(&bench);
    let summary = bench.json("pack raw data --json");
    let count = |key: &str| summary[key].as_u64().unwrap();
    assert_eq!((count("images"), count("identities")), (9, 3));
    assert_eq!((count("passed_through"), count("re_encoded")), (2, 7));
    assert_eq!((count("quarantined"), count("skipped")), (0, 3));
    let dataset = bench.dataset("data");
    let names: Vec<_> = (0..3).map(|label| dataset.identities().name(label)).collect();
    assert_eq!(names, ["a", "part/b", "part/c"]);
    for index in 0..dataset.len() {
        let face = dataset.get(index).unwrap();
        pixels(&face);
        assert!(face.source.starts_with(names[face.label as usize]), "{}", face.source);
    }
    let kept = fs::read(bench.path("raw/a/crop.jpg")).unwrap();
    assert!(row(&dataset, "a/crop.jpg").image == kept);
    let skipped: Vec<_> = bench.quarantine("data").into_iter().map(|l| (l.0, l.2)).collect();
    let expected =
        [("README.txt", "other_file"), ("a/notes.txt", "other_file"), ("loose.jpg", "no_identity")];
    assert_eq!(skipped, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
}

#[test]
fn sixteen_bit_grey_keeps_its_high_bits() {
    let bench = Bench::new();
    bench.write("raw/b/deep.png", &encode(grey16(), ImageFormat::Png));
    bench.run("pack raw data").success();
    let dataset = bench.dataset("data");
    let rgb = pixels(&row(&dataset, "b/deep.png"));
    // 120 columns of 546·x are squeezed into 112: column i shows about 546·(i + 1/2)·120/112.
    for column in [4usize, 56, 107] {
        let expected = 546.0 * (column as f64 + 0.5) * 120.0 / 112.0 / 257.0;
        let pixel = &rgb[(50 * 112 + column) * 3..][..3];
        assert!((f64::from(pixel[0]) - expected).abs() < 4.0, "{pixel:?}, not {expected}");
        assert!(pixel[0] == pixel[1] && pixel[1] == pixel[2]);
    }
}

#[test]
fn a_photograph_on_its_side_is_turned_upright() {
    // Bright on the left; EXIF orientation 6 says to turn it clockwise, which puts left on top.
    let mut side = picture(120, 120);
    for (x, _, pixel) in side.enumerate_pixels_mut() {
        *pixel = image::Rgb([if x < 60 { 240 } else { 20 }; 3]);
    }
    let exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    let mut bytes = Vec::new();
    let mut encoder = jpeg_encoder::Encoder::new(&mut bytes, 90);
    encoder.add_exif_metadata(exif).unwrap();
    encoder.encode(&side, 120, 120, jpeg_encoder::ColorType::Rgb).unwrap();
    let bench = Bench::new();
    bench.write("raw/a/side.jpg", &bytes);
    bench.run("pack raw data").success();
    let dataset = bench.dataset("data");
    let rgb = pixels(&row(&dataset, "a/side.jpg"));
    let red = |x: usize, y: usize| rgb[(y * 112 + x) * 3];
    assert!(red(100, 20) > 200 && red(20, 20) > 200 && red(20, 100) < 60 && red(100, 100) < 60);
}

#[test]
fn unusable_files_are_quarantined_with_their_reason_and_the_rest_is_packed() {
    let bench = Bench::new();
    let good = jpeg(112, 112);
    bench.write("raw/a/good.jpg", &good);
    bench.write("raw/a/cut.jpg", &good[..good.len() / 2]);
    bench.write("raw/a/empty.jpg", b"");
    bench.write("raw/a/text.jpg", b"<html>404</html>");
    bench.write("raw/a/animated.gif", b"GIF89a\x01\0\x01\0\0\0\0;");
    bench.write("raw/a/huge.jpg", &huge_jpeg());
    bench.write("raw/a/huge.png", &png_header(100_000, 100_000));
    bench.write("raw/a/cut.png", &encode(picture(99, 99), ImageFormat::Png)[..300]);
    bench.write("raw/a/huge.pgm", b"P5\n99999 99999\n255\n");
    bench.write("raw/b/only.jpg", &good[..50]);
    let run = bench.run("pack raw data --max-left-out 100 --json").success();
    insta::assert_snapshot!(stderr(&run), @"
     WARN 9 images left out; the reasons are in data/quarantine.jsonl
     WARN identities without a readable image, whose labels stay unused: 1
    ");
    let reasons: Vec<_> = bench.quarantine("data").into_iter().map(|l| (l.0, l.2)).collect();
    let expected = [
        ("a/animated.gif", "unsupported"),
        ("a/cut.jpg", "truncated"),
        ("a/cut.png", "truncated"),
        ("a/empty.jpg", "empty"),
        ("a/huge.jpg", "too_large"),
        ("a/huge.pgm", "too_large"),
        ("a/huge.png", "too_large"),
        ("a/text.jpg", "not_an_image"),
        ("b/only.jpg", "truncated"),
    ];
    assert_eq!(reasons, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    assert_eq!(bench.dataset("data").len(), 1);
    bench.run("verify data").success();
}

#[cfg(unix)]
#[test]
fn links_are_followed_and_one_that_leads_nowhere_is_quarantined() {
    use std::os::unix::fs::symlink;
    let bench = Bench::new();
    bench.write("store/1.jpg", &jpeg(112, 112));
    bench.write("raw/a/2.jpg", &jpeg(112, 112));
    symlink(bench.path("store"), bench.path("raw/b")).unwrap();
    symlink(bench.path("nowhere"), bench.path("raw/a/gone.jpg")).unwrap();
    bench.run("pack raw data --max-left-out 100").success();
    let gone = ("a/gone.jpg".into(), "quarantined".into(), "broken_link".into());
    assert_eq!(bench.quarantine("data"), [gone]);
    assert_eq!(bench.dataset("data").n_identities(), 2);
}

#[test]
fn the_bytes_do_not_depend_on_the_number_of_threads() {
    let bench = Bench::new();
    mixed(&bench);
    bench.write("raw/a/cut.jpg", &jpeg(112, 112)[..200]);
    // More images than one chunk holds.
    for i in 0..1100 {
        bench.write(&format!("raw/many/{i}.jpg"), &jpeg(16, 16));
    }
    bench.run("pack raw one --threads 1").success();
    bench.run("pack raw two --threads 2").success();
    let one = bench.tree("one");
    assert_eq!(one.len(), 4);
    assert!(one == bench.tree("two"));
}

#[test]
fn rows_come_in_source_order_on_request_and_else_in_an_order_by_seed() {
    let bench = Bench::new();
    for i in 0..40 {
        bench.write(&format!("raw/p{}/{i:02}.jpg", i / 8), &jpeg(16, 16));
    }
    let order = |options: &str| {
        bench.run(&format!("pack raw data --force {options}")).success();
        let dataset = bench.dataset("data");
        (0..40).map(|row| dataset.get(row).unwrap().source.to_owned()).collect::<Vec<_>>()
    };
    let source = order("--order source");
    let mut sorted = source.clone();
    sorted.sort();
    assert_eq!(source, sorted);
    let (first, again, other) = (order("--seed 1"), order("--seed 1"), order("--seed 2"));
    assert_eq!(first, again);
    assert!(first != source && first != other);
    let mut all = first.clone();
    all.sort();
    assert_eq!(all, sorted);
}

#[test]
fn other_sizes_and_fits_are_taken() {
    let bench = Bench::new();
    // Black but for a white band at the left end, which only a crop cuts off.
    let mut wide = GrayImage::new(256, 64);
    wide.enumerate_pixels_mut().for_each(|(x, _, p)| p.0[0] = if x < 64 { 255 } else { 0 });
    bench.write("raw/a/wide.png", &encode(wide, ImageFormat::Png));
    let brightness = |fit: &str| {
        bench.run(&format!("pack raw data --force --size 64 --fit {fit}")).success();
        let dataset = bench.dataset("data");
        assert_eq!(dataset.manifest().image_size, ImageSize::square(64));
        dataset.get(0).unwrap().quality.brightness
    };
    // A quarter of the stretched image is white, and a quarter of a quarter of the padded one.
    for (fit, expected) in [("crop", 0.0), ("stretch", 63.75), ("pad", 15.9)] {
        let found = brightness(fit);
        assert!((found - expected).abs() < 1.0, "{fit}: {found}, not {expected}");
    }
}

#[test]
fn a_data_set_is_replaced_only_by_force_and_not_once_its_manifest_is_gone() {
    let bench = Bench::new();
    bench.write("raw/a/1.jpg", &jpeg(112, 112));
    bench.run("pack raw data").success();
    let before = bench.tree("data");
    bench.write("raw/a/2.jpg", &jpeg(112, 112));
    bench.run("pack raw data").code(2);
    assert!(before == bench.tree("data"));
    bench.run("pack raw data --force").success();
    assert_eq!(bench.dataset("data").len(), 2);
    // Without manifest and journal, nothing says that the files were written by a pack.
    fs::remove_file(bench.path("data/dataset.json")).unwrap();
    let before = bench.tree("data");
    bench.run("pack raw data").code(2);
    assert!(before == bench.tree("data"));
    // Nothing is left beside.
    let names = fs::read_dir(bench.path("")).unwrap();
    assert_eq!(names.count(), 2);
}

#[test]
fn a_failed_replacement_leaves_the_old_data_set_whole() {
    let bench = Bench::new();
    bench.write("raw/a/1.jpg", &jpeg(112, 112));
    bench.run("pack raw data").success();
    let before = bench.tree("data");
    bench.write("raw/a/1.jpg", b"");
    bench.run("pack raw data --force").code(2);
    assert!(before == bench.tree("data"));
}

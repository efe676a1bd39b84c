//! Pictures of every format: the pixels that Pillow shows, upright whatever EXIF says, and nothing of
//! what is cut short. `zoo/make.py` made them.

#![allow(clippy::unwrap_used)] // helpers of tests may

use std::{
    fs,
    path::{Path, PathBuf},
};

use pfc_image::{
    Changes, Fit, ImageError, ImageSize, Limits, Pixels, Recipe, decode, decode_rgb, resize,
};

const WIDTH: usize = 37;
const HEIGHT: usize = 29;
const SIZE: ImageSize = ImageSize { width: WIDTH as u16, height: HEIGHT as u16 };

fn zoo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/zoo")
}

fn read(name: &str) -> Vec<u8> {
    fs::read(zoo().join(name)).unwrap()
}

/// All pictures, by name.
fn pictures() -> Vec<(String, Vec<u8>)> {
    let names = fs::read_dir(zoo()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> =
        names.filter(|name| !name.ends_with(".rgb") && !name.ends_with(".py")).collect();
    names.sort();
    assert!(names.len() > 25, "{names:?}");
    names.into_iter().map(|name| (name.clone(), read(&name))).collect()
}

fn rgb(bytes: &[u8]) -> Vec<u8> {
    decode(bytes, Limits::DEFAULT).unwrap().into_rgb()
}

/// `stored` as it is to be seen, by EXIF's own definition: the side of the picture on which the first
/// stored row lies, and the one on which the first column does.
fn turned(stored: &[u8], orientation: u8) -> Pixels {
    let is_across = orientation >= 5;
    let first_row_is_far = matches!(orientation, 3 | 4 | 6 | 7);
    let first_column_is_far = matches!(orientation, 2 | 3 | 7 | 8);
    let (width, height) = if is_across { (HEIGHT, WIDTH) } else { (WIDTH, HEIGHT) };
    let mut seen = vec![0; stored.len()];
    for row in 0..HEIGHT {
        for column in 0..WIDTH {
            let a = if first_row_is_far { HEIGHT - 1 - row } else { row };
            let b = if first_column_is_far { WIDTH - 1 - column } else { column };
            let (y, x) = if is_across { (b, a) } else { (a, b) };
            let (from, to) = ((row * WIDTH + column) * 3, (y * width + x) * 3);
            seen[to..to + 3].copy_from_slice(&stored[from..from + 3]);
        }
    }
    Pixels::rgb(width as u32, height as u32, seen)
}

fn exif(orientation: u8) -> Vec<u8> {
    let mut block = b"II\x2a\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
    block.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
    block
}

fn jpeg_with(jpeg: &[u8], block: &[u8]) -> Vec<u8> {
    let block = [b"Exif\0\0", block].concat();
    let length = (block.len() as u16 + 2).to_be_bytes();
    [&jpeg[..2], b"\xff\xe1", &length, &block, &jpeg[2..]].concat()
}

/// With an `eXIf` chunk before the chunk called `before`.
fn png_with(png: &[u8], block: &[u8], before: &[u8; 4]) -> Vec<u8> {
    chunk_in(png, b"eXIf", block, before)
}

/// With a chunk before the chunk called `before`.
fn chunk_in(png: &[u8], name: &[u8; 4], data: &[u8], before: &[u8; 4]) -> Vec<u8> {
    let at = png.windows(4).position(|name| name == before).unwrap() - 4;
    let named = [name, data].concat();
    let crc = named.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 }
        })
    });
    let length = (data.len() as u32).to_be_bytes();
    [&png[..at], &length, &named, &(!crc).to_be_bytes(), &png[at..]].concat()
}

/// With the block as `ImageMagick` wrote it before there was a chunk for it.
fn png_with_text(png: &[u8], block: &[u8]) -> Vec<u8> {
    let digits: String = block.iter().map(|byte| format!("{byte:02x}")).collect();
    let text = format!("Raw profile type exif\0\nexif\n{:8}\n{digits}\n", block.len());
    chunk_in(png, b"tEXt", text.as_bytes(), b"IDAT")
}

/// A packet as photo programs write it, with the number as an attribute or as an element.
fn xmp(orientation: u8, is_attribute: bool) -> Vec<u8> {
    let (attribute, element) = match is_attribute {
        true => (format!(" tiff:Orientation=\"{orientation}\""), String::new()),
        false => (String::new(), format!("<tiff:Orientation>{orientation}</tiff:Orientation>")),
    };
    format!(
        "<?xpacket begin=\"\u{feff}\" id=\"W5M0MpCehiHzreSzNTczkc9d\"?>\
         <x:xmpmeta xmlns:x=\"adobe:ns:meta/\"><rdf:RDF \
         xmlns:rdf=\"http://www.w3.org/1999/02/22-rdf-syntax-ns#\"><rdf:Description rdf:about=\"\" \
         xmlns:tiff=\"http://ns.adobe.com/tiff/1.0/\"{attribute}>{element}</rdf:Description></rdf:RDF>\
         </x:xmpmeta><?xpacket end=\"w\"?>"
    )
    .into_bytes()
}

fn jpeg_with_xmp(jpeg: &[u8], packet: &[u8]) -> Vec<u8> {
    let payload = [b"http://ns.adobe.com/xap/1.0/\0", packet].concat();
    let length = (payload.len() as u16 + 2).to_be_bytes();
    [&jpeg[..2], b"\xff\xe1", &length, &payload, &jpeg[2..]].concat()
}

/// A WebP of the extended layout with an XMP packet in place of its EXIF block.
fn webp_with_xmp(webp: &[u8], packet: &[u8]) -> Vec<u8> {
    const HAS_EXIF: u8 = 1 << 3;
    const HAS_XMP: u8 = 1 << 2;
    let (mut chunks, mut rest) = (Vec::new(), &webp[12..]);
    while let Some((head, after)) = rest.split_first_chunk::<8>() {
        let length = u32::from_le_bytes(head[4..].try_into().unwrap()) as usize;
        let padded = length.next_multiple_of(2);
        if !head.starts_with(b"EXIF") {
            chunks.extend([head, &after[..padded]].concat());
        }
        rest = &after[padded..];
    }
    assert!(chunks.starts_with(b"VP8X") && chunks[8] & HAS_EXIF != 0);
    chunks[8] = chunks[8] & !HAS_EXIF | HAS_XMP;
    chunks.extend([b"XMP ", &(packet.len() as u32).to_le_bytes()[..], packet].concat());
    chunks.resize(chunks.len().next_multiple_of(2), 0);
    let length = (chunks.len() as u32 + 4).to_le_bytes();
    [b"RIFF", &length[..], b"WEBP", &chunks].concat()
}

#[test]
fn pictures_are_upright_where_xmp_alone_states_the_orientation() {
    let stored = rgb(&read("rgb.png"));
    let (jpeg, png, webp) = (read("baseline444.jpg"), read("rgb.png"), read("turned-1.webp"));
    let jpeg_stored = rgb(&jpeg);
    for orientation in 1..=8 {
        let check = |what: &str, bytes: &[u8], stored: &[u8]| {
            let found = decode(bytes, Limits::DEFAULT).unwrap();
            assert!(found == turned(stored, orientation), "{what}, orientation {orientation}");
        };
        for is_attribute in [false, true] {
            let packet = xmp(orientation, is_attribute);
            let in_jpeg = jpeg_with_xmp(&jpeg, &packet);
            check("JPEG", &in_jpeg, &jpeg_stored);
            let text = [b"XML:com.adobe.xmp\0\0\0\0\0", &packet[..]].concat();
            check("PNG", &chunk_in(&png, b"iTXt", &text, b"IDAT"), &stored);
            check("PNG, behind the pixels", &chunk_in(&png, b"iTXt", &text, b"IEND"), &stored);
            check("WebP", &webp_with_xmp(&webp, &packet), &stored);
            // EXIF that says that the picture is upright is believed.
            let found = decode(&jpeg_with(&in_jpeg, &exif(1)), Limits::DEFAULT).unwrap();
            assert!(found.into_rgb() == jpeg_stored, "orientation {orientation}");
        }
    }
}

#[test]
fn every_picture_has_the_pixels_that_pillow_shows() {
    for (name, bytes) in pictures() {
        let Ok(expected) = fs::read(zoo().join(format!("{name}.rgb"))) else { continue };
        let found = rgb(&bytes);
        assert_eq!(found.len(), expected.len(), "{name}");
        let gaps = found.iter().zip(&expected).map(|(a, b)| u64::from(a.abs_diff(*b)));
        let (sum, max) = gaps.fold((0, 0), |(sum, max), gap| (sum + gap, max.max(gap)));
        let mean = sum as f64 / expected.len() as f64;
        // Decoders of lossy formats round differently, above all where they enlarge the chroma.
        let is_lossy = name.ends_with("jpg") || name == "lossy.webp";
        let (mean_max, max_max) = if is_lossy { (1.5, 24) } else { (0.0, 0) };
        assert!(mean <= mean_max && max <= max_max, "{name}: mean {mean}, max {max}");
    }
}

/// A BMP of 24 or 32 bits a pixel, its rows from the bottom up or from the top down.
fn bmp(rgb: &[u8], bits: usize, is_top_down: bool) -> Vec<u8> {
    let height = if is_top_down { -(HEIGHT as i32) } else { HEIGHT as i32 };
    let n_bytes = (WIDTH * bits / 8).next_multiple_of(4) * HEIGHT;
    let mut bytes = b"BM".to_vec();
    for word in [54 + n_bytes as u32, 0, 54, 40, WIDTH as u32, height as u32] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend([1, 0, bits as u8, 0]);
    for word in [0, n_bytes as u32, 2835, 2835, 0, 0] {
        bytes.extend(word.to_le_bytes());
    }
    for row in 0..HEIGHT {
        let row = if is_top_down { row } else { HEIGHT - 1 - row };
        let mut line = Vec::new();
        for pixel in rgb[row * WIDTH * 3..][..WIDTH * 3].as_chunks::<3>().0 {
            line.extend(pixel.iter().rev());
            line.resize(line.len() + (bits - 24) / 8, 0);
        }
        line.resize(line.len().next_multiple_of(4), 0);
        bytes.extend(line);
    }
    bytes
}

#[test]
fn a_picture_has_the_same_pixels_in_every_layout_of_pnm_and_bmp() {
    let expected = rgb(&read("rgb.png"));
    let head = |kind: &str, max: u32| format!("{kind}\n# of a scanner\n{WIDTH} {HEIGHT}\n{max}\n");
    let numbers: Vec<String> = expected.iter().map(u8::to_string).collect();
    let wide: Vec<u8> =
        expected.iter().flat_map(|value| (u16::from(*value) * 257).to_be_bytes()).collect();
    let with_alpha: Vec<u8> =
        expected.as_chunks().0.iter().flat_map(|[r, g, b]| [*r, *g, *b, 9]).collect();
    let pam = |depth: u32, kind: &str| {
        format!(
            "P7\nWIDTH {WIDTH}\nHEIGHT {HEIGHT}\nDEPTH {depth}\nMAXVAL 255\nTUPLTYPE {kind}\nENDHDR\n"
        )
    };
    for (name, bytes) in [
        ("P6", [head("P6", 255).as_bytes(), &expected].concat()),
        ("P3", [head("P3", 255).as_bytes(), numbers.join(" ").as_bytes()].concat()),
        ("P6 of 16 bits", [head("P6", 65_535).as_bytes(), &wide].concat()),
        ("PAM", [pam(3, "RGB").as_bytes(), &expected].concat()),
        ("PAM with alpha", [pam(4, "RGB_ALPHA").as_bytes(), &with_alpha].concat()),
        ("BMP", bmp(&expected, 24, false)),
        ("BMP from the top", bmp(&expected, 24, true)),
        ("BMP of 32 bits", bmp(&expected, 32, false)),
    ] {
        let found = decode(&bytes, Limits::DEFAULT).map(Pixels::into_rgb);
        assert!(found.as_ref() == Ok(&expected), "{name}: {:?}", found.err());
    }
}

#[test]
fn pictures_are_upright_whatever_format_states_the_orientation() {
    let stored = rgb(&read("rgb.png"));
    let (jpeg, png) = (read("baseline444.jpg"), read("rgb.png"));
    let jpeg_stored = rgb(&jpeg);
    for orientation in 1..=8 {
        let check = |what: &str, bytes: &[u8], stored: &[u8]| {
            let expected = turned(stored, orientation);
            let found = decode(bytes, Limits::DEFAULT).unwrap();
            assert!(found == expected, "{what}, orientation {orientation}");
        };
        let block = exif(orientation);
        check("JPEG", &jpeg_with(&jpeg, &block), &jpeg_stored);
        check("PNG, before the pixels", &png_with(&png, &block, b"IDAT"), &stored);
        check("PNG, behind the pixels", &png_with(&png, &block, b"IEND"), &stored);
        check("PNG, as text", &png_with_text(&png, &block), &stored);
        check("WebP", &read(&format!("turned-{orientation}.webp")), &stored);
    }
}

#[test]
fn the_loader_and_the_long_way_see_the_same_pixels() {
    let jpegs = pictures().into_iter().filter(|(name, _)| name.ends_with("jpg"));
    for (name, jpeg) in jpegs {
        for orientation in 1..=8 {
            let bytes = jpeg_with(&jpeg, &exif(orientation));
            let expected = decode(&bytes, Limits::DEFAULT).unwrap();
            let size = ImageSize { width: expected.width as u16, height: expected.height as u16 };
            let mut out = vec![0; size.rgb_bytes()];
            decode_rgb(&bytes, size, &mut out).unwrap();
            assert!(out == expected.into_rgb(), "{name}, orientation {orientation}");
            if size != SIZE {
                let error = decode_rgb(&bytes, SIZE, &mut out).unwrap_err();
                assert_eq!(error, ImageError::Size { found: size, expected: SIZE });
            }
        }
    }
}

#[test]
fn a_crop_is_resized_after_it_is_upright_and_says_what_was_done() {
    let recipe = Recipe { size: ImageSize::square(16), ..Recipe::FACE };
    let bytes = jpeg_with(&read("baseline.jpg"), &exif(6));
    let crop = recipe.crop(&bytes, None).unwrap();
    let upright = decode(&bytes, Limits::DEFAULT).unwrap();
    assert_eq!(crop.pixels, resize(upright, recipe.size, Fit::Crop).unwrap());
    let expected =
        Changes { is_turned: true, is_resized: true, is_reshaped: true, ..Changes::default() };
    assert_eq!(crop.changes, expected);
}

#[test]
fn what_is_cut_short_is_refused_wherever_the_cut_is() {
    // Of an animation only the first frame counts, and that may be whole.
    for (name, bytes) in pictures().into_iter().filter(|(name, _)| !name.starts_with("animated")) {
        let is_jpeg = name.ends_with("jpg");
        // The end marker of a JPEG, the last chunk of a PNG, which is empty, and the padding of a BMP.
        let may_lack = if is_jpeg {
            2
        } else if name.ends_with("png") {
            12
        } else {
            4
        };
        for n in (0..bytes.len().saturating_sub(may_lack)).step_by(5) {
            let found = decode(&bytes[..n], Limits::DEFAULT);
            assert!(found.is_err(), "{name}: {n} of {} bytes", bytes.len());
        }
    }
}

#[test]
fn a_jpeg_that_zeros_fill_up_is_cut_short() {
    for (name, bytes) in pictures().into_iter().filter(|(name, _)| name.ends_with("jpg")) {
        for n in (bytes.len() / 3..bytes.len() - 2).step_by(11) {
            let mut cut = bytes[..n].to_vec();
            cut.resize(bytes.len(), 0);
            assert!(decode(&cut, Limits::DEFAULT).is_err(), "{name}: {n}");
        }
        let whole = decode(&bytes[..bytes.len() - 2], Limits::DEFAULT);
        assert_eq!(whole, decode(&bytes, Limits::DEFAULT), "{name} without its end marker");
    }
}

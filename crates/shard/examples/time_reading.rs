//! How fast rows are written, verified and read on this machine, on one core where not said
//! otherwise.
//!
//! `cargo run --release -p pfc-shard --example time_reading -- FOLDER_OF_JPEGS SCRATCH [COPIES]`
//!
//! Takes every file two levels below the folder, so that it is one folder per identity; the images
//! are read beforehand, so that the source disk does not count. SCRATCH/speed must not exist.

// An example prints.
#![allow(clippy::print_stdout)]

use std::{error::Error, fs, hint::black_box, path::PathBuf, time::Instant};

use pfc_shard::{
    DEFAULT_SHARD_BYTES, Dataset, DatasetSpec, DatasetWriter, EpochOrder, Face, ImageSize, Quality,
    verify,
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let usage = "usage: speed FOLDER_OF_JPEGS SCRATCH [COPIES]";
    let raw = PathBuf::from(arguments.next().ok_or(usage)?);
    let out = PathBuf::from(arguments.next().ok_or(usage)?).join("speed");
    let copies: usize = arguments.next().map_or(Ok(1), |n| n.to_string_lossy().parse())?;

    let mut names = Vec::new();
    let mut images = Vec::new();
    for folder in fs::read_dir(&raw)? {
        let folder = folder?.path();
        for file in fs::read_dir(&folder)? {
            let path = file?.path();
            let source = path.strip_prefix(&raw)?.to_string_lossy().into_owned();
            images.push((names.len() as u32, source, fs::read(&path)?));
        }
        names.push(folder.file_name().unwrap_or_default().to_string_lossy().into_owned());
    }
    let size = pfc_image::jpeg_header(&images.first().ok_or("no images")?.2)?;
    let n = images.len() * copies;
    let report = |what: &str, n: usize, start: Instant| {
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "{what:32} {:12.0} rows/s  {:8.1} ns/row",
            n as f64 / seconds,
            seconds / n as f64 * 1e9
        );
    };

    let start = Instant::now();
    write(&out, size, &images, copies, &names)?;
    report("write, hash, checksum, sync", n, start);

    let start = Instant::now();
    let clean = verify(&out, |_| ())?.is_clean();
    report("verify (all cores)", n, start);
    if !clean {
        return Err("the data set just written is damaged".into());
    }

    let start = Instant::now();
    let dataset = Dataset::open(&out)?;
    println!("{:32} {:12.3} ms", "open", start.elapsed().as_secs_f64() * 1e3);
    let start = Instant::now();
    dataset.preload()?;
    println!(
        "{:32} {:12.3} ms, {} shards",
        "preload",
        start.elapsed().as_secs_f64() * 1e3,
        dataset.manifest().shards.len()
    );

    let order = EpochOrder::new(dataset.len(), 1, 0);
    let start = Instant::now();
    black_box((0..dataset.len()).map(|i| order.row_at(i)).fold(0, u64::wrapping_add));
    report("row_at", n, start);
    let start = Instant::now();
    for place in order.share(0, 0, 1) {
        black_box(dataset.get(place.row)?);
    }
    report("row_at and get", n, start);
    let mut pixels = vec![0; size.rgb_bytes()];
    let start = Instant::now();
    for place in order.share(0, 0, 1) {
        pfc_image::decode_rgb(dataset.get(place.row)?.image, size, &mut pixels)?;
    }
    report("row_at, get and decode", n, start);
    Ok(())
}

fn write(
    out: &std::path::Path,
    image_size: ImageSize,
    images: &[(u32, String, Vec<u8>)],
    copies: usize,
    names: &[String],
) -> Result<(), Box<dyn Error>> {
    let spec = DatasetSpec {
        lineage: vec![],
        image_size,
        seed: 0,
        shard_bytes: DEFAULT_SHARD_BYTES,
        sources: Vec::new(),
        tool: "speed".into(),
        arguments: Vec::new(),
    };
    let mut writer = DatasetWriter::create(out, spec)?;
    for _ in 0..copies {
        for (label, source, image) in images {
            writer.push(Face::new(image, *label, source, image_size, Quality::default()))?;
        }
    }
    writer.finish(names.iter().collect())?;
    Ok(())
}

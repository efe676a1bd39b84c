//! How fast records are read and written, against copying the same bytes, and what an index takes.
//!
//! ```text
//! cargo run --release -p pfc-recordio --example time_records -- [IMAGES [IMAGE_BYTES [INDEX_LINES]]]
//! ```
//!
//! The file is made up, written to the temporary folder and read from the page cache: the figures
//! are the processor's share, not the disk's.

#![allow(clippy::print_stdout, clippy::unwrap_used)] // a program for developers

use std::{
    fmt::Write,
    fs,
    hint::black_box,
    path::Path,
    time::{Duration, Instant},
};

use pfc_recordio::{FaceRecord, FaceWriter, RecordFile, RecordPaths, Style};

const IMAGES_PER_IDENTITY: u64 = 47;

fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse().unwrap());
    let n_images: u64 = arguments.next().unwrap_or(100_000);
    let image_bytes = arguments.next().unwrap_or(4096) as usize;
    let n_lines = arguments.next().unwrap_or(17_451_890);

    index_memory(n_lines);
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("out");
    let (written, took) = timed(|| write(&dir, n_images, image_bytes));
    report("write, sync included", n_images, image_bytes, took);

    let paths = RecordPaths::find(&dir).unwrap();
    let file = paths.open().unwrap();
    assert_eq!(file.n_images(), written);
    let (rec, mut copy) = (fs::read(&paths.rec).unwrap(), vec![0_u8; image_bytes]);
    let copied = |image: &[u8], copy: &mut [u8]| {
        copy[..image.len()].copy_from_slice(image);
        black_box(copy[0]);
    };
    let ((), bare) = timed(|| {
        rec.chunks_exact(image_bytes).for_each(|chunk| copied(chunk, &mut copy));
    });
    report("copy without records (base)", n_images, image_bytes, bare);
    let read = |order: &dyn Fn(u64) -> u64, copy: &mut Vec<u8>| {
        for position in 0..n_images {
            let FaceRecord { label, image, .. } = file.image(order(position)).unwrap();
            black_box(label);
            copied(&image, copy);
        }
    };
    read(&|position| position, &mut copy); // the pages are mapped
    let ((), took) = timed(|| read(&|position| position, &mut copy));
    report("read in order and copy", n_images, image_bytes, took);
    let ((), took) = timed(|| read(&|n| (n * 7_368_787) % n_images, &mut copy));
    report("read at random and copy", n_images, image_bytes, took);
    let (scanned, took) = timed(|| RecordFile::open(&paths.rec, None).unwrap());
    report("scan without an index", scanned.n_records(), image_bytes, took);
}

fn write(dir: &Path, n_images: u64, image_bytes: usize) -> u64 {
    let mut writer = FaceWriter::create(dir, Style::Identities, 112, 112).unwrap();
    let image: Vec<u8> = (0..image_bytes).map(|n| (n * n) as u8).collect();
    for n in 0..n_images {
        writer.push(n / IMAGES_PER_IDENTITY, &image).unwrap();
    }
    writer.finish().unwrap().n_images
}

/// Parses an index as long as Glint360K's, keys 1… and then 0.
fn index_memory(n_lines: u64) {
    let mut idx = String::new();
    for key in (1..n_lines).chain([0]) {
        writeln!(idx, "{key}\t0").unwrap();
    }
    let rec = [&b"\x0a\x23\xd7\xce\x18\0\0\0"[..], &[0; 24]].concat();
    let before = resident_bytes();
    let (file, took) = timed(|| RecordFile::from_bytes(rec, Some(idx.as_bytes())).unwrap());
    let more = |bytes: u64| bytes.saturating_sub(before) / 1_000_000;
    println!(
        "index of {} lines: {:.2} s, {} MB of memory, {} MB at the peak",
        file.n_records(),
        took.as_secs_f64(),
        more(resident_bytes()),
        more(peak_bytes()),
    );
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let done = work();
    (done, start.elapsed())
}

fn report(what: &str, n_records: u64, image_bytes: usize, took: Duration) {
    let per_s = n_records as f64 / took.as_secs_f64();
    let gb_per_s = per_s * image_bytes as f64 / 1e9;
    println!("{what:28} {per_s:>12.0} records/s {gb_per_s:>7.2} GB/s");
}

/// Of this process, from Linux; 0 elsewhere.
fn status_bytes(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    1024 * kilobytes.unwrap_or(0)
}

fn resident_bytes() -> u64 {
    status_bytes("VmRSS:")
}

fn peak_bytes() -> u64 {
    status_bytes("VmHWM:")
}

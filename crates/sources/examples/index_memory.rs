//! How much memory the index of a very large source takes: that of Glint360K, 17,091,657 images of
//! 360,232 identities, in a list with made-up names or a RecordIO file of (tiny) records.
//!
//! `cargo run --release -p pfc-sources --example index_memory -- list SCRATCH_FOLDER`
//! `cargo run --release -p pfc-sources --example index_memory -- recordio SCRATCH_FOLDER`
//!
//! The file takes up to 1 GB of the scratch folder and is removed. Linux only: the figures are
//! the kernel's. `own` is what the process cannot do without; `resident` also counts pages of the
//! mapped files, which the kernel takes back when others need memory.

#![allow(clippy::print_stdout)]

use std::{
    error::Error,
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use pfc_recordio::{FaceWriter, Style};
use pfc_sources::{InputOptions, Source};

const IMAGES: u64 = 17_091_657;
const IDENTITIES: u64 = 360_232;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (kind, scratch) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["list", scratch] => ("list", scratch),
        ["recordio", scratch] => ("recordio", scratch),
        _ => return Err("give `list` or `recordio`, and a scratch folder".into()),
    };
    let dir = Path::new(scratch).join("index_memory.tmp");
    let raw = match kind {
        "list" => write_list(&dir)?,
        _ => write_records(&dir)?,
    };
    let options = InputOptions::default();
    let source = measured(|| Ok(pfc_sources::open(&raw, &options, &dir, true)?));
    fs::remove_dir_all(&dir)?;
    let source: Box<dyn Source + Send> = source?;
    let n = source.index().len();
    println!("{n}, the last is {}", source.path(n - 1));
    Ok(())
}

/// How many images an identity has: 47 or 48.
fn n_images(identity: u64) -> u64 {
    (identity + 1) * IMAGES / IDENTITIES - identity * IMAGES / IDENTITIES
}

fn write_list(dir: &Path) -> Result<PathBuf, Box<dyn Error>> {
    fs::create_dir(dir)?;
    let path = dir.join("list.tsv");
    let mut out = BufWriter::new(File::create(&path)?);
    for identity in 0..IDENTITIES {
        for i in 0..n_images(identity) {
            writeln!(out, "{identity:06}/{identity:06}_{i:04}.jpg\t{identity}")?;
        }
    }
    out.flush()?;
    Ok(path)
}

fn write_records(dir: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let mut writer = FaceWriter::create(dir, Style::Sequential, 112, 112)?;
    for identity in 0..IDENTITIES {
        for _ in 0..n_images(identity) {
            writer.push(identity, b"\xff\xd8\xff\xd9")?;
        }
    }
    writer.finish()?;
    Ok(dir.join("train.rec"))
}

/// Runs `work` and prints the most memory it had at a time.
fn measured<T>(work: impl FnOnce() -> Result<T, Box<dyn Error>>) -> Result<T, Box<dyn Error>> {
    let (done, own) = (AtomicBool::new(false), AtomicU64::new(0));
    let before = kib("RssAnon")?;
    let started = Instant::now();
    let result = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                own.fetch_max(kib("RssAnon").unwrap_or(0), Relaxed);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let result = work();
        done.store(true, Relaxed);
        result
    });
    let mib = |kib: u64| kib / 1024;
    let own = own.load(Relaxed).max(kib("RssAnon")?);
    println!("seconds             {:.1}", started.elapsed().as_secs_f64());
    println!("own memory, peak    {} MiB ({} before)", mib(own), mib(before));
    println!("own memory, after   {} MiB", mib(kib("RssAnon")?));
    println!("resident, peak      {} MiB", mib(kib("VmHWM")?));
    result
}

/// A figure of this process.
fn kib(name: &str) -> Result<u64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let figure = line.and_then(|line| line.split_whitespace().next());
    Ok(figure.ok_or("no such figure")?.parse()?)
}

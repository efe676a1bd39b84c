//! Shared by the tests: running the program in a folder of its own, making and comparing files.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use assert_cmd::{Command, assert::Assert};
use tempfile::TempDir;

/// A temporary folder in which the program runs, so that messages show relative paths only.
pub struct Bench {
    dir: TempDir,
}

impl Bench {
    pub fn new() -> Bench {
        Bench { dir: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().join(relative)
    }

    /// Runs with the arguments in `line`, split at blanks.
    pub fn run(&self, line: &str) -> Assert {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("pfc-ingest"));
        command.current_dir(self.dir.path()).env_remove("PFC_LOG");
        command.args(line.split_whitespace()).assert()
    }

    /// Standard output of a run that ran, whether or not it found faults, as JSON.
    pub fn json(&self, line: &str) -> serde_json::Value {
        let run = self.run(line);
        assert!(matches!(run.get_output().status.code(), Some(0 | 1)), "{}", stderr(&run));
        let output = run.get_output().stdout.clone();
        serde_json::from_slice(&output).unwrap()
    }

    /// Writes a file and the folders above it.
    pub fn write(&self, relative: &str, bytes: &[u8]) {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// All files below a folder, with their content.
    pub fn tree(&self, relative: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        let root = self.path(relative);
        let mut files = BTreeMap::new();
        collect(&root, &root, &mut files);
        files
    }

    pub fn dataset(&self, relative: &str) -> pfc_shard::Dataset {
        pfc_shard::Dataset::open(&self.path(relative)).unwrap()
    }

    /// Flips a bit in the middle of the image at `row`, which is in the first shard.
    pub fn damage(&self, dataset: &str, row: u64) {
        let image = self.dataset(dataset).get(row).unwrap().image.to_vec();
        let path = self.path(dataset).join("shards/00000.arrow");
        let mut bytes = fs::read(&path).unwrap();
        let start = bytes.windows(image.len()).position(|window| window == image).unwrap();
        bytes[start + image.len() / 2] ^= 0x10;
        fs::write(&path, bytes).unwrap();
    }

    /// The lines of a data set's quarantine list as (source, kind, reason), sorted.
    pub fn quarantine(&self, dataset: &str) -> Vec<(String, String, String)> {
        let text = fs::read_to_string(self.path(dataset).join("quarantine.jsonl")).unwrap();
        let word = |line: &serde_json::Value, key: &str| line[key].as_str().unwrap().to_owned();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        let mut lines: Vec<_> = lines
            .map(|line| (word(&line, "source"), word(&line, "kind"), word(&line, "reason")))
            .collect();
        lines.sort();
        lines
    }
}

fn collect(root: &Path, dir: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, files);
        } else {
            files.insert(path.strip_prefix(root).unwrap().to_owned(), fs::read(&path).unwrap());
        }
    }
}

/// Standard error of a run.
pub fn stderr(assert: &Assert) -> String {
    String::from_utf8(assert.get_output().stderr.clone()).unwrap()
}

/// Standard output of a run.
pub fn stdout(assert: &Assert) -> String {
    String::from_utf8(assert.get_output().stdout.clone()).unwrap()
}

/// A colour image with a gradient, so that it is not flat.
pub fn picture(width: u32, height: u32) -> image::RgbImage {
    image::RgbImage::from_fn(width, height, |x, y| {
        let (across, down) = (x * 255 / width.max(1), y * 255 / height.max(1));
        image::Rgb([across as u8, down as u8, 90])
    })
}

pub fn jpeg(width: u16, height: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    jpeg_encoder::Encoder::new(&mut bytes, 90)
        .encode(&picture(width.into(), height.into()), width, height, jpeg_encoder::ColorType::Rgb)
        .unwrap();
    bytes
}

pub fn encode(image: impl Into<image::DynamicImage>, format: image::ImageFormat) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

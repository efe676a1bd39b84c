//! What the files of a journal say: how the pack was begun, which shards are done, and the names of
//! labels and what a listing left out, as lines of JSON: all that is needed of a source once its
//! images are packed.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Write},
    path::Path,
};

use pfc_cli::units::count;
use pfc_image::Tally;
use pfc_shard::{
    Checksum, DatasetSpec, DetectionRow, IdentityNames, ImageSize, ShardEntry,
    hash::{HashingWriter, content_hash},
    shard_file,
};
use pfc_sources::Source;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    IngestError, PackError,
    pack::{quarantine::Line, summary::Summary},
};

/// What is packed and how. Two packs with the same record write the same bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    pub tool: String,
    pub arguments: Vec<String>,
    pub sources: Vec<String>,
    pub image_size: ImageSize,
    pub seed: u64,
    pub shard_bytes: u64,
    /// Images in the source.
    pub images: u64,
    pub identities: u64,
    /// Of the names of all identities and images.
    pub names: Checksum,
    /// Of the content of some images.
    pub sample: Checksum,
    /// Bytes of a row, estimated.
    pub row_bytes: u64,
    /// Images of every shard but the last, those left out included.
    pub shard_images: u64,
    pub labels_list: ListSeal,
    pub left_out_list: ListSeal,
}

impl JobRecord {
    /// A number for the whole record.
    pub fn id(&self) -> Checksum {
        let json = serde_json::to_vec(self).expect("strings and numbers become JSON");
        Checksum(content_hash(&json))
    }

    /// Number of shards, those included whose images all are left out.
    pub fn n_shards(&self) -> u64 {
        self.images.div_ceil(self.shard_images.max(1))
    }

    /// The places of shard `index`.
    pub fn places(&self, index: u64) -> std::ops::Range<u64> {
        let start = index.saturating_mul(self.shard_images).min(self.images);
        start..start.saturating_add(self.shard_images).min(self.images)
    }

    /// What the manifest says.
    pub fn spec(&self) -> DatasetSpec {
        DatasetSpec {
            lineage: vec![],
            image_size: self.image_size,
            seed: self.seed,
            shard_bytes: self.shard_bytes,
            sources: self.sources.clone(),
            tool: self.tool.clone(),
            arguments: self.arguments.clone(),
        }
    }

    /// What is not the same in `there`, an earlier record.
    pub fn differences(&self, there: &JobRecord) -> Vec<String> {
        let mut differences = given_differences(
            [&self.tool, &self.sources.join(", ")],
            [&there.tool, &there.sources.join(", ")],
            [&self.arguments, &there.arguments],
        );
        let numbers = [
            ("images", self.images, there.images),
            ("identities", self.identities, there.identities),
        ];
        differences.extend(numbers.into_iter().filter_map(|(what, now, before)| {
            difference(&format!("the input has {what}:"), &count(now), &count(before))
        }));
        if differences.is_empty() && self.names != there.names {
            differences.push("the input's files have other names than before".into());
        }
        if differences.is_empty() && self.left_out_list != there.left_out_list {
            differences.push("the input has other files beside its images than before".into());
        }
        if differences.is_empty() {
            differences.push("the input's images have other content than before".into());
        }
        differences
    }
}

/// What is not the same of what two commands were given: the program's version, the input and the options.
pub fn given_differences(
    [tool, input]: [&str; 2],
    [tool_before, input_before]: [&str; 2],
    [arguments, arguments_before]: [&[String]; 2],
) -> Vec<String> {
    let (now, before) = only_in_one(arguments, arguments_before);
    let all = [
        difference("it is written by", tool, tool_before),
        difference("the input is", input, input_before),
        difference("the options are", &now, &before),
    ];
    all.into_iter().flatten().collect()
}

fn difference(what: &str, now: &str, before: &str) -> Option<String> {
    (now != before).then(|| format!("{what} {now}, not {before} as before"))
}

/// The arguments that the other list lacks, of each.
fn only_in_one(a: &[String], b: &[String]) -> (String, String) {
    let only = |a: &[String], b: &[String]| {
        let only: Vec<&str> = a.iter().filter(|x| !b.contains(x)).map(String::as_str).collect();
        if only.is_empty() { "without".to_owned() } else { only.join(" ") }
    };
    if a == b { (String::new(), String::new()) } else { (only(a, b), only(b, a)) }
}

/// A finished shard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShardRecord {
    /// The job it is of; set when it is written.
    pub job: Checksum,
    pub index: u64,
    /// The file; none if no image of the shard is usable.
    pub file: Option<ShardFile>,
    pub passed_through: u64,
    pub re_encoded: u64,
    /// What was done to the images that are stored.
    #[serde(default)]
    pub changes: Tally,
    /// Where the faces lie in their photographs, 15 numbers for each row one after another, `null` for NaN; empty
    /// where that is not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    detections: Vec<Option<f32>>,
    /// The images left out.
    pub quarantine: Vec<Line>,
}

/// Size and checksum of a shard's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardFile {
    pub rows: u64,
    pub bytes: u64,
    pub checksum: Checksum,
}

impl ShardRecord {
    /// Of a shard without images so far.
    pub fn begin(index: u64) -> ShardRecord {
        ShardRecord {
            job: Checksum(0),
            index,
            file: None,
            passed_through: 0,
            re_encoded: 0,
            changes: Tally::default(),
            detections: Vec::new(),
            quarantine: Vec::new(),
        }
    }

    /// Adds where the face of a row lies.
    pub fn add_detection(&mut self, row: &DetectionRow) {
        self.detections.extend(row.iter().map(|value| Some(*value).filter(|v| !v.is_nan())));
    }

    /// Where the faces lie, row by row.
    ///
    /// # Errors
    ///
    /// [`PackError::DamagedJournal`] if they are not 15 numbers each.
    pub fn detections(&self) -> Result<Vec<DetectionRow>, IngestError> {
        match self.detections.as_chunks() {
            (rows, []) => {
                Ok(rows.iter().map(|row| row.map(|value| value.unwrap_or(f32::NAN))).collect())
            }
            _ => {
                Err(PackError::DamagedJournal { path: format!("{:05}.json", self.index).into() }
                    .into())
            }
        }
    }

    /// Counts its rows in `summary`.
    pub fn count_in(&self, summary: &mut Summary) {
        summary.images += self.passed_through + self.re_encoded;
        summary.passed_through += self.passed_through;
        summary.re_encoded += self.re_encoded;
        summary.changes.merge(&self.changes);
        summary.shards += u64::from(self.file.is_some());
        summary.bytes += self.file.map_or(0, |file| file.bytes);
    }

    /// As the manifest lists it.
    pub fn entry(&self) -> Option<ShardEntry> {
        let ShardFile { rows, bytes, checksum } = self.file?;
        Some(ShardEntry { file: shard_file(self.index as usize), rows, bytes, checksum })
    }
}

/// The shards of one worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerRecord {
    /// `2/8`.
    pub worker: String,
    pub start: u64,
    /// One past the last.
    pub end: u64,
}

/// Of a data set that is complete but for its manifest, or has that already.
#[derive(Debug, Serialize, Deserialize)]
pub struct Done {
    pub job: Checksum,
    pub summary: Summary,
}

/// Size and checksum of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListSeal {
    pub bytes: u64,
    pub checksum: Checksum,
}

/// Writes the name of each label.
///
/// # Errors
///
/// That of `out`.
pub fn write_labels(out: &mut impl Write, source: &dyn Source) -> io::Result<()> {
    source.index().identities().try_for_each(|name| write_line(out, &name))
}

/// Writes what was met while listing and is no entry.
///
/// # Errors
///
/// That of `out`.
pub fn write_left_out(out: &mut impl Write, source: &dyn Source) -> io::Result<()> {
    let lines = source.left_out().iter();
    lines
        .map(|l| Line::new(&l.source, &l.reject.clone().into()))
        .try_for_each(|line| write_line(out, &line))
}

/// Size and checksum of what `write` writes.
pub fn measure(write: impl FnOnce(&mut HashingWriter<io::Sink>) -> io::Result<()>) -> ListSeal {
    let mut out = HashingWriter::new(io::sink());
    // A sink takes everything.
    let _ = write(&mut out);
    let (_, bytes, checksum) = out.finish();
    ListSeal { bytes, checksum }
}

/// Reads the names of the labels.
///
/// # Errors
///
/// [`PackError::DamagedJournal`] if the list is not the one that `seal` tells of.
pub fn read_labels(path: &Path, seal: ListSeal) -> Result<IdentityNames, IngestError> {
    let mut names = IdentityNames::default();
    read_lines(path, seal, |name: String| {
        names.push([name]);
        Ok(())
    })?;
    Ok(names)
}

/// Hands each line of the list at `path` to `take`.
///
/// # Errors
///
/// As [`read_labels`], and those of `take`.
pub fn read_lines<T: DeserializeOwned>(
    path: &Path,
    seal: ListSeal,
    mut take: impl FnMut(T) -> Result<(), IngestError>,
) -> Result<(), IngestError> {
    let damaged = || IngestError::from(PackError::DamagedJournal { path: path.into() });
    let file = File::open(path).map_err(IngestError::at("open", path))?;
    let mut hashed = HashingWriter::new(io::sink());
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line).map_err(IngestError::at("read", path))? == 0 {
            break;
        }
        let _ = hashed.write_all(&line);
        take(serde_json::from_slice(&line).map_err(|_| damaged())?)?;
    }
    let (_, bytes, checksum) = hashed.finish();
    if (ListSeal { bytes, checksum }) == seal { Ok(()) } else { Err(damaged()) }
}

fn write_line<T: Serialize>(out: &mut impl Write, value: &T) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

//! Data sets of MosaicML Streaming (MDS) and of LitData: `index.json`, and binary files of samples. Both
//! begin with the number of samples and where each begins; a sample is the sizes of its columns and their
//! bytes, where MDS leaves out sizes that are fixed.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    ops::Range,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{
    catalogue::People,
    columns::ColumnChoice,
    error::SourceError,
    file::{IMAGE_BYTES_MAX, check_size, exists},
    folders::Parts,
    label::{Value, Who},
    reject::Reject,
    shelf::{Entry, Found, Shelf, Shelved, Span, Spans, Unlisted, Wanted, Whose},
    source::LeftOut,
    spool::Spool,
    tar::Packing,
};

/// The file that describes a data set.
pub const INDEX: &str = "index.json";

/// The description of ten million files takes less.
const INDEX_BYTES_MAX: u64 = 1 << 30;
/// An image and what is said of it.
const SAMPLE_BYTES_MAX: u64 = IMAGE_BYTES_MAX + (1 << 20);
/// More columns than any data set has.
const COLUMNS_MAX: usize = 1024;

/// A column of a sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    name: String,
    /// How values are encoded, as the index has it.
    encoding: String,
    /// Bytes of every value, where they are fixed and not in the sample.
    fixed: Option<u32>,
}

/// A file of samples.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shard {
    path: PathBuf,
    /// Samples that the index promises.
    n_samples: u64,
}

/// Which columns are what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roles {
    columns: Vec<Column>,
    image: usize,
    label: Option<usize>,
    identity: Option<usize>,
}

/// Finds the samples of the data set in the folder `dir`, on the current thread pool. Images of files that
/// are compressed go to a temporary file in `scratch`.
///
/// # Errors
///
/// [`SourceError`] if it cannot be read, is of a kind that is not, or has no image.
pub fn open(
    dir: &Path,
    scratch: &Path,
    choice: &ColumnChoice,
    wanted: Wanted,
) -> Result<Shelved<Spans>, SourceError> {
    let path = dir.join(INDEX);
    let wrong = |problem| SourceError::Damaged { path: path.clone(), problem };
    let file = File::open(&path).map_err(SourceError::at("open", &path))?;
    let mut text = String::new();
    file.take(INDEX_BYTES_MAX).read_to_string(&mut text).map_err(SourceError::at("read", &path))?;
    let Described { columns, shards } = described(&text).map_err(wrong)?;
    let files: Vec<Shard> = shards
        .into_iter()
        .map(|(names, n_samples)| Ok(Shard { path: present(dir, &names)?, n_samples }))
        .collect::<Result<_, SourceError>>()?;
    let (roles, guess) = Roles::of(columns, choice, wanted).map_err(wrong)?;
    let name = dir.display().to_string();
    if let Some(guess) = guess {
        tracing::warn!("{name}: the columns are {guess}; --columns says otherwise");
    }
    let packings = files.iter().map(|shard| Packing::of(&shard.path));
    let packings = packings.collect::<Result<Vec<_>, _>>()?;
    let is_spooled: Vec<bool> = packings.iter().map(|p| *p != Packing::Plain).collect();
    let spool = is_spooled.contains(&true).then(|| Spool::create(scratch)).transpose()?;
    let read = |i: usize, path: &Path| {
        let file = File::open(path).map_err(SourceError::at("open", path))?;
        let size = file.metadata().map_err(SourceError::at("look at", path))?.len();
        let unpacked = packings[i].unpacked(file, size).map_err(SourceError::at("unpack", path))?;
        let input = BufReader::with_capacity(1 << 16, unpacked);
        let spool = spool.as_ref().filter(|_| is_spooled[i]);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        list(input, files[i].n_samples, &roles, spool, &name).map_err(|unlisted| unlisted.at(path))
    };
    let paths = files.iter().map(|shard| shard.path.clone()).collect();
    let shelf = Shelf::list(name, paths, wanted, read)?;
    Ok(Shelved::new(shelf, Spans { spool, is_spooled }))
}

/// The columns that an index describes, and the samples of its first file: for the fuzz targets.
pub fn fuzzed(index: &[u8]) -> Option<(u64, Roles)> {
    let Described { columns, shards } = described(std::str::from_utf8(index).ok()?).ok()?;
    let wanted = Wanted { people: People::Optional, parts: Parts::Apart, quiet: true };
    let (roles, _) = Roles::of(columns, &ColumnChoice::default(), wanted).ok()?;
    Some((shards.first()?.1, roles))
}

/// The first of `names` that is there. A name leads to no other folder.
fn present(dir: &Path, names: &[String]) -> Result<PathBuf, SourceError> {
    for name in names {
        let is_plain = Path::new(name).file_name() == Some(name.as_ref());
        if is_plain && exists(&dir.join(name))? {
            return Ok(dir.join(name));
        }
    }
    let path = dir.join(names.first().map_or("", String::as_str));
    Err(SourceError::Damaged {
        path: dir.join(INDEX),
        problem: format!("{} is not there: is the copy complete?", path.display()),
    })
}

/// What an index says.
#[derive(Debug, PartialEq, Eq)]
struct Described {
    columns: Vec<Column>,
    /// The names that each file may have, and its number of samples.
    shards: Vec<(Vec<String>, u64)>,
}

#[derive(Deserialize)]
struct Index {
    shards: Option<Vec<MdsShard>>,
    chunks: Option<Vec<Chunk>>,
    config: Option<LitConfig>,
}

#[derive(Deserialize)]
struct MdsShard {
    format: String,
    column_names: Option<Vec<String>>,
    column_encodings: Option<Vec<String>>,
    column_sizes: Option<Vec<Option<u32>>>,
    samples: u64,
    raw_data: Option<MdsFile>,
    zip_data: Option<MdsFile>,
}

#[derive(Deserialize)]
struct MdsFile {
    basename: String,
}

#[derive(Deserialize)]
struct Chunk {
    filename: String,
    chunk_size: u64,
}

#[derive(Deserialize)]
struct LitConfig {
    data_format: Option<Vec<String>>,
    data_spec: Option<serde_json::Value>,
    encryption: Option<serde_json::Value>,
    item_loader: Option<String>,
}

fn described(text: &str) -> Result<Described, String> {
    let index: Index = serde_json::from_str(text).map_err(|e| e.to_string())?;
    match index {
        Index { shards: Some(shards), .. } => mds(shards),
        Index { chunks: Some(chunks), config: Some(config), .. } => lit(chunks, config),
        _ => Err("it describes neither shards, as MDS has them, nor chunks of LitData".into()),
    }
}

fn mds(shards: Vec<MdsShard>) -> Result<Described, String> {
    let mut columns: Option<Vec<Column>> = None;
    let mut files = Vec::with_capacity(shards.len());
    for shard in shards {
        if shard.format != "mds" {
            return Err(format!("its shards are in `{}`, and only MDS is read", shard.format));
        }
        let names = shard.column_names.unwrap_or_default();
        let encodings = shard.column_encodings.unwrap_or_default();
        let sizes = shard.column_sizes.unwrap_or_default();
        if names.len() != encodings.len() || names.len() != sizes.len() || names.len() > COLUMNS_MAX
        {
            return Err("its columns have not each a name, an encoding and a size".into());
        }
        let own: Vec<Column> = names
            .into_iter()
            .zip(encodings)
            .zip(sizes)
            .map(|((name, encoding), fixed)| Column { name, encoding, fixed })
            .collect();
        if columns.get_or_insert_with(|| own.clone()) != &own {
            return Err("its shards have different columns".into());
        }
        let names = [shard.raw_data, shard.zip_data].into_iter().flatten();
        files.push((names.map(|file| file.basename).collect(), shard.samples));
    }
    Ok(Described { columns: columns.unwrap_or_default(), shards: files })
}

fn lit(chunks: Vec<Chunk>, config: LitConfig) -> Result<Described, String> {
    if config.encryption.is_some_and(|encryption| !encryption.is_null()) {
        return Err("it is encrypted".into());
    }
    if let Some(loader) = config.item_loader.filter(|loader| loader != "PyTreeLoader") {
        return Err(format!("its chunks are for `{loader}`, and those of PyTreeLoader are read"));
    }
    let encodings = config.data_format.unwrap_or_default();
    if encodings.len() > COLUMNS_MAX {
        return Err(format!("it has more than {COLUMNS_MAX} columns"));
    }
    let names = config.data_spec.and_then(|spec| keys(&spec)).unwrap_or_default();
    let name = |i: usize| names.get(i).cloned().unwrap_or_else(|| (i + 1).to_string());
    let column = |(i, encoding): (usize, String)| Column { name: name(i), encoding, fixed: None };
    let columns = encodings.into_iter().enumerate().map(column).collect();
    let shards = chunks.into_iter().map(|chunk| (vec![chunk.filename], chunk.chunk_size)).collect();
    Ok(Described { columns, shards })
}

/// The keys of samples that are dictionaries of plain values: the context of the specification's tree,
/// which is JSON in JSON.
fn keys(spec: &serde_json::Value) -> Option<Vec<String>> {
    let tree: serde_json::Value = match spec {
        serde_json::Value::String(text) => serde_json::from_str(text).ok()?,
        other => other.clone(),
    };
    let node = tree.get(1)?;
    if !node.get("type")?.as_str()?.ends_with("dict") {
        return None;
    }
    match node.get("context")? {
        serde_json::Value::String(text) => serde_json::from_str(text).ok(),
        other => serde_json::from_value(other.clone()).ok(),
    }
}

impl Roles {
    /// Which of `columns` are what, and whether that is a guess.
    ///
    /// # Errors
    ///
    /// That one is missing, or is of a kind that is not read.
    fn of(
        columns: Vec<Column>,
        choice: &ColumnChoice,
        wanted: Wanted,
    ) -> Result<(Roles, Option<String>), String> {
        let names: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
        // Without names a sample is an image and a number, as (image, label) is stored.
        let found = match choice.names(&names, wanted.people) {
            Err(problem) => match unnamed(&columns).filter(|_| choice.is_empty()) {
                Some((image, label)) => {
                    let guess = format!("column {} (image), {} (label)", image + 1, label + 1);
                    return Ok((
                        Roles { columns, image, label: Some(label), identity: None },
                        Some(guess),
                    ));
                }
                None => return Err(problem),
            },
            Ok(found) => found,
        };
        let place = |name: &String| names.iter().position(|n| n == name);
        let image = place(&found.image).unwrap_or_default();
        let (label, identity) =
            (found.label.as_ref().and_then(place), found.identity.as_ref().and_then(place));
        let encoding = &columns[image].encoding;
        if !is_image(encoding) {
            return Err(format!(
                "column `{}` holds `{encoding}`, and encoded images are read: write it as `jpeg`, \
                 `png` or `bytes`",
                found.image
            ));
        }
        for column in [label, identity].into_iter().flatten() {
            let Column { name, encoding, .. } = &columns[column];
            if !is_label(encoding) {
                return Err(format!("column `{name}` holds `{encoding}`, not numbers or text"));
            }
        }
        Ok((Roles { columns, image, label, identity }, found.guess))
    }
}

fn unnamed(columns: &[Column]) -> Option<(usize, usize)> {
    let one = |is: fn(&str) -> bool| {
        let mut places = (0..columns.len()).filter(|i| is(&columns[*i].encoding));
        places.next().filter(|_| places.next().is_none())
    };
    let is_nameless = columns.iter().all(|column| column.name.parse::<usize>().is_ok());
    Some((one(is_image)?, one(is_label)?)).filter(|_| is_nameless)
}

/// `jpeg` may have a quality behind it.
fn is_image(encoding: &str) -> bool {
    matches!(kind(encoding), "jpeg" | "png" | "bytes" | "file" | "image")
}

fn is_label(encoding: &str) -> bool {
    let kind = kind(encoding);
    matches!(kind, "str" | "string" | "str_int" | "int" | "float" | "float32" | "float64" | "bool")
        || number_bytes(kind).is_some()
}

fn kind(encoding: &str) -> &str {
    encoding.split(':').next().unwrap_or_default()
}

/// Bytes of an integer, and whether it is signed.
fn number_bytes(kind: &str) -> Option<(usize, bool)> {
    let (is_signed, bits) = match kind.strip_prefix('u') {
        Some(rest) => (false, rest),
        None => (true, kind),
    };
    match bits {
        "int" if is_signed => Some((8, true)),
        "int8" => Some((1, is_signed)),
        "int16" => Some((2, is_signed)),
        "int32" => Some((4, is_signed)),
        "int64" => Some((8, is_signed)),
        _ => None,
    }
}

/// What the bytes of a label say.
fn value<'a>(encoding: &str, bytes: &'a [u8]) -> Value<'a> {
    let kind = kind(encoding);
    if let Some((n, is_signed)) = number_bytes(kind).filter(|(n, _)| *n == bytes.len()) {
        let number = bytes.iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        let shift = 64 - 8 * n as u32;
        return Value::Integer(match is_signed {
            true => i128::from((number << shift) as i64 >> shift),
            false => number.into(),
        });
    }
    match (kind, bytes) {
        ("float32", bytes) if bytes.len() == 4 => bytes
            .first_chunk()
            .map_or(Value::Missing, |b| Value::Float(f32::from_le_bytes(*b).into())),
        ("float" | "float64", bytes) if bytes.len() == 8 => {
            bytes.first_chunk().map_or(Value::Missing, |b| Value::Float(f64::from_le_bytes(*b)))
        }
        ("bool", [number]) => Value::Integer((*number).into()),
        ("str" | "string" | "str_int", text) => {
            std::str::from_utf8(text).map_or(Value::Missing, Value::Text)
        }
        _ => Value::Missing,
    }
}

/// The images of a file that is called `file`, of which `n_samples` are promised. They stay where they are
/// or, given a `spool`, are put there.
///
/// # Errors
///
/// What is wrong with the file, a fault of the system, or a full spool.
pub fn list(
    mut input: impl Read,
    n_samples: u64,
    roles: &Roles,
    spool: Option<&Spool>,
    file: &str,
) -> Result<Found<Span>, Unlisted> {
    let mut found = Found::default();
    let cut = |at: u64| Unlisted::from(format!("byte {at}: the file is cut short"));
    let offsets = offsets(&mut input, n_samples)?;
    let mut at = 4 * offsets.len() as u64 + 4;
    for (row, place) in offsets.windows(2).enumerate() {
        let (start, end) = (u64::from(place[0]), u64::from(place[1]));
        let skipped = start.checked_sub(at).filter(|_| end >= start);
        let skipped = skipped.ok_or_else(|| {
            format!("sample {row} is listed at bytes {start} to {end}, but {at} are before it")
        })?;
        if io::copy(&mut (&mut input).take(skipped), &mut io::sink())? != skipped {
            return Err(cut(start));
        }
        at = end;
        let mut leave_out = |reject: Reject| {
            found.left_out.push(LeftOut { source: format!("{file}/{row}"), reject });
        };
        let n_bytes = end - start;
        if n_bytes > SAMPLE_BYTES_MAX {
            if io::copy(&mut (&mut input).take(n_bytes), &mut io::sink())? != n_bytes {
                return Err(cut(start));
            }
            leave_out(Reject::TooManyBytes { bytes: n_bytes, bytes_max: SAMPLE_BYTES_MAX });
            continue;
        }
        let mut sample = Vec::new();
        if (&mut input).take(n_bytes).read_to_end(&mut sample)? as u64 != n_bytes {
            return Err(cut(start));
        }
        let Some(places) = places(&sample, &roles.columns) else {
            leave_out(Reject::Damaged("its columns do not fill it".into()));
            continue;
        };
        let image = places[roles.image].clone();
        if image.is_empty() {
            leave_out(Reject::NoImage);
            continue;
        }
        if let Err(reject) = check_size(image.len() as u64) {
            leave_out(reject);
            continue;
        }
        let value = |column: Option<usize>| {
            column.map(|i| value(&roles.columns[i].encoding, &sample[places[i].clone()]))
        };
        let who = Who::of(value(roles.label), value(roles.identity));
        let n_bytes = image.len() as u32;
        let start = match spool {
            Some(spool) => spool.push(&sample[image]).map_err(Unlisted::Source)?,
            None => start + image.start as u64,
        };
        let (name, place) = (row.to_string(), Span { start, n_bytes });
        found.entries.push(Entry { name, whose: Whose::Said(who), place });
    }
    Ok(found)
}

/// Where each sample begins, and the last one ends.
fn offsets(input: &mut impl Read, n_samples: u64) -> Result<Vec<u32>, Unlisted> {
    let mut n = [0; 4];
    input.read_exact(&mut n)?;
    let n = u64::from(u32::from_le_bytes(n));
    if n != n_samples {
        return Err(format!("it holds {n} samples, and the index says {n_samples}").into());
    }
    let mut bytes = Vec::new();
    let n_bytes = 4 * (n + 1);
    if input.take(n_bytes).read_to_end(&mut bytes)? as u64 != n_bytes {
        return Err("the file is cut short".to_owned().into());
    }
    Ok(bytes.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect())
}

/// Where each column of a sample is; nothing unless they fill it.
fn places(sample: &[u8], columns: &[Column]) -> Option<Vec<Range<usize>>> {
    let mut sizes = sample;
    let mut lengths = Vec::with_capacity(columns.len());
    for column in columns {
        lengths.push(match column.fixed {
            Some(n) => n as usize,
            None => {
                let (size, rest) = sizes.split_first_chunk::<4>()?;
                sizes = rest;
                u32::from_le_bytes(*size) as usize
            }
        });
    }
    let mut at = sample.len() - sizes.len();
    let mut places = Vec::with_capacity(columns.len());
    for length in lengths {
        let end = at.checked_add(length).filter(|end| *end <= sample.len())?;
        places.push(at..end);
        at = end;
    }
    (at == sample.len()).then_some(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by Streaming and LitData themselves (`tests/datasets/write_sources.py`).
    const MDS: &str = include_str!("../tests/zoo/mds/index.json");
    const MDS_SHARD: &[u8] = include_bytes!("../tests/zoo/mds/shard.00000.mds");
    const LIT: &str = include_str!("../tests/zoo/litdata/index.json");
    const LIT_CHUNK: &[u8] = include_bytes!("../tests/zoo/litdata/chunk-0-0.bin");

    fn roles(index: &str, choice: &str) -> Result<(Roles, Option<String>), String> {
        let wanted = Wanted { people: People::Needed, parts: Parts::Apart, quiet: true };
        let choice = if choice.is_empty() { Default::default() } else { choice.parse().unwrap() };
        Roles::of(described(index)?.columns, &choice, wanted)
    }

    fn listed(bytes: &[u8], n: u64, index: &str) -> Result<Found<Span>, String> {
        list(bytes, n, &roles(index, "").unwrap().0, None, "x").map_err(|unlisted| match unlisted {
            Unlisted::Unread(unread) => unread.to_string(),
            Unlisted::Source(error) => error.to_string(),
        })
    }

    #[test]
    fn images_of_both_are_found_where_they_lie() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/zoo/faces");
        let names = ["p0/0", "p0/3", "p0/6", "p1/1", "p1/4"];
        for (bytes, n, index) in [(MDS_SHARD, 5, MDS), (LIT_CHUNK, 4, LIT)] {
            let found = listed(bytes, n, index).unwrap();
            assert_eq!((found.entries.len() as u64, found.left_out.len()), (n, 0));
            for (entry, name) in found.entries.iter().zip(names) {
                let start = entry.place.start as usize;
                let image = &bytes[start..start + entry.place.n_bytes as usize];
                assert_eq!(image, std::fs::read(dir.join(format!("{name}.jpg"))).unwrap());
                let label = name.as_bytes()[1] - b'0';
                let Whose::Said(Ok(who)) = &entry.whose else { panic!("{entry:?}") };
                assert_eq!(*who, Who::Number(label.into()));
            }
        }
    }

    #[test]
    fn what_an_index_lacks_is_said() {
        for (index, problem) in [
            ("{}", "it describes neither shards, as MDS has them, nor chunks of LitData"),
            (
                r#"{"shards": [{"format": "jsonl", "samples": 1}]}"#,
                "its shards are in `jsonl`, and only MDS is read",
            ),
            (
                r#"{"shards": [{"format": "mds", "samples": 1, "column_names": ["a"]}]}"#,
                "its columns have not each a name, an encoding and a size",
            ),
            (r#"{"chunks": [], "config": {"encryption": {"level": "sample"}}}"#, "it is encrypted"),
            (
                r#"{"chunks": [], "config": {"item_loader": "TokensLoader"}}"#,
                "its chunks are for `TokensLoader`, and those of PyTreeLoader are read",
            ),
        ] {
            assert_eq!(described(index).unwrap_err(), problem);
        }
        let pil = LIT.replace("\"bytes\"", "\"pil\"");
        let error = roles(&pil, "").unwrap_err();
        assert!(error.starts_with("column `image` holds `pil`"), "{error}");
        assert!(roles(MDS, "label=name").is_ok());
        assert!(roles(MDS, "label=none").is_err());
    }

    #[test]
    fn values_of_every_encoding_are_read() {
        for (encoding, bytes, expected) in [
            ("int", &5_i64.to_le_bytes()[..], Value::Integer(5)),
            ("int64", &(-1_i64).to_le_bytes(), Value::Integer(-1)),
            ("int8", &[0xff], Value::Integer(-1)),
            ("uint8", &[0xff], Value::Integer(255)),
            ("int32", &[1, 1, 0, 0], Value::Integer(257)),
            ("uint64", &[0xff; 8], Value::Integer(u64::MAX.into())),
            ("float64", &2_f64.to_le_bytes(), Value::Float(2.0)),
            ("str", b"Ann", Value::Text("Ann")),
            ("int32", &[1, 1, 0], Value::Missing),
            ("str", b"\xff", Value::Missing),
        ] {
            assert_eq!(value(encoding, bytes), expected, "{encoding}");
        }
    }

    #[test]
    fn no_damage_to_a_file_is_more_than_an_error() {
        let error = |bytes: &[u8], n| listed(bytes, n, MDS).err().unwrap();
        assert_eq!(error(MDS_SHARD, 6), "it holds 5 samples, and the index says 6");
        assert!(error(&MDS_SHARD[..3000], 5).ends_with("the file is cut short"));
        for (bytes, n, index) in [(MDS_SHARD, 5, MDS), (LIT_CHUNK, 4, LIT)] {
            for at in 0..bytes.len() {
                for value in [0, 1, 0x7f, 0x80, 0xff] {
                    let mut damaged = bytes.to_vec();
                    damaged[at] = value;
                    for entry in listed(&damaged, n, index).into_iter().flat_map(|f| f.entries) {
                        let end = entry.place.start + u64::from(entry.place.n_bytes);
                        assert!(end <= bytes.len() as u64, "{at}");
                    }
                }
            }
        }
    }
}

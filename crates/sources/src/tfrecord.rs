//! TensorFlow's TFRecord files of `tf.train.Example`, as arcface-tf2 and `TFace` have them: read where they
//! lie, every record held against its checksums.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    ops::Range,
    path::{Path, PathBuf},
};

use crc32c::crc32c;
use pfc_durable::faults::is_of_system;
use pfc_image::{Sniffed, sniff};

use crate::{
    catalogue::People,
    columns::{ColumnChoice, Names},
    error::SourceError,
    file::{IMAGE_BYTES_MAX, check_size},
    label::{Value, Who},
    reject::Reject,
    shards::{files, has_ending},
    shelf::{Entry, Found, Shelf, Shelved, Span, Spans, Unlisted, Wanted, Whose},
    source::LeftOut,
    spool::Spool,
    tar::Packing,
    unread::Unread,
    wire::{Wire, fields, varint},
};

/// How the names of files end.
const ENDINGS: &[&str] = &[".tfrecord", ".tfrecords", ".tfrec", ".tfrecord.gz", ".tfrecords.gz"];

/// Whether a file is called as TFRecord files are, such as `faces.tfrecord-00000-of-00010`.
pub fn is_named(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let is_shard = name.contains(".tfrecord-") && name.ends_with(|c: char| c.is_ascii_digit());
    is_shard || has_ending(path, ENDINGS)
}

/// Whether a file that begins so is one, by its first checksum.
pub fn begins(head: &[u8]) -> bool {
    let parts = head.split_first_chunk::<8>();
    let check = parts.and_then(|(length, rest)| Some((length, rest.first_chunk::<4>()?)));
    check.is_some_and(|(length, check)| masked(length) == u32::from_le_bytes(*check))
}

/// An image and what is said of it.
const RECORD_BYTES_MAX: u64 = IMAGE_BYTES_MAX + (1 << 20);

/// More than any example has.
const FEATURES_MAX: usize = 1024;

/// The length of a record, and the checksum of that.
const HEAD_BYTES: usize = 12;
/// The checksum of the record.
const TAIL_BYTES: u64 = 4;

/// Finds the examples of `files`, on the current thread pool. Images of files that are compressed go to a
/// temporary file in `scratch`.
///
/// # Errors
///
/// [`SourceError`] if a file cannot be read, or no example has an image and, where they are needed, a label.
pub fn open(
    name: String,
    files: Vec<PathBuf>,
    scratch: &Path,
    choice: &ColumnChoice,
    wanted: Wanted,
) -> Result<Shelved<Spans>, SourceError> {
    let packings = files.iter().map(|path| Packing::of(path)).collect::<Result<Vec<_>, _>>()?;
    let is_spooled: Vec<bool> = packings.iter().map(|p| *p != Packing::Plain).collect();
    let spool = is_spooled.contains(&true).then(|| Spool::create(scratch)).transpose()?;
    let (names, index) = match files.first().zip(packings.first()) {
        None => (None, None),
        Some((path, packing)) => {
            let index = Index::beside(path)?;
            // An index says whom images show whose examples do not.
            let people = if index.is_some() { People::Optional } else { wanted.people };
            (first_names(path, *packing, choice, people)?, index)
        }
    };
    let names = names.ok_or_else(|| SourceError::NoImages { path: name.clone() })?;
    let index = index.filter(|_| names.label.is_none() && names.identity.is_none());
    if let Some(guess) = &names.guess {
        tracing::warn!("{name}: the features are {guess}; --columns says otherwise");
    }
    let read = |i: usize, path: &Path| {
        let (input, n_bytes) = input(path, packings[i])?;
        let spool = spool.as_ref().filter(|_| is_spooled[i]);
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let index = index.as_ref().map(|index| (index, number_of(path)));
        list(input, n_bytes, &names, index, spool, &file).map_err(|unlisted| unlisted.at(path))
    };
    let shelf = Shelf::list(name, files, wanted, read)?;
    Ok(Shelved::new(shelf, Spans { spool, is_spooled }))
}

fn input(path: &Path, packing: Packing) -> Result<(Box<dyn Read>, Option<u64>), SourceError> {
    let file = File::open(path).map_err(SourceError::at("open", path))?;
    let size = file.metadata().map_err(SourceError::at("look at", path))?.len();
    let unpacked = packing.unpacked(file, size).map_err(SourceError::at("unpack", path))?;
    let n_bytes = (packing == Packing::Plain).then_some(size);
    Ok((Box::new(BufReader::with_capacity(1 << 16, unpacked)), n_bytes))
}

/// Which features are what, by the first sound example of a file; nothing if it has none.
fn first_names(
    path: &Path,
    packing: Packing,
    choice: &ColumnChoice,
    people: People,
) -> Result<Option<Names>, SourceError> {
    let wrong = |problem| SourceError::Damaged { path: path.to_path_buf(), problem };
    let (mut input, n_bytes) = input(path, packing)?;
    let mut records = Records { n_bytes, at: 0 };
    while let Some((_, record)) = records.next(&mut input).map_err(|e| e.at(path, wrong))? {
        // What is damaged is told when the file is listed.
        let Ok(record) = record else { continue };
        let Ok(features) = features(&record) else { continue };
        let names: Vec<String> = features.iter().map(|feature| feature.name.to_owned()).collect();
        return choice.names(&names, people).map(Some).map_err(wrong);
    }
    Ok(None)
}

/// The images of a file that is called `file`. Images stay where they are or, given a `spool`, are put
/// there.
///
/// * `n_bytes`: of the file, where that is known
/// * `index`: what says whom images show whose examples do not, and the number of the file in it
///
/// # Errors
///
/// Damage behind which no record is found again, a fault of the system, or a full spool.
pub fn list(
    mut input: impl Read,
    n_bytes: Option<u64>,
    names: &Names,
    index: Option<(&Index, u64)>,
    spool: Option<&Spool>,
    file: &str,
) -> Result<Found<Span>, Unlisted> {
    let mut found = Found::default();
    let mut records = Records { n_bytes, at: 0 };
    for row in 0_u64.. {
        let Some((start, record)) = records.next(&mut input)? else { break };
        let name = row.to_string();
        let mut leave_out = |reject: Reject| {
            found.left_out.push(LeftOut { source: format!("{file}/{name}"), reject });
        };
        let record = match record {
            Ok(record) => record,
            Err(problem) => {
                leave_out(Reject::Damaged(problem));
                continue;
            }
        };
        match entry(&record, names) {
            Ok((image, who)) => {
                let bytes = &record[image.clone()];
                if let Err(reject) = check_size(bytes.len() as u64) {
                    leave_out(reject);
                    continue;
                }
                let listed = index.map(|(index, file)| index.get(file, start - HEAD_BYTES as u64));
                let start = match spool {
                    Some(spool) => spool.push(bytes).map_err(Unlisted::Source)?,
                    None => start + image.start as u64,
                };
                let place = Span { start, n_bytes: bytes.len() as u32 };
                let (name, whose) = match listed {
                    None => (name, Whose::Said(who)),
                    Some(None) => (name, Whose::Unsaid(NOT_LISTED)),
                    Some(Some(Listed::Path(path))) => (path.clone(), Whose::Unsaid(NOT_LISTED)),
                    Some(Some(Listed::Label(label))) => {
                        (name, Whose::Said(Who::parse(Some(label), None)))
                    }
                };
                found.entries.push(Entry { name, whose, place });
            }
            Err(reject) => leave_out(reject),
        }
    }
    Ok(found)
}

/// Why an image is left out that an index does not list, where it lists others.
const NOT_LISTED: &str = "the .index file beside it does not list it";

/// The index that `TFace` keeps beside its files, for 42 million images of 100 bytes each.
const INDEX_BYTES_MAX: u64 = 4 << 30;

/// What `TFace` keeps beside its files: for each record the path that its image had, whose folder is the
/// person, or a label.
///
/// Memory: about 60 bytes and the path or label per record.
#[derive(Debug, Default)]
pub struct Index(HashMap<(u64, u64), Listed>);

#[derive(Debug)]
enum Listed {
    Path(String),
    Label(String),
}

impl Index {
    /// The one in the folder of `file`: `NAME.index`, with lines `path<TAB>file<TAB>offset` or
    /// `name<TAB>file<TAB>offset<TAB>label`. None if there is none, or it has other lines.
    ///
    /// # Errors
    ///
    /// A fault of the system.
    pub fn beside(file: &Path) -> Result<Option<Index>, SourceError> {
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        let is_index = |path: &Path| has_ending(path, &[".index"]);
        let path = match files(folder, is_index, "an index") {
            Ok(found) if found.len() == 1 => found[0].clone(),
            Ok(_) | Err(SourceError::NoShards { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let file = File::open(&path).map_err(SourceError::at("open", &path))?;
        let mut index = Index::default();
        for line in BufReader::new(file.take(INDEX_BYTES_MAX)).lines() {
            let line = match line {
                Err(error) if is_of_system(&error) => {
                    return Err(SourceError::at("read", &path)(error));
                }
                // It is no text.
                Err(_) => return Ok(None),
                Ok(line) => line,
            };
            let fields: Vec<&str> = line.trim_end().split('\t').collect();
            let (place, listed) = match fields[..] {
                [path, file, offset] => ((file, offset), Listed::Path(path.replace('\\', "/"))),
                [_, file, offset, label] => ((file, offset), Listed::Label(label.to_owned())),
                _ => return Ok(None),
            };
            let (Ok(file), Ok(offset)) = (place.0.parse(), place.1.parse()) else {
                return Ok(None);
            };
            index.0.insert((file, offset), listed);
        }
        tracing::info!("{}: says whom the images show", path.display());
        Ok(Some(index))
    }

    fn get(&self, file: u64, offset: u64) -> Option<&Listed> {
        self.0.get(&(file, offset))
    }
}

/// The number in the name of a file, as `faces-00003.tfrecord`.
fn number_of(path: &Path) -> u64 {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.split('.').next().unwrap_or_default();
    stem.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// The image of a record, and whom it shows.
fn entry(record: &[u8], names: &Names) -> Result<(Range<usize>, Result<Who, String>), Reject> {
    let features = features(record).map_err(Reject::Damaged)?;
    let feature = |name: &str| features.iter().find(|feature| feature.name == name);
    let image = feature(&names.image).and_then(|feature| feature.bytes(record));
    let image = image.filter(|image| !image.is_empty()).ok_or(Reject::NoImage)?;
    if sniff(&record[image.clone()]) == Sniffed::NotAnImage {
        let what = format!("feature `{}` holds no encoded image", names.image);
        return Err(Reject::Unreadable(what));
    }
    let value = |name: &Option<String>| {
        name.as_ref().map(|name| feature(name).map_or(Value::Missing, |f| f.value(record)))
    };
    Ok((image, Who::of(value(&names.label), value(&names.identity))))
}

/// Where a record begins, and its bytes or what is wrong with it alone.
type Record = (u64, Result<Vec<u8>, String>);

/// Where reading is in a file.
struct Records {
    n_bytes: Option<u64>,
    at: u64,
}

impl Records {
    /// The next record.
    ///
    /// # Errors
    ///
    /// Damage behind which no record is found again, or a fault of the system.
    fn next(&mut self, input: &mut impl Read) -> Result<Option<Record>, Unread> {
        let at = self.at;
        let mut head = Vec::with_capacity(HEAD_BYTES);
        input.take(HEAD_BYTES as u64).read_to_end(&mut head)?;
        if head.is_empty() {
            return Ok(None);
        }
        let cut = || Unread::from(format!("byte {at}: the file is cut short"));
        let (length, check) = head.split_at_checked(8).ok_or_else(cut)?;
        let check = check.try_into().map_err(|_| cut())?;
        if masked(length) != u32::from_le_bytes(check) {
            return Err(format!("byte {at}: no record begins here, by its checksum").into());
        }
        let length = length.try_into().map_or(0, u64::from_le_bytes);
        let start = at + HEAD_BYTES as u64;
        let end = start.checked_add(length).and_then(|end| end.checked_add(TAIL_BYTES));
        let end = end.filter(|end| self.n_bytes.is_none_or(|n| *end <= n)).ok_or_else(cut)?;
        self.at = end;
        if length > RECORD_BYTES_MAX {
            if io::copy(&mut input.take(length + TAIL_BYTES), &mut io::sink())?
                != length + TAIL_BYTES
            {
                return Err(cut());
            }
            let problem = format!("a record of {length} bytes; up to {RECORD_BYTES_MAX} are read");
            return Ok(Some((start, Err(problem))));
        }
        let mut record = Vec::new();
        input.take(length + TAIL_BYTES).read_to_end(&mut record)?;
        if record.len() as u64 != length + TAIL_BYTES {
            return Err(cut());
        }
        let check = record.split_off(length as usize);
        let is_whole =
            check.try_into().is_ok_and(|check| masked(&record) == u32::from_le_bytes(check));
        let record = match is_whole {
            true => Ok(record),
            false => Err("its checksum is another: it is damaged".to_owned()),
        };
        Ok(Some((start, record)))
    }
}

/// TensorFlow's checksum: CRC-32C, turned and shifted so that a checksum of checksums is a good one.
fn masked(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A feature of an example.
struct Feature<'a> {
    name: &'a str,
    /// Its list, by the number of the list's field: 1 bytes, 2 floats, 3 integers.
    list: Option<(u64, Range<usize>)>,
}

impl Feature<'_> {
    /// The first of its values, where these are bytes.
    fn bytes(&self, record: &[u8]) -> Option<Range<usize>> {
        let (1, list) = self.list.clone()? else { return None };
        match fields(record, list).next()?.ok()? {
            (1, Wire::Bytes(range)) => Some(range),
            _ => None,
        }
    }

    /// The first of its values.
    fn value<'r>(&self, record: &'r [u8]) -> Value<'r> {
        let Some((kind, list)) = self.list.clone() else { return Value::Missing };
        match (kind, fields(record, list).next()) {
            (1, Some(Ok((1, Wire::Bytes(text))))) => {
                std::str::from_utf8(&record[text]).map_or(Value::Missing, Value::Text)
            }
            (2, Some(Ok((1, Wire::Fixed(range) | Wire::Bytes(range))))) => {
                let four = record[range].first_chunk().copied();
                four.map_or(Value::Missing, |four| Value::Float(f32::from_le_bytes(four).into()))
            }
            (3, Some(Ok((1, Wire::Varint(number))))) => Value::Integer((number as i64).into()),
            // Packed.
            (3, Some(Ok((1, Wire::Bytes(range))))) => {
                let mut at = range.start;
                let number = varint(record, &mut at, range.end);
                number.map_or(Value::Missing, |number| Value::Integer((number as i64).into()))
            }
            _ => Value::Missing,
        }
    }
}

/// The features of an example: `Example { features: Features { feature: map<string, Feature> } }`.
fn features(record: &[u8]) -> Result<Vec<Feature<'_>>, String> {
    let mut found = Vec::new();
    for field in fields(record, 0..record.len()) {
        let (1, Wire::Bytes(features)) = field? else { continue };
        for entry in fields(record, features) {
            let (1, Wire::Bytes(entry)) = entry? else { continue };
            let mut feature = Feature { name: "", list: None };
            for field in fields(record, entry) {
                match field? {
                    (1, Wire::Bytes(name)) => {
                        let name = std::str::from_utf8(&record[name]);
                        feature.name = name.map_err(|_| "a name of a feature is no UTF-8")?;
                    }
                    (2, Wire::Bytes(value)) => {
                        let list = fields(record, value).next().transpose()?;
                        feature.list = list.and_then(|(kind, list)| match list {
                            Wire::Bytes(list) => Some((kind, list)),
                            _ => None,
                        });
                    }
                    _ => {}
                }
            }
            if found.len() == FEATURES_MAX {
                return Err(format!("it has more than {FEATURES_MAX} features"));
            }
            found.push(feature);
        }
    }
    match found.is_empty() {
        true => Err("it is no tf.train.Example: it has no features".into()),
        false => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(parts: &[(u8, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (number, part) in parts {
            assert!(part.len() < 128);
            bytes.extend([number << 3 | 2, part.len() as u8]);
            bytes.extend(*part);
        }
        bytes
    }

    /// An example with an image and a label, written by hand.
    fn example(image: &[u8], label: u8) -> Vec<u8> {
        let feature =
            |name: &[u8], kind, list: &[u8]| message(&[(1, name), (2, &message(&[(kind, list)]))]);
        let image = feature(b"image/encoded", 1, &message(&[(1, image)]));
        let label = feature(b"image/source_id", 3, &message(&[(1, &[label])]));
        message(&[(1, &message(&[(1, &image), (1, &label)]))])
    }

    fn record(data: &[u8]) -> Vec<u8> {
        let length = (data.len() as u64).to_le_bytes();
        let mut bytes = length.to_vec();
        bytes.extend(masked(&length).to_le_bytes());
        bytes.extend(data);
        bytes.extend(masked(data).to_le_bytes());
        bytes
    }

    const JPEG: &[u8] = b"\xff\xd8\xff\xe0\0\x10JFIF";

    fn names() -> Names {
        let names = ["image/encoded", "image/source_id"].map(str::to_owned);
        ColumnChoice::default().names(&names, People::Needed).unwrap()
    }

    fn listed(bytes: &[u8]) -> Result<Found<Span>, String> {
        let n = Some(bytes.len() as u64);
        list(bytes, n, &names(), None, None, "x").map_err(|unlisted| match unlisted {
            Unlisted::Unread(unread) => unread.to_string(),
            Unlisted::Source(error) => error.to_string(),
        })
    }

    #[test]
    fn checksums_are_those_of_tensorflow() {
        // Of RFC 3720 for 32 zeros, turned and shifted as TensorFlow's documentation says.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(masked(&[0; 32]), 0x0fd7_fffa);
    }

    #[test]
    fn images_are_found_where_they_lie() {
        let bytes = [record(&example(JPEG, 5)), record(&example(JPEG, 2))].concat();
        let found = listed(&bytes).unwrap();
        let whose: Vec<_> = found.entries.iter().map(|e| (e.name.as_str(), &e.whose)).collect();
        assert!(matches!(whose[0], ("0", Whose::Said(Ok(Who::Number(5))))));
        assert!(matches!(whose[1], ("1", Whose::Said(Ok(Who::Number(2))))));
        for Entry { place, .. } in &found.entries {
            let start = place.start as usize;
            assert_eq!(&bytes[start..start + place.n_bytes as usize], JPEG);
        }
    }

    #[test]
    fn an_index_beside_files_says_whom_their_images_show() {
        let feature = message(&[(1, b"image"), (2, &message(&[(1, &message(&[(1, JPEG)]))]))]);
        let example = message(&[(1, &message(&[(1, &feature)]))]);
        let (one, dir) = (record(&example), tempfile::tempdir().unwrap());
        let n = one.len();
        let path = dir.path().join("set-00001.tfrecord");
        std::fs::write(&path, one.repeat(3)).unwrap();
        let open = |index: &str| {
            std::fs::write(dir.path().join("set.index"), index).unwrap();
            let wanted = Wanted { people: People::Needed, parts: Default::default(), quiet: true };
            let choice = ColumnChoice::default();
            let source = open("x".into(), vec![path.clone()], dir.path(), &choice, wanted);
            source.map(|source| {
                use crate::source::Source;
                let index = source.index();
                let row = |entry| (index.identity(entry).to_owned(), source.path(entry));
                (0..index.len()).map(row).collect::<Vec<_>>()
            })
        };
        let row = |name: &str, path: &str| (name.to_owned(), path.to_owned());
        let paths =
            format!("/raw/bob/1.jpg\t1\t0\n/raw/ann/2.jpg\t1\t{n}\n/raw/ann/3.jpg\t1\t{}\n", 2 * n);
        let expected = [row("ann", "2.jpg"), row("ann", "3.jpg"), row("bob", "1.jpg")];
        let found = open(&paths).unwrap();
        let told: Vec<_> =
            found.iter().map(|(name, path)| row(name, path.rsplit('/').next().unwrap())).collect();
        assert_eq!(told, expected);
        let labels = format!("set\t1\t0\t7\nset\t1\t{n}\t3\n");
        let expected = [row("3", "set-00001.tfrecord/1"), row("7", "set-00001.tfrecord/0")];
        assert_eq!(open(&labels).unwrap(), expected);
        assert!(open("other things\n").is_err());
    }

    #[test]
    fn damaged_records_are_left_out_and_the_others_read() {
        let mut bad = record(&example(JPEG, 1));
        let n = bad.len();
        bad[n - 9] ^= 1;
        let bytes = [
            bad,
            record(b"no example"),
            record(&example(b"no image", 1)),
            record(&example(b"", 1)),
            record(&example(JPEG, 7)),
        ]
        .concat();
        let found = listed(&bytes).unwrap();
        let reasons: Vec<_> =
            found.left_out.iter().map(|l| (l.source.as_str(), l.reject.reason())).collect();
        let expected =
            [("x/0", "damaged"), ("x/1", "damaged"), ("x/2", "unreadable"), ("x/3", "no_image")];
        assert_eq!(reasons, expected);
        assert_eq!(found.entries.len(), 1);
        assert_eq!(found.entries[0].name, "4");
    }

    #[test]
    fn no_damage_to_a_file_is_more_than_an_error() {
        let bytes = [record(&example(JPEG, 5)), record(&example(JPEG, 2))].concat();
        let error = |bytes: &[u8]| listed(bytes).err().unwrap();
        assert_eq!(
            error(&bytes[..bytes.len() - 1]),
            format!("byte {}: the file is cut short", bytes.len() / 2)
        );
        assert_eq!(error(b"short"), "byte 0: the file is cut short");
        assert_eq!(error(&[0; 16]), "byte 0: no record begins here, by its checksum");
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                // With checksums that hold, as an attacker makes them.
                let mut data = example(JPEG, 5);
                if let Some(byte) = data.get_mut(at) {
                    *byte = value;
                }
                for found in listed(&record(&data)).into_iter().flat_map(|found| found.entries) {
                    assert!(
                        found.place.start + u64::from(found.place.n_bytes) <= bytes.len() as u64
                    );
                }
                let mut damaged = bytes.clone();
                damaged[at] = value;
                let _ = listed(&damaged);
            }
        }
    }
}

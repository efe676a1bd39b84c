//! LMDB databases of images, in the layouts that face recognition uses: a label before the image (CVLface),
//! Caffe's `Datum`, a pickled pair of image and label, `image-N` beside `label-N`, or an image under a path whose folder is the identity.

mod pages;

use std::{
    borrow::Cow,
    collections::HashMap,
    fs::File,
    path::{Path, PathBuf},
};

use pfc_binpack::pickle::{Pickle, Value as Pickled};
use pfc_image::{SNIFF_BYTES, Sniffed, sniff};

use self::pages::{Place, ReadAt, Tree};
use crate::{
    error::SourceError,
    file::{check_size, is_file},
    label::{Value, Who},
    shelf::{Entry, Found, Shelf, Shelved, Span, Spans, Unlisted, Wanted, Whose},
    source::LeftOut,
    wire::{Wire, fields},
};

/// The file of a database that is a folder.
pub const FILE: &str = "data.mdb";

/// How the names of databases end that are files.
pub const ENDINGS: &[&str] = &[".lmdb", ".mdb"];

/// Before the image in the values of CVLface.
const LABEL_BYTES: usize = 4;
/// A label is short, and so are what else a database says of itself, but for the names of its classes.
const TEXT_BYTES_MAX: u32 = 64 << 20;

/// The key under which CVLface's tools keep the names of classes, as JSON from name to number.
const NAMES: &[u8] = b"__label_map__";

/// Why an image is left out that nothing says the person of, where others are labelled.
const NO_LABEL: &str = "neither its key nor its value says whom it shows";

/// Finds the images of the database at `path`, a folder or a file. They are read where they lie.
///
/// Memory: that of a shelf, and for `image-N` the labels.
///
/// # Errors
///
/// [`SourceError`] if it cannot be read, or holds no image whose person is known.
pub fn open(path: &Path, wanted: Wanted) -> Result<Shelved<Spans>, SourceError> {
    let file = file_of(path)?;
    let read = |_: usize, path: &Path| {
        let file = File::open(path).map_err(SourceError::at("open", path))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        list(file, &name).map_err(|unlisted| unlisted.at(path))
    };
    let shelf = Shelf::list(path.display().to_string(), vec![file], wanted, read)?;
    Ok(Shelved::new(shelf, Spans::default()))
}

fn file_of(path: &Path) -> Result<PathBuf, SourceError> {
    let inside = path.join(FILE);
    Ok(if is_file(&inside)? { inside } else { path.to_path_buf() })
}

/// What a value is.
enum Held {
    /// An image, at this place in it, and its label where that is said.
    Image(Span, Option<i64>),
    /// Something else.
    Other,
    /// A pickled object of Python.
    Pickle,
}

/// The images of a database that is called `name`.
///
/// # Errors
///
/// What is wrong with it, or a fault of the system.
pub fn list<R: ReadAt>(file: R, name: &str) -> Result<Found<Span>, Unlisted> {
    let tree = Tree::open(file)?;
    let mut found: Found<Span> = Found::default();
    // By what follows `label-`.
    let mut labels: HashMap<String, String> = HashMap::new();
    let mut names: HashMap<i64, String> = HashMap::new();
    let (mut n_pickled, mut n_other) = (0_u64, 0_u64);
    tree.walk(|file, key, place| -> Result<(), Unlisted> {
        let key_text = String::from_utf8_lossy(key).into_owned();
        if key == NAMES && place.n_bytes <= TEXT_BYTES_MAX {
            names = names_of(&whole(file, place)?);
            return Ok(());
        }
        if let Some(number) = key_text.strip_prefix("label").map(numbered)
            && place.n_bytes < 1024
        {
            let text = String::from_utf8_lossy(&whole(file, place)?).into_owned();
            labels.insert(number.to_owned(), text);
            return Ok(());
        }
        match held(file, place)? {
            Held::Image(span, label) => {
                if let Err(reject) = check_size(span.n_bytes.into()) {
                    let source = format!("{name}/{key_text}");
                    found.left_out.push(LeftOut { source, reject });
                    return Ok(());
                }
                let whose = match label {
                    Some(label) => Whose::Said(Who::of(Some(Value::Integer(label.into())), None)),
                    None => Whose::Unsaid(NO_LABEL),
                };
                found.entries.push(Entry { name: key_text, whose, place: span });
            }
            Held::Pickle => n_pickled += 1,
            Held::Other => n_other += 1,
        }
        Ok(())
    })?;
    if found.entries.is_empty() {
        return Err(match n_pickled {
            0 => format!("none of its {n_other} values is an encoded image").into(),
            n => format!(
                "{n} of its values are pickled objects of Python, and of these pairs of encoded image and \
                 label are read"
            )
            .into(),
        });
    }
    resolve(&mut found, &labels, &names);
    Ok(found)
}

/// Gives images the labels that lie under keys of their own, and labels their names.
fn resolve(
    found: &mut Found<Span>,
    labels: &HashMap<String, String>,
    names: &HashMap<i64, String>,
) {
    for entry in &mut found.entries {
        let number = entry.name.strip_prefix("image").map(numbered);
        let label = number.and_then(|number| labels.get(number));
        match (&mut entry.whose, label) {
            (whose @ Whose::Unsaid(_), Some(label)) => {
                *whose = Whose::Said(Who::parse(Some(label), None));
            }
            (Whose::Said(Ok(who)), _) => {
                if let Who::Number(number) = who
                    && let Some(name) = i64::try_from(*number).ok().and_then(|n| names.get(&n))
                {
                    *who = Who::Both(*number, name.as_str().into());
                }
            }
            _ => {}
        }
    }
}

/// What follows `image` or `label` in a key.
fn numbered(rest: &str) -> &str {
    rest.trim_start_matches(['-', '_', ':', '/'])
}

/// The names of classes by number.
fn names_of(json: &[u8]) -> HashMap<i64, String> {
    let map: HashMap<String, i64> = serde_json::from_slice(json).unwrap_or_default();
    let n = map.len();
    let names: HashMap<i64, String> =
        map.into_iter().map(|(name, number)| (number, name)).collect();
    // Two names of one number name nobody.
    if names.len() == n { names } else { HashMap::new() }
}

fn whole(file: &impl ReadAt, place: Place) -> Result<Vec<u8>, Unlisted> {
    let mut bytes = vec![0; place.n_bytes as usize];
    file.read_at(place.start, &mut bytes)?;
    Ok(bytes)
}

/// What a value is, by its first bytes.
fn held(file: &impl ReadAt, place: Place) -> Result<Held, Unlisted> {
    let n_head = place.n_bytes.min((LABEL_BYTES + SNIFF_BYTES) as u32);
    let head = whole(file, Place { n_bytes: n_head, ..place })?;
    let Place { start, n_bytes } = place;
    if sniff(&head) != Sniffed::NotAnImage {
        return Ok(Held::Image(Span { start, n_bytes }, None));
    }
    if let Some((label, image)) = head.split_first_chunk::<LABEL_BYTES>()
        && sniff(image) != Sniffed::NotAnImage
    {
        let place =
            Span { start: start + LABEL_BYTES as u64, n_bytes: n_bytes - LABEL_BYTES as u32 };
        return Ok(Held::Image(place, Some(i32::from_le_bytes(*label).into())));
    }
    match head[..] {
        [0x80, 2..=5, ..] if check_size(n_bytes.into()).is_ok() => {
            let bytes = whole(file, place)?;
            Ok(pickled(&bytes).map_or(Held::Pickle, |(at, n_bytes, label)| {
                Held::Image(Span { start: start + at as u64, n_bytes }, label)
            }))
        }
        // The number of channels, which is the first field of a datum.
        [0x08, ..] if check_size(n_bytes.into()).is_ok() => {
            let bytes = whole(file, place)?;
            Ok(datum(&bytes).map_or(Held::Other, |(at, n_bytes, label)| {
                Held::Image(Span { start: start + at as u64, n_bytes }, label)
            }))
        }
        _ => Ok(Held::Other),
    }
}

/// The encoded image of a pickled `(image, label)` or of an image alone: where it is, how long, and its label.
/// The machine that reads it runs nothing.
fn pickled(bytes: &[u8]) -> Option<(usize, u32, Option<i64>)> {
    let pickle = Pickle::parse(bytes).ok()?;
    let items = pickle.items(pickle.root()).unwrap_or_else(|| vec![pickle.root()]);
    let image = items.iter().find_map(|item| match item {
        Pickled::Bytes(Cow::Borrowed(image)) if sniff(image) != Sniffed::NotAnImage => Some(*image),
        _ => None,
    })?;
    let label = items.iter().find_map(|item| match item {
        Pickled::Int(label) => Some(*label),
        _ => None,
    });
    let at = image.as_ptr().addr().checked_sub(bytes.as_ptr().addr())?;
    let is_in = at.checked_add(image.len()).is_some_and(|end| end <= bytes.len());
    is_in.then_some((at, u32::try_from(image.len()).ok()?, label))
}

/// The encoded image of Caffe's `Datum`: where it is, how long, and its label.
fn datum(bytes: &[u8]) -> Option<(usize, u32, Option<i64>)> {
    let (mut image, mut label) = (None, None);
    for field in fields(bytes, 0..bytes.len()) {
        match field.ok()? {
            (4, Wire::Bytes(range)) => image = Some(range),
            // Negative ones take ten bytes.
            (5, Wire::Varint(number)) => label = Some(number as i64),
            _ => {}
        }
    }
    let image = image.filter(|image| sniff(&bytes[image.clone()]) != Sniffed::NotAnImage)?;
    Some((image.start, u32::try_from(image.len()).ok()?, label.or(Some(0))))
}

#[cfg(test)]
mod tests;

//! Verification sets as other programs keep them, read as InsightFace's packs are: tables with a column
//! `is_same` (CVLface), and arrays of pixels in a file (AdaFace's `memfile`).

use std::{
    ffi::OsString,
    fs::File,
    io::Read,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use pfc_binpack::Pack;
use pfc_image::{Pixels, encode_png};
use serde::Deserialize;

use crate::{
    catalogue::People,
    columns::ColumnChoice,
    error::SourceError,
    file::{exists, is_file},
    label::Who,
    npy, shards,
    spool::Spool,
    table,
    table::Table,
};

/// The array of `memfile`, below the folder of its set, and what describes it.
const ARRAY: &str = "memfile/mem_file.dat";
const DESCRIPTION_ENDING: &str = ".conf";

/// The header of a list of booleans is short, and no set has as many pairs.
const LIST_BYTES_MAX: u64 = 64 << 20;
/// A list of the sides of an array.
const DESCRIPTION_BYTES_MAX: u64 = 1 << 16;
/// Ten times the largest set.
const IMAGES_MAX: u64 = 1 << 20;

/// Reads the verification set at `path`: a pack of `InsightFace`; a table, or a folder of tables or a data
/// set of Hugging Face, with the columns `image`, `is_same` and perhaps `index`; or a folder with
/// `memfile/mem_file.dat` beside which lies `NAME_list.npy`, whose pixels are turned into PNG.
///
/// Memory: the encoded images, and those of a table twice.
///
/// # Errors
///
/// [`SourceError`] if it cannot be read or is none of these.
pub fn verification_set(path: &Path) -> Result<Pack, SourceError> {
    if path.is_dir() {
        let array = path.join(ARRAY);
        return match exists(&array)? {
            true => of_array(path, &array),
            false if is_bcolz(path)? => Err(bcolz(path)),
            false => of_tables(path, &tables(path)?),
        };
    }
    match shards::has_ending(path, table::ENDINGS) {
        true => of_tables(path, &[path.to_path_buf()]),
        false => Ok(Pack::read(path)?),
    }
}

/// Whether the file or folder at `path` may be such a set: any file, and a folder with an array or with tables
/// that have a column `is_same`.
///
/// # Errors
///
/// A fault of the system.
pub fn is_verification_set(path: &Path) -> Result<bool, SourceError> {
    if !path.is_dir() {
        return Ok(is_file(path)?);
    }
    if exists(&path.join(ARRAY))? || is_bcolz(path)? {
        return Ok(true);
    }
    let Some(table) = tables(path)?.into_iter().next() else { return Ok(false) };
    match Table::open(&table, &choice("is_same"), People::Optional) {
        Ok(_) => Ok(true),
        Err(SourceError::Table { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the folder at `path` is an array of bcolz.
///
/// # Errors
///
/// A fault of the system.
pub fn is_bcolz(path: &Path) -> Result<bool, SourceError> {
    Ok(is_file(&path.join("meta/storage"))? && is_file(&path.join("meta/sizes"))?)
}

/// What to say of an array of bcolz, whose compression is not read, with the command that turns it into one
/// that is.
pub fn bcolz(path: &Path) -> SourceError {
    // As a word of a shell, whatever is in it.
    let dir = format!("'{}'", path.display().to_string().replace('\'', r"'\''"));
    SourceError::OtherFormat {
        path: path.to_path_buf(),
        what: "a bcolz array, which is not read".into(),
        way_out: format!(
            "verification sets of face.evoLVe are the same pairs as InsightFace's .bin files: give those; \
             or `pip install bcolz-zipline` and turn it with python3 -c \"{BCOLZ}\" {dir}, and give \
             `pfc-eval` the folder again, with NAME_list.npy beside it"
        ),
    }
}

/// Makes an array that is read of one of bcolz, in the same folder: by the first argument of the command. The
/// description comes last, so that half an array is none.
const BCOLZ: &str = "import bcolz, json, numpy, os, sys; d = sys.argv[1]; a = bcolz.carray(rootdir=d, mode='r'); \
                     os.makedirs(d + '/memfile', exist_ok=True); f = d + '/memfile/mem_file.dat'; \
                     m = numpy.memmap(f, a.dtype, 'w+', shape=a.shape); m[:] = a[:]; m.flush(); \
                     json.dump({'shape': a.shape, 'dtype': str(a.dtype)}, open(f + '.conf', 'w'))";

/// The tables in a folder, or in the folder `data` in it.
fn tables(path: &Path) -> Result<Vec<PathBuf>, SourceError> {
    let is_table = |path: &Path| shards::has_ending(path, table::ENDINGS);
    for dir in [path.to_path_buf(), path.join("data")] {
        if dir.is_dir() {
            match shards::files(&dir, is_table, "tables") {
                Err(SourceError::NoShards { .. }) => {}
                found => return found,
            }
        }
    }
    Ok(Vec::new())
}

/// What a row of a table says: its place, whether its pair is of one person, and its image.
type Row = (u64, bool, Vec<u8>);

fn of_tables(path: &Path, files: &[PathBuf]) -> Result<Pack, SourceError> {
    let wrong = |problem: String| SourceError::Damaged { path: path.to_path_buf(), problem };
    if files.is_empty() {
        let what = "it holds neither memfile/mem_file.dat nor tables with a column `is_same`";
        return Err(wrong(what.into()));
    }
    let mut rows: Vec<Row> = Vec::new();
    for file in files {
        let spool = Spool::create(&std::env::temp_dir())?;
        let same = numbers(file, "is_same", &spool)?;
        // Where there is no index, rows are in their order.
        let index = match numbers(file, "index", &spool) {
            Err(SourceError::Table { .. }) => Vec::new(),
            index => index?,
        };
        for (i, row) in same.into_iter().enumerate() {
            let (same, start, n_bytes) = row.map_err(|problem| SourceError::Damaged {
                path: file.clone(),
                problem: format!("row {i}: {problem}"),
            })?;
            let image = spool.read(start, n_bytes as usize).map_err(|e| wrong(e.to_string()))?;
            let place = match index.get(i) {
                Some(Ok((place, ..))) => *place,
                _ => rows.len() as u64,
            };
            rows.push((place, same != 0, image));
        }
    }
    rows.sort_by_key(|row| row.0);
    pairs(rows).map_err(wrong)
}

/// Pairs of rows that follow each other.
fn pairs(rows: Vec<Row>) -> Result<Pack, String> {
    if rows.is_empty() || !rows.len().is_multiple_of(2) {
        return Err(format!("{} rows are no pairs: two follow each other", rows.len()));
    }
    let (mut images, mut same) = (Vec::with_capacity(rows.len()), Vec::new());
    for (i, (_, is_same, image)) in rows.into_iter().enumerate() {
        match i % 2 {
            0 => same.push(is_same),
            _ if same.last() != Some(&is_same) => {
                return Err(format!(
                    "images {} and {i} are a pair, and `is_same` says both",
                    i - 1
                ));
            }
            _ => {}
        }
        images.push(image);
    }
    Ok(Pack { images, same })
}

/// The number of a row in a column, and where its image is; or why there is none.
type Numbered = Result<(u64, u64, u32), String>;

fn choice(column: &str) -> ColumnChoice {
    ColumnChoice { label: Some(column.into()), ..ColumnChoice::default() }
}

fn numbers(file: &Path, column: &str, spool: &Spool) -> Result<Vec<Numbered>, SourceError> {
    let table = Table::open(file, &choice(column), People::Optional)?;
    let mut all = Vec::new();
    for part in 0..table.n_parts() {
        all.extend(table.read(file, part, spool)?.rows.into_iter().map(|row| -> Numbered {
            let row = row.ok_or("there is no image in it")?;
            match row.who? {
                Who::Number(_) if row.is_path => Err("a path instead of an image".into()),
                Who::Number(number) => Ok((number, row.start, row.n_bytes)),
                _ => Err(format!("`{column}` is no number")),
            }
        }));
    }
    Ok(all)
}

/// How an array is described.
#[derive(Debug, Deserialize)]
struct Description {
    shape: Vec<u64>,
    dtype: String,
}

fn of_array(dir: &Path, array: &Path) -> Result<Pack, SourceError> {
    let mut description = OsString::from(array);
    description.push(DESCRIPTION_ENDING);
    let description = PathBuf::from(description);
    let text = read_up_to(&description, DESCRIPTION_BYTES_MAX)?;
    let wrong = |path: &Path, problem: String| SourceError::Damaged { path: path.into(), problem };
    let described: Description =
        serde_json::from_slice(&text).map_err(|e| wrong(&description, e.to_string()))?;
    let shape = Shape::of(&described).map_err(|problem| wrong(&description, problem))?;
    let file = File::open(array).map_err(SourceError::at("open", array))?;
    let size = file.metadata().map_err(SourceError::at("look at", array))?.len();
    if shape.n_bytes() != size {
        let problem = format!("it has {size} bytes, and its description makes {}", shape.n_bytes());
        return Err(wrong(array, problem));
    }
    let list = list_of(dir)?;
    let bytes = read_up_to(&list, LIST_BYTES_MAX)?;
    let same = booleans(&bytes).map_err(|problem| wrong(&list, problem))?;
    if 2 * same.len() as u64 != shape.n {
        let problem = format!("{} pairs for {} images", same.len(), shape.n);
        return Err(wrong(&list, problem));
    }
    let mut images = Vec::with_capacity(2 * same.len());
    for i in 0..shape.n {
        let mut values = vec![0; shape.image_bytes() as usize];
        let start = i * shape.image_bytes();
        file.read_exact_at(&mut values, start).map_err(SourceError::at("read", array))?;
        let pixels = shape.pixels(&values).map_err(|p| wrong(array, format!("image {i}: {p}")))?;
        images.push(encode_png(&pixels).map_err(|e| wrong(array, e.to_string()))?);
    }
    Ok(Pack { images, same })
}

/// `NAME_list.npy` beside the folder `NAME`.
fn list_of(dir: &Path) -> Result<PathBuf, SourceError> {
    let whole = std::path::absolute(dir).map_err(SourceError::at("look at", dir))?;
    let mut name = whole.file_name().unwrap_or_default().to_owned();
    name.push("_list.npy");
    Ok(whole.with_file_name(name))
}

fn read_up_to(path: &Path, n_bytes: u64) -> Result<Vec<u8>, SourceError> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(SourceError::at("open", path))?;
    file.take(n_bytes).read_to_end(&mut bytes).map_err(SourceError::at("read", path))?;
    Ok(bytes)
}

/// The sides of an array `[n, 3, height, width]` of 32-bit or 64-bit floats.
#[derive(Debug, PartialEq, Eq)]
struct Shape {
    n: u64,
    height: u32,
    width: u32,
    value_bytes: u64,
}

impl Shape {
    fn of(described: &Description) -> Result<Shape, String> {
        let value_bytes = match &*described.dtype {
            "float32" => 4,
            "float64" => 8,
            other => return Err(format!("values of `{other}`; float32 and float64 are read")),
        };
        let side = |n: u64| u32::try_from(n).ok().filter(|n| (1..=1024).contains(n));
        match described.shape[..] {
            [n, 3, height, width] if (1..=IMAGES_MAX).contains(&n) => {
                let (Some(height), Some(width)) = (side(height), side(width)) else {
                    return Err(format!("images of {width}x{height} pixels"));
                };
                Ok(Shape { n, height, width, value_bytes })
            }
            _ => Err(format!("an array of {:?}, not [images, 3, height, width]", described.shape)),
        }
    }

    fn image_bytes(&self) -> u64 {
        3 * u64::from(self.height) * u64::from(self.width) * self.value_bytes
    }

    fn n_bytes(&self) -> u64 {
        // At most 2^20 images of 3 · 2^20 values of 8 bytes.
        self.n * self.image_bytes()
    }

    /// The pixels of values from -1 to 1, whose planes are blue, green and red.
    fn pixels(&self, values: &[u8]) -> Result<Pixels, String> {
        let value = |i: usize| match self.value_bytes {
            4 => values[4 * i..].first_chunk().map_or(f64::NAN, |b| f32::from_le_bytes(*b).into()),
            _ => values[8 * i..].first_chunk().map_or(f64::NAN, |b| f64::from_le_bytes(*b)),
        };
        let plane = self.height as usize * self.width as usize;
        let mut data = Vec::with_capacity(3 * plane);
        for i in 0..plane {
            for channel in [2, 1, 0] {
                let value = value(channel * plane + i);
                if !(-1.01..=1.01).contains(&value) {
                    return Err(format!("a value of {value}, and pixels are from -1 to 1"));
                }
                data.push((value * 127.5 + 127.5).round().clamp(0.0, 255.0) as u8);
            }
        }
        Ok(Pixels::rgb(self.width, self.height, data))
    }
}

/// The values of a `.npy` file of booleans, in one row.
fn booleans(bytes: &[u8]) -> Result<Vec<bool>, String> {
    let mut values = bytes;
    let header = npy::header(&mut values).map_err(|unread| unread.to_string())?;
    match header.descr == "|b1" && header.shape == [values.len() as u64] {
        true => Ok(values.iter().map(|value| *value != 0).collect()),
        false => Err("it is no NumPy array of booleans".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::Arc};

    use arrow_array::{ArrayRef, BinaryArray, BooleanArray, Int64Array, RecordBatch};
    use parquet::arrow::ArrowWriter;

    use super::*;

    fn write_table(path: &Path, columns: Vec<(&str, ArrayRef)>) {
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut writer =
            ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }

    fn images() -> ArrayRef {
        Arc::new(BinaryArray::from_vec(vec![b"a", b"b", b"c", b"d"]))
    }

    #[test]
    fn tables_with_is_same_are_pairs_in_the_order_of_their_index() {
        let dir = tempfile::tempdir().unwrap();
        let same: ArrayRef = Arc::new(BooleanArray::from(vec![true, false, false, true]));
        let index: ArrayRef = Arc::new(Int64Array::from(vec![3, 0, 1, 2]));
        fs::create_dir(dir.path().join("data")).unwrap();
        let path = dir.path().join("data/train-00000-of-00001.parquet");
        write_table(&path, vec![("image", images()), ("index", index), ("is_same", same.clone())]);
        let expected = Pack {
            images: [b"b", b"c", b"d", b"a"].map(|image| image.to_vec()).to_vec(),
            same: vec![false, true],
        };
        assert!(is_verification_set(dir.path()).unwrap());
        assert_eq!(verification_set(dir.path()).unwrap(), expected);
        assert_eq!(verification_set(&path).unwrap(), expected);
        write_table(&path, vec![("image", images()), ("is_same", same)]);
        let error = verification_set(&path).unwrap_err().to_string();
        assert!(error.ends_with("images 0 and 1 are a pair, and `is_same` says both"), "{error}");
        let other = dir.path().join("other");
        fs::create_dir(&other).unwrap();
        write_table(&other.join("faces.parquet"), vec![("image", images())]);
        assert!(!is_verification_set(&other).unwrap());
        let array = dir.path().join("lfw");
        fs::create_dir_all(array.join("meta")).unwrap();
        for file in ["meta/storage", "meta/sizes"] {
            fs::write(array.join(file), "{}").unwrap();
        }
        assert!(is_verification_set(&array).unwrap());
        let error = verification_set(&array).unwrap_err();
        let hint = error.hint().unwrap();
        assert!(hint.contains("python3 -c \"import bcolz, ") && hint.contains(BCOLZ), "{hint}");
        assert!(!BCOLZ.contains(['"', '$', '`', '\\']), "within a shell's double quotes");
        assert!(hint.contains(&format!("\" '{}', and", array.display())), "{hint}");
        let hint = bcolz(Path::new("a b'c")).hint().unwrap();
        assert!(hint.contains(r#"" 'a b'\''c', and"#), "{hint}");
        let empty = dir.path().join("empty");
        fs::create_dir(&empty).unwrap();
        assert!(!is_verification_set(&empty).unwrap());
        assert!(verification_set(&empty).is_err());
    }

    /// A list as `numpy.save` writes it.
    fn npy(values: &[u8]) -> Vec<u8> {
        let mut header =
            format!("{{'descr': '|b1', 'fortran_order': False, 'shape': ({},), }}", values.len());
        while !(10 + header.len() + 1).is_multiple_of(64) {
            header.push(' ');
        }
        header.push('\n');
        let n = (header.len() as u16).to_le_bytes();
        [b"\x93NUMPY\x01\0", &n[..], header.as_bytes(), values].concat()
    }

    #[test]
    fn arrays_of_pixels_become_pictures_and_their_planes_are_blue_green_red() {
        let dir = tempfile::tempdir().unwrap();
        let set = dir.path().join("lfw");
        fs::create_dir_all(set.join("memfile")).unwrap();
        let mut values: Vec<f32> = vec![1.0; 6];
        // Two images of two pixels: all white, and blue beside black.
        values.extend([1.0, -1.0, -1.0, -1.0, -1.0, -1.0]);
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        fs::write(set.join(ARRAY), &bytes).unwrap();
        let describe = |text: &str| fs::write(set.join("memfile/mem_file.dat.conf"), text).unwrap();
        describe(r#"{"shape": [2, 3, 1, 2], "dtype": "float32"}"#);
        fs::write(dir.path().join("lfw_list.npy"), npy(&[1])).unwrap();
        let Pack { images, same } = verification_set(&set).unwrap();
        assert_eq!(same, [true]);
        let pixels = |i: usize| {
            let decoded = pfc_image::decode(&images[i], pfc_image::Limits::DEFAULT).unwrap();
            decoded.into_rgb()
        };
        assert_eq!((pixels(0), pixels(1)), (vec![255; 6], vec![0, 0, 255, 0, 0, 0]));
        for (text, problem) in [
            (r#"{"shape": [3, 3, 1, 2], "dtype": "float32"}"#, "its description makes 72"),
            (r#"{"shape": [2, 1, 1, 2], "dtype": "float32"}"#, "not [images, 3, height, width]"),
            (r#"{"shape": [2, 3, 1, 99999], "dtype": "float32"}"#, "images of 99999x1 pixels"),
            (r#"{"shape": [18446744073709551615, 3, 1, 2], "dtype": "float32"}"#, "an array of"),
            (r#"{"shape": [2, 3, 1, 2], "dtype": "int8"}"#, "float32 and float64 are read"),
            ("{", "EOF"),
        ] {
            describe(text);
            let error = verification_set(&set).unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
        describe(r#"{"shape": [2, 3, 1, 2], "dtype": "float32"}"#);
        for list in [&b"no"[..], &npy(&[1, 0]), b"\x93NUMPY\x01\0\xff\xff"] {
            fs::write(dir.path().join("lfw_list.npy"), list).unwrap();
            assert!(verification_set(&set).is_err());
        }
    }
}

//! Arrow IPC files: a column `embedding` of lists of floats, and `source` where it is given.

use std::{
    fs::File,
    io::{self, Seek, SeekFrom, Write},
};

use arrow_array::{
    Array, FixedSizeListArray, Float16Array, Float32Array, Float64Array, ListArray, RecordBatch,
    StringArray,
};
use pfc_durable::faults::catch;
use pfc_sources::{ArrowFile, Unread};

use crate::{
    layout::{Layout, Number},
    npz::Parts,
};

/// Copies the column to a file of f32 rows without a name. A reader that panics counts as one that
/// failed: the library slices by lengths that the file states.
pub fn open(file: &File) -> Result<Parts, Unread> {
    catch(|| copy(file)).unwrap_or_else(|panic| Err(format!("it is damaged: {panic}").into()))
}

fn copy(file: &File) -> Result<Parts, Unread> {
    let io = |e: io::Error| Unread::from(e).within("cannot be unpacked: ");
    let reader = ArrowFile::new(file.try_clone().map_err(io)?)?;
    let mut out = io::BufWriter::new(tempfile::tempfile().map_err(io)?);
    let (mut rows, mut dim) = (0u64, None);
    let mut names: Option<Vec<String>> = None;
    for batch in reader {
        let batch = batch?;
        let (values, width) = numbers(&batch)?;
        let first = *dim.get_or_insert(width);
        if first != width {
            return Err(format!("rows of {width} numbers after such of {first}").into());
        }
        values.iter().try_for_each(|v| out.write_all(&v.to_le_bytes())).map_err(io)?;
        rows += batch.num_rows() as u64;
        if let Some(column) = batch.column_by_name("source").or(batch.column_by_name("names")) {
            let texts = column.as_any().downcast_ref::<StringArray>();
            let texts = texts.ok_or("its column of names is no utf8")?;
            let all = names.get_or_insert_default();
            all.extend(texts.iter().map(|text| text.unwrap_or_default().to_owned()));
        }
    }
    let mut file = out.into_inner().map_err(|e| io(e.into_error()))?;
    file.seek(SeekFrom::Start(0)).map_err(io)?;
    let dim = dim.ok_or("it holds no rows")?;
    let layout = Layout { start: 0, rows, dim, number: Number::F32 };
    let layout = layout.check(file.metadata().map_err(io)?.len())?;
    Ok((layout, names, Some(file)))
}

/// The numbers of a batch row by row, and how many a row has.
fn numbers(batch: &RecordBatch) -> Result<(Vec<f32>, usize), String> {
    let column = batch.column_by_name("embedding").or(batch.column_by_name("embeddings"));
    let column = column.ok_or("it has no column `embedding`")?;
    if column.null_count() > 0 {
        return Err("a row has no embedding".into());
    }
    let rows = batch.num_rows();
    let (values, width) = if let Some(list) = column.as_any().downcast_ref::<FixedSizeListArray>() {
        let width = list.value_length() as usize;
        // A sliced list keeps all its values.
        (list.values().slice(list.offset() * width, rows * width), width)
    } else if let Some(list) = column.as_any().downcast_ref::<ListArray>() {
        let offsets = list.value_offsets();
        let width = offsets.windows(2).map(|o| o[1] - o[0]).next().unwrap_or(0);
        if offsets.windows(2).any(|o| o[1] - o[0] != width) {
            return Err("its rows have different numbers of numbers".into());
        }
        (list.values().slice(offsets[0] as usize, rows * width as usize), width as usize)
    } else {
        return Err("its column `embedding` is no list of floats".into());
    };
    let any = values.as_any();
    match (any.downcast_ref::<Float32Array>(), any.downcast_ref::<Float64Array>()) {
        (Some(values), _) => Ok((values.values().to_vec(), width)),
        (_, Some(values)) => Ok((values.values().iter().map(|v| *v as f32).collect(), width)),
        _ => match any.downcast_ref::<Float16Array>() {
            Some(values) => Ok((values.values().iter().map(|v| v.to_f32()).collect(), width)),
            None => Err("its column `embedding` is no list of float16, 32 or 64".into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{
        ArrayRef,
        types::{Float16Type, Float32Type, Float64Type, Int32Type},
    };
    use arrow_ipc::writer::FileWriter;

    use super::*;
    use crate::Embeddings;

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn written(batches: &[RecordBatch]) -> tempfile::TempPath {
        let file = tempfile::Builder::new().suffix(".arrow").tempfile().unwrap();
        let (file, path) = file.into_parts();
        let mut writer = FileWriter::try_new(file, &batches[0].schema()).unwrap();
        batches.iter().for_each(|batch| writer.write(batch).unwrap());
        writer.finish().unwrap();
        path
    }

    fn fixed(rows: &[[f32; 2]]) -> ArrayRef {
        let rows = rows.iter().map(|row| Some(row.map(Some)));
        Arc::new(FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(rows, 2))
    }

    fn lists<const N: usize>(rows: [&[f64]; N]) -> ArrayRef {
        let rows = rows.iter().map(|row| Some(row.iter().copied().map(Some)));
        Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(rows))
    }

    #[test]
    fn batches_of_lists_are_read_with_their_names() {
        let names = |names: &[&str]| Arc::new(StringArray::from(names.to_vec())) as ArrayRef;
        let all = batch(vec![
            ("source", names(&["x/1", "b/2", "a/1"])),
            ("embedding", fixed(&[[9.0, 9.0], [3.0, 4.0], [0.0, -2.0]])),
        ]);
        // A slice starts in the middle of its arrays.
        let last = batch(vec![("source", names(&["c/1"])), ("embedding", fixed(&[[4.0, 3.0]]))]);
        let path = written(&[all.slice(1, 2), last]);
        let opened = Embeddings::open(&path).unwrap();
        assert_eq!(opened.names.as_deref().unwrap(), ["b/2", "a/1", "c/1"]);
        let embeddings = opened.in_order();
        assert_eq!(embeddings.rows(&[0, 1, 2]).unwrap(), [0.6, 0.8, 0.0, -1.0, 0.8, 0.6]);
    }

    #[test]
    fn doubles_in_lists_of_one_length_are_read() {
        let path = written(&[batch(vec![("embeddings", lists([&[0.0, 5.0], &[-3.0, 4.0]]))])]);
        let embeddings = Embeddings::open(&path).unwrap().in_order();
        assert_eq!(embeddings.rows(&[0, 1]).unwrap(), [0.0, 1.0, -0.6, 0.8]);
    }

    #[test]
    fn halves_are_read() {
        let rows =
            [[0.0, 5.0], [-3.0, 4.0]].map(|row| Some(row.map(|v| Some(half::f16::from_f32(v)))));
        let column = FixedSizeListArray::from_iter_primitive::<Float16Type, _, _>(rows, 2);
        let path = written(&[batch(vec![("embedding", Arc::new(column))])]);
        let embeddings = Embeddings::open(&path).unwrap().in_order();
        assert_eq!(embeddings.rows(&[0, 1]).unwrap(), [0.0, 1.0, -0.6, 0.8]);
    }

    #[test]
    fn what_are_no_embeddings_says_why() {
        let check = |column: (&str, ArrayRef), expected: &str| {
            let error = Embeddings::open(&written(&[batch(vec![column])])).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(("embedding", lists([&[1.0], &[1.0, 2.0]])), "different numbers of numbers");
        check(("vector", lists([&[1.0]])), "no column `embedding`");
        let whole = ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1)])]);
        check(("embedding", Arc::new(whole)), "no list of float16, 32 or 64");
        let missing = vec![Some([Some(1.0), Some(2.0)]), None];
        let missing = FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(missing, 2);
        check(("embedding", Arc::new(missing)), "a row has no embedding");
        let path = written(&[batch(vec![("embedding", fixed(&[[1.0, 2.0]]))])]);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        assert!(Embeddings::open(&path).is_err());
    }
}

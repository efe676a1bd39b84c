//! Arrow IPC files: a column `embedding` of lists of floats, and `source` where it is given.

use std::{
    fs::File,
    io::{self, Seek, SeekFrom, Write},
};

use arrow_array::{
    Array, FixedSizeListArray, Float16Array, Float32Array, Float64Array, ListArray, RecordBatch,
    StringArray,
};

use super::{
    layout::{Layout, Number},
    npz::Parts,
};
use crate::arrow_file::ArrowFile;

/// Copies the column to a file of f32 rows without a name. A reader that panics counts as one that
/// failed: the library slices by lengths that the file states.
pub fn open(file: &File) -> Result<Parts, String> {
    let guarded = std::panic::AssertUnwindSafe(|| copy(file));
    std::panic::catch_unwind(guarded).unwrap_or_else(|_| Err("it is damaged".into()))
}

fn copy(file: &File) -> Result<Parts, String> {
    let io = |e: io::Error| format!("cannot be unpacked: {e}");
    let reader = ArrowFile::new(file.try_clone().map_err(io)?).map_err(|e| e.to_string())?;
    let mut out = io::BufWriter::new(tempfile::tempfile().map_err(io)?);
    let (mut rows, mut dim) = (0u64, None);
    let mut names: Option<Vec<String>> = None;
    for batch in reader {
        let batch = batch.map_err(|e| e.to_string())?;
        let (values, width) = numbers(&batch)?;
        if *dim.get_or_insert(width) != width {
            return Err(format!("rows of {width} numbers after such of {}", dim.unwrap_or(0)));
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

//! Files of embeddings written part by part, as they need not fit in memory.

use std::{io::Write, path::Path, sync::Arc};

use arrow_array::{
    ArrayRef, FixedSizeListArray, Float32Array, RecordBatch, StringArray, UInt64Array,
};
use arrow_ipc::writer::FileWriter;
use arrow_schema::{ArrowError, DataType, Field, Schema};
use pfc_durable::{AtomicFile, DurableError};
use safetensors::{
    Dtype,
    tensor::{Metadata, TensorInfo},
};

use crate::{EmbeddingError, npy};

/// What a file of embeddings is, by its ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeatureFormat {
    /// One array of NumPy.
    Npy,
    /// Arrow IPC with a row per face.
    Arrow,
    /// Arrays `embs` and, of the mirror images, `embs_f`.
    Safetensors,
}

impl FeatureFormat {
    /// The format that `path` ends in.
    ///
    /// # Errors
    ///
    /// [`EmbeddingError::Output`] for any other ending.
    pub fn of(path: &Path) -> Result<FeatureFormat, EmbeddingError> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("npy") => Ok(FeatureFormat::Npy),
            Some("arrow") => Ok(FeatureFormat::Arrow),
            Some("safetensors") => Ok(FeatureFormat::Safetensors),
            _ => Err(EmbeddingError::Output {
                path: path.to_owned(),
                reason: "unsupported extension",
            }),
        }
    }
}

/// Rows of one part: names and labels for Arrow, embeddings, and those of the mirror images.
#[derive(Debug)]
pub struct Part {
    /// What each image is called.
    pub names: Vec<String>,
    /// Who is on it.
    pub labels: Vec<Option<u64>>,
    /// `[rows, dim]`.
    pub rows: Vec<f32>,
    /// `[rows, dim]`.
    pub mirrored: Option<Vec<f32>>,
}

/// Writes `n_rows` rows of `dim` numbers, which `parts` gives in order; the file appears whole.
///
/// `parts` is called again where a format keeps one array after the other.
///
/// # Errors
///
/// Those of `parts`, [`EmbeddingError::Durable`], and [`EmbeddingError::Output`] for mirrored rows in `.npy`.
pub fn write<I, E>(
    path: &Path,
    shape: [usize; 2],
    is_mirrored: bool,
    parts: impl Fn() -> I,
) -> Result<(), E>
where
    I: Iterator<Item = Result<Part, E>>,
    E: From<EmbeddingError>,
{
    match FeatureFormat::of(path)? {
        FeatureFormat::Npy if is_mirrored => Err(EmbeddingError::Output {
            path: path.to_owned(),
            reason: "an .npy holds one array, and there are two",
        }
        .into()),
        FeatureFormat::Npy => {
            let header = npy::write_header(shape[0] as u64, shape[1]);
            raw(path, &header, parts().map(|part| Ok(part?.rows)))
        }
        FeatureFormat::Safetensors => {
            let header = safetensors_header(shape, is_mirrored)
                .map_err(|reason| EmbeddingError::in_place(path, reason))?;
            let plain = parts().map(|part| Ok(part?.rows));
            let mirrored = is_mirrored.then(&parts).into_iter().flatten();
            let mirrored = mirrored.map(|part| Ok(part?.mirrored.unwrap_or_default()));
            raw(path, &header, plain.chain(mirrored))
        }
        FeatureFormat::Arrow => arrow(path, shape[1], is_mirrored, parts()),
    }
}

/// A header and then nothing but numbers.
fn raw<E: From<EmbeddingError>>(
    path: &Path,
    header: &[u8],
    parts: impl Iterator<Item = Result<Vec<f32>, E>>,
) -> Result<(), E> {
    let failed = |error| EmbeddingError::from(DurableError::at("write", path)(error));
    let mut file = AtomicFile::create(path).map_err(EmbeddingError::from)?;
    file.write_all(header).map_err(failed)?;
    for part in parts {
        file.write_all(bytemuck::cast_slice(&part?)).map_err(failed)?;
    }
    Ok(file.commit().map_err(EmbeddingError::from)?)
}

fn safetensors_header([n_rows, dim]: [usize; 2], is_mirrored: bool) -> Result<Vec<u8>, String> {
    let n_bytes =
        n_rows.checked_mul(dim).and_then(|n| n.checked_mul(4)).ok_or("it is too large")?;
    let array = |name: &str, start: usize| {
        let data_offsets = (start, start + n_bytes);
        (name.to_owned(), TensorInfo { dtype: Dtype::F32, shape: vec![n_rows, dim], data_offsets })
    };
    let mut arrays = vec![array("embs", 0)];
    arrays.extend(is_mirrored.then(|| array("embs_f", n_bytes)));
    let header = Metadata::new(None, arrays).map_err(|e| e.to_string())?;
    let text = serde_json::to_string(&header).map_err(|e| e.to_string())?;
    let padded = text.len().next_multiple_of(8);
    let mut header = (padded as u64).to_le_bytes().to_vec();
    header.extend(text.bytes());
    header.resize(8 + padded, b' ');
    Ok(header)
}

fn arrow<E: From<EmbeddingError>>(
    path: &Path,
    dim: usize,
    is_mirrored: bool,
    parts: impl Iterator<Item = Result<Part, E>>,
) -> Result<(), E> {
    let failed = |error: ArrowError| {
        let error = std::io::Error::other(error.to_string());
        EmbeddingError::from(DurableError::at("write", path)(error))
    };
    let item = Arc::new(Field::new("item", DataType::Float32, false));
    let list = || DataType::FixedSizeList(Arc::clone(&item), dim as i32);
    let mut fields = vec![
        Field::new("source", DataType::Utf8, false),
        Field::new("label", DataType::UInt64, true),
        Field::new("embedding", list(), false),
    ];
    fields.extend(is_mirrored.then(|| Field::new("mirrored", list(), false)));
    let schema = Arc::new(Schema::new(fields));
    let mut writer =
        FileWriter::try_new(AtomicFile::create(path).map_err(EmbeddingError::from)?, &schema)
            .map_err(failed)?;
    for part in parts {
        let part = part?;
        let rows = |values: Vec<f32>| -> Result<ArrayRef, ArrowError> {
            let values = Arc::new(Float32Array::from(values));
            let list = FixedSizeListArray::try_new(Arc::clone(&item), dim as i32, values, None)?;
            Ok(Arc::new(list))
        };
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(part.names)),
            Arc::new(UInt64Array::from(part.labels)),
            rows(part.rows).map_err(failed)?,
        ];
        if let Some(mirrored) = part.mirrored {
            columns.push(rows(mirrored).map_err(failed)?);
        }
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns).map_err(failed)?;
        writer.write(&batch).map_err(failed)?;
    }
    Ok(writer.into_inner().map_err(failed)?.commit().map_err(EmbeddingError::from)?)
}

#[cfg(test)]
mod tests {
    use arrow_array::{Array, cast::AsArray, types::Float32Type};
    use arrow_ipc::reader::FileReader;

    use super::*;
    use crate::FeatureFile;

    fn parts(is_mirrored: bool) -> impl Iterator<Item = Result<Part, EmbeddingError>> {
        (0..3).map(move |i| {
            let rows = vec![i as f32, 0.5, -1.0, 2.0];
            let mirrored = is_mirrored.then(|| rows.iter().map(|value| -value).collect());
            let names = vec![format!("{i}/a"), format!("{i}/b")];
            Ok(Part { names, labels: vec![Some(i), None], rows, mirrored })
        })
    }

    const ROWS: [f32; 12] = [0.0, 0.5, -1.0, 2.0, 1.0, 0.5, -1.0, 2.0, 2.0, 0.5, -1.0, 2.0];

    #[test]
    fn arrays_are_read_back_as_they_were_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npy");
        write(&path, [6, 2], false, || parts(false)).unwrap();
        let file = FeatureFile::open(&path).unwrap();
        assert_eq!(file.rows(&["any"]).unwrap().data(), ROWS);
        let path = dir.path().join("a.safetensors");
        write(&path, [6, 2], true, || parts(true)).unwrap();
        let file = FeatureFile::open(&path).unwrap();
        assert_eq!(file.rows(&["embs"]).unwrap().data(), ROWS);
        assert_eq!(file.rows(&["embs_f"]).unwrap().data(), ROWS.map(|value| -value));
    }

    #[test]
    fn arrow_keeps_names_and_labels_beside_the_rows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.arrow");
        write(&path, [6, 2], true, || parts(true)).unwrap();
        let reader = FileReader::try_new(std::fs::File::open(&path).unwrap(), None).unwrap();
        let batches: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
        assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 6);
        let last = &batches[2];
        assert_eq!(last.column(0).as_string::<i32>().value(1), "2/b");
        assert!(last.column(1).is_null(1));
        let rows = last.column(3).as_fixed_size_list().value(0);
        assert_eq!(rows.as_primitive::<Float32Type>().values(), &[-2.0, -0.5]);
    }

    #[test]
    fn what_a_format_cannot_hold_is_refused() {
        let error = write(Path::new("a.npy"), [6, 2], true, || parts(true)).unwrap_err();
        assert!(error.to_string().contains("holds one array"), "{error}");
        let error = write(Path::new("a.csv"), [6, 2], false, || parts(false)).unwrap_err();
        assert!(matches!(error, EmbeddingError::Output { .. }), "{error}");
    }
}

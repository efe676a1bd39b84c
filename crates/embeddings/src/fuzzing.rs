//! The reader of embeddings, with what must hold of whatever it accepts: for its fuzz target, which
//! sees nothing else of it.

use std::{fs, path::Path};

/// Any bytes as a file of embeddings whose name ends in `ending`: rows of length 1, or an error.
///
/// # Errors
///
/// Those of `dir`, which say nothing of the bytes.
pub fn embeddings(bytes: &[u8], ending: &str, dir: &Path) -> std::io::Result<()> {
    let path = dir.join("embeddings").with_extension(ending);
    fs::write(&path, bytes)?;
    let Ok(opened) = crate::Embeddings::open(&path) else { return Ok(()) };
    let embeddings = opened.in_order();
    let mut row = vec![0.0; embeddings.dim()];
    for i in 0..embeddings.len().min(4) {
        if embeddings.read(i, &mut row).is_ok() {
            assert!(row.iter().all(|v| v.is_finite()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{io::Write, sync::Arc};

    use arrow_array::{ArrayRef, FixedSizeListArray, RecordBatch, StringArray, types::Float32Type};
    use arrow_ipc::writer::FileWriter;
    use pfc_shard::npy_header;
    use zip::{ZipWriter, write::FileOptions};

    use super::*;

    /// Two rows of three numbers as each kind of file, with names where it has them.
    fn seeds() -> [(&'static str, Vec<u8>); 4] {
        let numbers = [1.0_f32, 0.0, 0.5, -1.0, 2.0, 0.25];
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        let npy = [npy_header("<f4", "(2, 3)"), bytes.clone()].concat();
        let mut npz = ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let names = [npy_header("|S1", "(2,)"), b"ab".to_vec()].concat();
        for (name, array) in [("embeddings.npy", &npy), ("names.npy", &names)] {
            npz.start_file(name, FileOptions::default()).unwrap();
            npz.write_all(array).unwrap();
        }
        let rows =
            numbers.chunks(3).map(|row| Some(row.iter().copied().map(Some).collect::<Vec<_>>()));
        let list = FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(rows, 3);
        let list: ArrayRef = Arc::new(list);
        let names: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
        let batch = RecordBatch::try_from_iter([("embedding", list), ("source", names)]).unwrap();
        let mut arrow = FileWriter::try_new(Vec::new(), &batch.schema()).unwrap();
        arrow.write(&batch).unwrap();
        arrow.finish().unwrap();
        let view =
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2, 3], &bytes);
        let safetensors = safetensors::serialize([("embeddings", view.unwrap())], None).unwrap();
        [
            ("npy", npy.clone()),
            ("npz", npz.finish().unwrap().into_inner()),
            ("arrow", arrow.into_inner().unwrap()),
            ("safetensors", safetensors),
        ]
    }

    #[test]
    fn no_damage_to_a_file_of_embeddings_is_more_than_an_error() {
        let dir = tempfile::tempdir().unwrap();
        for (ending, seed) in seeds() {
            let mut n_read = 0;
            for bytes in pfc_testing::damaged(&seed, 300) {
                embeddings(&bytes, ending, dir.path()).unwrap();
                let path = dir.path().join("embeddings").with_extension(ending);
                n_read += usize::from(crate::Embeddings::open(&path).is_ok());
            }
            assert!(n_read > 0, "the seed of {ending} is none");
        }
    }
}

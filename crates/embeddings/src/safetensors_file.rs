//! safetensors files: which arrays of floats they hold.

use safetensors::{Dtype, SafeTensors};

use crate::layout::{Layout, Number};

/// An array of two dimensions and its name.
pub type Named = (String, Layout);

/// The two-dimensional arrays of floats of a file, by name. Memory: what the header takes.
///
/// # Errors
///
/// What is wrong with the file, in a few words.
pub fn arrays(file: &[u8]) -> Result<Vec<Named>, String> {
    let (header_bytes, header) =
        SafeTensors::read_metadata(file).map_err(|e| format!("its header: {e}"))?;
    let array = |(name, tensor): (String, &safetensors::tensor::TensorInfo)| {
        let number = match tensor.dtype {
            Dtype::F16 => Number::F16,
            Dtype::F32 => Number::F32,
            Dtype::F64 => Number::F64,
            _ => return None,
        };
        let &[rows, dim] = tensor.shape.as_slice() else { return None };
        // The length of the header takes eight bytes before it.
        let start = (8 + header_bytes + tensor.data_offsets.0) as u64;
        Some((name, Layout { start, rows: rows as u64, dim, number }))
    };
    let mut arrays: Vec<Named> = header.tensors().into_iter().filter_map(array).collect();
    arrays.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(arrays)
}

/// The one array of `arrays`, or the one called `embeddings`.
///
/// # Errors
///
/// That there is none, or which cannot be told.
pub fn chosen(arrays: &[Named]) -> Result<&Named, String> {
    let named = arrays.iter().find(|(name, _)| name == "embeddings");
    match (named, arrays) {
        (Some(array), _) | (None, [array]) => Ok(array),
        (None, []) => Err("it holds no two-dimensional array of floats".into()),
        (None, _) => Err("it holds several arrays, and none is called `embeddings`".into()),
    }
}

/// What the header of a file notes under `key` beside its arrays.
pub fn note(file: &[u8], key: &str) -> Option<String> {
    let (_, header) = SafeTensors::read_metadata(file).ok()?;
    header.metadata().as_ref()?.get(key).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Embeddings;

    fn safetensors(header: &str, numbers: &[u8]) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), numbers].concat()
    }

    fn only(bytes: &[u8]) -> Result<Layout, String> {
        arrays(bytes).and_then(|arrays| chosen(&arrays).map(|(_, layout)| *layout))
    }

    #[test]
    fn halves_of_safetensors_are_read() {
        let header = r#"{"__metadata__":{"of":"a test"},
            "x":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},
            "e":{"dtype":"F16","shape":[2,2],"data_offsets":[8,16]}}"#;
        // 3, 4 and -0.5, 0 as binary16.
        let numbers = [[0; 8], [0x00, 0x42, 0x00, 0x44, 0x00, 0xb8, 0x00, 0x00]].concat();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("e.safetensors");
        std::fs::write(&path, safetensors(header, &numbers)).unwrap();
        let embeddings = Embeddings::open(&path).unwrap().in_order();
        assert_eq!((embeddings.len(), embeddings.dim()), (2, 2));
        // At length 1.
        assert_eq!(embeddings.rows(&[1, 0]).unwrap(), [-1.0, 0.0, 0.6, 0.8]);
    }

    #[test]
    fn of_several_arrays_the_one_called_embeddings_is_read() {
        let array = |name: &str, start: u64| {
            format!(
                r#""{name}":{{"dtype":"F64","shape":[1,1],"data_offsets":[{start},{}]}}"#,
                start + 8
            )
        };
        let numbers = [0; 16];
        let both = |second: &str| format!("{{{},{}}}", array("a", 0), array(second, 8));
        let header = both("embeddings");
        let found = only(&safetensors(&header, &numbers)).unwrap();
        let start = 8 + header.len() as u64 + 8;
        assert_eq!(found, Layout { start, rows: 1, dim: 1, number: Number::F64 });
        let check = |bytes: &[u8], expected: &str| {
            let error = only(bytes).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check(&safetensors(&both("b"), &numbers), "none is called `embeddings`");
        check(&safetensors("{}", &[]), "no two-dimensional array");
        check(&safetensors(&both("embeddings"), &numbers[..8]), "its header");
        check(&u64::MAX.to_le_bytes(), "its header");
        check(&safetensors("{", &[]), "its header");
    }
}

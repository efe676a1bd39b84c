//! Tensors that are views of one storage: tied weights are read, and a small file that would take any amount of memory
//! is refused before it takes any.

#![allow(clippy::unwrap_used)] // helpers of tests may

use std::io::{Cursor, Write};

use pfc_torchfile::{StateFile, TorchFileError};
use zip::{ZipWriter, write::FileOptions};

/// A state dict as `torch.save` writes it, whose `n_tensors` all are the `n_numbers` f32 of one storage.
fn aliased(n_tensors: usize, n_numbers: i32) -> Cursor<Vec<u8>> {
    let text = |text: &[u8]| [b"X", &(text.len() as u32).to_le_bytes()[..], text].concat();
    let number = |value: i32| [b"J", &value.to_le_bytes()[..]].concat();
    let ordered: &[u8] = b"ccollections\nOrderedDict\n)R";
    let mut pickle = [&b"\x80\x02"[..], ordered, b"("].concat();
    for i in 0..n_tensors {
        pickle.extend(text(format!("w{i}").as_bytes()));
        pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        pickle.extend([text(b"storage"), b"ctorch\nFloatStorage\n".to_vec(), text(b"0")].concat());
        pickle.extend([text(b"cpu"), number(n_numbers)].concat());
        // From the first number, of one axis without gaps, without a gradient.
        pickle.extend(b"tQ");
        pickle.extend(
            [&number(0)[..], b"(", &number(n_numbers), b"t(", &number(1), b"t\x89"].concat(),
        );
        pickle.extend([ordered, b"tR"].concat());
    }
    pickle.extend(b"u.");
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let numbers = vec![0; 4 * n_numbers as usize];
    let files = [("data.pkl", &pickle[..]), ("version", &b"3\n"[..]), ("data/0", &numbers[..])];
    for (name, bytes) in files {
        let stored = FileOptions::default().compression_method(zip::CompressionMethod::Stored);
        archive.start_file(format!("archive/{name}"), stored).unwrap();
        archive.write_all(bytes).unwrap();
    }
    Cursor::new(archive.finish().unwrap().into_inner())
}

#[test]
fn tied_weights_are_read_as_often_as_they_are_named() {
    let mut file = StateFile::parse(aliased(3, 50_000)).unwrap();
    let shapes: Vec<&[u64]> = file.tensors().iter().map(|info| &info.shape[..]).collect();
    assert_eq!(shapes, [&[50_000][..]; 3]);
    let mut bytes = vec![1; 200_000];
    file.read(2, &mut bytes).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 0));
}

#[test]
fn many_views_of_one_storage_are_refused_before_memory_is_taken() {
    // 2,000 tensors of 4 MB each: 8 GB from 4.4 MB.
    let error = StateFile::parse(aliased(2_000, 1 << 20)).unwrap_err();
    assert!(matches!(error, TorchFileError::Tensor { .. }), "{error:?}");
    assert!(error.to_string().contains("2000 tensors are views of the same numbers"), "{error}");
}

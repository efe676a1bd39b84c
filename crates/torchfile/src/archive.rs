//! The zip archive of PyTorch 1.6 and later: `NAME/data.pkl`, and a member per storage.

use std::{
    collections::HashMap,
    io::{Read, Seek},
};

use zip::{CompressionMethod, ZipArchive};

use crate::TorchFileError;

/// The pickle of the largest network takes 0.3 MB.
pub(crate) const PICKLE_BYTES_MAX: u64 = 64 << 20;

/// Where the members of an archive lie in the file.
#[derive(Debug)]
pub(crate) struct Archive {
    pub(crate) pickle: Vec<u8>,
    /// By storage key: first byte and number of bytes.
    pub(crate) storages: HashMap<String, (u64, u64)>,
}

/// Reads the directory and the pickle of an archive.
pub(crate) fn open<R: Read + Seek>(reader: &mut R) -> Result<Archive, TorchFileError> {
    let mut zip = ZipArchive::new(reader).map_err(broken)?;
    // TorchScript keeps code beside the same data.
    if zip.file_names().any(is_of_program) {
        return Err(TorchFileError::TorchScript);
    }
    read(&mut zip, DATA)
}

/// What the pickles of a TorchScript program are called: that of its modules, and that of the tensors that
/// its code names.
pub(crate) const SCRIPT_PARTS: [&str; 2] = [DATA, "constants"];
/// The pickle of a state dict, or of a program's modules.
pub(crate) const DATA: &str = "data";

/// Reads the pickles of a TorchScript program, in the order of [`SCRIPT_PARTS`].
pub(crate) fn open_script<R: Read + Seek>(reader: &mut R) -> Result<[Archive; 2], TorchFileError> {
    let mut zip = ZipArchive::new(reader).map_err(broken)?;
    let [modules, constants] = SCRIPT_PARTS;
    Ok([read(&mut zip, modules)?, read(&mut zip, constants)?])
}

/// The pickle `part.pkl`, and the storages in the folder `part`.
fn read<R: Read + Seek>(zip: &mut ZipArchive<R>, part: &str) -> Result<Archive, TorchFileError> {
    let names: Vec<String> = zip.file_names().map(str::to_owned).collect();
    let ending = format!("/{part}.pkl");
    let Some(root) = names.iter().find_map(|name| name.strip_suffix(&ending)) else {
        return Err(TorchFileError::not_a_file(format!("the archive has no {part}.pkl")));
    };
    let order = format!("{root}/byteorder");
    if names.contains(&order) && member(zip, &order)? != b"little" {
        return Err(TorchFileError::not_a_file("its numbers are not little-endian"));
    }
    let pickle = member(zip, &format!("{root}{ending}"))?;
    let mut storages = HashMap::new();
    let prefix = format!("{root}/{part}/");
    for i in 0..zip.len() {
        let file = zip.by_index_raw(i).map_err(broken)?;
        let Some(key) = file.name().strip_prefix(&prefix) else { continue };
        if file.compression() != CompressionMethod::Stored {
            let reason = format!("its storage `{}` is compressed", key.escape_debug());
            return Err(TorchFileError::not_a_file(reason));
        }
        storages.insert(key.to_owned(), (file.data_start(), file.size()));
    }
    Ok(Archive { pickle, storages })
}

/// Whether the archive is a TorchScript program.
pub(crate) fn has_code<R: Read + Seek>(reader: &mut R) -> bool {
    ZipArchive::new(reader).is_ok_and(|zip| zip.file_names().any(is_of_program))
}

fn is_of_program(name: &str) -> bool {
    name.ends_with("/constants.pkl")
}

fn member<R: Read + Seek>(zip: &mut ZipArchive<R>, name: &str) -> Result<Vec<u8>, TorchFileError> {
    let file = zip.by_name(name).map_err(broken)?;
    if file.size() > PICKLE_BYTES_MAX {
        let reason = format!("`{name}` claims {} bytes", file.size());
        return Err(TorchFileError::not_a_file(reason));
    }
    let mut bytes = Vec::new();
    file.take(PICKLE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn broken(error: zip::result::ZipError) -> TorchFileError {
    match error {
        zip::result::ZipError::Io(error) => error.into(),
        other => TorchFileError::not_a_file(other.to_string()),
    }
}

//! The format before PyTorch 1.6: pickles one after the other, then the storages.

use std::{
    collections::HashMap,
    io::{Read, Seek, SeekFrom},
};

use crate::{
    TorchFileError,
    archive::PICKLE_BYTES_MAX,
    machine,
    value::{Pickle, Value},
};

/// 0x1950a86a20f9469cfc6c, the object of the first pickle.
const MAGIC: [u8; 10] = *b"l\xfc\x9cF\xf9 j\xa8P\x19";
const PROTOCOL: i64 = 1001;

/// The first bytes of a file, which hold all pickles.
pub(crate) fn head<R: Read + Seek>(reader: &mut R) -> Result<Vec<u8>, TorchFileError> {
    reader.seek(SeekFrom::Start(0))?;
    let mut head = Vec::new();
    reader.by_ref().take(PICKLE_BYTES_MAX).read_to_end(&mut head)?;
    Ok(head)
}

/// The object of `torch.save`, and where the list of storages begins.
pub(crate) fn object(head: &[u8]) -> Result<(Pickle<'_>, usize), TorchFileError> {
    let mut rest = head;
    let mut next = |name: &'static str| {
        let pickle =
            machine::parse(rest).map_err(|source| TorchFileError::Pickle { name, source })?;
        rest = &rest[pickle.n_bytes..];
        Ok::<_, TorchFileError>((pickle, head.len() - rest.len()))
    };
    let not_torch = |reason: &str| TorchFileError::not_a_file(reason);
    match next("magic") {
        Ok((magic, _)) if magic.root() == &Value::BigInt(&MAGIC) => {}
        _ => return Err(not_torch("neither a zip archive nor PyTorch's magic number")),
    }
    if next("protocol")?.0.root() != &Value::Int(PROTOCOL) {
        return Err(not_torch("its protocol is not 1001"));
    }
    let (system, _) = next("system")?;
    if let Value::Dict(dict) = system.root()
        && system.item(dict, "little_endian") == Some(&Value::Bool(false))
    {
        return Err(not_torch("its numbers are not little-endian"));
    }
    next("object")
}

/// Where the storages lie, by key; `sizes` gives the bytes of an element of those that are used.
pub(crate) fn storages<R: Read + Seek>(
    reader: &mut R,
    head: &[u8],
    start: usize,
    element_bytes: &HashMap<&str, u64>,
) -> Result<HashMap<String, (u64, u64)>, TorchFileError> {
    let list = machine::parse(&head[start..])
        .map_err(|source| TorchFileError::Pickle { name: "storages", source })?;
    let Value::List(keys) = list.root() else {
        return Err(TorchFileError::not_a_file("its storages are not listed"));
    };
    let file_bytes = reader.seek(SeekFrom::End(0))?;
    let mut at = (start + list.n_bytes) as u64;
    let mut storages = HashMap::new();
    for key in keys {
        let Value::Text(key) = list.get(*key) else {
            return Err(TorchFileError::not_a_file("the key of a storage is no text"));
        };
        let size = element_bytes.get(key).ok_or_else(|| {
            TorchFileError::not_a_file(format!(
                "no tensor says what storage `{}` holds",
                key.escape_debug()
            ))
        })?;
        let cut = || TorchFileError::not_a_file("it ends within its storages");
        if at.checked_add(8).is_none_or(|end| end > file_bytes) {
            return Err(cut());
        }
        reader.seek(SeekFrom::Start(at))?;
        let mut count = [0; 8];
        reader.read_exact(&mut count)?;
        let n_bytes = u64::from_le_bytes(count).checked_mul(*size).ok_or_else(cut)?;
        let end = (at + 8).checked_add(n_bytes).filter(|end| *end <= file_bytes);
        storages.insert((*key).to_owned(), (at + 8, n_bytes));
        at = end.ok_or_else(cut)?;
    }
    Ok(storages)
}

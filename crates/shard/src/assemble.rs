//! A data set from shards that are there already.

use std::{fs, io, path::Path};

use pfc_durable::DurableError;

use crate::{
    DETECTIONS_FILE, DatasetSpec, FileEntry, IDENTITIES_FILE, IdentityNames, MANIFEST_FILE,
    Manifest, QUARANTINE_FILE, ShardEntry, ShardError, format::FORMAT, hash::file_checksum,
    identities,
};

/// Makes a data set of finished shards in `dir`: writes the table of identities, and the manifest
/// last. The list of what was left out, [`QUARANTINE_FILE`], and [`DETECTIONS_FILE`] are
/// entered in the manifest if they are there.
///
/// For packers that write shards in any order, in several runs or on several machines, with
/// [`ShardWriter`](crate::ShardWriter).
///
/// * `shards`: in row order, with paths relative to `dir`; taken to be whole
/// * `n_images`: rows of each label in all shards together
///
/// # Errors
///
/// [`ShardError::AlreadyExists`] if `dir` holds a finished data set, [`ShardError::BadSpec`] if
/// `n_images` counts other than the rows of the shards, [`ShardError::IdentityName`] for a name
/// that is empty or given twice, or a failed write. The folder is then no new data set.
pub fn assemble(
    dir: &Path,
    spec: DatasetSpec,
    shards: Vec<ShardEntry>,
    identities: &IdentityNames,
    n_images: impl Fn(u32) -> u64,
) -> Result<Manifest, ShardError> {
    let path = dir.join(MANIFEST_FILE);
    let exists = path.try_exists();
    if exists.map_err(DurableError::at("look at", &path))? {
        return Err(ShardError::AlreadyExists { dir: dir.to_path_buf() });
    }
    let rows = shards.iter().map(|s| s.rows).fold(0, u64::saturating_add);
    let counted = (0..identities.len()).map(&n_images).fold(0, u64::saturating_add);
    if rows != counted {
        let what = format!("its shards have {rows} rows, its identities {counted}");
        return Err(ShardError::BadSpec { path: dir.to_path_buf(), what });
    }
    let others = list_others(dir)?;
    let table = identities::write(&dir.join(IDENTITIES_FILE), identities, n_images)?;
    let manifest = Manifest {
        format: FORMAT,
        rows,
        n_identities: identities.len(),
        image_size: spec.image_size,
        seed: spec.seed,
        sources: spec.sources,
        tool: spec.tool,
        arguments: spec.arguments,
        identities: table,
        shards,
        others,
        lineage: spec.lineage,
    };
    manifest.write(dir)?;
    Ok(manifest)
}

/// Lists what lies beside the shards already, with size and checksum.
fn list_others(dir: &Path) -> Result<Vec<FileEntry>, ShardError> {
    let mut others = Vec::new();
    for file in [QUARANTINE_FILE, DETECTIONS_FILE] {
        let path = dir.join(file);
        let bytes = match fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(DurableError::at("look at", &path)(source).into()),
        };
        let checksum = file_checksum(&path, |_| ())?;
        others.push(FileEntry { file: file.into(), bytes, checksum });
    }
    Ok(others)
}

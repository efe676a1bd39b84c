//! Bringing the shards of all parts into one folder.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use pfc_cli::{Progress, interrupt};
use pfc_durable::{AtomicFile, DurableError, sync_dir};
use pfc_shard::{SHARDS_DIR, ShardEntry};

use super::parts::Parts;
use crate::{IngestError, PackError, pack::journal::Journal};

/// Links or copies every shard that is not in the folder of `journal` yet, and notes it there.
///
/// # Errors
///
/// [`PackError::Interrupted`], or [`IngestError`] if a file cannot be linked or copied; what was
/// brought stays.
pub fn import(parts: &Parts, journal: &Journal, quiet: bool) -> Result<(), IngestError> {
    let n_shards = journal.n_shards();
    let progress = Progress::new("join", "shards", n_shards, quiet);
    for index in 0..n_shards {
        if interrupt::requested() {
            let (done, total) = (journal.job().places(index).start, journal.job().images);
            return Err(PackError::Interrupted { done, total, shards: index }.into());
        }
        let owner = parts.owner(index);
        if owner.out() != journal.out() {
            let Some(record) = owner.shard(index)? else {
                let path = owner.out().into();
                return Err(PackError::NotAPart { path }.into());
            };
            if let Some(entry) = record.entry() {
                bring(&entry, owner.out(), journal.out())?;
            }
            journal.add(record)?;
        }
        progress.add(1);
    }
    progress.finish();
    Ok(())
}

/// Shards are never changed in place, so that two folders can share one file.
fn bring(entry: &ShardEntry, part: &Path, out: &Path) -> Result<(), IngestError> {
    let (from, to) = (part.join(&entry.file), out.join(&entry.file));
    match fs::remove_file(&to) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        removed => removed.map_err(IngestError::at("replace", &to))?,
    }
    let mut copy = AtomicFile::create(&to)?;
    // A link has the permissions of the part, which another umask may have left.
    let permissions = |path: &Path| fs::metadata(path).map(|of| of.permissions()).ok();
    let are_ours = permissions(copy.temporary_path()) == permissions(&from);
    if are_ours && fs::hard_link(&from, &to).is_ok() {
        return Ok(sync_dir(&out.join(SHARDS_DIR))?);
    }
    let mut source = File::open(&from).map_err(IngestError::at("open", &from))?;
    io::copy(&mut source, &mut copy).map_err(DurableError::at("write", &to))?;
    copy.commit()?;
    // What was read is what was checked only if the disk says the same twice.
    Ok(entry.check(out, |_| ())?)
}

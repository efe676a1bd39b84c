//! `WebDataset`: tar files of `KEY.jpg`, `KEY.cls` and `KEY.json` per image.
//!
//! The key is the row of the data set, nine digits or more: it is unique, has none of the dots at
//! which readers cut, and says where an image came from. All times, owners and groups are 0.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use pfc_durable::AtomicDir;
use serde::Serialize;
use tar::{Builder, EntryType, Header};

use super::{Feed, Item, Written, options::Shards};
use crate::IngestError;

/// Tar files consist of blocks of so many bytes, and end in two of zeros.
const BLOCK: u64 = 512;
const END: u64 = 2 * BLOCK;

/// The content of `KEY.json`.
#[derive(Serialize)]
struct Sidecar<'a> {
    identity: &'a str,
    label: u32,
    source: &'a str,
    width: u16,
    height: u16,
}

/// Fills the folder `dir` and commits it.
///
/// # Errors
///
/// [`IngestError`]; nothing is then left behind.
pub fn write(feed: &Feed<'_>, dir: AtomicDir, shards: &Shards) -> Result<Written, IngestError> {
    let labels = feed.labels()?;
    let out = &dir.target().path().to_path_buf();
    let mut writer = Writer { dir: dir.path(), out, shards, open: None, n_files: 0 };
    for item in feed.items() {
        writer.push(&item?)?;
    }
    writer.close()?;
    dir.commit()?;
    let (files, bytes) = super::summary::measure(out)?;
    let (images, identities) = (feed.len() as u64, labels.len() as u64);
    Ok(Written { images, identities, files, bytes, ..Written::default() })
}

struct Writer<'a> {
    dir: &'a Path,
    /// Where the files will be; for messages.
    out: &'a Path,
    shards: &'a Shards,
    open: Option<Shard>,
    n_files: u64,
}

struct Shard {
    path: PathBuf,
    tar: Builder<BufWriter<File>>,
    bytes: u64,
}

impl Writer<'_> {
    fn push(&mut self, item: &Item<'_>) -> Result<(), IngestError> {
        let label = item.label.to_string();
        let sidecar = Sidecar {
            identity: item.identity,
            label: item.label,
            source: item.face.source,
            width: item.face.width,
            height: item.face.height,
        };
        let json = serde_json::to_vec(&sidecar).expect("strings and numbers become JSON");
        let parts = [("jpg", item.face.image), ("cls", label.as_bytes()), ("json", &json)];
        let bytes: u64 = parts.iter().map(|(_, content)| bytes_in_tar(content)).sum();
        if self.open.as_ref().is_some_and(|s| s.bytes + bytes + END > self.shards.bytes_max) {
            self.close()?;
        }
        let shard = self.shard()?;
        for (extension, content) in parts {
            let name = format!("{:09}.{extension}", item.row);
            append(&mut shard.tar, &name, content)
                .map_err(IngestError::at("write", &shard.path))?;
        }
        shard.bytes += bytes;
        Ok(())
    }

    /// The open file, or a new one.
    fn shard(&mut self) -> Result<&mut Shard, IngestError> {
        if self.open.is_none() {
            let name = format!("{}-{:06}.tar", self.shards.name, self.n_files);
            let path = self.out.join(&name);
            let file = File::create_new(self.dir.join(name));
            let file = file.map_err(IngestError::at("create", &path))?;
            let tar = Builder::new(BufWriter::with_capacity(1 << 20, file));
            self.open = Some(Shard { path, tar, bytes: 0 });
            self.n_files += 1;
        }
        Ok(self.open.as_mut().expect("opened above"))
    }

    fn close(&mut self) -> Result<(), IngestError> {
        let Some(Shard { path, tar, .. }) = self.open.take() else { return Ok(()) };
        tar.into_inner().and_then(|mut out| out.flush()).map_err(IngestError::at("write", &path))
    }
}

fn bytes_in_tar(content: &[u8]) -> u64 {
    BLOCK + (content.len() as u64).next_multiple_of(BLOCK)
}

fn append(tar: &mut Builder<impl Write>, name: &str, content: &[u8]) -> std::io::Result<()> {
    let mut header = Header::new_ustar();
    header.set_path(name)?;
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_entry_type(EntryType::Regular);
    header.set_cksum();
    tar.append(&header, content)
}

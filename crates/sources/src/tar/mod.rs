//! Tar files, plain and compressed: `WebDataset` shards, in which members of one basename are a sample, or
//! folders of identities.

mod members;
mod packing;
pub mod samples;

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
};

use pfc_cli::units;

use self::{
    members::Forward,
    samples::{NO_LABEL, Shard},
};
pub use self::{packing::Packing, samples::is_of_system};
use crate::{
    catalogue::People,
    error::SourceError,
    recordio::Damaged,
    shelf::{Entry, Found, Shelf, Shelved, Spans, Wanted, Whose},
    spool::Spool,
};

/// How the names of shards end.
pub const ENDINGS: &[&str] = &[
    ".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz",
];

/// A header and a small label are read at once, and little of the image before them.
const WINDOW_BYTES: usize = 4096;

/// Finds the samples of `shards`, on the current thread pool. Images in a plain tar are later read where
/// they lie; those of compressed ones go to a temporary file in `scratch`, which takes their size on disk.
/// Where identities are optional, a sample needs no label. Where no sample has one, the folders in the
/// members' paths are the identities.
///
/// Memory: that of a shelf, and what the decoders of compressed files hold, 100 MiB a thread at most.
///
/// # Errors
///
/// [`SourceError`] if a shard cannot be read, there is no sample, or the user interrupts.
pub fn open(
    name: String,
    shards: Vec<PathBuf>,
    scratch: &Path,
    damaged: Damaged,
    wanted: Wanted,
) -> Result<Shelved<Spans>, SourceError> {
    let packings = shards.iter().map(|shard| Packing::of(shard));
    let packings = packings.collect::<Result<Vec<_>, _>>()?;
    let is_spooled: Vec<bool> = packings.iter().map(|p| *p != Packing::Plain).collect();
    let spool = is_spooled.contains(&true).then(|| Spool::create(scratch)).transpose()?;
    let read = |i: usize, path: &Path| {
        let shard = read_shard(path, packings[i], spool.as_ref(), damaged)?;
        Ok(found(shard, wanted.people))
    };
    let shelf = Shelf::list(name.clone(), shards, wanted, read).map_err(without_labels)?;
    if let Some(spool) = &spool {
        tracing::info!("{name}: {} of images unpacked", units::bytes(spool.len()));
    }
    if shelf.is_by_folder() && wanted.people == People::Needed {
        tracing::warn!(
            "{name}: no .cls or .json in it: the folders in it are taken for identities"
        );
    }
    Ok(Shelved::new(shelf, Spans { spool, is_spooled }))
}

/// What to say of shards without a sample that has a label.
fn without_labels(error: SourceError) -> SourceError {
    let SourceError::Unlabelled { path, n, .. } = error else { return error };
    let images = units::of(n, "image");
    SourceError::OtherFormat {
        path: PathBuf::from(path),
        what: format!(
            "tar without labels: beside none of its {images} lies a .cls or .json, and none in a folder"
        ),
        way_out: "write a .cls with the number or name of the person beside each image, or put the images \
                  of each person in a folder: members of other names, such as .txt, are not read"
            .into(),
    }
}

/// The samples of a shard as entries.
fn found(shard: Shard, people: People) -> Found<crate::shelf::Span> {
    let Shard { places, whose, names, left_out } = shard;
    let mut entries: Vec<_> = (0..)
        .zip(places)
        .zip(whose)
        .map(|((i, place), who)| {
            let whose = match who {
                Err(why) if why == NO_LABEL => Whose::Unsaid(NO_LABEL),
                who => Whose::Said(who),
            };
            Entry { name: names.get(i).to_owned(), whose, place }
        })
        .collect();
    if people == People::Optional {
        // Samples come as they are found to be whole, images in the order of the file.
        entries.sort_by_key(|entry| entry.place.start);
    }
    Found { entries, left_out }
}

/// The samples of the file at `path`. Images of a compressed one are put into `spool`.
///
/// # Errors
///
/// [`SourceError`]: damage that is not to be stepped over, a fault of the system, or a full spool.
pub fn read_shard(
    path: &Path,
    packing: Packing,
    spool: Option<&Spool>,
    damaged: Damaged,
) -> Result<Shard, SourceError> {
    let file = File::open(path).map_err(SourceError::at("open", path))?;
    let size = file.metadata().map_err(SourceError::at("look at", path))?.len();
    if packing == Packing::Plain {
        let file = BufReader::with_capacity(WINDOW_BYTES, file);
        return samples::read(path, Plain { file, left: size }, None, damaged);
    }
    let unpacked = packing.unpacked(file, size).map_err(SourceError::at("unpack", path))?;
    samples::read(path, Unpacking(BufReader::new(unpacked)), spool, damaged)
}

/// A file, in which bytes are passed over without being read.
struct Plain {
    file: BufReader<File>,
    left: u64,
}

impl Read for Plain {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(bytes)?;
        self.left = self.left.saturating_sub(n as u64);
        Ok(n)
    }
}

impl Forward for Plain {
    fn left(&self) -> Option<u64> {
        Some(self.left)
    }

    fn skip(&mut self, n: u64) -> io::Result<bool> {
        let Some(step) = i64::try_from(n).ok().filter(|_| n <= self.left) else {
            return Ok(false);
        };
        self.file.seek_relative(step)?;
        self.left -= n;
        Ok(true)
    }
}

/// Bytes that come out of a decoder, in which nothing can be passed over unread.
struct Unpacking<R>(R);

impl<R: Read> Read for Unpacking<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read(bytes)
    }
}

impl<R: Read> Forward for Unpacking<R> {
    fn left(&self) -> Option<u64> {
        None
    }

    fn skip(&mut self, n: u64) -> io::Result<bool> {
        Ok(io::copy(&mut (&mut self.0).take(n), &mut io::sink())? == n)
    }
}

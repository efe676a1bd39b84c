//! `WebDataset` shards: tar files in which members of one basename are a sample.

mod members;
pub mod samples;

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use flate2::read::MultiGzDecoder;
use pfc_cli::{Progress, interrupt, units};
use rayon::prelude::*;

use self::{
    members::Forward,
    samples::{NO_LABEL, Place, Shard},
};
use crate::{
    catalogue::{Catalogue, People},
    error::SourceError,
    index::Index,
    label::Who,
    names::Names,
    recordio::Damaged,
    reject::{ReadError, Reject},
    shards::files,
    source::{LeftOut, Source, nothing, stamp, write_paths},
    spool::Spool,
};

/// How the names of shards end.
pub const ENDINGS: &[&str] = &[".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst"];

/// A header and a small label are read at once, and little of the image before them.
const WINDOW_BYTES: usize = 4096;

/// Samples of shards.
///
/// Shards are read once to find the samples. Images in a plain tar are later read where they lie;
/// those in compressed ones are unpacked to a temporary file, which takes their size on disk.
///
/// Memory: the members' names and 40 bytes per image.
pub struct TarSource {
    name: String,
    shards: Vec<PathBuf>,
    /// Which of the shards have their images in the spool.
    is_spooled: Vec<bool>,
    spool: Option<Spool>,
    places: Vec<Located>,
    names: Names,
    index: Index,
    order: Vec<u32>,
    left_out: Vec<LeftOut>,
}

impl TarSource {
    /// Finds the samples of the shards that `raw` is, on the current thread pool; images of
    /// compressed ones go to a temporary file in `scratch`. Where identities are optional, a sample
    /// needs no label.
    ///
    /// # Errors
    ///
    /// [`SourceError`] if a shard cannot be read, there is no sample, or the user interrupts.
    pub fn open(
        raw: &Path,
        scratch: &Path,
        damaged: Damaged,
        people: People,
        quiet: bool,
    ) -> Result<TarSource, SourceError> {
        let name = raw.display().to_string();
        let shards = files(raw, ENDINGS, "shards (.tar, .tar.gz or .tar.zst)")?;
        let packings = shards.iter().map(|shard| Packing::of(shard));
        let packings = packings.collect::<Result<Vec<_>, _>>()?;
        let is_spooled: Vec<bool> = packings.iter().map(|p| *p != Packing::Plain).collect();
        let spool = is_spooled.contains(&true).then(|| Spool::create(scratch)).transpose()?;
        let mut source = TarSource {
            name,
            shards,
            is_spooled,
            spool,
            places: Vec::new(),
            names: Names::default(),
            index: Index::default(),
            order: Vec::new(),
            left_out: Vec::new(),
        };
        source.list(&packings, damaged, people, quiet)?;
        if let Some(spool) = &source.spool {
            let bytes = units::bytes(spool.len());
            tracing::info!("{}: {bytes} of images unpacked", source.name);
        }
        Ok(source)
    }

    fn list(
        &mut self,
        packings: &[Packing],
        damaged: Damaged,
        people: People,
        quiet: bool,
    ) -> Result<(), SourceError> {
        let progress = Progress::new("list", "shards", self.shards.len() as u64, quiet);
        let mut catalogue = Catalogue::of(people);
        // As many at once as there are threads: what a wave holds, it holds twice.
        let wave = rayon::current_num_threads();
        for start in (0..self.shards.len()).step_by(wave) {
            if interrupt::requested() {
                return Err(SourceError::Interrupted { path: self.name.clone() });
            }
            let end = (start + wave).min(self.shards.len());
            let read = |i: usize| {
                let shard = read_shard(&self.shards[i], packings[i], self.spool.as_ref(), damaged);
                progress.add(1);
                shard
            };
            let shards: Vec<_> = (start..end).into_par_iter().map(read).collect();
            for (i, shard) in (start..end).zip(shards) {
                self.add(i, shard?, people, &mut catalogue)?;
            }
        }
        progress.finish();
        if catalogue.is_nobody() {
            return Err(self.nothing());
        }
        let sealed = catalogue.seal_for(people, &self.name, |_| 1);
        (self.index, self.order) = (sealed.index, sealed.order);
        Ok(())
    }

    fn add(
        &mut self,
        i: usize,
        shard: Shard,
        people: People,
        catalogue: &mut Catalogue,
    ) -> Result<(), SourceError> {
        let Shard { places, whose, names, left_out } = shard;
        let mut samples: Vec<(usize, Result<Who, String>)> =
            whose.into_iter().enumerate().collect();
        if people == People::Optional {
            // Samples come as they are found to be whole, images in the order of the file.
            samples.sort_by_key(|(k, _)| places[*k].start);
        }
        for (k, who) in samples {
            if let Some(problem) = catalogue.push_or_leave_out(&self.name, who)? {
                let shard = self.shards[i].file_name().unwrap_or_default().to_string_lossy();
                let source = format!("{shard}/{}", names.get(k));
                self.left_out.push(LeftOut { source, reject: Reject::NoLabel(problem) });
            }
            let Place { start, n_bytes } = places[k];
            self.places.push(Located { start, n_bytes, shard: i as u32 });
            self.names.push(names.get(k));
        }
        self.left_out.extend(left_out);
        Ok(())
    }

    /// What to say of shards without a sample that can be used.
    fn nothing(&self) -> SourceError {
        let lost = self.left_out.iter().filter(|l| !l.reject.is_skip());
        let is_bare = |l: &LeftOut| matches!(&l.reject, Reject::NoLabel(why) if why == NO_LABEL);
        let n = lost.clone().count() as u64;
        if n == 0 || !lost.clone().all(is_bare) {
            return nothing(&self.name, &self.left_out);
        }
        let images = units::of(n, "image");
        SourceError::OtherFormat {
            path: PathBuf::from(&self.name),
            what: format!("tar without labels: beside none of its {images} lies a .cls or .json"),
            way_out: "if the folders in it are the people, unpack it and pack the folder that comes \
                      out; else write a .cls with the number or name of the person beside each image: \
                      members of other names, such as .txt, are not read"
                .into(),
        }
    }

    fn item(&self, entry: u64) -> usize {
        self.order[entry as usize] as usize
    }
}

impl Source for TarSource {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn index(&self) -> &Index {
        &self.index
    }

    fn path(&self, entry: u64) -> String {
        let item = self.item(entry);
        let shard = &self.shards[self.places[item].shard as usize];
        let shard = shard.file_name().unwrap_or_default().to_string_lossy();
        format!("{shard}/{}", self.names.get(item))
    }

    fn place(&self, entry: u64) -> u64 {
        self.order[entry as usize].into()
    }

    fn stamp(&self, entry: u64) -> u128 {
        stamp(&self.path(entry), &[self.places[self.item(entry)].n_bytes.into()])
    }

    fn write_names(&self, out: &mut dyn Write) -> io::Result<()> {
        write_paths(self, |entry| self.places[self.item(entry)].n_bytes.into(), out)
    }

    fn read(&self, entry: u64) -> Result<Vec<u8>, ReadError> {
        let Located { start, n_bytes, shard } = self.places[self.item(entry)];
        if let (Some(spool), true) = (&self.spool, self.is_spooled[shard as usize]) {
            return spool.read(start, n_bytes as usize);
        }
        // Opened anew, since there may be more shards than a process may hold open.
        let path = &self.shards[shard as usize];
        let read = || {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(start))?;
            let mut bytes = vec![0; n_bytes as usize];
            file.read_exact(&mut bytes)?;
            Ok(bytes)
        };
        read().map_err(ReadError::at(path))
    }

    fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }
}

/// An image: where it is, and of which shard.
struct Located {
    start: u64,
    n_bytes: u32,
    shard: u32,
}

/// How a shard is compressed, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    Plain,
    Gzip,
    Zstd,
}

impl Packing {
    fn of(path: &Path) -> Result<Packing, SourceError> {
        let mut head = Vec::with_capacity(4);
        let file = File::open(path).map_err(SourceError::at("open", path))?;
        file.take(4).read_to_end(&mut head).map_err(SourceError::at("read", path))?;
        Ok(match &head[..] {
            [0x1f, 0x8b, ..] => Packing::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd] => Packing::Zstd,
            _ => Packing::Plain,
        })
    }
}

fn read_shard(
    path: &Path,
    packing: Packing,
    spool: Option<&Spool>,
    damaged: Damaged,
) -> Result<Shard, SourceError> {
    let file = File::open(path).map_err(SourceError::at("open", path))?;
    match packing {
        Packing::Plain => {
            let size = file.metadata().map_err(SourceError::at("look at", path))?.len();
            let file = BufReader::with_capacity(WINDOW_BYTES, file);
            samples::read(path, Plain { file, left: size }, None, damaged)
        }
        Packing::Gzip => {
            let file = BufReader::with_capacity(1 << 16, file);
            let unpacked = BufReader::new(MultiGzDecoder::new(file));
            samples::read(path, Unpacking(unpacked), spool, damaged)
        }
        Packing::Zstd => {
            let unpacked = zstd::Decoder::new(file).map_err(SourceError::at("unpack", path))?;
            samples::read(path, Unpacking(BufReader::new(unpacked)), spool, damaged)
        }
    }
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

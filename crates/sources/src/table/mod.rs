//! Image tables in Parquet and Arrow files, as Hugging Face's libraries store them.

mod columns;
mod parquet_file;
mod read;
mod thrift;

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use pfc_cli::{Progress, interrupt, units};
use rayon::prelude::*;

pub use self::read::Table;
use self::read::{Part, left_out};
use crate::{
    catalogue::{Catalogue, Sealed},
    columns::ColumnChoice,
    error::SourceError,
    index::Index,
    reject::{ReadError, Reject},
    shards::files,
    source::{LeftOut, Source, nothing, stamp, write_paths},
    spool::Spool,
};

/// How the names of tables end.
pub const ENDINGS: &[&str] = &[".parquet", ".arrow"];

/// Rows of tables.
///
/// Images in a table are compressed and lie in pages of many, so that reading them one by one in
/// any order would unpack each page again and again. So every table is read once, all parts in
/// parallel, and the images are kept in a temporary file, which takes their size on disk.
///
/// Memory: 32 bytes per row and, while tables are read, per thread a batch of 8 MiB and a page.
pub struct TableSource {
    name: String,
    files: Vec<PathBuf>,
    /// The row of the source at which each file begins.
    firsts: Vec<u64>,
    spool: Spool,
    /// By row.
    places: Vec<(u64, u32)>,
    index: Index,
    order: Vec<u32>,
    left_out: Vec<LeftOut>,
}

impl TableSource {
    /// Reads the tables that `raw` is, on the current thread pool, and keeps their images in a
    /// temporary file in `scratch`.
    ///
    /// # Errors
    ///
    /// [`SourceError`] if a table cannot be read, there is no row, the disk is full, or the user
    /// interrupts.
    pub fn open(
        raw: &Path,
        scratch: &Path,
        choice: &ColumnChoice,
        quiet: bool,
    ) -> Result<TableSource, SourceError> {
        let name = raw.display().to_string();
        let files = files(raw, ENDINGS, "tables (.parquet or .arrow)")?;
        let tables = files.par_iter().map(|path| Table::open(path, choice));
        let tables = tables.collect::<Result<Vec<_>, _>>()?;
        let mut source = TableSource {
            name,
            files,
            firsts: Vec::new(),
            spool: Spool::create(scratch)?,
            places: Vec::new(),
            index: Index::default(),
            order: Vec::new(),
            left_out: Vec::new(),
        };
        if let Some(guess) = tables.first().and_then(Table::guess) {
            tracing::warn!("{}: its columns are {guess}; --columns says otherwise", source.name);
        }
        source.list(&tables, quiet)?;
        let bytes = units::bytes(source.spool.len());
        tracing::info!("{}: {bytes} of images unpacked", source.name);
        Ok(source)
    }

    fn list(&mut self, tables: &[Table], quiet: bool) -> Result<(), SourceError> {
        let parts_of =
            |(file, table): (usize, &Table)| (0..table.n_parts()).map(move |p| (file, p));
        let parts: Vec<(usize, usize)> = tables.iter().enumerate().flat_map(parts_of).collect();
        let progress = Progress::new("unpack", "row groups", parts.len() as u64, quiet);
        let mut catalogue = Catalogue::default();
        // Parts vary in size: several per thread keep all of them busy.
        for wave in parts.chunks(4 * rayon::current_num_threads()) {
            if interrupt::requested() {
                return Err(SourceError::Interrupted { path: self.name.clone() });
            }
            let read = |&(file, part): &(usize, usize)| {
                let rows = tables[file].read(&self.files[file], part, &self.spool);
                progress.add(1);
                rows
            };
            let read: Vec<_> = wave.par_iter().map(read).collect();
            for (&(file, _), part) in wave.iter().zip(read) {
                self.add(file, part?, &mut catalogue)?;
            }
        }
        progress.finish();
        if catalogue.is_nobody() {
            return Err(nothing(&self.name, &self.left_out));
        }
        Sealed { index: self.index, order: self.order } = catalogue.seal(&self.name, |_| 1);
        Ok(())
    }

    fn add(
        &mut self,
        file: usize,
        part: Part,
        catalogue: &mut Catalogue,
    ) -> Result<(), SourceError> {
        let first = catalogue.len() as u64;
        while self.firsts.len() <= file {
            self.firsts.push(first);
        }
        let start = first - self.firsts[file];
        self.left_out.extend(left_out(part.left_out, &self.file_name(file), start));
        for (row, found) in (start..).zip(part.rows) {
            let (who, (start, n_bytes)) = match found {
                None => (Err(String::new()), (0, 0)),
                Some((who, start, n_bytes)) => (Ok(who), (start, n_bytes)),
            };
            let is_listed = who.is_err();
            if let Some(problem) = catalogue.push_or_leave_out(&self.name, who)?
                && !is_listed
            {
                let source = format!("{}/{row}", self.file_name(file));
                self.left_out.push(LeftOut { source, reject: Reject::NoLabel(problem) });
            }
            self.places.push((start, n_bytes));
        }
        Ok(())
    }

    fn file_name(&self, file: usize) -> String {
        self.files[file].file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn row(&self, entry: u64) -> usize {
        self.order[entry as usize] as usize
    }
}

impl Source for TableSource {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn index(&self) -> &Index {
        &self.index
    }

    fn path(&self, entry: u64) -> String {
        let row = self.row(entry) as u64;
        let file = self.firsts.partition_point(|first| *first <= row).saturating_sub(1);
        format!("{}/{}", self.file_name(file), row - self.firsts[file])
    }

    fn place(&self, entry: u64) -> u64 {
        self.order[entry as usize].into()
    }

    fn stamp(&self, entry: u64) -> u128 {
        stamp(&self.path(entry), &[self.places[self.row(entry)].1.into()])
    }

    fn write_names(&self, out: &mut dyn Write) -> io::Result<()> {
        write_paths(self, |entry| self.places[self.row(entry)].1.into(), out)
    }

    fn read(&self, entry: u64) -> Result<Vec<u8>, ReadError> {
        let (start, n_bytes) = self.places[self.row(entry)];
        self.spool.read(start, n_bytes as usize)
    }

    fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }
}

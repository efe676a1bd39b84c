//! Image tables in Parquet and Arrow files, as Hugging Face's libraries store them.

mod columns;
mod parquet_file;
mod read;
mod thrift;

use std::{
    collections::HashSet,
    io::{self, Write},
    path::{Path, PathBuf},
};

use pfc_cli::{Progress, interrupt, units};
use pfc_image::ImageFolder;
use rayon::prelude::*;

pub use self::read::Table;
use self::read::{Part, Unpacked, left_out};
use crate::{
    catalogue::{Catalogue, People},
    columns::ColumnChoice,
    error::SourceError,
    file::{Root, file_size, read_file},
    index::Index,
    reject::{ReadError, Reject},
    shards,
    source::{LeftOut, Source, nothing, stamp, write_paths},
    spool::Spool,
};

/// How the names of tables end.
pub const ENDINGS: &[&str] = &[".parquet", ".arrow"];

/// The rows of image tables, as a source.
///
/// Images in a table are compressed and lie in pages of many, so that reading them one by one in
/// any order would unpack each page again and again. So every table is read once, all parts in
/// parallel, and the images are kept in a temporary file, which takes their size on disk.
///
/// Memory: 32 bytes per row and, while tables are read, per thread a batch of 8 MiB and a page.
pub struct TableSource {
    name: String,
    files: Vec<PathBuf>,
    /// What each is called before the numbers of its rows.
    names: Vec<String>,
    /// Where paths of images start, if the user has said so: all then lie below it.
    folder: Option<(PathBuf, ImageFolder)>,
    /// The folders of images that are files.
    root: Root,
    /// The row of the source at which each file begins.
    firsts: Vec<u64>,
    spool: Spool,
    /// By row: where its image begins, with the highest bit where that is its path, and how long it is.
    places: Vec<(u64, u32)>,
    index: Index,
    order: Vec<u32>,
    left_out: Vec<LeftOut>,
}

/// Where else a table needs something.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The folder that the paths of images start from, by default that of their table.
    pub root: Option<&'a Path>,
    /// The folder on whose disk unpacked images are kept.
    pub scratch: &'a Path,
}

/// Says of a place that a path is kept there.
const PATH: u64 = 1 << 63;

impl TableSource {
    /// Reads the tables `files`, on the current thread pool, and keeps their images in a temporary file;
    /// images that are files stay where they are. Where identities are optional, a table needs no label
    /// column.
    ///
    /// # Errors
    ///
    /// [`SourceError`] if a table cannot be read, there is no row, the disk is full, or the user
    /// interrupts.
    pub fn open(
        name: String,
        files: Vec<PathBuf>,
        Place { root, scratch }: Place<'_>,
        choice: &ColumnChoice,
        people: People,
        quiet: bool,
    ) -> Result<TableSource, SourceError> {
        let tables = files.par_iter().map(|path| Table::open(path, choice, people));
        let tables = tables.collect::<Result<Vec<_>, _>>()?;
        let mut source = TableSource {
            name,
            names: shards::names(&files),
            folder: root.map(|root| (root.to_path_buf(), ImageFolder::at(root))),
            root: Root::of(root.unwrap_or(Path::new(""))),
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
        source.list(&tables, people, quiet)?;
        let n_paths = source.places.iter().filter(|(start, _)| start & PATH != 0).count() as u64;
        if n_paths > 0 {
            tracing::info!("{}: {} of images", source.name, units::of(n_paths, "path"));
        }
        let bytes = units::bytes(source.spool.len());
        tracing::info!("{}: {bytes} of images unpacked", source.name);
        Ok(source)
    }

    fn list(&mut self, tables: &[Table], people: People, quiet: bool) -> Result<(), SourceError> {
        let parts_of =
            |(file, table): (usize, &Table)| (0..table.n_parts()).map(move |p| (file, p));
        let parts: Vec<(usize, usize)> = tables.iter().enumerate().flat_map(parts_of).collect();
        let progress = Progress::new("unpack", "row groups", parts.len() as u64, quiet);
        let mut catalogue = Catalogue::of(people);
        let mut folders = HashSet::new();
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
                let part = part?;
                folders.extend(part.folders.iter().map(|folder| self.base(file).join(folder)));
                self.add(file, part, &mut catalogue)?;
            }
        }
        progress.finish();
        if !folders.is_empty() {
            let base = self.base(0).to_path_buf();
            self.root = Root::with(&base, folders);
        }
        if catalogue.is_nobody() {
            return Err(nothing(&self.name, &self.left_out));
        }
        let sealed = catalogue.seal_for(people, &self.name, |_| 1);
        (self.index, self.order) = (sealed.index, sealed.order);
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
            let Some(Unpacked { who, start, n_bytes, is_path }) = found else {
                catalogue.push_gap(&self.name)?;
                self.places.push((0, 0));
                continue;
            };
            if let Some(problem) = catalogue.push_or_leave_out(&self.name, who)? {
                let source = format!("{}/{row}", self.file_name(file));
                self.left_out.push(LeftOut { source, reject: Reject::NoLabel(problem) });
            }
            self.places.push((start | if is_path { PATH } else { 0 }, n_bytes));
        }
        Ok(())
    }

    fn file_name(&self, file: usize) -> String {
        self.names[file].clone()
    }

    /// Where the paths of a table start.
    fn base(&self, file: usize) -> &Path {
        match &self.folder {
            Some((root, _)) => root,
            None => self.files[file].parent().unwrap_or(Path::new("")),
        }
    }

    /// The table that a row is in.
    fn file_of(&self, row: usize) -> usize {
        self.firsts.partition_point(|first| *first <= row as u64).saturating_sub(1)
    }

    /// The file of an image that is one.
    fn image_file(&self, row: usize) -> Result<Option<PathBuf>, ReadError> {
        let (start, n_bytes) = self.places[row];
        if start & PATH == 0 {
            return Ok(None);
        }
        let path = self.spool.read(start & !PATH, n_bytes as usize)?;
        let path = String::from_utf8_lossy(&path).replace('\\', "/");
        let path = match &self.folder {
            Some((_, folder)) => folder.below(&path).map_err(Reject::from)?,
            None => PathBuf::from(path),
        };
        Ok(Some(self.base(self.file_of(row)).join(path)))
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
        let row = self.row(entry);
        let file = self.file_of(row);
        format!("{}/{}", self.file_name(file), row as u64 - self.firsts[file])
    }

    fn place(&self, entry: u64) -> u64 {
        self.order[entry as usize].into()
    }

    fn stamp(&self, entry: u64) -> u128 {
        let row = self.row(entry);
        match self.image_file(row) {
            Ok(Some(file)) => stamp(&file.to_string_lossy(), &[file_size(&file)]),
            _ => stamp(&self.path(entry), &[self.places[row].1.into()]),
        }
    }

    fn write_names(&self, out: &mut dyn Write) -> io::Result<()> {
        write_paths(self, |entry| self.places[self.row(entry)].1.into(), out)
    }

    fn read(&self, entry: u64) -> Result<Vec<u8>, ReadError> {
        let row = self.row(entry);
        match self.image_file(row)? {
            Some(file) => read_file(&file, &self.root),
            None => {
                let (start, n_bytes) = self.places[row];
                self.spool.read(start, n_bytes as usize)
            }
        }
    }

    fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, sync::Arc};

    use arrow_array::{ArrayRef, BinaryArray, Int64Array, RecordBatch};
    use parquet::arrow::ArrowWriter;

    use super::*;

    #[test]
    fn where_identities_are_optional_a_table_needs_no_labels() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.parquet");
        let images: ArrayRef =
            Arc::new(BinaryArray::from_opt_vec(vec![Some(b"a"), None, Some(b"c"), Some(b"d")]));
        let labels: ArrayRef = Arc::new(Int64Array::from(vec![Some(5), Some(5), None, Some(-1)]));
        let open = |columns: Vec<(&str, ArrayRef)>, people| {
            let batch = RecordBatch::try_from_iter_with_nullable(
                columns.into_iter().map(|(name, column)| (name, column, true)),
            )
            .unwrap();
            let file = File::create(&path).unwrap();
            let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
            writer.write(&batch).unwrap();
            writer.close().unwrap();
            let place = Place { root: None, scratch: dir.path() };
            let files = vec![path.clone()];
            TableSource::open("x".into(), files, place, &ColumnChoice::default(), people, true)
        };
        let image = || ("image", images.clone());
        assert!(open(vec![image()], People::Needed).is_err());
        let label = || ("label", labels.clone());
        for columns in [vec![image()], vec![image(), label()]] {
            let n_labels = columns.len() - 1;
            let table = open(columns, People::Optional).unwrap();
            let rows: Vec<(String, Vec<u8>)> = (0..table.index().len())
                .map(|entry| (table.path(entry), table.read(entry).unwrap()))
                .collect();
            let expected = [("0", b"a"), ("2", b"c"), ("3", b"d")];
            let expected =
                expected.map(|(row, image)| (format!("x.parquet/{row}"), image.to_vec()));
            assert_eq!(rows, expected);
            let known = (0..3).filter(|entry| table.index().who(*entry).is_some()).count();
            assert_eq!(known, n_labels);
            let reasons: Vec<_> = table.left_out().iter().map(|l| l.reject.reason()).collect();
            assert_eq!(reasons, ["no_image"]);
        }
        assert_eq!(open(vec![image(), label()], People::Needed).unwrap().index().len(), 1);
    }
}

//! A `.rec` file opened for reading: its records, and the face images among them.

use std::{
    borrow::Cow,
    ops::Range,
    path::{Path, PathBuf},
};

use crate::{
    Damage, Header, IndexEntry, Layout, Note, RecordError,
    frame::{self, At, Scanner},
    header::HeaderView,
    index::Index,
    layout::is_range,
    map::Bytes,
};

/// One record, whatever it holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Record<'a> {
    /// Its key in the index.
    pub key: u64,
    /// Where it begins in the file.
    pub offset: u64,
    /// Labels and ids.
    pub header: Header,
    /// All after the header: an encoded image, or nothing. Copied only if the record is split.
    pub image: Cow<'a, [u8]>,
}

/// What [`RecordFile::salvage`] had to leave out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Salvage {
    /// The first of the stretches without a readable record, at most [`Salvage::DAMAGE_MAX`].
    pub damage: Vec<Damage>,
    /// How many there are.
    pub n_damaged: u64,
    /// Their bytes together.
    pub bytes_lost: u64,
}

impl Salvage {
    /// More stretches are counted but not listed.
    pub const DAMAGE_MAX: usize = 1000;

    fn add(&mut self, damage: Damage) {
        self.n_damaged += 1;
        self.bytes_lost += damage.resumes_at - damage.from;
        if self.damage.len() < Salvage::DAMAGE_MAX {
            self.damage.push(damage);
        }
    }
}

/// Bytes of a file that a walk through it holds at a time.
const RELEASE_BYTES: u64 = 256 << 20;

/// A `.rec` file, memory-mapped.
///
/// Reading takes `&self` from any number of threads. The index takes 16 bytes of memory per record,
/// and 4 more unless its keys ascend: 350 MB for the 17.5 million records of Glint360K. The images
/// stay on disk, in pages that the system can drop.
#[derive(Debug)]
pub struct RecordFile {
    pub(crate) path: PathBuf,
    bytes: Bytes,
    /// Whether the index is that of an `.idx` file.
    has_index: bool,
    pub(crate) index: Index,
    pub(crate) layout: Layout,
    /// Where the images, and the identity records, are in the order of keys; the images' range is
    /// of positions in the index where the layout is sequential.
    pub(crate) images: Range<usize>,
    pub(crate) identities: Range<usize>,
    pub(crate) notes: Vec<Note>,
}

impl RecordFile {
    /// Opens `rec` with its index, or, without one, after a walk through the whole file.
    ///
    /// A file that is walked through must be undamaged ([`salvage`](RecordFile::salvage) takes any).
    /// The keys of its records are their ids, which is what MXNet's tools make them, unless two are
    /// equal: then positions, and all are images, with a [`Note`]. With an index only record 0 is
    /// read, and the last.
    ///
    /// # Errors
    ///
    /// [`RecordError::Durable`]; the first fault of the index; [`RecordError::Damaged`] for record 0 or,
    /// without an index, the first damage of the file; [`RecordError::BadRange`] if record 0
    /// announces what cannot be.
    pub fn open(rec: &Path, idx: Option<&Path>) -> Result<RecordFile, RecordError> {
        let bytes = Bytes::open(rec)?;
        match idx {
            None => RecordFile::scanned(rec, bytes, |damage| Err(damaged(rec, &damage))),
            Some(idx) => RecordFile::indexed(rec, bytes, idx, &Bytes::open(idx)?),
        }
    }

    /// The same for a file and an index in memory; messages call them `memory.rec`, `memory.idx`.
    ///
    /// # Errors
    ///
    /// As [`open`](RecordFile::open).
    pub fn from_bytes(rec: Vec<u8>, idx: Option<&[u8]>) -> Result<RecordFile, RecordError> {
        let (path, bytes) = (Path::new("memory.rec"), Bytes::Owned(rec));
        match idx {
            None => RecordFile::scanned(path, bytes, |damage| Err(damaged(path, &damage))),
            Some(idx) => RecordFile::indexed(path, bytes, "memory.idx".as_ref(), idx),
        }
    }

    /// Opens what is readable of a damaged `rec`, without its index, and says what is not.
    ///
    /// # Errors
    ///
    /// [`RecordError::Durable`], or [`RecordError::BadRange`].
    pub fn salvage(rec: &Path) -> Result<(RecordFile, Salvage), RecordError> {
        let mut salvage = Salvage::default();
        let add = |damage| {
            salvage.add(damage);
            Ok(())
        };
        let file = RecordFile::scanned(rec, Bytes::open(rec)?, add)?;
        Ok((file, salvage))
    }

    fn indexed(
        rec: &Path,
        bytes: Bytes,
        idx: &Path,
        text: &[u8],
    ) -> Result<RecordFile, RecordError> {
        let index = Index::parse(idx, text, bytes.len() as u64)?;
        let mut file = RecordFile::new(rec, bytes, index, true);
        file.find_layout()?;
        file.notes.extend(file.not_indexed());
        Ok(file)
    }

    fn scanned(
        path: &Path,
        bytes: Bytes,
        mut on_damage: impl FnMut(Damage) -> Result<(), RecordError>,
    ) -> Result<RecordFile, RecordError> {
        let (mut entries, mut release_at) = (Vec::new(), RELEASE_BYTES);
        for found in Scanner::new(&bytes) {
            if let Ok((offset, _)) = found
                && offset >= release_at
            {
                bytes.release();
                release_at = offset + RELEASE_BYTES;
            }
            let found = found.and_then(|(offset, payload)| {
                let damage =
                    |fault| Damage { from: offset, offset, fault, resumes_at: payload.end as u64 };
                let header = HeaderView::parse(&payload.bytes).map_err(damage)?;
                Ok(IndexEntry { key: header.id, offset })
            });
            match found {
                Ok(entry) => entries.push(entry),
                Err(damage) => on_damage(damage)?,
            }
        }
        let (index, by_id) = Index::scanned(path, entries)?;
        let mut file = RecordFile::new(path, bytes, index, false);
        match by_id {
            true => file.find_layout()?,
            // Record 0 is then any record, and its keys, if it holds some, are not these.
            false => file.notes.push(Note::KeysArePositions),
        }
        Ok(file)
    }

    fn new(path: &Path, bytes: Bytes, index: Index, has_index: bool) -> RecordFile {
        let (images, identities) = (0..index.len(), 0..0);
        let (path, layout, notes) = (path.to_path_buf(), Layout::Sequential, Vec::new());
        RecordFile { path, bytes, has_index, index, layout, images, identities, notes }
    }

    /// What lies behind the last record of the index.
    fn not_indexed(&self) -> Option<Note> {
        let end = match self.index.last_in_file() {
            None => 0,
            // A damaged record is reported when it is read.
            Some(last) => frame::record(&self.bytes, last.offset as usize).ok()?.end,
        };
        let bytes = (self.bytes.len() - end) as u64;
        (bytes > 0).then_some(Note::NotIndexed { offset: end as u64, bytes })
    }

    /// Bytes of the `.rec` file.
    pub fn n_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// How many of its bytes the record at `offset` takes; 0 if no whole record begins there.
    pub fn record_bytes(&self, offset: u64) -> u64 {
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        frame::record(&self.bytes, at).map_or(0, |payload| payload.end as u64 - offset)
    }

    /// Where records with an image begin that the index does not list, in the order of the file.
    ///
    /// Reads the frames of all records: of a large file that takes as long as a walk through it.
    pub fn not_listed(&self) -> Vec<u64> {
        self.unlisted(|header, payload| header.image_start() < payload.len())
    }

    /// Where record 0 begins, which says that records hold the images of one identity each, if the index
    /// lists some of these and not record 0: they would be taken for images.
    ///
    /// Costs as much as [`not_listed`](RecordFile::not_listed).
    pub fn announcement_not_listed(&self) -> Option<u64> {
        if self.layout != Layout::Sequential || self.index.find(0).is_some() {
            return None;
        }
        let is_listed_range = |at| {
            let payload = self.payload(self.index.get(at)?).ok()?;
            let header = HeaderView::parse(&payload).ok()?;
            is_range(&header, &payload).then_some(())
        };
        (0..self.index.len()).find_map(is_listed_range)?;
        let is_first =
            |header: &HeaderView<'_>, payload: &[u8]| header.id == 0 && is_range(header, payload);
        self.unlisted(is_first).first().copied()
    }

    /// Where the records begin that the index does not list and that are `wanted`, by header and payload.
    fn unlisted(&self, wanted: impl Fn(&HeaderView<'_>, &[u8]) -> bool) -> Vec<u64> {
        let offsets = (0..self.index.len()).filter_map(|at| Some(self.index.get(at)?.offset));
        // A wrong place must not part the record that it lies in from its beginning.
        let mut listed: Vec<u64> =
            offsets.filter(|&offset| self.record_bytes(offset) > 0).collect();
        listed.sort_unstable();
        let mut found = Vec::new();
        let mut end = 0;
        for start in listed.into_iter().chain([self.n_bytes()]) {
            if start > end {
                let gap = &self.bytes[end as usize..start as usize];
                let whole = Scanner::new(gap).filter_map(Result::ok);
                let of_kind = whole.filter(|(_, payload)| {
                    let header = HeaderView::parse(&payload.bytes);
                    header.is_ok_and(|header| wanted(&header, &payload.bytes))
                });
                found.extend(of_kind.map(|(offset, _)| end + offset));
            }
            end = end.max(start + self.record_bytes(start));
        }
        self.release_pages();
        found
    }

    /// The `.rec` file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether an `.idx` file says where records begin, and not the records themselves.
    pub fn has_index(&self) -> bool {
        self.has_index
    }

    /// What the user should know about the file; for warnings.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// Stops the pages of the file read so far from counting as this process's memory. What was read
    /// of them stays valid, and reading goes on as before. For loops through files larger than
    /// memory: what the system shows as this process's memory, and bounds in a job, then is what it
    /// needs.
    pub fn release_pages(&self) {
        self.bytes.release();
    }

    /// Number of records.
    pub fn n_records(&self) -> u64 {
        self.index.len() as u64
    }

    /// Key and place of the record at a position of the index; without an index, of the file.
    pub fn entry(&self, position: u64) -> Option<IndexEntry> {
        self.index.get(usize::try_from(position).ok()?)
    }

    /// The record at a position of the index; without an index, of the file.
    ///
    /// # Errors
    ///
    /// [`RecordError::NoSuchRecord`], or [`RecordError::Damaged`].
    pub fn record(&self, position: u64) -> Result<Record<'_>, RecordError> {
        match self.entry(position) {
            Some(entry) => self.read(entry),
            None => Err(self.beyond("record", position, self.n_records())),
        }
    }

    /// The record of a key, if there is one.
    ///
    /// # Errors
    ///
    /// [`RecordError::Damaged`].
    pub fn by_key(&self, key: u64) -> Result<Option<Record<'_>>, RecordError> {
        self.index.find(key).map(|entry| self.read(entry)).transpose()
    }

    /// All records in the order of the index.
    pub fn records(&self) -> impl ExactSizeIterator<Item = Result<Record<'_>, RecordError>> + Send {
        (0..self.index.len()).map(|position| self.record(position as u64))
    }

    fn read(&self, entry: IndexEntry) -> Result<Record<'_>, RecordError> {
        let payload = self.payload(entry)?;
        let view = self.header(entry, &payload)?;
        let (header, start) = (view.to_header(), view.image_start());
        Ok(Record { key: entry.key, offset: entry.offset, header, image: tail(payload, start) })
    }

    pub(crate) fn payload(&self, entry: IndexEntry) -> Result<Cow<'_, [u8]>, RecordError> {
        let at = usize::try_from(entry.offset).unwrap_or(usize::MAX);
        let payload = frame::record(&self.bytes, at).map_err(|at| self.at(at))?;
        Ok(payload.bytes)
    }

    pub(crate) fn header<'p>(
        &self,
        entry: IndexEntry,
        payload: &'p [u8],
    ) -> Result<HeaderView<'p>, RecordError> {
        HeaderView::parse(payload).map_err(|fault| self.at((entry.offset, fault)))
    }

    fn at(&self, (offset, fault): At) -> RecordError {
        let (path, has_index) = (self.path.clone(), self.has_index);
        RecordError::Damaged { path, offset, fault, has_index }
    }

    pub(crate) fn beyond(&self, what: &'static str, position: u64, len: u64) -> RecordError {
        RecordError::NoSuchRecord { path: self.path.clone(), what, position, len }
    }
}

fn damaged(path: &Path, damage: &Damage) -> RecordError {
    let Damage { offset, fault, .. } = *damage;
    RecordError::Damaged { path: path.to_path_buf(), offset, fault, has_index: false }
}

/// What follows `start`, borrowed if all is.
pub(crate) fn tail(payload: Cow<'_, [u8]>, start: usize) -> Cow<'_, [u8]> {
    match payload {
        Cow::Borrowed(bytes) => Cow::Borrowed(&bytes[start..]),
        Cow::Owned(mut bytes) => {
            bytes.drain(..start);
            Cow::Owned(bytes)
        }
    }
}

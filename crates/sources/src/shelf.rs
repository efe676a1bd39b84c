//! Sources whose images lie in files of many: what archives, records and data sets of other programs
//! have in common. Each file is listed once, several at a time; images are then read one by one.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use pfc_cli::{Progress, interrupt};
use rayon::prelude::*;

use crate::{
    catalogue::{Catalogue, People, Sealed},
    error::SourceError,
    folders::{self, Parts},
    index::Index,
    label::Who,
    names::Names,
    reject::{ReadError, Reject},
    shards,
    source::{LeftOut, Source, nothing, stamp, write_paths},
    spool::Spool,
    unread::Unread,
};

/// How images lie in files of a format.
pub trait Format: Send + Sync {
    /// Where an image is in its file.
    type Place: Copy + Send + Sync;

    /// The bytes that it takes there.
    fn n_bytes(place: &Self::Place) -> u64;

    /// The image at `place` of file number `file`, which lies at `path`.
    ///
    /// # Errors
    ///
    /// As [`Source::read`].
    fn read(&self, file: usize, path: &Path, place: &Self::Place) -> Result<Vec<u8>, ReadError>;
}

/// An image of a file.
#[derive(Debug)]
pub struct Entry<P> {
    /// What it is called in its file.
    pub name: String,
    /// Whom it shows.
    pub whose: Whose,
    /// Where it is.
    pub place: P,
}

/// Whom an image shows.
#[derive(Debug)]
pub enum Whose {
    /// What its file says, or why that is nobody.
    Said(Result<Who, String>),
    /// Its file says nothing of it; why it is left out where that says something of others.
    Unsaid(&'static str),
}

/// What one file holds.
#[derive(Debug)]
pub struct Found<P> {
    /// The images, in their order.
    pub entries: Vec<Entry<P>>,
    /// What is none; sources begin with the name of the file.
    pub left_out: Vec<LeftOut>,
}

impl<P> Default for Found<P> {
    fn default() -> Found<P> {
        Found { entries: Vec::new(), left_out: Vec::new() }
    }
}

/// Why a file is not listed.
#[derive(Debug)]
pub enum Unlisted {
    /// By what is wrong with it, or a fault of the system when it was read.
    Unread(Unread),
    /// By something else, such as a full disk.
    Source(SourceError),
}

impl Unlisted {
    /// The error of the file at `path`.
    pub fn at(self, path: &Path) -> SourceError {
        let wrong = |problem| SourceError::Damaged { path: path.to_path_buf(), problem };
        match self {
            Unlisted::Unread(unread) => unread.at(path, wrong),
            Unlisted::Source(error) => error,
        }
    }
}

impl<E: Into<Unread>> From<E> for Unlisted {
    fn from(unread: E) -> Unlisted {
        Unlisted::Unread(unread.into())
    }
}

/// How files are listed.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Whether an image needs an identity.
    pub people: People,
    /// What folders of one name are, where folders are the identities.
    pub parts: Parts,
    /// No progress is shown.
    pub quiet: bool,
}

/// The images of all files.
///
/// Where no file says whom any of its images shows, the folders in the images' names are the
/// identities: then those folders that all lie in are no part of a name, and images are in the order of
/// their paths, as in a folder of identities.
///
/// Memory: the images' names and, per image, 12 bytes and its place.
pub struct Shelf<P> {
    name: String,
    files: Vec<PathBuf>,
    /// What each file is called before the names of its images; empty for none.
    file_names: Vec<String>,
    /// By image in the order of the files: its place, and the number of its file.
    places: Vec<(P, u32)>,
    names: Names,
    /// Bytes of each name that are not told.
    wrapper: usize,
    index: Index,
    order: Vec<u32>,
    left_out: Vec<LeftOut>,
    /// The identities are folders.
    is_by_folder: bool,
}

impl<P: Send> Shelf<P> {
    /// Lists `files` on the current thread pool, as `read` does one by its number.
    ///
    /// # Errors
    ///
    /// What `read` gives, [`SourceError`] if there is no image that can be used, folders with images lie
    /// in each other, or the user interrupts.
    pub fn list(
        name: String,
        files: Vec<PathBuf>,
        wanted: Wanted,
        read: impl Fn(usize, &Path) -> Result<Found<P>, SourceError> + Sync,
    ) -> Result<Shelf<P>, SourceError> {
        let mut shelf = Shelf {
            name,
            file_names: shards::names(&files),
            files,
            places: Vec::new(),
            names: Names::default(),
            wrapper: 0,
            index: Index::default(),
            order: Vec::new(),
            left_out: Vec::new(),
            is_by_folder: false,
        };
        let n_files = shelf.files.len();
        let progress = Progress::new("list", "files", n_files as u64, wanted.quiet);
        let mut catalogue = Catalogue::of(wanted.people);
        let mut unsaid = Vec::new();
        // As many at once as there are threads: what a wave holds, it holds twice.
        let wave = rayon::current_num_threads();
        for start in (0..n_files).step_by(wave) {
            if interrupt::requested() {
                return Err(SourceError::Interrupted { path: shelf.name });
            }
            let read = |i: usize| {
                let found = read(i, &shelf.files[i]);
                progress.add(1);
                found
            };
            let wave = start..(start + wave).min(n_files);
            let found: Vec<_> = wave.clone().into_par_iter().map(read).collect();
            for (i, found) in wave.zip(found) {
                shelf.add(i, found?, &mut catalogue, &mut unsaid)?;
            }
        }
        progress.finish();
        let has_folders = || (0..shelf.names.len()).any(|i| shelf.names.get(i).contains('/'));
        if unsaid.len() == shelf.places.len() && !unsaid.is_empty() && has_folders() {
            shelf.by_folder(wanted)?;
        } else {
            shelf.by_word(catalogue, unsaid, wanted.people)?;
        }
        Ok(shelf)
    }

    fn add(
        &mut self,
        file: usize,
        found: Found<P>,
        catalogue: &mut Catalogue,
        unsaid: &mut Vec<(u32, &'static str)>,
    ) -> Result<(), SourceError> {
        for Entry { name, whose, place } in found.entries {
            let item = catalogue.len() as u32;
            let who = match whose {
                Whose::Said(who) => who,
                Whose::Unsaid(why) => {
                    unsaid.push((item, why));
                    Err(String::new())
                }
            };
            let is_said = unsaid.last().is_none_or(|(last, _)| *last != item);
            if let Some(problem) = catalogue.push_or_leave_out(&self.name, who)?.filter(|_| is_said)
            {
                let source = format!("{}/{name}", self.file_names[file]);
                self.left_out.push(LeftOut { source, reject: Reject::NoLabel(problem) });
            }
            self.places.push((place, file as u32));
            self.names.push(&name);
        }
        self.left_out.extend(found.left_out);
        Ok(())
    }

    /// Takes the identities that the files state.
    fn by_word(
        &mut self,
        catalogue: Catalogue,
        unsaid: Vec<(u32, &'static str)>,
        people: People,
    ) -> Result<(), SourceError> {
        let n_lost = self.left_out.iter().filter(|l| !l.reject.is_skip()).count();
        if let (true, 0, Some((_, why))) = (catalogue.is_nobody(), n_lost, unsaid.first()) {
            let (path, n) = (self.name.clone(), unsaid.len() as u64);
            return Err(SourceError::Unlabelled { path, n, why });
        }
        if people == People::Needed {
            let left_out = unsaid.into_iter().map(|(item, why)| LeftOut {
                source: self.source(item as usize),
                reject: Reject::NoLabel(why.into()),
            });
            let left_out: Vec<LeftOut> = left_out.collect();
            self.left_out.extend(left_out);
        }
        if catalogue.is_nobody() {
            return Err(nothing(&self.name, &self.left_out));
        }
        let sealed = catalogue.seal_for(people, &self.name, |_| 1);
        (self.index, self.order) = (sealed.index, sealed.order);
        Ok(())
    }

    /// Takes the folders in the images' names for the identities.
    fn by_folder(&mut self, wanted: Wanted) -> Result<(), SourceError> {
        let Wanted { people, parts, .. } = wanted;
        let n = self.names.len();
        let dir = |i: usize| self.names.get(i).rsplit_once('/').map_or("", |(dir, _)| dir);
        let mut dirs: BTreeSet<&str> = BTreeSet::new();
        let mut last = None;
        for i in 0..n {
            // Most images follow another one of their folder.
            if last.replace(dir(i)) != Some(dir(i)) {
                dirs.insert(dir(i));
            }
        }
        let wrapper = folders::wrapper(dirs.iter().copied());
        let below = |dir: &'_ str| dir.get(wrapper..).unwrap_or_default().to_owned();
        let dirs: Vec<String> = dirs.into_iter().map(below).collect();
        if people == People::Needed {
            let dirs = dirs.iter().map(String::as_str);
            folders::check_nesting(dirs.clone().filter(|dir| !dir.is_empty()))?;
            if parts == Parts::Apart {
                folders::warn_of_parts(&self.name, dirs);
            }
        }
        let mut sorted: Vec<u32> = (0..n as u32).collect();
        if people == People::Needed {
            let path = |i: &u32| Path::new(self.names.get(*i as usize));
            sorted.par_sort_by(|a, b| path(a).cmp(path(b)));
        }
        let mut catalogue = Catalogue::of(people);
        let mut left_out = Vec::new();
        for i in &sorted {
            let dir = dir(*i as usize).get(wrapper..).unwrap_or_default();
            let who = if dir.is_empty() { Err(String::new()) } else { folders::who(dir, parts) };
            if let Some(problem) = catalogue.push_or_leave_out(&self.name, who)? {
                let reject = match problem.is_empty() {
                    true => Reject::NoIdentity,
                    false => Reject::NoLabel(problem),
                };
                left_out.push(LeftOut { source: self.source(*i as usize), reject });
            }
        }
        self.left_out.extend(left_out);
        if catalogue.is_nobody() {
            return Err(nothing(&self.name, &self.left_out));
        }
        let Sealed { index, order } = catalogue.seal_for(people, &self.name, |_| 1);
        self.order = order.into_iter().map(|i| sorted[i as usize]).collect();
        self.index = index;
        self.wrapper = wrapper;
        self.is_by_folder = true;
        // One archive is as its folder is.
        if let [name] = &mut self.file_names[..] {
            name.clear();
        }
        Ok(())
    }

    /// What image `item` in the order of the files is called.
    fn source(&self, item: usize) -> String {
        let name = self.names.get(item);
        let name = name.get(self.wrapper..).unwrap_or(name);
        match &*self.file_names[self.places[item].1 as usize] {
            "" => name.to_owned(),
            file => format!("{file}/{name}"),
        }
    }
}

impl<P> Shelf<P> {
    /// Whether the folders in the images' names are the identities, since the files say nothing.
    pub fn is_by_folder(&self) -> bool {
        self.is_by_folder
    }
}

/// A source of a format.
pub struct Shelved<F: Format> {
    shelf: Shelf<F::Place>,
    format: F,
}

impl<F: Format> Shelved<F> {
    /// The images on `shelf`, read as `format` does.
    pub fn new(shelf: Shelf<F::Place>, format: F) -> Shelved<F> {
        Shelved { shelf, format }
    }

    fn item(&self, entry: u64) -> usize {
        self.shelf.order[entry as usize] as usize
    }

    fn n_bytes(&self, entry: u64) -> u64 {
        F::n_bytes(&self.shelf.places[self.item(entry)].0)
    }
}

impl<F: Format> Source for Shelved<F> {
    fn name(&self) -> String {
        self.shelf.name.clone()
    }

    fn index(&self) -> &Index {
        &self.shelf.index
    }

    fn path(&self, entry: u64) -> String {
        self.shelf.source(self.item(entry))
    }

    fn place(&self, entry: u64) -> u64 {
        self.shelf.order[entry as usize].into()
    }

    fn stamp(&self, entry: u64) -> u128 {
        stamp(&self.path(entry), &[self.n_bytes(entry)])
    }

    fn write_names(&self, out: &mut dyn Write) -> io::Result<()> {
        write_paths(self, |entry| self.n_bytes(entry), out)
    }

    fn read(&self, entry: u64) -> Result<Vec<u8>, ReadError> {
        let (place, file) = &self.shelf.places[self.item(entry)];
        self.format.read(*file as usize, &self.shelf.files[*file as usize], place)
    }

    fn left_out(&self) -> &[LeftOut] {
        &self.shelf.left_out
    }
}

/// Bytes that lie in a file as they are, or were unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Where they begin.
    pub start: u64,
    /// How many they are.
    pub n_bytes: u32,
}

/// Images that are stretches of files, or of what was unpacked of them.
#[derive(Debug, Default)]
pub struct Spans {
    /// Images of files that are compressed.
    pub spool: Option<Spool>,
    /// Which of the files have their images there; none if empty.
    pub is_spooled: Vec<bool>,
}

impl Format for Spans {
    type Place = Span;

    fn n_bytes(place: &Span) -> u64 {
        place.n_bytes.into()
    }

    fn read(&self, file: usize, path: &Path, place: &Span) -> Result<Vec<u8>, ReadError> {
        let Span { start, n_bytes } = *place;
        if let (Some(spool), Some(true)) = (&self.spool, self.is_spooled.get(file)) {
            return spool.read(start, n_bytes as usize);
        }
        read_span(path, start, n_bytes.into()).map_err(ReadError::at(path))
    }
}

/// The bytes of a file from `start` on. It is opened anew, since there may be more files than a process
/// may hold open.
pub fn read_span(path: &Path, start: u64, n_bytes: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(n_bytes).read_to_end(&mut bytes)?;
    match bytes.len() as u64 == n_bytes {
        true => Ok(bytes),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

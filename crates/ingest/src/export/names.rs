//! Names of files and folders that are safe to make.
//!
//! A data set may hold any names: `../../x`, `/etc/passwd`, names with NUL. What is made of them
//! stays inside the folder that is written and never meets another:
//!
//! * `/` parts an identity's name into folders; each part, and each file name, is made safe alone;
//! * control characters and backslashes become `_`;
//! * empty parts, `.` and `..` get a `_` in front, and so do names that systems use, such as hidden ones,
//!   which `pack` passes over;
//! * a folder that `pack` would read as another identity or as nobody's, as `3.0`, `-1` or `nan`, gets a
//!   `_` in front, and one inside another or around it has its slashes turned into `_`;
//! * a part of more than 200 bytes is cut and ends in its hash, and so is a path of more than 1,024
//!   bytes or 32 parts, whose slashes then become `_`;
//! * of two names that would be the same, one gets `-2`, `-3`, … appended, never one that was as it
//!   should be.
//!
//! Tables of names beside what cannot hold them: `identities.tsv`, with lines `label<TAB>name` where
//! there are numbers alone, and lines `folder<TAB>name` where not all folders can be called as their
//! identities are. `pack` reads them, so that names survive the way out and back.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    ffi::OsStr,
    fmt::Write,
    fs,
    path::Path,
};

use pfc_durable::DurableError;
use pfc_shard::hash::content_hash;
use pfc_sources::{IDENTITIES_FILE, is_read_as_named, is_system};

use crate::IngestError;

/// Every file system takes 255 bytes; what is left is for endings and numbers.
const PART_BYTES_MAX: usize = 200;

/// Systems take paths of 4,096 bytes, of which the user's own folder needs some.
const PATH_BYTES_MAX: usize = 1024;

/// More levels than anyone's folders have.
const PARTS_MAX: usize = 32;

/// One part of a path made safe; the same if it was.
pub fn safe_part(part: &str) -> Cow<'_, str> {
    let is_bad = |c: char| c.is_control() || c == '\\' || c == '/';
    let mut safe = Cow::Borrowed(part);
    if part.contains(is_bad) {
        safe = Cow::Owned(part.replace(is_bad, "_"));
    }
    if matches!(&*safe, "" | "." | "..") || is_system(OsStr::new(&*safe)) {
        safe = Cow::Owned(format!("_{safe}"));
    }
    if safe.len() > PART_BYTES_MAX {
        safe = Cow::Owned(cut(&safe, part));
    }
    safe
}

/// The beginning of `safe`, told from others by the hash of what it was.
fn cut(safe: &str, original: &str) -> String {
    const HASH_DIGITS: usize = 16;
    let end = safe.floor_char_boundary(PART_BYTES_MAX - HASH_DIGITS - 1);
    let hash = content_hash(original.as_bytes()) as u64;
    format!("{}-{hash:016x}", &safe[..end])
}

/// The folder for an identity, relative, with `/` between parts; the same as its name if that is
/// safe.
fn safe_path(name: &str) -> Cow<'_, str> {
    let n_parts = name.split('/').take(PARTS_MAX + 1).count();
    if name.len() > PATH_BYTES_MAX || n_parts > PARTS_MAX {
        return Cow::Owned(safe_part(name).into_owned());
    }
    if name.split('/').all(|part| matches!(safe_part(part), Cow::Borrowed(_))) {
        return Cow::Borrowed(name);
    }
    Cow::Owned(name.split('/').map(safe_part).collect::<Vec<_>>().join("/"))
}

/// The folder for an identity whose name no folder can have.
fn renamed(name: &str, above: &HashSet<String>, taken: &HashSet<String>) -> String {
    let mut safe = safe_path(name).into_owned();
    if above.contains(&safe) || lies_inside(&safe, taken) {
        safe = safe.replace('/', "_");
    }
    if !is_read_as_named(&safe) {
        safe.insert(0, '_');
    }
    safe
}

/// Whether a folder above this one is among `folders`.
fn lies_inside(folder: &str, folders: &HashSet<String>) -> bool {
    folder.match_indices('/').any(|(end, _)| folders.contains(&folder[..end]))
}

/// Adds all folders above this one.
fn add_above(folder: &str, above: &mut HashSet<String>) {
    for (end, _) in folder.match_indices('/') {
        if !above.contains(&folder[..end]) {
            above.insert(folder[..end].to_owned());
        }
    }
}

/// The folders of identities by their labels.
///
/// Memory: about 250 bytes per identity.
#[derive(Debug, Default)]
pub struct Folders {
    by_label: HashMap<u32, String>,
    /// Identities whose folder is not called as they are.
    pub n_renamed: u64,
}

impl Folders {
    /// Gives each of `identities`, label and name, a folder of its own.
    pub fn new<'a>(identities: impl Iterator<Item = (u32, &'a str)> + Clone) -> Folders {
        let mut folders = Folders::default();
        // The name of the table of names is taken.
        let mut taken = HashSet::from([IDENTITIES_FILE.to_owned()]);
        let mut above = HashSet::new();
        let mut unsafe_ones = Vec::new();
        for (label, name) in identities {
            let is_own = matches!(safe_path(name), Cow::Borrowed(_))
                && is_read_as_named(name)
                && !above.contains(name)
                && !lies_inside(name, &taken)
                && taken.insert(name.to_owned());
            if is_own {
                add_above(name, &mut above);
                folders.by_label.insert(label, name.to_owned());
            } else {
                unsafe_ones.push((label, name));
            }
        }
        folders.n_renamed = unsafe_ones.len() as u64;
        let mut numbers = HashMap::new();
        for (label, name) in unsafe_ones {
            let safe = renamed(name, &above, &taken);
            let is_free = |folder: &str| !taken.contains(folder) && !above.contains(folder);
            let folder = first_free(&safe, "", &mut numbers, is_free);
            taken.insert(folder.clone());
            add_above(&folder, &mut above);
            folders.by_label.insert(label, folder);
        }
        folders
    }

    /// The folder of a label given to [`new`](Folders::new).
    pub fn folder(&self, label: u32) -> &str {
        self.by_label.get(&label).map_or("", String::as_str)
    }
}

/// Names for the files of one folder after another.
#[derive(Debug, Default)]
pub struct Files {
    folder: String,
    taken: HashSet<String>,
    numbers: HashMap<String, u64>,
    /// Files not called as their source is, but for the extension.
    pub n_renamed: u64,
}

impl Files {
    /// The path of the next image of identity `label`, which came from `source`; images of an
    /// identity must follow each other.
    pub fn path(&mut self, folders: &Folders, label: u32, source: &str) -> String {
        let folder = folders.folder(label);
        if folder != self.folder {
            *self =
                Files { folder: folder.to_owned(), n_renamed: self.n_renamed, ..Files::default() };
        }
        let (stem, extension) = stem_and_extension(source);
        let safe = safe_part(stem);
        let taken = &self.taken;
        // No folder of another identity lies here.
        let is_free = |name: &str| !taken.contains(name);
        let name = first_free(&safe, extension, &mut self.numbers, is_free);
        self.n_renamed += u64::from(name.strip_suffix(extension) != Some(stem));
        let path = format!("{folder}/{name}");
        self.taken.insert(name);
        path
    }
}

/// `stem` + `ending`, or the first of `stem-2` + `ending`, … that is free. `numbers` remembers where
/// to go on, so that a thousand images of one name take a thousand tries.
fn first_free(
    stem: &str,
    ending: &str,
    numbers: &mut HashMap<String, u64>,
    is_free: impl Fn(&str) -> bool,
) -> String {
    let plain = format!("{stem}{ending}");
    if is_free(&plain) {
        return plain;
    }
    let number = numbers.entry(plain).or_insert(1);
    loop {
        *number += 1;
        let name = format!("{stem}-{number}{ending}");
        if is_free(&name) {
            return name;
        }
    }
}

/// What a source is called, and the extension that its image gets: that of a JPEG.
fn stem_and_extension(source: &str) -> (&str, &str) {
    let name = source.rsplit(['/', '\\']).next().unwrap_or(source);
    let Some(dot) = name.rfind('.').filter(|&dot| dot > 0) else { return (name, ".jpg") };
    let (stem, extension) = name.split_at(dot);
    let is = |known: &str| extension[1..].eq_ignore_ascii_case(known);
    if ["jpg", "jpeg", "jpe", "jfif"].into_iter().any(is) {
        return (stem, extension);
    }
    match pfc_image::has_image_extension(name.as_ref()) {
        true => (stem, ".jpg"),
        false => (name, ".jpg"),
    }
}

/// Writes the table into the folder `dir`, which will be called `out`.
///
/// # Errors
///
/// [`IngestError`] if it cannot be written.
pub fn write_table(identities: &[(u32, &str)], dir: &Path, out: &Path) -> Result<(), IngestError> {
    let rows = identities.iter().map(|(label, name)| (label.to_string(), *name));
    write_rows(rows, dir, out)
}

/// Writes a table of folders into the folder `dir`, which will be called `out`.
///
/// * `folder`: of each label
///
/// # Errors
///
/// [`IngestError`] if it cannot be written.
pub fn write_folder_table<'a>(
    identities: &[(u32, &str)],
    folder: impl Fn(u32) -> &'a str,
    dir: &Path,
    out: &Path,
) -> Result<(), IngestError> {
    let rows = identities.iter().map(|(label, name)| (folder(*label).to_owned(), *name));
    write_rows(rows, dir, out)
}

fn write_rows<'a>(
    rows: impl Iterator<Item = (String, &'a str)>,
    dir: &Path,
    out: &Path,
) -> Result<(), IngestError> {
    let mut table = String::new();
    for (key, name) in rows {
        // A string takes any amount of text.
        let _ = writeln!(table, "{key}\t{}", in_table(name));
    }
    fs::write(dir.join(IDENTITIES_FILE), table)
        .map_err(DurableError::at("write", &out.join(IDENTITIES_FILE)))?;
    Ok(())
}

/// A name as it stands in a table, on one line and between tabs.
pub fn in_table(name: &str) -> String {
    name.replace(char::is_control, "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_folders(names: &[&str], expected: &[&str]) {
        let folders = Folders::new((0..).zip(names.iter().copied()));
        let got: Vec<&str> = (0..names.len() as u32).map(|label| folders.folder(label)).collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn usual_names_and_their_nesting_stay_as_they_are() {
        let names = ["Aaron_Eckhart", "part 1/Zoë", "part 1/Anna", "id_7", "a.b", "李"];
        check_folders(&names, &names);
    }

    #[test]
    fn names_that_would_lead_out_of_the_folder_stay_inside() {
        check_folders(
            &["../../x", "/etc/passwd", "a/../../b", ".", "..", "", "a//b", "a\0b", "c\\..\\d"],
            &[
                "_../_../x",
                "_/etc/passwd",
                "a/_../_../b",
                "_.",
                // As they are, they would hold the folders of others.
                "_..-2",
                "_-2",
                "a/_/b",
                "a_b",
                "c_.._d",
            ],
        );
    }

    #[test]
    fn names_that_pack_would_pass_over_or_read_otherwise_are_changed() {
        check_folders(
            &[".hidden", "x/Thumbs.db", "nan", "-1", "3.0", "007", "1e3", "identities.tsv"],
            &["_.hidden", "x/_Thumbs.db", "_nan", "_-1", "_3.0", "007", "1e3", "identities.tsv-2"],
        );
        check_folders(&["a/b/c", "a", "a/b", "d", "d/e"], &["a/b/c", "a-2", "a_b", "d", "d_e"]);
    }

    #[test]
    fn a_changed_name_makes_way_for_one_that_was_so() {
        check_folders(&["a\nb", "a\tb", "a_b"], &["a_b-2", "a_b-3", "a_b"]);
        check_folders(&["twice", "twice"], &["twice", "twice-2"]);
    }

    #[test]
    fn long_names_are_cut_and_told_apart() {
        let long = |end: &str| format!("{}{end}", "ü".repeat(150));
        let names = [long("1"), long("2"), "x/".repeat(1000)];
        let folders = Folders::new((0..).zip(names.iter().map(String::as_str)));
        let all: Vec<&str> = (0..3).map(|label| folders.folder(label)).collect();
        assert!(all.iter().all(|name| name.len() <= 200 && !name.contains('/')), "{all:?}");
        assert_ne!(all[0], all[1]);
        assert_eq!(folders.n_renamed, 3);
    }

    #[track_caller]
    fn check_files(sources: &[&str], expected: &[&str]) {
        let folders = Folders::new([(0, "a"), (1, "a/b.jpg")].into_iter());
        let mut files = Files::default();
        let got: Vec<String> = sources.iter().map(|s| files.path(&folders, 0, s)).collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn files_are_called_as_their_sources_are_with_the_extension_of_a_jpeg() {
        check_files(
            &["a/1.jpg", "x/y/2.JPEG", "3.png", "id_0/17", "00000004", "v1.2"],
            &["a/1.jpg", "a/2.JPEG", "a/3.jpg", "a/17.jpg", "a/00000004.jpg", "a/v1.2.jpg"],
        );
    }

    #[test]
    fn hostile_sources_stay_inside_the_folder_of_their_identity() {
        check_files(
            &["../../x.jpg", "/etc/passwd", "a/..", "", "a/", "..\\..\\w.jpg", "n\0.jpg", ".jpg"],
            &[
                "a/x.jpg",
                "a/passwd.jpg",
                "a/_...jpg",
                "a/_.jpg",
                "a/_-2.jpg",
                "a/w.jpg",
                "a/n_.jpg",
                "a/_.jpg.jpg",
            ],
        );
    }

    #[test]
    fn two_images_of_one_name_do_not_meet() {
        check_files(
            &["1.jpg", "x/1.jpg", "1.png", "1-2.jpg", "b.jpg"],
            &["a/1.jpg", "a/1-2.jpg", "a/1-3.jpg", "a/1-2-2.jpg", "a/b.jpg"],
        );
    }

    #[test]
    fn another_identity_may_use_the_same_file_name() {
        let folders = Folders::new([(0, "a"), (1, "b")].into_iter());
        let mut files = Files::default();
        assert_eq!(files.path(&folders, 0, "1.jpg"), "a/1.jpg");
        assert_eq!(files.path(&folders, 1, "1.jpg"), "b/1.jpg");
        assert_eq!(files.n_renamed, 0);
    }
}

//! Names of files and folders that are safe to make.
//!
//! A data set may hold any names: `../../x`, `/etc/passwd`, names with NUL. What is made of them
//! stays inside the folder that is written and never meets another:
//!
//! * `/` parts an identity's name into folders; each part, and each file name, is made safe alone;
//! * control characters and backslashes become `_`;
//! * empty parts, `.` and `..` get a `_` in front;
//! * a part of more than 200 bytes is cut and ends in its hash, and so is a path of more than 1,024
//!   bytes or 32 parts, whose slashes then become `_`;
//! * of two names that would be the same, one gets `-2`, `-3`, … appended, never one that was as it
//!   should be.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
};

use pfc_shard::hash::content_hash;

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
    if matches!(&*safe, "" | "." | "..") {
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

/// The folders of identities by their labels.
///
/// Memory: about 250 bytes per identity.
#[derive(Debug, Default)]
pub struct Folders {
    by_label: HashMap<u32, String>,
    /// All of them, and the folders they lie in.
    all: HashSet<String>,
    /// Identities whose folder is not called as they are.
    pub n_renamed: u64,
}

impl Folders {
    /// Gives each of `identities`, label and name, a folder of its own.
    pub fn new<'a>(identities: impl Iterator<Item = (u32, &'a str)> + Clone) -> Folders {
        let mut folders = Folders::default();
        let mut taken = HashSet::new();
        let mut unsafe_ones = Vec::new();
        for (label, name) in identities {
            let is_own =
                matches!(safe_path(name), Cow::Borrowed(_)) && taken.insert(name.to_owned());
            match is_own {
                true => folders.add(label, name.to_owned()),
                false => unsafe_ones.push((label, name)),
            }
        }
        folders.n_renamed = unsafe_ones.len() as u64;
        let mut numbers = HashMap::new();
        for (label, name) in unsafe_ones {
            let safe = safe_path(name).into_owned();
            let folder = first_free(&safe, "", &mut numbers, |folder| !taken.contains(folder));
            taken.insert(folder.clone());
            folders.add(label, folder);
        }
        folders
    }

    fn add(&mut self, label: u32, folder: String) {
        for (end, _) in folder.match_indices('/') {
            if !self.all.contains(&folder[..end]) {
                self.all.insert(folder[..end].to_owned());
            }
        }
        self.all.insert(folder.clone());
        self.by_label.insert(label, folder);
    }

    /// The folder of a label given to [`new`](Folders::new).
    pub fn folder(&self, label: u32) -> &str {
        self.by_label.get(&label).map_or("", String::as_str)
    }

    /// Whether there is a folder of that path, so that no file can be.
    fn is_folder(&self, path: &str) -> bool {
        self.all.contains(path)
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
        let is_free =
            |name: &str| !taken.contains(name) && !folders.is_folder(&format!("{folder}/{name}"));
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
        let names = ["Aaron_Eckhart", "part 1/Zoë", "part 1/Anna", "id_7", ".hidden", "a.b", "李"];
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
                "_..",
                "_",
                "a/_/b",
                "a_b",
                "c_.._d",
            ],
        );
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
                "a/.jpg.jpg",
            ],
        );
    }

    #[test]
    fn two_images_of_one_name_and_a_folder_of_that_name_do_not_meet() {
        check_files(
            &["1.jpg", "x/1.jpg", "1.png", "1-2.jpg", "b.jpg"],
            &["a/1.jpg", "a/1-2.jpg", "a/1-3.jpg", "a/1-2-2.jpg", "a/b-2.jpg"],
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

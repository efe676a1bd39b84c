//! Tables of names that `pfc-ingest export` writes beside what cannot hold them all.
//!
//! `identities.tsv` has lines `label<TAB>name` beside a list or RecordIO, whose labels are numbers, and
//! lines `folder<TAB>name` in a folder of identities some of which have names that no folder can have.
//! `PACK.identities.tsv` beside a verification pack has lines `image<TAB>label<TAB>name`.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use pfc_durable::faults::is_of_system;

use crate::{error::SourceError, file::is_file, index::Index};

/// Name of the table in the folder of what it is about.
pub const FILE: &str = "identities.tsv";

/// First line of the table beside a verification pack.
pub const PACK_HEADER: &str = "image\tlabel\tidentity";

/// Maximum bytes of a table: room for names of 100 bytes for every label.
const BYTES_MAX: u64 = 1 << 30;

/// Gives the identities of `index` the names that a table in `folder` gives their numbers. One that
/// is not about all of them, or gives two one name, is of another data set, and says so.
///
/// * `prefix`: what stands before the number in the names that the identities have
///
/// # Errors
///
/// A fault of the system, which does not say whether there is a table.
pub fn rename(index: &mut Index, folder: &Path, prefix: &str) -> Result<(), SourceError> {
    let path = folder.join(FILE);
    let Some(text) = read(&path)? else { return Ok(()) };
    let table: HashMap<u64, &str> = text.lines().filter_map(entry).collect();
    let name = |own: &str| {
        let number = own.strip_prefix(prefix)?.parse().ok()?;
        table.get(&number).copied()
    };
    give(index, &path, name);
    Ok(())
}

/// Gives identities that are called as their folders below `root` the names that a table there has for
/// the folders.
///
/// # Errors
///
/// As [`rename`].
pub fn rename_folders(index: &mut Index, root: &Path) -> Result<(), SourceError> {
    let path = root.join(FILE);
    let Some(text) = read(&path)? else { return Ok(()) };
    let table: HashMap<&str, &str> = text.lines().filter_map(|l| l.split_once('\t')).collect();
    give(index, &path, |own| table.get(own).copied());
    Ok(())
}

/// A label and the name that goes with it.
pub type Labelled = (u64, Box<str>);

/// Who is on each image of the verification pack at `pack`, by the table beside it: label and name.
/// None without a table, or if it is not about each of the `n` images, or gives a label two names or a
/// name two labels; it is then of another pack, and says so.
///
/// # Errors
///
/// As [`rename`].
pub fn of_pack(pack: &Path, n: usize) -> Result<Option<Vec<Labelled>>, SourceError> {
    let path = beside_pack(pack);
    let Some(text) = read(&path)? else { return Ok(None) };
    let mut lines = text.lines();
    let mut people = Vec::with_capacity(n);
    let (mut names, mut labels) = (HashMap::new(), HashMap::new());
    let is_whole = lines.next() == Some(PACK_HEADER)
        && lines.enumerate().all(|(i, line)| {
            let mut fields = line.splitn(3, '\t');
            let image = fields.next().and_then(|field| field.parse().ok());
            let label = fields.next().and_then(|field| field.parse::<u64>().ok());
            let (Some(label), Some(name)) = (label, fields.next()) else { return false };
            people.push((label, Box::from(name)));
            image == Some(i)
                && *names.entry(label).or_insert(name) == name
                && *labels.entry(name).or_insert(label) == label
        });
    if is_whole && people.len() == n {
        tracing::warn!("the names of identities are those of {}", path.display());
        return Ok(Some(people));
    }
    let path = path.display();
    tracing::warn!("{path}: does not say who is on each image of this pack, so it is not used");
    Ok(None)
}

/// The table beside a verification pack: `PACK.identities.tsv`.
pub fn beside_pack(pack: &Path) -> PathBuf {
    let mut path = pack.as_os_str().to_owned();
    path.push(".");
    path.push(FILE);
    PathBuf::from(path)
}

/// The text of a table, if there is one.
fn read(path: &Path) -> Result<Option<String>, SourceError> {
    let read = |path: &Path| {
        let mut text = String::new();
        File::open(path)?.take(BYTES_MAX).read_to_string(&mut text)?;
        Ok(text)
    };
    if !is_file(path)? {
        return Ok(None);
    }
    match read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if is_of_system(&error) => Err(SourceError::at("read", path)(error)),
        Err(error) => {
            let path = path.display();
            tracing::warn!("{path}: cannot be read, so that identities keep their names: {error}");
            Ok(None)
        }
    }
}

/// Gives all identities of `index` the names that `name` has for them, if it has one of its own for each.
fn give<'a>(index: &mut Index, path: &Path, name: impl Fn(&str) -> Option<&'a str>) {
    let path = path.display();
    let mut taken = HashSet::new();
    let is_about_all =
        index.identities().all(|own| name(own).is_some_and(|name| taken.insert(name)));
    if !is_about_all {
        tracing::warn!("{path}: does not name each label of this input once, so it is not used");
        return;
    }
    index.rename(|own| name(own).map(str::to_owned));
    tracing::warn!("the names of identities are those of {path}");
}

fn entry(line: &str) -> Option<(u64, &str)> {
    let (label, name) = line.split_once('\t')?;
    Some((label.parse().ok()?, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn renamed(table: &str) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), table).unwrap();
        let mut index = Index::default();
        index.push("id_3".into(), 1);
        index.push("id_10".into(), 2);
        rename(&mut index, dir.path(), "id_").unwrap();
        index.identities().map(str::to_owned).collect()
    }

    #[test]
    fn names_are_taken_where_every_label_has_one_of_its_own() {
        assert_eq!(renamed("3\tAnn Lee\n10\tBob\n11\tEve\n"), ["Ann Lee", "Bob"]);
        for other in ["", "3\tAnn\n", "3\tAnn\n10\tAnn\n", "label\tname\n0\tAnn\n"] {
            assert_eq!(renamed(other), ["id_3", "id_10"]);
        }
    }
}

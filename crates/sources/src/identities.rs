//! `identities.tsv`: what the labels of an exported list or RecordIO file are called.
//!
//! A line is `label<TAB>name`; `pfc-ingest export` writes it beside formats that hold numbers alone.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::Read,
    path::Path,
};

use crate::index::Index;

/// Name of the table in the folder of what it is about.
pub const FILE: &str = "identities.tsv";

/// As many names of 100 bytes as there are labels.
const BYTES_MAX: u64 = 1 << 30;

/// Gives the identities of `index` the names that a table in `folder` gives their numbers. One that
/// is not about all of them, or gives two one name, is of another data set, and says so.
///
/// * `prefix`: what stands before the number in the names that the identities have
pub fn rename(index: &mut Index, folder: &Path, prefix: &str) {
    let path = folder.join(FILE);
    let Ok(file) = File::open(&path) else { return };
    let path = path.display();
    let mut text = String::new();
    if let Err(e) = file.take(BYTES_MAX).read_to_string(&mut text) {
        tracing::warn!("{path}: cannot be read, so that identities keep their numbers: {e}");
        return;
    }
    let table: HashMap<u64, &str> = text.lines().filter_map(entry).collect();
    let name = |own: &str| {
        let number = own.strip_prefix(prefix)?.parse().ok()?;
        table.get(&number).copied()
    };
    let mut taken = HashSet::new();
    let is_about_all =
        index.identities().all(|own| name(own).is_some_and(|name| taken.insert(name)));
    if !is_about_all {
        tracing::warn!("{path}: does not name each label of this input once, so it is not used");
        return;
    }
    index.rename(|own| name(own).map(str::to_owned));
    tracing::info!("the names of identities are those of {path}");
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
        rename(&mut index, dir.path(), "id_");
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

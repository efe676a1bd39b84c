//! The splits of a data set, such as `train` and `test`: told by the names of files and folders.

use std::path::{Path, PathBuf};

use crate::{
    error::SourceError,
    kind::{InputKind, Look},
};

/// A folder, and the files of a kind in it; none for a data set that is the folder.
pub type Place = (PathBuf, InputKind, Vec<PathBuf>);

/// The files of a data set by split: as `train-00000-of-00001.parquet`, or in a folder called so.
pub struct Groups {
    raw: PathBuf,
    groups: Vec<Group>,
}

struct Group {
    split: Option<String>,
    dir: PathBuf,
    kind: InputKind,
    files: Vec<PathBuf>,
}

impl Groups {
    /// Those of the files in `places`, all below `raw`.
    pub fn of(raw: &Path, places: &[Place]) -> Groups {
        let mut groups: Vec<Group> = Vec::new();
        for (dir, kind, files) in places {
            let of_dir = split_of_folder(raw, dir);
            if files.is_empty() {
                let (dir, kind) = (dir.clone(), *kind);
                groups.push(Group { split: of_dir, dir, kind, files: Vec::new() });
                continue;
            }
            for file in files {
                let split = split_of_file(file).or_else(|| of_dir.clone());
                let same = |g: &&mut Group| g.split == split && g.dir == *dir && g.kind == *kind;
                match groups.iter_mut().find(same) {
                    Some(group) => group.files.push(file.clone()),
                    None => {
                        let (dir, kind, files) = (dir.clone(), *kind, vec![file.clone()]);
                        groups.push(Group { split, dir, kind, files });
                    }
                }
            }
        }
        Groups { raw: raw.to_path_buf(), groups }
    }

    /// Whether each group is a split of its own, of one kind; all folders of a DatasetDict are.
    pub fn are_splits(&self, is_dict: bool) -> bool {
        let mut names: Vec<&str> = self.groups.iter().filter_map(|g| g.split.as_deref()).collect();
        names.sort_unstable();
        names.dedup();
        let is_one_kind = self.groups.iter().all(|group| group.kind == self.groups[0].kind);
        is_one_kind && (names.len() == self.groups.len() || is_dict)
    }

    /// What is read where `wanted` are the splits.
    ///
    /// # Errors
    ///
    /// [`SourceError::Splits`] where there are several and none is wanted, or several that cannot be joined;
    /// [`SourceError::NoSplit`].
    pub fn choose(self, wanted: &[String]) -> Result<Look, SourceError> {
        let Groups { raw, groups } = self;
        let n_named = groups.iter().filter(|group| group.split.is_some()).count();
        let is_one_place =
            |group: &Group| (&group.dir, group.kind) == (&groups[0].dir, groups[0].kind);
        if wanted.is_empty() && n_named < 2 && groups.iter().all(is_one_place) {
            return Ok(Look::of(&groups[0].dir, groups[0].kind));
        }
        let name = |group: &Group| match &group.split {
            Some(split) => split.clone(),
            None => name_of(&group.dir),
        };
        let names: Vec<String> = groups.iter().map(name).collect();
        let chosen: Vec<&Group> = match wanted {
            [] if groups.len() > 1 => {
                let are_joined = groups.iter().all(|group| !group.files.is_empty());
                return Err(SourceError::Splits { path: raw, splits: names, are_joined });
            }
            [] => groups.iter().collect(),
            [all] if all == "all" => groups.iter().collect(),
            wanted => {
                let has =
                    |split: &String| names.iter().any(|name| name.eq_ignore_ascii_case(split));
                if !wanted.iter().all(has) {
                    return Err(no_split(&raw, wanted, names));
                }
                let of = |split: &'_ String| {
                    let split = split.clone();
                    groups.iter().filter(move |group| name(group).eq_ignore_ascii_case(&split))
                };
                wanted.iter().flat_map(of).collect()
            }
        };
        if let [one] = chosen[..] {
            let files = if groups.len() == 1 { Vec::new() } else { one.files.clone() };
            return Ok(Look { path: one.dir.clone(), kind: one.kind, files });
        }
        let kind = chosen[0].kind;
        let is_one = chosen.iter().all(|group| group.kind == kind && !group.files.is_empty());
        if !is_one {
            return Err(SourceError::Splits { path: raw, splits: names, are_joined: false });
        }
        tracing::warn!("{}: the splits {} are joined", raw.display(), wanted.join(", "));
        let files = chosen.iter().flat_map(|group| group.files.clone()).collect();
        Ok(Look { path: raw, kind, files })
    }
}

/// What folders and files of splits are called.
const SPLITS: &[&str] =
    &["train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"];

fn is_split(word: &str) -> bool {
    SPLITS.iter().any(|split| word.eq_ignore_ascii_case(split))
}

/// By the first word of its name, or the last one before its ending, as in `faces-train.tfrecord`.
fn split_of_file(file: &Path) -> Option<String> {
    let name = name_of(file);
    let stem = name.split('.').next().unwrap_or_default();
    let mut words = stem.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| !word.is_empty());
    let first = words.next()?;
    [first, words.next_back().unwrap_or(first)]
        .into_iter()
        .find(|word| is_split(word))
        .map(str::to_owned)
}

/// By the nearest folder below `raw` that is called as splits are, or the folder of a DatasetDict.
fn split_of_folder(raw: &Path, dir: &Path) -> Option<String> {
    let below = dir.strip_prefix(raw).ok()?;
    let names: Vec<String> = below.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    let stem = |name: &String| name.split('.').next().unwrap_or_default().to_owned();
    names.iter().rev().map(stem).find(|name| is_split(name))
}

/// That there is no such split.
pub fn no_split(raw: &Path, wanted: &[String], splits: Vec<String>) -> SourceError {
    SourceError::NoSplit { path: raw.to_path_buf(), wanted: wanted.join(","), splits }
}

/// What a file or folder is called.
pub fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

//! The devkit's lists and the reference's lists of noisy images.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use pfc_findings::View;
use pfc_image::{ImageFolder, LeadsOut};
use serde::Deserialize;

use crate::{
    EvalError,
    files::{read_regular_file, utf8},
};

/// The list of a million distractors takes 40 MB.
const LIST_BYTES_MAX: u64 = 1 << 30;

const LINES_LAYOUT: &str = "each line holds one image path";
const NOISE_LAYOUT: &str = "each line holds one image, or a number, a tab and an image; lines that \
    start with # are comments";

/// Probe images and who they show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeList {
    /// `person/image`, below the folder of probes.
    pub paths: Vec<String>,
    /// The person of each, numbered from 0 in the order of names.
    pub identities: Vec<u32>,
    /// Names of the people, rising.
    pub names: Vec<String>,
}

/// Distractors of one gallery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gallery {
    /// What it is called in the report.
    pub name: String,
    /// The list itself.
    pub file: PathBuf,
    /// Paths below the folder of distractors.
    pub paths: Vec<String>,
}

#[derive(Deserialize)]
struct Json {
    path: Vec<String>,
    #[serde(default)]
    id: Vec<serde_json::Value>,
}

impl ProbeList {
    /// Reads `{"path": […], "id": […]}`, or lines of `person/image`, whose person is the folder.
    ///
    /// # Errors
    ///
    /// [`EvalError::Durable`]; [`EvalError::List`] and [`EvalError::Verify`] for a list of another layout.
    pub fn read(file: &Path) -> Result<ProbeList, EvalError> {
        ProbeList::parse(file, &read_regular_file(file, LIST_BYTES_MAX)?)
    }

    /// Parses the list; `file` is for errors alone.
    ///
    /// # Errors
    ///
    /// As [`read`](ProbeList::read).
    pub fn parse(file: &Path, bytes: &[u8]) -> Result<ProbeList, EvalError> {
        let (paths, ids) = if is_json(bytes) {
            let Json { path, id } = json(file, bytes)?;
            if id.len() != path.len() {
                let reason = format!("{} ids for {} paths", id.len(), path.len());
                return Err(EvalError::list(file, reason));
            }
            let text = |id: serde_json::Value| match id {
                serde_json::Value::String(text) => text,
                other => other.to_string(),
            };
            (path, id.into_iter().map(text).collect::<Vec<String>>())
        } else {
            let paths = lines(file, bytes, LINES_LAYOUT)?;
            let folder = |path: &String| {
                path.rsplit_once('/').map_or(path.clone(), |(folder, _)| folder.to_owned())
            };
            let ids: Vec<String> = paths.iter().map(folder).collect();
            (paths, ids)
        };
        if paths.is_empty() {
            return Err(EvalError::list(file, "it names no image"));
        }
        // By name and not by first mention, so that the order of the list does not matter.
        let mut names = ids.clone();
        names.sort_unstable();
        names.dedup();
        if names.len() == ids.len() {
            return Err(EvalError::list(
                file,
                "no person in it has two images, so there are no mates",
            ));
        }
        let identities =
            ids.iter().map(|id| names.partition_point(|name| name < id) as u32).collect();
        Ok(ProbeList { paths, identities, names })
    }
}

impl Gallery {
    /// Reads `{"path": […]}` or lines of paths.
    ///
    /// # Errors
    ///
    /// As [`ProbeList::read`].
    pub fn read(file: &Path) -> Result<Gallery, EvalError> {
        Gallery::parse(file, &read_regular_file(file, LIST_BYTES_MAX)?)
    }

    /// Parses the list; `file` names the gallery and is for errors.
    ///
    /// # Errors
    ///
    /// As [`ProbeList::read`].
    pub fn parse(file: &Path, bytes: &[u8]) -> Result<Gallery, EvalError> {
        let paths = if is_json(bytes) {
            json(file, bytes)?.path
        } else {
            lines(file, bytes, LINES_LAYOUT)?
        };
        if paths.is_empty() {
            return Err(EvalError::list(file, "it names no image"));
        }
        let name = match size_and_set(file) {
            Some((size, set)) => format!("{size}, set {set}"),
            None => file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        };
        Ok(Gallery { name, file: file.to_owned(), paths })
    }

    /// All images of the packed data set at `folder`, called by their sources, in the order of the rows; images of
    /// one source are named once.
    ///
    /// # Errors
    ///
    /// [`EvalError::Shard`] for a damaged data set, [`EvalError::List`] for a source that is no path
    /// below a folder.
    pub fn of_dataset(folder: &Path, dataset: &View) -> Result<Gallery, EvalError> {
        let mut known = HashSet::new();
        let mut paths = Vec::new();
        for row in 0..dataset.len() {
            let source = dataset.get(row)?.source;
            if ImageFolder::ANY.below(source).is_err() {
                let row = dataset.row(row);
                let reason = format!("row {row} is of `{source}`, which is no path below a folder");
                return Err(EvalError::list(folder, reason));
            }
            if known.insert(source) {
                paths.push(source.to_owned());
            }
        }
        if paths.is_empty() {
            return Err(EvalError::list(folder, "it names no image"));
        }
        let name = folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned();
        Ok(Gallery { name, file: folder.to_owned(), paths })
    }

    /// The devkit's lists in a folder, `…json_<size>_<set>`, by rising size and set.
    ///
    /// # Errors
    ///
    /// [`EvalError::Durable`], and [`EvalError::List`] if there is none.
    pub fn find(folder: &Path) -> Result<Vec<PathBuf>, EvalError> {
        let entries = std::fs::read_dir(folder).map_err(EvalError::io("read", folder))?;
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.map_err(EvalError::io("read", folder))?.path();
            if let Some(order) = size_and_set(&path) {
                found.push((order, path));
            }
        }
        found.sort();
        if found.is_empty() {
            return Err(EvalError::list(folder, "it has no file called …json_<size>_<set>"));
        }
        Ok(found.into_iter().map(|(_, path)| path).collect())
    }
}

/// Whether a folder is a packed data set.
pub fn is_dataset(folder: &Path) -> bool {
    folder.join(pfc_shard::MANIFEST_FILE).is_file()
}

/// Names in a list of noisy images, as `remove_noises.py` reads it.
///
/// # Errors
///
/// [`EvalError::Durable`], and [`EvalError::Verify`] for text that is not UTF-8.
pub fn read_noises(file: &Path) -> Result<HashSet<String>, EvalError> {
    parse_noises(file, &read_regular_file(file, LIST_BYTES_MAX)?)
}

/// Parses a list of noisy images; `file` is for errors alone.
///
/// # Errors
///
/// As [`read_noises`].
pub fn parse_noises(file: &Path, bytes: &[u8]) -> Result<HashSet<String>, EvalError> {
    let lines = text_lines(file, bytes, NOISE_LAYOUT)?.filter(|line| !line.1.starts_with('#'));
    let name = |line: &str| line.split_once('\t').map_or(line, |(_, name)| name).trim().to_owned();
    Ok(lines.map(|(_, line)| name(line)).collect())
}

fn size_and_set(file: &Path) -> Option<(u64, u64)> {
    let (_, numbers) = file.file_name()?.to_str()?.rsplit_once("json_")?;
    let (size, set) = numbers.split_once('_')?;
    Some((size.parse().ok()?, set.parse().ok()?))
}

fn is_json(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().starts_with(b"{")
}

fn json(file: &Path, bytes: &[u8]) -> Result<Json, EvalError> {
    let json: Json =
        serde_json::from_slice(bytes).map_err(|error| EvalError::list(file, error.to_string()))?;
    match json.path.iter().find_map(|path| ImageFolder::ANY.below(path).err()) {
        None => Ok(json),
        Some(leads_out) => Err(EvalError::list(file, leads_out.to_string())),
    }
}

fn lines(file: &Path, bytes: &[u8], layout: &'static str) -> Result<Vec<String>, EvalError> {
    let mut paths = Vec::new();
    for (line, path) in text_lines(file, bytes, layout)? {
        ImageFolder::ANY.below(path).map_err(|leads_out| {
            EvalError::line(file, line, leads_out.to_string(), LeadsOut::HINT)
        })?;
        paths.push(path.to_owned());
    }
    Ok(paths)
}

/// Lines with content and their numbers, from 1.
fn text_lines<'a>(
    file: &Path,
    bytes: &'a [u8],
    layout: &'static str,
) -> Result<impl Iterator<Item = (usize, &'a str)>, EvalError> {
    let numbered = (1..).zip(utf8(file, bytes, layout)?.lines().map(str::trim));
    Ok(numbered.filter(|(_, line)| !line.is_empty()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn probes(text: &str) -> Result<ProbeList, EvalError> {
        ProbeList::parse(Path::new("list"), text.as_bytes())
    }

    #[test]
    fn probes_come_as_json_or_as_lines() {
        let json = probes(r#"{"path": ["A/1.png", "B/2.png", "A/3.png"], "id": ["x", 7, "x"]}"#);
        let json = json.unwrap();
        assert_eq!(json.identities, [1, 0, 1]);
        assert_eq!(json.names, ["7", "x"]);
        let lines = probes("B/1.png\nA/2.png\r\n\nB/3.png").unwrap();
        assert_eq!(lines.paths, ["B/1.png", "A/2.png", "B/3.png"]);
        assert_eq!(lines.identities, json.identities);
    }

    #[test]
    fn bad_lists_are_named() {
        let error = |text: &str| probes(text).unwrap_err().to_string();
        assert!(error(r#"{"path": ["a"], "id": []}"#).ends_with("0 ids for 1 paths"));
        assert!(error("{").starts_with("list: not a list of images"));
        let leads_out = "list:2: the path `../c` leads out of the folder of the images";
        assert_eq!(error("a/b\n../c\n"), leads_out);
        assert!(error("\n").ends_with("it names no image"));
        assert!(
            error("a/1\nb/1\n").ends_with("no person in it has two images, so there are no mates")
        );
        for path in ["/etc/passwd", "a/../../b", "..", ""] {
            let text = format!(r#"{{"path": ["{path}"], "id": [1]}}"#);
            assert!(error(&text).contains("leads out"), "{path}");
            let list = format!("ok\n{path}\n");
            let gallery = Gallery::parse(Path::new("list"), text.as_bytes());
            assert!(gallery.unwrap_err().to_string().contains("leads out"), "{path}");
            let gallery = Gallery::parse(Path::new("list"), list.as_bytes());
            assert!(path.is_empty() || gallery.is_err(), "{path}");
        }
    }

    #[test]
    fn galleries_are_named_by_size_and_set() {
        let file = Path::new("x/megaface_features_list.json_100000_2");
        let gallery = Gallery::parse(file, br#"{"path": ["a"]}"#).unwrap();
        assert_eq!(gallery.name, "100000, set 2");
        assert_eq!(Gallery::parse(Path::new("x/all.txt"), b"a\n").unwrap().name, "all.txt");
    }

    #[test]
    fn noise_lists_have_comments_and_numbers() {
        let text = b"# by hand\nA_1.png\n12\ta/b/3.jpg\n\n";
        let noises = parse_noises(Path::new("n"), text).unwrap();
        assert_eq!(noises, HashSet::from(["A_1.png".to_owned(), "a/b/3.jpg".to_owned()]));
        let error = parse_noises(Path::new("n"), b"ok\n\xff").unwrap_err();
        assert_eq!(error.to_string(), "n:2: it is not UTF-8 text");
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_list_or_an_error(bytes: Vec<u8>, text in "[{}a-c\":,\\[\\]/. ]{0,60}") {
            for bytes in [&bytes[..], text.as_bytes()] {
                let _ = ProbeList::parse(Path::new("x"), bytes);
                let _ = Gallery::parse(Path::new("x"), bytes);
                let _ = parse_noises(Path::new("x"), bytes);
            }
        }
    }
}

//! Finds the files of a source: a single one, those of a folder, or those of a pattern.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use crate::{error::SourceError, file::is_file};

/// More files than any data set has shards.
const FILES_MAX: usize = 1 << 20;

/// The files of `raw` in their order: those directly in a folder whose names are as `is_one` says, by
/// name; or those of a pattern, in the pattern's order; or the one file.
///
/// # Errors
///
/// [`SourceError`] if there is none, one is missing, or the folder cannot be listed.
pub fn files(
    raw: &Path,
    is_one: impl Fn(&Path) -> bool,
    what: &'static str,
) -> Result<Vec<PathBuf>, SourceError> {
    if raw.is_dir() {
        let files = in_folder(raw, is_one)?;
        if files.is_empty() {
            return Err(SourceError::NoShards { path: raw.to_path_buf(), what });
        }
        return Ok(files);
    }
    match raw.to_str().filter(|_| is_pattern(raw)) {
        Some(pattern) => of_pattern(pattern),
        None => Ok(vec![raw.to_path_buf()]),
    }
}

/// Whether `raw` names no file but a pattern of some.
pub fn is_pattern(raw: &Path) -> bool {
    let is_one = |text: &str| text.contains('{') && text.contains('}') || is_wild(text);
    raw.to_str().is_some_and(is_one) && !raw.exists()
}

/// Whether a file's name ends in one of `endings`, in any case.
pub fn has_ending(path: &Path, endings: &[&str]) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase());
    name.is_some_and(|name| endings.iter().any(|ending| name.ends_with(ending)))
}

/// What each of `files` is called where images are named by their file: its last part or, where two files
/// have the same, all parts that not all of them share.
pub fn names(files: &[PathBuf]) -> Vec<String> {
    let last = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let names: Vec<String> = files.iter().map(last).collect();
    let distinct: HashSet<&String> = names.iter().collect();
    if distinct.len() == names.len() {
        return names;
    }
    let parts = |path: &PathBuf| -> Vec<String> {
        path.iter().map(|part| part.to_string_lossy().into_owned()).collect()
    };
    let all: Vec<Vec<String>> = files.iter().map(parts).collect();
    let n_shared = (0..).find(|i| {
        let part = |path: &Vec<String>| path.get(*i).cloned().filter(|_| i + 1 < path.len());
        part(&all[0]).is_none() || all.iter().any(|path| part(path) != part(&all[0]))
    });
    all.iter().map(|path| path[n_shared.unwrap_or(0)..].join("/")).collect()
}

/// The files directly in `dir` that are as `is_one` says, by name. Hidden ones are none of them.
fn in_folder(dir: &Path, is_one: impl Fn(&Path) -> bool) -> Result<Vec<PathBuf>, SourceError> {
    let mut files = Vec::new();
    for entry in dir.read_dir().map_err(SourceError::at("list", dir))? {
        let path = entry.map_err(SourceError::at("list", dir))?.path();
        let is_hidden = path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
        if is_one(&path) && !is_hidden && is_file(&path)? {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn of_pattern(pattern: &str) -> Result<Vec<PathBuf>, SourceError> {
    let wrong = |problem| SourceError::Pattern { pattern: pattern.to_owned(), problem };
    let mut files: Vec<PathBuf> = Vec::new();
    for text in expand(pattern).map_err(wrong)? {
        match is_wild(&text) {
            true => files.extend(matching(Path::new(&text))?),
            false => files.push(text.into()),
        }
    }
    let missing = without_files(&files)?;
    match missing.first() {
        None => Ok(files),
        Some(first) => Err(SourceError::MissingShards {
            pattern: pattern.to_owned(),
            n_missing: missing.len(),
            n: files.len(),
            first: first.to_path_buf(),
        }),
    }
}

/// The `paths` at which there is no file.
fn without_files(paths: &[PathBuf]) -> Result<Vec<&Path>, SourceError> {
    let mut missing = Vec::new();
    for path in paths {
        if !is_file(path)? {
            missing.push(&**path);
        }
    }
    Ok(missing)
}

fn is_wild(text: &str) -> bool {
    text.contains(['*', '?'])
}

/// The files whose paths are like `pattern`, by name: `*` stands for any text in a name and `?` for one
/// character of it, and hidden names begin with a dot in the pattern as well. If there is none, the
/// pattern itself.
fn matching(pattern: &Path) -> Result<Vec<PathBuf>, SourceError> {
    let mut found = vec![PathBuf::new()];
    for part in pattern.components() {
        let name = part.as_os_str().to_str().filter(|name| is_wild(name));
        let Some(name) = name else {
            found.iter_mut().for_each(|path| path.push(part));
            continue;
        };
        let mut below = Vec::new();
        for dir in found {
            let place = if dir.as_os_str().is_empty() { Path::new(".") } else { &dir };
            let entries = match place.read_dir() {
                Ok(entries) => entries,
                Err(error) if pfc_durable::faults::is_of_system(&error) => {
                    return Err(SourceError::at("list", place)(error));
                }
                Err(_) => continue,
            };
            for entry in entries {
                let entry = entry.map_err(SourceError::at("list", place))?.file_name();
                let is_like = entry.to_str().is_some_and(|entry| {
                    entry.starts_with('.') == name.starts_with('.') && is_like(entry, name)
                });
                if is_like {
                    below.push(dir.join(entry));
                }
            }
        }
        found = below;
        found.sort_unstable();
    }
    let mut files = Vec::new();
    for path in found {
        if is_file(&path)? {
            files.push(path);
        }
    }
    Ok(if files.is_empty() { vec![pattern.to_path_buf()] } else { files })
}

/// Whether all of `text` is like `pattern`, in time of their product.
fn is_like(text: &str, pattern: &str) -> bool {
    // Which beginnings of the text are like the part of the pattern that was seen.
    let text: Vec<char> = text.chars().collect();
    let mut like = vec![false; text.len() + 1];
    like[0] = true;
    for wanted in pattern.chars() {
        let before = like.clone();
        like[0] = before[0] && wanted == '*';
        for (i, found) in text.iter().enumerate() {
            like[i + 1] = match wanted {
                '*' => before[i + 1] || like[i],
                '?' => before[i],
                wanted => before[i] && *found == wanted,
            };
        }
    }
    like[text.len()]
}

/// The texts that a pattern with `{a,b}` and `{000..127}` stands for, as a shell would expand it.
///
/// # Errors
///
/// What is wrong with the pattern.
pub fn expand(pattern: &str) -> Result<Vec<String>, String> {
    let mut texts = vec![String::new()];
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once('{') {
        let (inside, after) = after.split_once('}').ok_or("a brace is not closed")?;
        let choices = choices(inside)?;
        let n = texts.len().checked_mul(choices.len()).filter(|n| *n <= FILES_MAX);
        n.ok_or_else(|| format!("it names more than {FILES_MAX} files"))?;
        let extended = texts
            .iter()
            .flat_map(|text| choices.iter().map(move |choice| format!("{text}{before}{choice}")));
        texts = extended.collect();
        rest = after;
    }
    texts.iter_mut().for_each(|text| text.push_str(rest));
    Ok(texts)
}

fn choices(inside: &str) -> Result<Vec<String>, String> {
    let Some((first, last)) = inside.split_once("..") else {
        return Ok(inside.split(',').map(str::to_owned).collect());
    };
    let number = |text: &str| {
        let digits = Some(text).filter(|t| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit()));
        let number = digits.and_then(|digits| digits.parse::<u64>().ok());
        number.ok_or_else(|| format!("`{{{inside}}}` is no range of numbers"))
    };
    let (start, end) = (number(first)?, number(last)?);
    if start > end {
        return Err(format!("`{{{inside}}}` runs backwards"));
    }
    if end - start >= FILES_MAX as u64 {
        return Err(format!("it names more than {FILES_MAX} files"));
    }
    // Zeros in front of either end pad all, as in a shell.
    let is_padded = [first, last].iter().any(|text| text.len() > 1 && text.starts_with('0'));
    let width = if is_padded { first.len().max(last.len()) } else { 0 };
    Ok((start..=end).map(|n| format!("{n:0width$}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_expand_as_in_a_shell() {
        assert_eq!(
            expand("a-{08..11}.tar").unwrap(),
            ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]
        );
        assert_eq!(expand("{9..10}").unwrap(), ["9", "10"]);
        assert_eq!(expand("{b,a}{0..1}x").unwrap(), ["b0x", "b1x", "a0x", "a1x"]);
        assert_eq!(expand("plain").unwrap(), ["plain"]);
    }

    #[test]
    fn stars_and_question_marks_name_the_files_that_are_there() {
        for (text, pattern, expected) in [
            ("part_0.rec", "part_*.rec", true),
            ("part_.rec", "part_*.rec", true),
            ("part_0.idx", "part_*.rec", false),
            ("a", "?", true),
            ("ab", "?", false),
            ("a.b.tar", "*.*.tar", true),
            ("é.tar", "?.tar", true),
            ("aaa", "*a*a*a*", true),
            ("aa", "*a*a*a*", false),
        ] {
            assert_eq!(is_like(text, pattern), expected, "{text} {pattern}");
        }
        let dir = tempfile::tempdir().unwrap();
        for name in ["b/1.tar", "a/2.tar", "a/10.tar", "a/.3.tar", "a/4.txt", "c.tar/5.tar"] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let find = |pattern: &str| {
            let found =
                files(&dir.path().join(pattern), |path| has_ending(path, &[".tar"]), "shards");
            let found = found.map_err(|error| error.to_string())?;
            let name =
                |path: PathBuf| path.strip_prefix(dir.path()).unwrap().to_str().unwrap().to_owned();
            Ok::<_, String>(found.into_iter().map(name).collect::<Vec<_>>())
        };
        assert_eq!(find("a/*.tar").unwrap(), ["a/10.tar", "a/2.tar"]);
        assert_eq!(find("?/?.tar").unwrap(), ["a/2.tar", "b/1.tar"]);
        assert_eq!(find("{b,a}/*.tar").unwrap(), ["b/1.tar", "a/10.tar", "a/2.tar"]);
        assert_eq!(find("*.tar/5.tar").unwrap(), ["c.tar/5.tar"]);
        let none = find("a/*.parquet").unwrap_err();
        assert!(none.contains("1 of its 1 files are missing"), "{none}");
        assert!(find("none/*.tar").is_err());
    }

    #[test]
    fn files_of_one_name_are_told_apart_by_their_folders() {
        let names = |paths: &[&str]| names(&paths.iter().map(PathBuf::from).collect::<Vec<_>>());
        assert_eq!(names(&["/d/a.tar", "/e/b.tar"]), ["a.tar", "b.tar"]);
        assert_eq!(names(&["/d/x/a.tar", "/d/y/a.tar"]), ["x/a.tar", "y/a.tar"]);
        assert_eq!(names(&["a", "a"]), ["a", "a"]);
        assert_eq!(names(&[]), [""; 0]);
    }

    #[test]
    fn patterns_that_name_nothing_or_too_much_are_refused() {
        assert_eq!(expand("a{0..").unwrap_err(), "a brace is not closed");
        assert_eq!(expand("{a..b}").unwrap_err(), "`{a..b}` is no range of numbers");
        assert_eq!(expand("{2..1}").unwrap_err(), "`{2..1}` runs backwards");
        let too_many = "it names more than 1048576 files";
        assert_eq!(expand("{0..18446744073709551615}").unwrap_err(), too_many);
        assert_eq!(expand("{0..9999}{0..9999}").unwrap_err(), too_many);
        assert_eq!(expand(&"{0,1}".repeat(64)).unwrap_err(), too_many);
    }
}

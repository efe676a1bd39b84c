//! The files of a source that is spread over many: one, those of a folder, or those that a pattern
//! names.

use std::path::{Path, PathBuf};

use crate::error::SourceError;

/// More files than any data set has shards.
const FILES_MAX: usize = 1 << 20;

/// The files of `raw` in their order: those directly in a folder whose names end in one of
/// `endings`, by name; or those of a pattern, in the pattern's order; or the one file.
///
/// # Errors
///
/// [`SourceError`] if there is none, one is missing, or the folder cannot be listed.
pub fn files(
    raw: &Path,
    endings: &[&str],
    what: &'static str,
) -> Result<Vec<PathBuf>, SourceError> {
    if raw.is_dir() {
        let files = in_folder(raw, endings)?;
        if files.is_empty() {
            return Err(SourceError::NoShards { path: raw.to_path_buf(), what });
        }
        return Ok(files);
    }
    match raw.to_str().filter(|text| is_pattern(raw) && text.contains('{')) {
        Some(pattern) => of_pattern(pattern),
        None => Ok(vec![raw.to_path_buf()]),
    }
}

/// Whether `raw` names no file but a pattern of some.
pub fn is_pattern(raw: &Path) -> bool {
    raw.to_str().is_some_and(|text| text.contains('{') && text.contains('}')) && !raw.exists()
}

/// Whether a file's name ends in one of `endings`, in any case.
pub fn has_ending(path: &Path, endings: &[&str]) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase());
    name.is_some_and(|name| endings.iter().any(|ending| name.ends_with(ending)))
}

/// The files directly in `dir` with one of the endings, by name. Hidden ones are none of them.
fn in_folder(dir: &Path, endings: &[&str]) -> Result<Vec<PathBuf>, SourceError> {
    let mut files = Vec::new();
    for entry in dir.read_dir().map_err(SourceError::at("list", dir))? {
        let path = entry.map_err(SourceError::at("list", dir))?.path();
        let is_hidden = path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
        if has_ending(&path, endings) && !is_hidden && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn of_pattern(pattern: &str) -> Result<Vec<PathBuf>, SourceError> {
    let wrong = |problem| SourceError::Pattern { pattern: pattern.to_owned(), problem };
    let files: Vec<PathBuf> =
        expand(pattern).map_err(wrong)?.into_iter().map(PathBuf::from).collect();
    let mut missing = files.iter().filter(|file| !file.is_file());
    if let Some(first) = missing.next() {
        let first = first.clone();
        let n_missing = 1 + missing.count();
        let (pattern, n) = (pattern.to_owned(), files.len());
        return Err(SourceError::MissingShards { pattern, n_missing, n, first });
    }
    Ok(files)
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

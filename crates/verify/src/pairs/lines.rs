//! Text into lines and fields, and images into numbers.

use std::{collections::HashMap, path::Path};

use super::ImageName;
use crate::VerifyError;

/// A line with content.
#[derive(Debug)]
pub struct Line<'a> {
    pub number: usize,
    /// All of it, without the end.
    text: &'a str,
    pub fields: Vec<&'a str>,
}

/// A list as lines.
pub struct Lines<'a> {
    pub path: &'a Path,
    pub lines: Vec<Line<'a>>,
}

impl<'a> Lines<'a> {
    /// Splits a list; `path` is for errors alone.
    pub fn split(path: &'a Path, bytes: &'a [u8]) -> Result<Lines<'a>, VerifyError> {
        Ok(Lines { path, lines: split_lines(path, bytes)? })
    }

    /// The same for a list of pairs, which may be separated by commas or semicolons as well.
    pub fn split_pairs(path: &'a Path, bytes: &'a [u8]) -> Result<Lines<'a>, VerifyError> {
        let mut lines = Lines::split(path, bytes)?;
        let text = |line: &Line<'a>| line.text;
        let Some(first) = lines.lines.first().map(text) else { return Ok(lines) };
        let is_between = |delimiter: &char| {
            !first.contains('\t') && first.matches(*delimiter).count() >= 1 && {
                let fields = split_at(first, *delimiter);
                // A comma in a name stands between no columns.
                let is_row = fields.iter().any(|field| same_of(field).is_some());
                fields.len() >= 2 && (is_row || first.split_whitespace().count() <= fields.len())
            }
        };
        if let Some(delimiter) = [',', ';'].into_iter().find(is_between) {
            for line in &mut lines.lines {
                line.fields = split_at(line.text, delimiter);
            }
            lines.lines.retain(|line| !line.fields.is_empty());
        }
        Ok(lines)
    }

    pub fn error(
        &self,
        line: usize,
        problem: impl Into<String>,
        layout: &'static str,
    ) -> VerifyError {
        VerifyError::Line { path: self.path.to_owned(), line, problem: problem.into(), layout }
    }

    /// Number of the last line with content.
    pub fn last_number(&self) -> usize {
        self.lines.last().map_or(1, |line| line.number)
    }
}

/// Lines with content, split at tabs if they have any, else at spaces.
fn split_lines<'a>(path: &Path, bytes: &'a [u8]) -> Result<Vec<Line<'a>>, VerifyError> {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let mut lines = Vec::new();
    for (i, line) in bytes.split(|&b| b == b'\n').enumerate() {
        let text = std::str::from_utf8(line).map_err(|error| VerifyError::Line {
            path: path.to_owned(),
            line: i + 1,
            problem: format!("byte {} is not UTF-8", error.valid_up_to() + 1),
            layout: "pairs lists are UTF-8 text: is this the right file?",
        })?;
        let text = text.trim_end_matches('\r');
        let fields: Vec<&str> = if text.trim().contains('\t') {
            text.split('\t').map(unquoted).filter(|field| !field.is_empty()).collect()
        } else {
            text.split_whitespace().collect()
        };
        if !fields.is_empty() {
            lines.push(Line { number: i + 1, text, fields });
        }
    }
    Ok(lines)
}

/// Fields without white space and quotes around them; a delimiter at the end closes the last.
fn split_at(line: &str, delimiter: char) -> Vec<&str> {
    let mut fields: Vec<&str> = line.split(delimiter).map(unquoted).collect();
    while fields.pop_if(|last| last.is_empty()).is_some() {}
    fields
}

fn unquoted(field: &str) -> &str {
    let field = field.trim();
    field.strip_prefix('"').and_then(|field| field.strip_suffix('"')).unwrap_or(field)
}

/// What a column of labels says: whether two images show one person.
pub fn same_of(label: &str) -> Option<bool> {
    match label.to_ascii_lowercase().as_str() {
        "1" | "1.0" | "+1" | "true" | "t" | "yes" | "same" | "match" | "matched" | "genuine" => {
            Some(true)
        }
        "0" | "0.0" | "-1" | "-1.0" | "false" | "f" | "no" | "different" | "diff" | "mismatch"
        | "mismatched" | "impostor" | "imposter" => Some(false),
        _ => None,
    }
}

/// Gives each image one index.
#[derive(Default)]
pub struct Images {
    pub names: Vec<ImageName>,
    index: HashMap<String, u32>,
}

impl Images {
    pub fn add(&mut self, name: ImageName) -> u32 {
        let next = self.names.len() as u32;
        let index = *self.index.entry(name.path.clone()).or_insert(next);
        if index == next {
            self.names.push(name);
        }
        index
    }
}

//! Text into lines and fields, and images into numbers.

use std::{collections::HashMap, path::Path};

use super::ImageName;
use crate::EvalError;

/// A line with content.
#[derive(Debug)]
pub struct Line<'a> {
    pub number: usize,
    pub fields: Vec<&'a str>,
}

/// A list as lines.
pub struct Lines<'a> {
    pub path: &'a Path,
    pub lines: Vec<Line<'a>>,
}

impl<'a> Lines<'a> {
    /// Splits a list; `path` is for errors alone.
    pub fn split(path: &'a Path, bytes: &'a [u8]) -> Result<Lines<'a>, EvalError> {
        Ok(Lines { path, lines: split_lines(path, bytes)? })
    }

    pub fn error(
        &self,
        line: usize,
        problem: impl Into<String>,
        layout: &'static str,
    ) -> EvalError {
        EvalError::Line { path: self.path.to_owned(), line, problem: problem.into(), layout }
    }

    /// Number of the last line with content.
    pub fn last_number(&self) -> usize {
        self.lines.last().map_or(1, |line| line.number)
    }
}

/// Lines with content, split at tabs if they have any, else at spaces.
fn split_lines<'a>(path: &Path, bytes: &'a [u8]) -> Result<Vec<Line<'a>>, EvalError> {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let mut lines = Vec::new();
    for (i, line) in bytes.split(|&b| b == b'\n').enumerate() {
        let text = std::str::from_utf8(line).map_err(|error| EvalError::Line {
            path: path.to_owned(),
            line: i + 1,
            problem: format!("byte {} is not UTF-8", error.valid_up_to() + 1),
            layout: "pairs lists are UTF-8 text: is this the right file?",
        })?;
        let text = text.trim_end_matches('\r');
        let fields: Vec<&str> = if text.trim().contains('\t') {
            text.split('\t').map(str::trim).filter(|field| !field.is_empty()).collect()
        } else {
            text.split_whitespace().collect()
        };
        if !fields.is_empty() {
            lines.push(Line { number: i + 1, fields });
        }
    }
    Ok(lines)
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

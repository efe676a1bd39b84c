//! The pages of the book and the README: their blocks of commands, headings and links.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every page, by its path from the checkout: the README, those that package indexes show, the book, and what stands
/// beside the recipes.
pub fn pages() -> Vec<String> {
    let readmes = ["", "crates/ingest/", "crates/python/", "packaging/pfc-tools/"];
    let mut pages: Vec<String> = readmes.iter().map(|place| format!("{place}README.md")).collect();
    for folder in ["docs", "data/configs"] {
        let entries = fs::read_dir(root().join(folder)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name.ends_with(".md")).collect();
        names.sort();
        pages.extend(names.into_iter().map(|name| format!("{folder}/{name}")));
    }
    pages
}

pub fn text(page: &str) -> String {
    fs::read_to_string(root().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"))
}

/// A block between fences.
pub struct Block {
    /// Line of its first fence, from 1.
    pub line: usize,
    /// What follows the fence.
    pub tag: String,
    /// Its text.
    pub text: String,
    /// The line above its fence.
    pub above: String,
}

impl Block {
    /// Whether it holds commands of a shell.
    pub fn is_shell(&self) -> bool {
        self.tag.split([' ', ',']).next() == Some("sh")
    }

    /// Whether it is marked as one that no test can run.
    pub fn is_ignored(&self) -> bool {
        self.tag.split([' ', ',']).any(|word| word == "ignore")
    }

    /// Its lines, those joined that end in a backslash.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut whole = String::new();
        for line in self.text.lines() {
            match line.strip_suffix('\\') {
                Some(begun) => whole += begun,
                None => lines.push(std::mem::take(&mut whole) + line),
            }
        }
        lines
    }
}

/// The blocks of a page, in order.
pub fn blocks(page: &str) -> Vec<Block> {
    let text = text(page);
    let lines: Vec<&str> = text.lines().collect();
    let mut blocks = Vec::new();
    let mut i = 0;
    while i < lines.len() {
        if let Some(tag) = lines[i].strip_prefix("```") {
            let n = lines[i + 1..].iter().take_while(|line| !line.starts_with("```")).count();
            let text = lines[i + 1..=i + n].join("\n");
            let above = lines[..i].iter().rev().find(|line| !line.trim().is_empty());
            let above = above.copied().unwrap_or_default().to_owned();
            blocks.push(Block { line: i + 1, tag: tag.to_owned(), text, above });
            i += n + 1;
        }
        i += 1;
    }
    blocks
}

/// A page without its blocks.
pub fn prose(page: &str) -> String {
    let mut is_prose = true;
    let text = text(page);
    let kept = text.lines().filter(|line| {
        let is_fence = line.starts_with("```");
        is_prose ^= is_fence;
        is_prose && !is_fence
    });
    kept.collect::<Vec<_>>().join("\n")
}

/// The anchors that a page's headings have.
pub fn anchors(page: &str) -> Vec<String> {
    let headings = prose(page);
    let headings = headings.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#').trim())).collect()
}

/// As GitHub and `mdbook` make them: letters, digits, `-` and `_`, blanks as `-`.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// What a page links to, web addresses left out: a path from the page's folder, and an anchor.
pub fn links(page: &str) -> Vec<(String, String)> {
    let prose = prose(page);
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    let targets = targets.map(|(target, _)| target.to_owned());
    let own = targets.filter(|target| !target.contains("://"));
    own.map(|target| match target.split_once('#') {
        Some((path, anchor)) => (path.to_owned(), anchor.to_owned()),
        None => (target, String::new()),
    })
    .collect()
}

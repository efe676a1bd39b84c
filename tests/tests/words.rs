//! What the programs say, as it stands in their sources.

use std::{fs, path::Path};

/// Lines of `folder`'s sources whose text has a run of blanks within a sentence, as a line of it has that was
/// joined with the next without a backslash.
fn torn(folder: &Path, found: &mut Vec<String>) {
    let entries = fs::read_dir(folder).expect("a folder of the checkout");
    for path in entries.map(|entry| entry.expect("an entry").path()) {
        if path.is_dir() {
            torn(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source");
            let lines = text.lines().enumerate().filter(|(_, line)| is_torn(line));
            found.extend(lines.map(|(i, line)| format!("{}:{}: {line}", path.display(), i + 1)));
        }
    }
}

/// Whether letters stand on both sides of a dozen blanks, which no table of the programs has.
fn is_torn(line: &str) -> bool {
    let mut rest = line.trim();
    while let Some((before, after)) = rest.split_once("            ") {
        let begins = after.trim_start();
        let is_in_text = before.contains('"') && before.ends_with(|c: char| c.is_alphanumeric());
        if is_in_text && begins.starts_with(char::is_alphanumeric) {
            return true;
        }
        rest = begins;
    }
    false
}

#[test]
fn no_sentence_has_a_run_of_blanks_in_it() {
    assert!(is_torn(&format!("\"take an{}earlier checkpoint\"", " ".repeat(18))));
    assert!(!is_torn("    \"a  b\", // and so on"));
    let mut found = Vec::new();
    torn(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates"), &mut found);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

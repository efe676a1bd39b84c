//! The page of the configuration holds what the doc comments say of every key, and the program what the page
//! says. `PFC_WRITE=1` writes its tables again.

use std::{collections::BTreeMap, fmt::Write, fs};

use pfc_train::config::{
    Config,
    reference::{KeyText, SectionText, sections},
};
use serde_json::Value;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");

/// A table of Markdown with a row for each key.
fn table(section: &SectionText) -> String {
    let mut table =
        "| key | value | default | range | meaning |\n|---|---|---|---|---|\n".to_owned();
    for KeyText { name, kind, default, range, meaning } in &section.keys {
        let default = if default == "none" { "none".to_owned() } else { format!("`{default}`") };
        let row =
            [format!("`{name}`"), (*kind).to_owned(), default, range.clone(), meaning.clone()];
        let row = row.map(|cell| cell.replace('|', "\\|"));
        writeln!(table, "| {} |", row.join(" | ")).unwrap();
    }
    table
}

/// The page with its tables as they are to be.
fn with_tables(page: &str) -> String {
    let mut text = page.to_owned();
    for section in sections() {
        let begin = format!("<!-- keys of {} -->\n", section.name);
        let start = text.find(&begin).unwrap_or_else(|| panic!("{begin} is missing"));
        let start = start + begin.len();
        let end = start + text[start..].find("<!-- end -->").unwrap();
        text.replace_range(start..end, &table(&section));
    }
    text
}

#[test]
fn the_page_holds_what_the_doc_comments_say() {
    let page = fs::read_to_string(PAGE).unwrap();
    let expected = with_tables(&page);
    if std::env::var_os("PFC_WRITE").is_some() {
        return fs::write(PAGE, expected).unwrap();
    }
    let stale = page.lines().zip(expected.lines()).find(|(found, expected)| found != expected);
    let hint =
        "`PFC_WRITE=1 cargo test -p pfc-train --test it configuration_page` writes the page again";
    assert!(page == expected, "docs/configuration.md is stale: {stale:?}; {hint}");
}

/// `section.key` and its default as TOML, of every row of a table whose first cell is a key.
fn rows() -> BTreeMap<String, String> {
    let page = fs::read_to_string(PAGE).unwrap();
    let mut rows = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let is_key = |cell: &str| cell.contains('.') && !cell.contains(' ');
        if cells.len() >= 5 && is_key(cells[0]) {
            rows.insert(
                cells[0].trim_matches('`').to_owned(),
                cells[2].trim_matches('`').to_owned(),
            );
        }
    }
    rows
}

#[test]
fn every_key_is_on_the_page_with_its_default() {
    let rows = rows();
    let sections = serde_json::to_value(Config::default()).unwrap();
    for (section, keys) in sections.as_object().unwrap() {
        for (key, default) in keys.as_object().unwrap() {
            let name = format!("{section}.{key}");
            let text = rows.get(&name).unwrap_or_else(|| panic!("{name} is not on the page"));
            let table: toml::Table = format!("value = {text}").parse().unwrap();
            let found: Value = serde_json::to_value(&table["value"]).unwrap();
            assert_eq!(found, *default, "{name}");
        }
    }
}

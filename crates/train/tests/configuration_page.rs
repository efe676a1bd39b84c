//! The page of the configuration names every key with its default, and no other.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use pfc_train::config::Config;
use serde_json::Value;

/// Keys that a default configuration leaves out, with what the page has for their default.
const OPTIONAL: [(&str, &str); 3] =
    [("data.as_packed", "false"), ("data.synthetic", "none"), ("head.weight_decay", "none")];

/// `section.key` and its default as TOML, of every row of a table whose first cell begins with a key of
/// the configuration. A row may hold several keys, separated by commas.
fn rows() -> BTreeMap<String, String> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
    let page = std::fs::read_to_string(page).unwrap();
    let mut rows = BTreeMap::new();
    let is_key = |line: &&str| {
        let first = line.strip_prefix("| `").and_then(|rest| rest.split('`').next());
        first.is_some_and(|key| key.contains('.') && !key.contains(' '))
            && line.matches('|').count() == 4
    };
    for line in page.lines().filter(is_key) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let quoted = |cell: &str| -> Vec<String> {
            cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
        };
        let (keys, defaults) = (quoted(cells[0]), quoted(cells[1]));
        for (i, key) in keys.into_iter().enumerate() {
            rows.insert(key, defaults.get(i).cloned().unwrap_or_else(|| cells[1].to_owned()));
        }
    }
    rows
}

fn defaults() -> BTreeMap<String, Value> {
    let sections = serde_json::to_value(Config::default()).unwrap();
    let sections = sections.as_object().unwrap();
    let keys = sections.iter().flat_map(|(section, keys)| {
        let keys = keys.as_object().unwrap();
        keys.iter().map(move |(key, value)| (format!("{section}.{key}"), value.clone()))
    });
    keys.collect()
}

#[test]
fn every_key_is_on_the_page_with_its_default_and_no_other() {
    let (mut rows, defaults) = (rows(), defaults());
    for (key, default) in OPTIONAL {
        assert_eq!(rows.remove(key).as_deref(), Some(default), "{key}");
    }
    assert_eq!(rows.keys().collect::<Vec<_>>(), defaults.keys().collect::<Vec<_>>());
    for (key, text) in &rows {
        let table: toml::Table = format!("value = {text}").parse().unwrap();
        let found = serde_json::to_value(&table["value"]).unwrap();
        assert_eq!(found, defaults[key], "{key}");
    }
}

//! What differs between two configurations.

use crate::config::Config;

/// `optim.lr was 0.1, is 0.05` for every key whose value differs.
pub(super) fn changes(then: &Config, now: &Config) -> Vec<String> {
    let (then, now) = (flat(then), flat(now));
    let mut changes = Vec::new();
    for (key, value) in &now {
        match then.iter().find(|(other, _)| other == key) {
            Some((_, old)) if old == value => {}
            Some((_, old)) => changes.push(format!("{key} was {old}, is {value}")),
            None => changes.push(format!("{key} is {value}, was not set")),
        }
    }
    let gone = then.iter().filter(|(key, _)| now.iter().all(|(other, _)| other != key));
    changes.extend(gone.map(|(key, old)| format!("{key} was {old}, is not set")));
    changes
}

/// Every value under its dotted key.
fn flat(config: &Config) -> Vec<(String, String)> {
    fn walk(prefix: &str, value: &serde_json::Value, out: &mut Vec<(String, String)>) {
        match value {
            serde_json::Value::Object(fields) => {
                for (name, value) in fields {
                    let dot = if prefix.is_empty() { "" } else { "." };
                    walk(&format!("{prefix}{dot}{name}"), value, out);
                }
            }
            leaf => out.push((prefix.to_owned(), leaf.to_string())),
        }
    }
    let mut out = Vec::new();
    walk("", &serde_json::to_value(config).expect("a configuration becomes JSON"), &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_changed_value_is_named_old_and_new() {
        let then = Config::default();
        let mut now = Config::default();
        assert_eq!(changes(&then, &now), Vec::<String>::new());
        now.optim.lr = 0.05;
        now.head.margin = pfc_head::Margin::Cosface { m: 0.35 };
        let expected = ["head.margin.m was 0.4, is 0.35", "optim.lr was 0.1, is 0.05"];
        assert_eq!(changes(&then, &now), expected);
    }
}

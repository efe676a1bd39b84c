//! From a TOML file and `--set key=value` to a configuration, with the mistake named.

use std::{io, path::Path, str::FromStr};

use pfc_durable::DurableError;
use pfc_model::ModelError;
use serde::Deserialize;
use toml::{Table, Value};

use super::Config;

/// One `--set section.key=value`.
#[derive(Debug, Clone, PartialEq)]
pub struct Override {
    text: String,
    path: Vec<String>,
    value: Value,
}

impl FromStr for Override {
    type Err = String;

    /// The value is TOML; text that is no TOML value is taken as a string, so that shells need no
    /// second pair of quotes.
    fn from_str(text: &str) -> Result<Override, String> {
        let (key, value) = text.split_once('=').ok_or("expected section.key=value")?;
        let path: Vec<String> = key.split('.').map(|part| part.trim().to_owned()).collect();
        if path.len() < 2 || path.iter().any(String::is_empty) {
            return Err(format!("`{key}` is no section.key, such as optim.lr"));
        }
        let parsed = format!("value = {value}").parse::<Table>();
        let parsed = parsed.ok().and_then(|mut table| table.remove("value"));
        let value = parsed.unwrap_or_else(|| Value::String(value.trim().to_owned()));
        Ok(Override { text: text.to_owned(), path, value })
    }
}

/// A configuration that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is not there or not readable.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// A key that means nothing.
    #[error("{place}: unknown key `{key}`")]
    UnknownKey {
        /// File and line, or the `--set`.
        place: String,
        /// The key.
        key: String,
        /// The keys that there are.
        known: Vec<String>,
    },
    /// A value of the wrong type, or a line that is no TOML.
    #[error("{place}: {reason}")]
    Value {
        /// File and line, or the `--set`.
        place: String,
        /// What is wrong.
        reason: String,
        /// The way out, if there is a common one.
        hint: Option<String>,
    },
}

impl ConfigError {
    /// The way out, for the causes that have a common one.
    pub fn hint(&self) -> Option<String> {
        match self {
            ConfigError::Durable(error) => match error.source.kind() {
                io::ErrorKind::NotFound => {
                    Some("`pfc-train recipe` lists configurations to start from".to_owned())
                }
                _ => error.hint(),
            },
            ConfigError::UnknownKey { key, known, .. } => {
                let list = known.join(", ");
                Some(match nearest(key, known) {
                    Some(near) => format!("did you mean `{near}`? The keys here are {list}"),
                    None => format!("the keys here are {list}"),
                })
            }
            ConfigError::Value { hint, .. } => hint.clone(),
        }
    }
}

/// Reads the file at `path` and applies `overrides` in order.
///
/// # Errors
///
/// [`ConfigError`] with the line, or the override, that is at fault.
pub fn load(path: &Path, overrides: &[Override]) -> Result<Config, ConfigError> {
    let name = path.display().to_string();
    let text =
        std::fs::read_to_string(path).map_err(DurableError::at("read the configuration", path))?;
    parse(&text, &name, overrides)
}

/// As [`load`], of text that came from `name`.
///
/// # Errors
///
/// As [`load`].
pub fn parse(text: &str, name: &str, overrides: &[Override]) -> Result<Config, ConfigError> {
    let config: Config = toml::from_str(text).map_err(|error| {
        let (place, section) = place_in(text, name, error.span());
        explain(&error, place, &section)
    })?;
    if overrides.is_empty() {
        return Ok(config);
    }
    let mut table: Table = text.parse().map_err(|e| explain(&e, name.to_owned(), ""))?;
    for Override { text, path, value } in overrides {
        let place = format!("--set {text}");
        put(&mut table, path, value.clone()).map_err(|reason| ConfigError::Value {
            place: place.clone(),
            reason,
            hint: None,
        })?;
        // One at a time, so that the one at fault can be named.
        let section = path[..path.len() - 1].join(".");
        Config::deserialize(table.clone()).map_err(|e| explain(&e, place, &section))?;
    }
    Config::deserialize(table).map_err(|e| explain(&e, name.to_owned(), ""))
}

pub(super) fn put(table: &mut Table, path: &[String], value: Value) -> Result<(), String> {
    let (last, sections) = path.split_last().ok_or("no key")?;
    let mut at = table;
    for section in sections {
        let entry = at.entry(section.clone()).or_insert_with(|| Value::Table(Table::new()));
        at = entry.as_table_mut().ok_or(format!("`{section}` is no section"))?;
    }
    at.insert(last.clone(), value);
    Ok(())
}

/// `name line 12`, and the section that the line belongs to.
fn place_in(text: &str, name: &str, span: Option<std::ops::Range<usize>>) -> (String, String) {
    let Some(before) = span.and_then(|span| text.get(..span.start)) else {
        return (name.to_owned(), String::new());
    };
    let line = before.lines().count().max(1) + usize::from(before.ends_with('\n'));
    let headings = before.lines().rev().map(str::trim).filter(|line| line.starts_with('['));
    let section = headings.map(|line| line.trim_matches(['[', ']', ' '])).next().unwrap_or("");
    (format!("{name} line {line}"), section.to_owned())
}

/// The mistake behind an error of the parser, whose message lists the keys that there are.
fn explain(error: &toml::de::Error, place: String, section: &str) -> ConfigError {
    let message = error.message();
    let mut quoted = message.split('`').skip(1).step_by(2).map(str::to_owned);
    if message.starts_with("unknown field") {
        let key = quoted.next().unwrap_or_default();
        let key = if section.is_empty() { key } else { format!("{section}.{key}") };
        let prefix = if section.is_empty() { String::new() } else { format!("{section}.") };
        let known = quoted.map(|name| format!("{prefix}{name}")).collect();
        return ConfigError::UnknownKey { place, key, known };
    }
    let hint = if message.starts_with("unknown variant") {
        let given = quoted.next().unwrap_or_default();
        nearest(&given, &quoted.collect::<Vec<_>>()).map(|near| format!("did you mean `{near}`?"))
    } else if message.contains("expected newtype variant") {
        Some("write the folder beside it: head.centres = { file = \"FOLDER\" }".to_owned())
    } else if message.contains("expected struct Synthetic") {
        Some("write the size: data.synthetic = { identities = N, images = N }".to_owned())
    } else if message.starts_with("no network is called") {
        let name = quoted.next().unwrap_or_default();
        ModelError::UnknownNetwork { name }.hint()
    } else {
        None
    };
    ConfigError::Value { place, reason: in_words(message), hint }
}

/// What the parser calls by the names of this program's types, and what a user writes there.
const WANTED: [(&str, &str); 6] = [
    ("unit variant, expected string only", "a number or a table, expected a name in quotes"),
    ("unit variant, expected newtype variant", "a word, expected `{ file = \"FOLDER\" }`"),
    ("newtype variant, expected unit variant", "a table, expected a word alone, as in `\"host\"`"),
    ("struct Synthetic", "`{ identities = 1000, images = 50000 }`"),
    ("internally tagged enum Margin", "`{ loss = \"cosface\", m = 0.4 }` or another loss"),
    ("internally tagged enum CentreOptimizer", "`{ name = \"sgd\" }` or another optimizer"),
];

/// The parser's message on one line, without the names of types.
fn in_words(message: &str) -> String {
    let mut text = message.trim().replace('\n', ", ");
    for (type_name, example) in WANTED {
        text = text.replace(type_name, example);
    }
    // Every other type is a section or an entry of a list.
    let words = text.split(' ').collect::<Vec<_>>();
    let is_name = |i: usize| i > 0 && words[i - 1] == "struct";
    let kept = words.iter().enumerate().filter(|(i, _)| !is_name(*i)).map(|(_, word)| *word);
    let kept = kept.map(|word| match word {
        "struct" => "a table of keys".to_owned(),
        other => in_few_digits(other),
    });
    kept.collect::<Vec<_>>().join(" ")
}

/// A word, or in quotes a number that nobody would read to its end with the exponent that it was given with.
fn in_few_digits(word: &str) -> String {
    let number = word.trim_matches(['`', ',']);
    match number.parse::<f64>() {
        Ok(value) if number.len() > 24 => word.replace(number, &format!("{value:e}")),
        _ => word.to_owned(),
    }
}

/// The candidate whose last part takes the fewest edits, if they are few for its length; else one
/// that begins the word, or that the word begins.
fn nearest<'a>(word: &str, candidates: &'a [String]) -> Option<&'a str> {
    let last = |key: &'_ str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let word = last(word);
    let by_distance =
        candidates.iter().map(|name| (strsim::damerau_levenshtein(&word, &last(name)), name));
    let (distance, name) = by_distance.min_by_key(|(distance, _)| *distance)?;
    if distance <= 1 + last(name).len() / 4 {
        return Some(name);
    }
    let begins = |name: &&String| {
        let name = last(name);
        let begun = word.starts_with(&name) || name.starts_with(&word);
        begun && name.len().min(word.len()) >= 3
    };
    candidates.iter().find(begins).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> Override {
        text.parse().unwrap()
    }

    /// The printed error and its hint.
    fn complaint(text: &str, overrides: &[&str]) -> String {
        let overrides: Vec<Override> = overrides.iter().map(|text| set(text)).collect();
        let error = parse(text, "run.toml", &overrides).unwrap_err();
        format!("{error}\nhint: {}", error.hint().unwrap_or_default())
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_nearest_known_one() {
        insta::assert_snapshot!(complaint("[optim]\nmomentum = 0.9\nleraning_rate = 1\n", &[]), @r#"
        run.toml line 3: unknown key `optim.leraning_rate`
        hint: the keys here are optim.optimizer, optim.lr, optim.lr_batch, optim.momentum, optim.beta1, optim.beta2, optim.eps, optim.weight_decay, optim.decay_all, optim.ema, optim.clip_norm, optim.schedule, optim.warmup_epochs, optim.milestones, optim.gamma, optim.loss_scale, optim.loss_scale_steps, optim.skip_nonfinite
        "#);
        insta::assert_snapshot!(complaint("[optim]\nweigth_decay = 1\n", &[]), @r#"
        run.toml line 2: unknown key `optim.weigth_decay`
        hint: did you mean `optim.weight_decay`? The keys here are optim.optimizer, optim.lr, optim.lr_batch, optim.momentum, optim.beta1, optim.beta2, optim.eps, optim.weight_decay, optim.decay_all, optim.ema, optim.clip_norm, optim.schedule, optim.warmup_epochs, optim.milestones, optim.gamma, optim.loss_scale, optim.loss_scale_steps, optim.skip_nonfinite
        "#);
        insta::assert_snapshot!(complaint("[optimizer]\nlr = 1\n", &[]), @r#"
        run.toml line 1: unknown key `optimizer`
        hint: did you mean `optim`? The keys here are data, model, init, head, optim, train, checkpoint, eval, log
        "#);
        insta::assert_snapshot!(complaint("[[eval.sets]]\nname = \"a\"\npair = \"b\"\n", &[]), @r#"
        run.toml line 3: unknown key `eval.sets.pair`
        hint: did you mean `eval.sets.pairs`? The keys here are eval.sets.name, eval.sets.data, eval.sets.pack, eval.sets.pairs, eval.sets.as_packed
        "#);
    }

    #[test]
    fn an_override_at_fault_is_named_itself() {
        insta::assert_snapshot!(complaint("", &["optim.lr=0.2", "train.epoch=3"]), @r#"
        --set train.epoch=3: unknown key `train.epoch`
        hint: did you mean `train.epochs`? The keys here are train.batch_size, train.accumulate, train.recompute, train.epochs, train.steps, train.deterministic, train.seed, train.threads, train.device, train.timeout_s, train.bucket_mib, train.check_room
        "#);
        insta::assert_snapshot!(complaint("", &["train.epochs=many"]), @r#"
        --set train.epochs=many: invalid type: string "many", expected u64
        hint:
        "#);
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_named_with_its_line() {
        insta::assert_snapshot!(complaint("[train]\nepochs = -1\n", &[]), @r#"
        run.toml line 2: invalid value: integer `-1`, expected u64
        hint:
        "#);
        insta::assert_snapshot!(complaint("[optim]\nschedule = \"ploy1\"\n", &[]), @r#"
        run.toml line 2: unknown variant `ploy1`, expected one of `poly1`, `poly2`, `step`, `cosine`, `constant`
        hint: did you mean `poly1`?
        "#);
        insta::assert_snapshot!(complaint("[model]\nnetwork = \"iresnet50\"\n", &[]), @r#"
        run.toml line 2: no network is called `iresnet50`
        hint: did you mean `r50`?
        "#);
        insta::assert_snapshot!(complaint("[train]\nepochs = \n", &[]), @r#"
        run.toml line 2: string values must be quoted, expected literal string
        hint:
        "#);
        assert!(
            complaint("", &["head.centres=file"]).ends_with("head.centres = { file = \"FOLDER\" }")
        );
        let said = complaint("", &["data.synthetic=true"]);
        assert!(said.ends_with("data.synthetic = { identities = N, images = N }"), "{said}");
    }

    #[test]
    fn what_is_wanted_is_said_as_a_user_writes_it() {
        insta::assert_snapshot!(complaint("", &["head.centres=file"]), @r#"
        --set head.centres=file: invalid type: a word, expected `{ file = "FOLDER" }`
        hint: write the folder beside it: head.centres = { file = "FOLDER" }
        "#);
        insta::assert_snapshot!(complaint("", &["data.synthetic=true"]), @r#"
        --set data.synthetic=true: invalid type: boolean `true`, expected `{ identities = 1000, images = 50000 }`
        hint: write the size: data.synthetic = { identities = N, images = N }
        "#);
        insta::assert_snapshot!(complaint("", &["head.margin=cosface"]), @r#"
        --set head.margin=cosface: invalid type: string "cosface", expected `{ loss = "cosface", m = 0.4 }` or another loss
        hint:
        "#);
        insta::assert_snapshot!(complaint("", &["train.epochs=1e300"]), @r#"
        --set train.epochs=1e300: invalid type: floating point `1e300`, expected u64
        hint:
        "#);
        insta::assert_snapshot!(complaint("train = 3\n", &[]), @r#"
        run.toml line 1: invalid type: integer `3`, expected a table of keys
        hint:
        "#);
    }

    #[test]
    fn overrides_take_toml_values_and_plain_words() {
        let overrides = [
            set("optim.lr=0.05"),
            set("data.path=my/folder"),
            set("optim.milestones=[10, 16]"),
            set("head.margin={loss = \"arcface\", m = 0.5}"),
            set("optim.lr=1"),
        ];
        let config = parse("[optim]\nlr = 0.1\n", "run.toml", &overrides).unwrap();
        assert_eq!(config.optim.lr, 1.0);
        assert_eq!(config.data.path, Path::new("my/folder"));
        assert_eq!(config.optim.milestones, [10.0, 16.0]);
        assert!(matches!(config.head.margin, pfc_head::Margin::Arcface { .. }));
    }

    #[test]
    fn an_override_without_a_section_is_refused() {
        assert!("lr=1".parse::<Override>().unwrap_err().contains("optim.lr"));
        assert!("optim.lr".parse::<Override>().is_err());
        assert!("optim.=1".parse::<Override>().is_err());
    }
}

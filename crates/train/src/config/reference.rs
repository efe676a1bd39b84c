//! What every key of the configuration means: by its doc comment, and by what the program answers to values
//! that it refuses, so that neither can differ from the program.

use toml::{Table, Value};

use super::{
    CheckpointConfig, Config, ConfigError, DataConfig, EvalConfig, EvalSet, HeadSection,
    InitConfig, LogConfig, ModelConfig, OptimConfig, Synthetic, TrainConfig, parse,
    section::Section,
};

/// A table of the configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SectionText {
    /// Its name, `optim` or `eval.sets`.
    pub name: &'static str,
    /// What it is for.
    pub about: String,
    /// Its keys, in the order of the file.
    pub keys: Vec<KeyText>,
}

/// A key of the configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyText {
    /// Its name with its table, `optim.lr`.
    pub name: String,
    /// What TOML calls the value: integer, number, text, true or false, list, table.
    pub kind: &'static str,
    /// The value of a configuration that leaves it out, as TOML; `none` if it has none then.
    pub default: String,
    /// The values that are taken, in words; empty if every value of the kind is.
    pub range: String,
    /// What it decides.
    pub meaning: String,
}

/// Keys of the default configuration that its file leaves out, with what being left out means.
const LEFT_OUT: [(&str, &str, &str); 9] = [
    ("data.as_packed", "true or false", "false"),
    ("data.weights", "text", "\"\""),
    ("data.synthetic", "table", "none"),
    ("head.weight_decay", "number", "none"),
    ("eval.sets.name", "text", "none"),
    ("eval.sets.data", "text", "\"\""),
    ("eval.sets.pack", "text", "\"\""),
    ("eval.sets.pairs", "text", "\"\""),
    ("eval.sets.as_packed", "true or false", "false"),
];

/// Every table of the file with its keys. Asks the parser about each key: some milliseconds.
#[must_use]
pub fn sections() -> Vec<SectionText> {
    vec![
        section::<DataConfig>("data"),
        section::<Synthetic>("data.synthetic"),
        section::<ModelConfig>("model"),
        section::<InitConfig>("init"),
        section::<HeadSection>("head"),
        section::<OptimConfig>("optim"),
        section::<TrainConfig>("train"),
        section::<CheckpointConfig>("checkpoint"),
        section::<EvalConfig>("eval"),
        section::<EvalSet>("eval.sets"),
        section::<LogConfig>("log"),
    ]
}

impl Config {
    /// The file that gives this configuration again, every key spelled out below a comment that says what
    /// it means.
    #[must_use]
    pub fn to_commented_toml(&self) -> String {
        let sections = sections();
        let meaning = |name: &str| {
            let keys = sections.iter().flat_map(|section| &section.keys);
            keys.filter(|key| key.name == name).map(comment).next()
        };
        let about = |name: &str| {
            let about = sections.iter().find(|section| section.name == name);
            about.map(|section| wrapped(&section.about))
        };
        let (mut text, mut table) = (String::new(), String::new());
        for line in self.to_toml().lines() {
            if let Some(heading) = line.strip_prefix('[') {
                table = heading.trim_matches(['[', ']']).to_owned();
                text += &meaning(&table).or_else(|| about(&table)).unwrap_or_default();
            } else if let Some((key, _)) = line.split_once(" = ").filter(|(key, _)| is_bare(key)) {
                let name = format!("{table}.{key}");
                text += &meaning(&name).map(|text| format!("\n{text}")).unwrap_or_default();
            }
            text += line;
            text.push('\n');
        }
        text
    }
}

fn is_bare(key: &str) -> bool {
    !key.is_empty()
        && key.bytes().all(|byte| byte.is_ascii_lowercase() || b"_0123456789".contains(&byte))
}

/// The comment above a key.
fn comment(key: &KeyText) -> String {
    let range = match &key.range[..] {
        "" => String::new(),
        range => format!("; {range}"),
    };
    wrapped(&format!("{} [{}{range}; default: {}]", key.meaning, key.kind, key.default))
}

/// Columns of a comment.
const WIDTH: usize = 100;

/// Text as lines of a comment.
fn wrapped(text: &str) -> String {
    let (mut lines, mut line) = (String::new(), "#".to_owned());
    for word in text.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > WIDTH && line.len() > 1 {
            lines += &line;
            lines.push('\n');
            line = "#".to_owned();
        }
        line.push(' ');
        line += word;
    }
    lines + &line + "\n"
}

fn section<T: Section>(name: &'static str) -> SectionText {
    let key = |(key, doc): &(&str, &str)| key_text(format!("{name}.{key}"), doc);
    let about = one_line(T::ABOUT);
    let about = about.strip_prefix(&format!("Section `[{name}]`: ")).unwrap_or(&about).to_owned();
    let about = sentence(&about);
    SectionText { name, about, keys: T::KEYS.iter().map(key).collect() }
}

/// With a capital at its beginning.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

fn one_line(doc: &str) -> String {
    doc.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn key_text(name: String, doc: &str) -> KeyText {
    let left_out = LEFT_OUT.into_iter().find(|(key, ..)| *key == name);
    let (kind, default) = match (left_out, default_of(&name)) {
        (Some((_, kind, default)), _) => (kind, default.to_owned()),
        (None, Some(value)) => (kind(&value), value.to_string()),
        (None, None) => ("integer", "none".to_owned()),
    };
    let range = range(&name, kind);
    KeyText { name, kind, default, range, meaning: one_line(doc) }
}

/// The value of a configuration that leaves the key out; `None` for a key of a table that is left out.
fn default_of(name: &str) -> Option<Value> {
    let table = Value::try_from(Config::default()).ok()?;
    name.split('.').try_fold(table, |table, key| table.get(key).cloned())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Integer(_) => "integer",
        Value::Float(_) => "number",
        Value::Boolean(_) => "true or false",
        Value::Array(_) => "list",
        Value::Table(_) => "table",
        Value::String(_) | Value::Datetime(_) => "text",
    }
}

/// The bound that the program names when it refuses a value of the key.
fn range(name: &str, kind: &str) -> String {
    let refused = |value: &Value| answer(name, value);
    let values = match kind {
        "integer" => [i64::MAX, 0, -1].map(Value::Integer).to_vec(),
        "number" => [-1.0, f64::INFINITY, 2.0].map(Value::Float).to_vec(),
        "text" => vec![Value::String("?".to_owned())],
        _ => Vec::new(),
    };
    let is_whole = kind == "integer";
    let found = values.iter().find_map(refused);
    found.unwrap_or_else(|| if is_whole { "0 or more".to_owned() } else { String::new() })
}

/// What the program says that a value of the key has to be, if it refuses this one.
fn answer(name: &str, value: &Value) -> Option<String> {
    let text = format!("[data]\npath = \"data\"\n{}", beside(name));
    let mut table: Table = text.parse().ok()?;
    let path: Vec<String> = name.split('.').map(str::to_owned).collect();
    super::load::put(&mut table, &path, value.clone()).ok()?;
    match parse(&toml::to_string(&table).ok()?, "", &[]) {
        Ok(config) => config.validate().err()?.bound_of(name),
        Err(ConfigError::Value { reason, .. }) => variants(&reason),
        Err(_) => None,
    }
}

/// What a key needs beside it to be looked at.
fn beside(name: &str) -> &'static str {
    match name.starts_with("data.synthetic.") {
        true => "synthetic = { identities = 2, images = 2 }\n",
        false => "",
    }
}

/// The words that the parser lists when it meets another.
fn variants(reason: &str) -> Option<String> {
    let listed = reason.split_once("expected ")?.1;
    let words: Vec<&str> = listed.split('`').skip(1).step_by(2).collect();
    (!words.is_empty() && reason.contains("variant")).then(|| words.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, kind: &str, default: &str, range: &str) {
        let sections = sections();
        let key = sections.iter().flat_map(|section| &section.keys).find(|key| key.name == name);
        let key = key.unwrap_or_else(|| panic!("there is no {name}"));
        assert_eq!((key.kind, &key.default[..], &key.range[..]), (kind, default, range), "{name}");
    }

    #[test]
    fn a_key_has_its_kind_its_default_and_the_bound_that_the_program_names() {
        check("train.batch_size", "integer", "128", "from 2 to 1048576");
        check("optim.lr", "number", "0.1", "a number above 0");
        check("optim.momentum", "number", "0.9", "at least 0 and below 1");
        check("optim.schedule", "text", "\"poly1\"", "poly1, poly2, step, cosine, constant");
        check("checkpoint.keep", "integer", "3", "1 or more");
        check("log.tensorboard", "true or false", "true", "");
        check("data.as_packed", "true or false", "false", "");
        check("data.synthetic.identities", "integer", "none", "2 or more");
        check("eval.every_steps", "integer", "0", "0 or more");
    }

    #[test]
    fn every_key_of_the_file_is_listed_with_a_meaning() {
        let sections = sections();
        let of = |section: &'static str| {
            let section = sections.iter().find(|found| found.name == section).unwrap();
            section.keys.iter().map(|key| key.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(of("init"), ["init.model", "init.data", "init.centres"]);
        assert_eq!(of("log"), ["log.every_steps", "log.tensorboard"]);
        for key in sections.iter().flat_map(|section| &section.keys) {
            assert!(key.meaning.len() > 8, "{} has no meaning", key.name);
        }
        let written = Value::try_from(Config::default()).unwrap();
        for (section, keys) in written.as_table().unwrap() {
            for key in keys.as_table().unwrap().keys() {
                let name = format!("{section}.{key}");
                assert!(of_name(&sections, &name), "{name} is not listed");
            }
        }
    }

    fn of_name(sections: &[SectionText], name: &str) -> bool {
        sections.iter().flat_map(|section| &section.keys).any(|key| key.name == name)
    }

    #[test]
    fn comments_change_nothing_and_stand_above_every_key() {
        let mut config = Config::default();
        config.data.path = "data/x".into();
        config.optim.milestones = vec![1.0, 2.0];
        let sets = "sets=[{name=\"a\",pack=\"a.bin\"},{name=\"b\",data=\"b\",pairs=\"b.txt\"}]";
        let sets = format!("eval.{sets}").parse().unwrap();
        let config = parse(&config.to_toml(), "x", &[sets]).unwrap();
        let text = config.to_commented_toml();
        assert_eq!(parse(&text, "x.toml", &[]).unwrap(), config);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.iter().all(|line| line.chars().count() <= WIDTH), "{text}");
        for (i, line) in lines.iter().enumerate() {
            let is_key = line.split_once(" = ").is_some_and(|(key, _)| is_bare(key));
            let in_table = lines[..i].iter().rev().find(|line| line.starts_with('['));
            let is_explained = !in_table
                .is_some_and(|table| ["[head.margin]", "[head.optimizer]"].contains(table));
            if is_key && is_explained {
                assert!(lines[i - 1].starts_with("# "), "`{line}` has no comment");
            }
        }
        assert!(text.contains("# Learning rate at the end of warm-up"), "{text}");
    }
}

//! Lines of a shell that call the programs, and whether these take them.

#![allow(dead_code, clippy::unwrap_used)] // Each test file uses its own part.

pub mod benchmarks;
pub mod pages;
pub mod shell;

use clap::Parser;

/// Programs that start another one, which is named after their own options.
const LAUNCHERS: [&str; 3] = ["torchrun", "srun", "time"];

/// The commands of a line of a shell that are ours, as words.
pub fn commands(line: &str) -> Vec<Vec<String>> {
    let line = line.replace("; wait", "");
    let words = shlex::split(&line).unwrap_or_else(|| panic!("`{line}` is no line of a shell"));
    let is_end = |word: &String| ["&&", "||", "|", "&", ";"].contains(&&word[..]);
    words.split(is_end).filter_map(ours).collect()
}

/// The part of a command that is one of ours, without where its output goes.
fn ours(words: &[String]) -> Option<Vec<String>> {
    let first = words.first()?;
    let start = match &first[..] {
        launcher if LAUNCHERS.contains(&launcher) => {
            words.iter().position(|word| word.starts_with("pfc-"))?
        }
        program if program.starts_with("pfc-") => 0,
        _ => return None,
    };
    let words = &words[start..];
    let end = words.iter().position(|word| word == ">").unwrap_or(words.len());
    Some(words[..end].to_vec())
}

/// Parses the words as the program that they name would.
pub fn parse(words: &[String]) -> Result<(), clap::Error> {
    let done = match &words[0][..] {
        "pfc-ingest" => pfc_ingest::Cli::try_parse_from(words).map(drop),
        "pfc-train" => pfc_train::Cli::try_parse_from(words).map(drop),
        "pfc-eval" => pfc_eval::Cli::try_parse_from(words).map(drop),
        other => panic!("`{other}` is no program of ours"),
    };
    done.or_else(|error| if error.exit_code() == 0 { Ok(()) } else { Err(error) })
}

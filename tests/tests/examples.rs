//! The examples of every help text, as they stand there.

mod support;

use clap::{Command, CommandFactory};

use support::{commands, parse};

/// A line longer than this is wrapped, and cannot be pasted then.
const WIDTH: usize = 100;

/// Lines of the examples of `command` and of all below it, with the command they are of.
fn examples(command: &Command, name: &str, found: &mut Vec<(String, String)>) {
    let help = command.get_after_long_help().or_else(|| command.get_after_help());
    let help = help.map(ToString::to_string).unwrap_or_default();
    let lines = help.lines().skip_while(|line| !line.starts_with("Example")).skip(1);
    let mut line = String::new();
    for part in lines.take_while(|line| !line.is_empty()) {
        assert!(part.chars().count() <= WIDTH, "`{name} --help` wraps `{part}`");
        line += part.trim();
        if let Some(begun) = line.strip_suffix('\\') {
            line.truncate(begun.len());
            continue;
        }
        found.push((name.to_owned(), std::mem::take(&mut line)));
    }
    assert!(line.is_empty(), "an example of `{name} --help` ends within a line");
    for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
        examples(below, &format!("{name} {}", below.get_name()), found);
    }
}

#[test]
fn every_example_is_a_line_that_the_program_takes() {
    let mut found = Vec::new();
    examples(&pfc_ingest::Cli::command(), "pfc-ingest", &mut found);
    examples(&pfc_train::Cli::command(), "pfc-train", &mut found);
    examples(&pfc_eval::Cli::command(), "pfc-eval", &mut found);
    assert!(found.len() > 80, "{} examples", found.len());
    let mut n_ours = 0;
    for (of, line) in found {
        for words in commands(&line) {
            n_ours += 1;
            if let Err(error) = parse(&words) {
                panic!("an example of `{of} --help`, `{line}`: {error}");
            }
        }
    }
    assert!(n_ours > 80, "{n_ours} commands");
}

#[test]
fn every_command_shows_examples() {
    fn check(command: &Command, name: &str, is_shown: bool, without: &mut Vec<String>) {
        let help = command.get_after_long_help().or_else(|| command.get_after_help());
        let is_shown = is_shown || help.is_some_and(|help| help.to_string().contains("Example"));
        let below = command.get_subcommands().filter(|below| below.get_name() != "help");
        let mut n_below = 0;
        for below in below {
            n_below += 1;
            check(below, &format!("{name} {}", below.get_name()), is_shown, without);
        }
        if n_below == 0 && !is_shown {
            without.push(name.to_owned());
        }
    }
    let mut without = Vec::new();
    for program in [pfc_ingest::Cli::command(), pfc_train::Cli::command(), pfc_eval::Cli::command()]
    {
        // The examples of a program's own help are of a few of its commands.
        let commands = program.get_subcommands().filter(|command| command.get_name() != "help");
        for command in commands {
            let name = format!("{} {}", program.get_name(), command.get_name());
            check(command, &name, false, &mut without);
        }
    }
    assert!(without.is_empty(), "{}", without.join(", "));
}

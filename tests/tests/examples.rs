//! The examples of every help text, as they stand there.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // helpers of tests may

mod support;

use clap::{Command, CommandFactory};

use support::{
    commands, parse,
    shell::{programs, run},
};

/// A line longer than this is wrapped within its text, and an example cannot be pasted then.
const WIDTH: usize = 100;

/// Lines of the examples of `command` and of all below it, with the command they are of.
fn examples(command: &Command, name: &str, found: &mut Vec<(String, String)>) {
    let help = command.get_after_long_help().or_else(|| command.get_after_help());
    let help = help.map(ToString::to_string).unwrap_or_default();
    // A paragraph on one line is wrapped as a whole; of one on several lines, words would be left over. Lines that are
    // indented, as commands are, are no part of one.
    for (line, next) in help.lines().zip(help.lines().skip(1)) {
        let goes_on = !next.is_empty() && !next.starts_with(' ');
        let is_torn = line.chars().count() > WIDTH && goes_on;
        assert!(!is_torn, "`{name} --help` wraps `{line}` before `{next}`");
    }
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

/// Of examples with this in them, what is not here. They are parsed alone, and the book runs lines like most.
const NOT_RUN: [(&str, &str); 16] = [
    (".onnx", "a network"),
    ("--embeddings", "embeddings"),
    ("pfc-ingest synth", "time to draw thousands of faces"),
    ("pfc-ingest bench", "time to measure"),
    ("completions", "a home to write to"),
    ("/mnt/", "a disk"),
    ("/scratch/", "disks of other machines"),
    ("{0000..0127}", "128 archives"),
    ("celeba", "CelebA"),
    ("casia", "CASIA-WebFace"),
    ("Aaron_Eckhart", "LFW"),
    ("--label 17", "more people"),
    ("1000..1100", "more images"),
    ("--pairs 6000", "more images"),
    ("yaw", "landmarks"),
    ("| jq", "jq"),
];

/// Small data under the names that the examples of pfc-ingest use.
const DATA: &str = "
pfc-ingest -q synth made --identities 16 --images-per-identity 10 --holdout 8 --pairs 60 --seed 1 \\
    --noise duplicated=0.05
mv made/train faces && mv made/test lfw && mv made/pairs.txt pairs.txt && rm -r made
cp -r lfw photos
(cd lfw && find * -name '*.jpg' | sort) > names
sed 's|$| 38 51 73 51 56 71 41 92 70 92|' names > landmarks.txt
echo path,label,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5 > photos.csv
awk -F/ '{print \"photos/\" $0 \",\" $1 \",38,51,73,51,56,71,41,92,70,92\"}' names >> photos.csv
pfc-ingest -q pack faces data
pfc-ingest -q export data glint360k --to recordio
pfc-ingest -q pack lfw lfw.pfc
pfc-ingest -q export lfw.pfc lfw.bin --to bin --pairs-file pairs.txt
pfc-ingest -q export data hub/my-faces --to parquet
python3 -c \"import shutil; shutil.make_archive('lfw', 'zip', 'lfw')\"
";

/// What is made, or made room for, before an example with this in it; the first one counts.
const PREPARED: [(&str, &str); 10] = [
    ("pfc-ingest pack", "rm -r data"),
    (
        "merge data part0",
        "rm -r data; for i in 0 1 2; do pfc-ingest -q pack faces part$i --worker $i/3; done",
    ),
    (
        "merge data",
        "rm -r data; for i in 0 1; do pfc-ingest -q pack faces data --worker $i/2; done",
    ),
    ("merge both", "mv data batch1; mv lfw.pfc batch2"),
    (
        "decisions",
        "for p in exact near few; do pfc-ingest -q clean data --pass $p --min-images 2; done",
    ),
    ("review import", "pfc-ingest -q review export data review"),
    ("--lowest", "pfc-ingest -q quality data"),
    ("export data faces", "rm -r faces"),
    ("export data lfw.bin", "rm -r data lfw.bin; mv lfw.pfc data"),
    ("people.txt", "ls faces | head -n 3 > people.txt"),
];

#[test]
fn the_examples_of_pfc_ingest_run_as_printed() {
    let Some(programs) = programs() else { return };
    let made = tempfile::tempdir().unwrap();
    run(DATA, made.path(), &programs, "the data of the examples");
    let mut found = Vec::new();
    examples(&pfc_ingest::Cli::command(), "pfc-ingest", &mut found);
    let mut n_run = 0;
    for (of, line) in &found {
        if let Some((_, lacks)) = NOT_RUN.iter().find(|(part, _)| line.contains(part)) {
            println!("`{line}` is not run for want of {lacks}");
            continue;
        }
        let prepared = PREPARED.iter().find(|(part, _)| line.contains(part));
        let prepared = prepared.map_or("", |(_, script)| script);
        let folder = tempfile::tempdir().unwrap();
        let copy = format!("cp -a {}/. .\n{prepared}\n{line}", made.path().display());
        run(&copy, folder.path(), &programs, &format!("an example of `{of} --help`"));
        n_run += 1;
    }
    assert!(n_run > 40, "{n_run} of {} examples are run", found.len());
}

#[test]
fn every_program_says_what_its_exit_codes_mean() {
    for program in [pfc_ingest::Cli::command(), pfc_train::Cli::command(), pfc_eval::Cli::command()]
    {
        let help = program.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.contains("\nExit codes: 0 "), "{}", program.get_name());
        for code in ["1 ", "2 ", "130", "143", "129"] {
            assert!(help.contains(code), "{} says nothing of {code}", program.get_name());
        }
    }
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

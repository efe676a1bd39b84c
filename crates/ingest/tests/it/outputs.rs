//! What a program does where its outputs are closed or full, and when it is asked to stop.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use crate::common::Bench;

fn program(bench: &Bench, line: &str) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("pfc-ingest"));
    command.current_dir(bench.path(".")).env_remove("PFC_LOG").args(line.split_whitespace());
    command
}

/// A pipe that nobody reads.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[cfg(target_os = "linux")]
fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

/// A data set that is damaged and one that is whole.
fn data() -> Bench {
    let bench = Bench::new();
    bench.run("synth faces --identities 3 --images-per-identity 4").success();
    bench.run("pack faces whole").success();
    bench.run("pack faces bad").success();
    bench.damage("bad", 7);
    bench
}

#[cfg(target_os = "linux")]
#[test]
fn closed_and_full_outputs_never_better_an_exit_code_and_never_panic() {
    let bench = data();
    // The command, its exit code where standard output is closed, and where that is full.
    for (line, code_closed, code_full) in [
        ("verify bad", 1, 2),
        ("verify bad --json", 1, 2),
        ("verify whole", 0, 2),
        ("inspect whole", 0, 2),
        ("inspect whole --json", 0, 2),
        ("inspect nowhere", 2, 2),
        ("completions bash", 0, 2),
        ("completions zsh", 0, 2),
        ("--help", 0, 2),
        ("pack --help", 0, 2),
        ("--version", 0, 2),
        ("no-such-command", 2, 2),
    ] {
        for (name, out, code) in [("closed", closed(), code_closed), ("full", full(), code_full)] {
            let output = program(&bench, line).stdout(out).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(code), "`{line}`, {name}: {said}");
            assert!(!said.contains("panicked"), "`{line}`, {name}: {said}");
            if code_closed != code_full {
                let expected = if name == "full" { "standard output: cannot write" } else { "" };
                assert!(said.contains(expected), "`{line}`, {name}: {said}");
                assert_eq!(said.contains("hint: "), name == "full", "`{line}`, {name}: {said}");
            }
        }
        for errors in [closed(), full()] {
            let status = program(&bench, line).stdout(Stdio::null()).stderr(errors).status();
            assert_eq!(status.unwrap().code(), Some(code_closed), "`{line}`");
        }
        let status = program(&bench, line).stdout(full()).stderr(full()).status().unwrap();
        assert_eq!(status.code(), Some(code_full), "`{line}`, both full");
    }
    // Logs go to standard error too.
    let status = program(&bench, "verify bad -vv").stdout(closed()).stderr(full()).status();
    assert_eq!(status.unwrap().code(), Some(1));
}

#[cfg(target_os = "linux")]
#[test]
fn the_first_signal_is_answered_at_once_and_ends_with_its_code() {
    for (name, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let bench = Bench::new();
        let mut command = program(&bench, "pack - out");
        command.stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let pid = child.id();
        // It waits for its list, which nothing interrupts.
        while !pfc_testing::listens(pid) {
            assert!(child.try_wait().unwrap().is_none(), "it has ended");
            std::thread::yield_now();
        }
        pfc_testing::send_signal(pid, name);
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert!(line.starts_with(&format!("SIG{name}: stopping once ")), "{line}");
        drop(child.stdin.take());
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(code), "{name}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_second_signal_ends_the_program_at_once() {
    let bench = Bench::new();
    let mut child =
        program(&bench, "pack - out").stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = child.id();
    while !pfc_testing::listens(pid) {
        std::thread::yield_now();
    }
    pfc_testing::send_signal(pid, "TERM");
    let mut line = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
    pfc_testing::send_signal(pid, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(143));
}

//! Programs in two parts: a small one that answers at once, and a large one behind it.
//!
//! The initialisers of libtorch take 0.4 s, and run before `main`. A program that is started to print its
//! help, its version, a completion script or what is wrong with its arguments should not wait for them. So the
//! program that users start holds the command line alone, and puts the one that does the work, which lies in
//! the same folder, in its own place: with its process, its signals and its exit code.

use std::{
    env, io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use clap::Parser;

use crate::{Hinted, Outcome, exit, exit::say};

/// Answers what the command line alone can, and becomes the program `behind` for all else.
///
/// * `answer`: what needs no more than the arguments, such as a completion script; none if it is not that
/// * `behind`: the name of the program in the same folder, which is given the same arguments
///
/// Faulty arguments, an answer that cannot be written and a program that cannot be started end with code 2.
pub fn front<C: Parser>(
    answer: impl FnOnce(&C) -> Option<io::Result<()>>,
    behind: &str,
) -> ExitCode {
    let answered = match C::try_parse() {
        Ok(cli) => answer(&cli).map(|written| written.map(|()| Outcome::Clean).map_err(Into::into)),
        Err(message) => Some(say(&message)),
    };
    exit(answered.unwrap_or_else(|| Err(become_program(behind))), &[])
}

/// Puts the program `name` in the place of this process; returns only if that fails.
///
/// It keeps the name that this one was started under, by which it calls itself in its help.
fn become_program(name: &str) -> anyhow::Error {
    let path = match beside(name) {
        Ok(path) => path,
        Err(error) => {
            return anyhow::Error::new(error).context("cannot tell where this program lies");
        }
    };
    let mut arguments = env::args_os();
    let mut command = Command::new(&path);
    if let Some(own) = arguments.next() {
        command.arg0(own);
    }
    let error = command.args(arguments).exec();
    cannot_start(&path, &error).into()
}

fn beside(name: &str) -> io::Result<PathBuf> {
    Ok(env::current_exe()?.with_file_name(name))
}

fn cannot_start(path: &Path, error: &io::Error) -> Hinted {
    Hinted::new(format!("cannot start {}: {error}", path.display()), both(path))
}

/// How both files come to lie where `path`, that behind the front, is missing.
fn both(path: &Path) -> String {
    let behind = path.file_name().unwrap_or_default().to_string_lossy();
    let package = behind.strip_suffix("-torch").unwrap_or(&behind);
    let profile = if path.parent().is_some_and(|folder| folder.ends_with("release")) {
        "--release "
    } else {
        ""
    };
    format!(
        "`{package}` comes in two files, which lie in one folder: `cargo run` builds one of them; build both \
         with `cargo build {profile}-p {package} --bins`, or install both again"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_names_the_command_that_builds_both_files() {
        let hint = |path: &str| both(Path::new(path));
        let debug = hint("target/debug/pfc-train-torch");
        assert!(debug.contains("`cargo build -p pfc-train --bins`"), "{debug}");
        let release = hint("target/release/pfc-eval-torch");
        assert!(release.contains("`cargo build --release -p pfc-eval --bins`"), "{release}");
    }
}

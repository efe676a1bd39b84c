//! Where tests find known answers and real faces, and how a test becomes several processes.
//!
//! A test that lacks what it needs calls [`skip`] and passes. `scripts/test` lists these tests at its
//! end.

#![allow(clippy::print_stdout)] // cargo shows what a test prints

use std::{
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

/// The folder of known answers `area`: below `PFC_GOLDEN`, by default `../shared/golden` beside the
/// checkout. A few are committed in `tests/golden`, which `scripts/test` names in `PFC_GOLDEN` in a run
/// of its own.
///
/// # Panics
///
/// If the folder is absent and `PFC_REQUIRE_GOLDEN` is `1`, as it is where the known answers must be.
#[must_use]
pub fn golden(area: &str) -> Option<PathBuf> {
    let found = find("PFC_GOLDEN", "golden", area);
    let required = env::var("PFC_REQUIRE_GOLDEN").is_ok_and(|value| value == "1");
    assert!(found.is_some() || !required, "PFC_REQUIRE_GOLDEN is 1, and `{area}` is absent");
    found
}

/// Every entry of [`golden`]`(area)` that `is_case` takes, in order of name; none without the folder.
///
/// # Panics
///
/// If the folder cannot be listed or holds no case, as a test that checks nothing proves nothing.
#[must_use]
pub fn golden_cases(area: &str, is_case: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let Some(folder) = golden(area) else { return Vec::new() };
    let entries = fs::read_dir(&folder).expect("the folder can be listed");
    let paths = entries.map(|entry| entry.expect("its entries can be read").path());
    let mut cases: Vec<PathBuf> = paths.filter(|path| is_case(path)).collect();
    cases.sort();
    assert!(!cases.is_empty(), "no case in {}", folder.display());
    cases
}

/// File or folder `name` of the real faces: below `PFC_FACES`, by default `../shared/faces` beside
/// the checkout.
#[must_use]
pub fn faces(name: &str) -> Option<PathBuf> {
    find("PFC_FACES", "faces", name)
}

/// Folder `name` of the small inputs that once went wrong: below `PFC_CASES`, by default
/// `../shared/cases` beside the checkout.
#[must_use]
pub fn case(name: &str) -> Option<PathBuf> {
    find("PFC_CASES", "cases", name)
}

/// Names the test that runs again in another process.
const AGAIN: &str = "PFC_TEST_AGAIN";

/// A command that runs the test `name` of this program once more, and no other. In that process
/// [`is_again`]`(name)` is true, so that one test function is both sides.
///
/// # Panics
///
/// If the system does not tell where this program is.
#[must_use]
pub fn again(name: &str) -> Command {
    let mut command = Command::new(env::current_exe().expect("a program knows its place"));
    command.args([name, "--exact", "--nocapture"]).env(AGAIN, name);
    command
}

/// Whether this process was started by [`again`]`(name)`.
#[must_use]
pub fn is_again(name: &str) -> bool {
    env::var(AGAIN).is_ok_and(|running| running == name)
}

/// Whether `path` is a file of this extension.
#[must_use]
pub fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

fn find(variable: &str, default: &str, name: &str) -> Option<PathBuf> {
    let shared = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared");
    let root = env::var_os(variable).map_or_else(|| Path::new(shared).join(default), Into::into);
    let path = root.join(name);
    if path.exists() {
        return Some(path);
    }
    skip(&format!("{} is absent", path.display()));
    None
}

/// Copies a folder with all that is in it; permissions are those of new files, as the original may be
/// read-only.
///
/// # Panics
///
/// If something cannot be read or written.
pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the folder can be made");
    for entry in fs::read_dir(from).expect("the folder can be listed") {
        let path = entry.expect("its entries can be read").path();
        let target = to.join(path.file_name().expect("an entry has a name"));
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            let bytes = fs::read(&path).expect("the file can be read");
            fs::write(target, bytes).expect("the file can be written");
        }
    }
}

/// Says that the running test, or a part of it, is skipped, and why.
///
/// `cargo test` shows what a test prints only if it fails; so the line is also appended to the file
/// that `PFC_SKIPPED` names, with the name of the test.
///
/// # Panics
///
/// If that file cannot be written.
pub fn skip(reason: &str) {
    println!("skipped: {reason}");
    let Some(path) = env::var_os("PFC_SKIPPED") else { return };
    let thread = std::thread::current();
    let line = format!("{}: {reason}\n", thread.name().unwrap_or("a test"));
    let file = fs::OpenOptions::new().create(true).append(true).open(path);
    let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
    written.expect("the file that PFC_SKIPPED names can be written");
}

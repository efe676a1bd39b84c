//! Where tests find known answers and real faces. Where there are none, they say so and pass.
//! And how a test becomes several processes.

#![allow(clippy::print_stdout)] // cargo shows what a test prints

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The folder of known answers `area`: below `PFC_GOLDEN`, by default `../shared/golden` beside the
/// checkout.
#[must_use]
pub fn golden(area: &str) -> Option<PathBuf> {
    find("PFC_GOLDEN", "golden", area)
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

/// File or folder `name` of the material beside the checkout, `../shared`.
#[must_use]
pub fn shared(name: &str) -> Option<PathBuf> {
    find("PFC_SHARED", "", name)
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
    println!("skipped: {} is absent", path.display());
    None
}

//! Where tests find known answers and real faces, and how a test becomes several processes.
//!
//! A test that lacks what it needs calls [`skip`] and passes. `scripts/test` lists these tests at its
//! end.

#![allow(clippy::print_stdout)] // cargo shows what a test prints

mod damage;
mod front;

use std::{
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

pub use damage::damaged;
pub use front::check_front;

/// The folder of known answers `area`: below `PFC_GOLDEN`, by default the whole collection in
/// `../shared/golden` beside the checkout, or where that is absent the slice of it that is committed in
/// `tests/golden`.
///
/// # Panics
///
/// If the folder is absent and `PFC_REQUIRE_GOLDEN` is `1`, as it is where the known answers must be.
#[must_use]
pub fn golden(area: &str) -> Option<PathBuf> {
    let whole = root("PFC_GOLDEN", "golden");
    let is_chosen = env::var_os("PFC_GOLDEN").is_some();
    let path = if is_chosen || whole.exists() { whole } else { committed() }.join(area);
    is_known(&path).then_some(path)
}

/// Every entry of [`golden`]`(area)` that `is_case` takes, in order of name; none without the folder.
///
/// # Panics
///
/// If the folder cannot be listed, and as [`golden`] if it holds no case.
#[must_use]
pub fn golden_cases(area: &str, is_case: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let Some(folder) = golden(area) else { return Vec::new() };
    let entries = fs::read_dir(&folder).expect("the folder can be listed");
    let paths = entries.map(|entry| entry.expect("its entries can be read").path());
    let mut cases: Vec<PathBuf> = paths.filter(|path| is_case(path)).collect();
    cases.sort();
    if cases.is_empty() {
        lacking(&format!("{} holds no such case", folder.display()));
    }
    cases
}

/// Whether a known answer, or a part of one, is there; says so if it is not, and the test leaves out
/// what needs it.
///
/// # Panics
///
/// As [`golden`].
#[must_use]
pub fn is_known(path: &Path) -> bool {
    let exists = path.exists();
    if !exists {
        lacking(&format!("{} is absent", path.display()));
    }
    exists
}

/// Whether a file that only some cases have is there; prints that it is not, which is no skipped test.
#[must_use]
pub fn has_file(path: &Path) -> bool {
    let exists = path.exists();
    if !exists {
        println!("skipped: {} is absent", path.display());
    }
    exists
}

/// A verification pack among the known answers.
pub struct KnownPack {
    /// The pickle.
    pub path: PathBuf,
    /// How many pairs it holds.
    pub n_pairs: usize,
    /// What is known of its pairs (`issame`) and images (`images`: sizes, checksums, means).
    pub description: Value,
}

/// Every pack of [`golden`]`("bin")`, in order of name.
///
/// # Panics
///
/// If a description is not as the answers' own page states it, and as [`golden`].
#[must_use]
pub fn golden_packs() -> Vec<KnownPack> {
    let mut packs = Vec::new();
    for json in golden_cases("bin", |path| has_extension(path, "json")) {
        let text = fs::read(&json).expect("the description can be read");
        let description: Value = serde_json::from_slice(&text).expect("it is JSON");
        for (name, entry) in description["files"].as_object().expect("it lists files") {
            let path = json.with_file_name(format!("{name}.bin"));
            if is_known(&path) {
                let n_pairs =
                    entry["pairs"].as_u64().expect("a file has a number of pairs") as usize;
                packs.push(KnownPack { path, n_pairs, description: description.clone() });
            }
        }
    }
    packs.sort_by(|a, b| a.path.cmp(&b.path));
    packs
}

fn lacking(reason: &str) {
    let required = env::var("PFC_REQUIRE_GOLDEN").is_ok_and(|value| value == "1");
    assert!(!required, "PFC_REQUIRE_GOLDEN is 1, and {reason}");
    skip(reason);
}

/// The `n` values of tensor `key` under `seed`, from `low` to `high`, by which known answers of networks
/// define their weights and inputs: SplitMix64 from the FNV-1a hash of the text `SEED/KEY`.
#[must_use]
pub fn formula(seed: u64, key: &str, n: usize, low: f64, high: f64) -> Vec<f32> {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in format!("{seed}/{key}").bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let value = |i: u64| {
        let mut z = hash.wrapping_add((i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        (low + (high - low) * ((z >> 40) as f64 * (-24f64).exp2())) as f32
    };
    (0..n as u64).map(value).collect()
}

/// Side of the images that known answers of networks are of.
const SIDE: usize = 112;

/// The images that the known answers of networks were computed on, `[N, 3, 112, 112]`: those of
/// `input.safetensors` among them, or where that is absent the four of seed 0.
///
/// # Panics
///
/// If that file has no f32 tensor `data` of such a shape.
#[must_use]
pub fn network_input() -> Vec<f32> {
    let file = golden("backbones").map(|folder| folder.join("input.safetensors"));
    match file.filter(|file| file.exists()) {
        Some(file) => recorded_input(&fs::read(file).expect("the input can be read")),
        None => formula(0, "data", 4 * 3 * SIDE * SIDE, -1.0, 1.0),
    }
}

/// The numbers of `data`. After its length, 8 bytes, the header says from which byte behind it to which.
fn recorded_input(bytes: &[u8]) -> Vec<f32> {
    let (length, rest) = bytes.split_first_chunk().expect("a safetensors file has a header");
    let (header, numbers) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let header: Value = serde_json::from_slice(header).expect("a header is JSON");
    let data = &header["data"];
    let is_picture = data["shape"]
        .as_array()
        .is_some_and(|shape| shape.len() == 4 && shape[1..] == [3, SIDE, SIDE].map(Value::from));
    assert!(data["dtype"] == "F32" && is_picture, "the input is {data}");
    let offset = |i: usize| data["data_offsets"][i].as_u64().expect("a tensor has its place");
    let numbers = &numbers[offset(0) as usize..offset(1) as usize];
    numbers.as_chunks().0.iter().map(|number| f32::from_le_bytes(*number)).collect()
}

/// File or folder `name` of the real faces: below `PFC_FACES`, by default `../shared/faces` beside
/// the checkout.
#[must_use]
pub fn faces(name: &str) -> Option<PathBuf> {
    find("PFC_FACES", "faces", name)
}

/// Published model `name`: below `PFC_MODELS`, by default in the cache folder that `scripts/models` fills.
#[must_use]
pub fn model(name: &str) -> Option<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = || set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    let folder = set("PFC_MODELS").or_else(|| Some(cache()?.join("pfc/models")))?;
    let path = folder.join(name);
    if path.exists() {
        return Some(path);
    }
    skip(&format!("{} is absent; scripts/models fetches it", path.display()));
    None
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

/// Whether a process has begun to listen to signals, for which it has a thread of its own.
#[must_use]
pub fn listens(pid: u32) -> bool {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm"));
    tasks.flatten().any(|task| name(task).is_ok_and(|name| name == "signals\n"))
}

/// Sends the signal `TERM`, `INT` or the like to a process.
///
/// # Panics
///
/// If there is no such process.
#[track_caller]
pub fn send_signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status();
    assert!(sent.is_ok_and(|status| status.success()), "SIG{name} cannot be sent to {pid}");
}

/// Whether `path` is a file of this extension.
#[must_use]
pub fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

fn root(variable: &str, default: &str) -> PathBuf {
    let shared = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared");
    env::var_os(variable).map_or_else(|| Path::new(shared).join(default), Into::into)
}

/// The known answers that are part of the checkout.
fn committed() -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden")).into()
}

fn find(variable: &str, default: &str, name: &str) -> Option<PathBuf> {
    let path = root(variable, default).join(name);
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

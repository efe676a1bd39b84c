//! Whether a log of findings is whole.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use pfc_durable::DurableError;
use pfc_shard::Manifest;

use crate::{DECISIONS_DIR, DecisionLog, FindingsError, State};

/// What is wrong with the log beside the data set in `dir`: each fault with the file, relative to
/// `dir`. Reads every run, and applies it.
///
/// # Errors
///
/// [`FindingsError::Shard`] if the manifest cannot be read.
pub fn check_log(dir: &Path) -> Result<Vec<(PathBuf, String)>, FindingsError> {
    let manifest = Manifest::read(dir)?;
    let mut faults = strays(dir)?;
    let log = match DecisionLog::open(dir) {
        Ok(log) => log,
        Err(error) if error.is_of_system() => return Err(error),
        Err(error) => {
            faults.push((DECISIONS_DIR.into(), error.to_string()));
            return Ok(faults);
        }
    };
    let mut state = State::new(manifest.rows, manifest.n_identities);
    for number in 0..log.len() {
        let read = log.read(number).and_then(|run| {
            let bad = |what| FindingsError::Malformed { path: log.path(number), what };
            state.apply(&run.decisions).map_err(bad)
        });
        if let Err(error) = read {
            if error.is_of_system() {
                return Err(error);
            }
            let path = log.path(number);
            let file = path.strip_prefix(dir).unwrap_or(&path).to_path_buf();
            faults.push((file, error.to_string()));
        }
    }
    Ok(faults)
}

/// Files among the runs that are none.
fn strays(dir: &Path) -> Result<Vec<(PathBuf, String)>, FindingsError> {
    let folder = dir.join(DECISIONS_DIR);
    let entries = match fs::read_dir(&folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(DurableError::at("list", &folder)(source).into()),
        Ok(entries) => entries,
    };
    let mut names: Vec<String> = Vec::new();
    for entry in entries {
        let entry = entry.map_err(DurableError::at("list", &folder))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.retain(|name| !DecisionLog::is_own(name));
    names.sort();
    let stray =
        |name: String| (Path::new(DECISIONS_DIR).join(name), "is no run of decisions".into());
    Ok(names.into_iter().map(stray).collect())
}

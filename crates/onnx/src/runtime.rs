//! Finds onnxruntime and loads it, once per process.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use ort::environment::Environment;

use crate::OnnxError;

/// Names the library outright.
pub const VARIABLE: &str = "ORT_DYLIB_PATH";
/// The version that `scripts/setup` fetches; any from 1.17 on will do.
pub const VERSION: &str = "1.32.0";

/// The library to load where [`VARIABLE`] names none.
static GIVEN: OnceLock<PathBuf> = OnceLock::new();
static ENVIRONMENT: OnceLock<Result<Environment, String>> = OnceLock::new();

/// Names the library that [`load`] takes where [`VARIABLE`] names none: for programs that come with
/// one, as Python's package does. The first name counts, if it is given before the library is loaded.
pub fn offer(library: PathBuf) {
    // A later name would come too late.
    let _ = GIVEN.set(library);
}

/// The runtime, loaded if it is not yet.
///
/// # Errors
///
/// [`OnnxError::Runtime`], the same for the rest of the process.
pub fn load() -> Result<&'static Environment, OnnxError> {
    let environment = ENVIRONMENT.get_or_init(|| {
        let path = find(
            env::var_os(VARIABLE),
            GIVEN.get().cloned().or_else(|| beside(&env::current_exe().ok()?)),
            env::var_os("XDG_CACHE_HOME"),
            env::var_os("HOME"),
            &|path| path.exists(),
        );
        let failed = |reason: &dyn std::fmt::Display| format!("{}: {reason}", path.display());
        let builder = ort::init_from(&path).map_err(|error| failed(&error))?;
        let environment = builder.with_telemetry(false).build().map_err(|error| failed(&error))?;
        // Its warnings are about shapes that exporters state wrongly; ours are about what follows.
        environment.set_log_level(ort::logging::LogLevel::Error);
        tracing::debug!("onnxruntime is {}", path.display());
        Ok(environment)
    });
    environment.as_ref().map_err(|reason| OnnxError::Runtime { reason: reason.clone() })
}

/// Whether the runtime can be loaded.
pub fn is_available() -> bool {
    load().is_ok()
}

/// The library to load: the one that the user names, the one that the program comes with, the one in
/// the cache, or whatever the system's loader finds.
fn find(
    named: Option<OsString>,
    given: Option<PathBuf>,
    cache_home: Option<OsString>,
    home: Option<OsString>,
    exists: &dyn Fn(&Path) -> bool,
) -> PathBuf {
    if let Some(named) = named.filter(|named| !named.is_empty()) {
        return named.into();
    }
    if let Some(given) = given {
        return given;
    }
    let fetched = cache(cache_home, home)
        .map(|cache| cache.join(format!("onnxruntime-{VERSION}")).join("lib/libonnxruntime.so"));
    fetched.filter(|path| exists(path)).unwrap_or_else(|| "libonnxruntime.so".into())
}

/// The user's folder for what can be made again, and our part of it.
fn cache(cache_home: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    let cache = cache_home.filter(|cache| !cache.is_empty()).map(PathBuf::from);
    let cache = cache.or_else(|| home.map(|home| Path::new(&home).join(".cache")));
    cache.map(|cache| cache.join("pfc"))
}

/// A folder of that name in our part of the user's cache; `None` where there is no such place.
pub(crate) fn cache_folder(name: &str) -> Option<PathBuf> {
    cache(env::var_os("XDG_CACHE_HOME"), env::var_os("HOME")).map(|cache| cache.join(name))
}

/// The library in the Python package onnxruntime of the environment that a program is installed in, as
/// `bin/pfc-ingest` is by pip.
fn beside(program: &Path) -> Option<PathBuf> {
    let libraries = program.parent()?.parent()?.join("lib");
    let first = |folder: &Path, prefix: &str| {
        let entries = folder.read_dir().ok()?.filter_map(|entry| Some(entry.ok()?.path()));
        let is_it = |path: &PathBuf| {
            path.file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name.starts_with(prefix))
        };
        entries.filter(is_it).min()
    };
    let packages = first(&libraries, "python3")?.join("site-packages");
    first(&packages.join("onnxruntime/capi"), "libonnxruntime.so")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_word_comes_first_then_the_programs_then_the_cache_then_the_system() {
        let check = |named: &str, cache: &str, exists: bool, expected: &str| {
            let home = Some("/home/me".into());
            let found = find(Some(named.into()), None, Some(cache.into()), home, &|_| exists);
            assert_eq!(found, Path::new(expected));
        };
        check("/opt/ort.so", "/c", true, "/opt/ort.so");
        check("", "/c", true, &format!("/c/pfc/onnxruntime-{VERSION}/lib/libonnxruntime.so"));
        let home = format!("/home/me/.cache/pfc/onnxruntime-{VERSION}/lib/libonnxruntime.so");
        check("", "", true, &home);
        check("", "/c", false, "libonnxruntime.so");
        let given = PathBuf::from("/venv/ort.so");
        let find =
            |named: &str| find(Some(named.into()), Some(given.clone()), None, None, &|_| true);
        assert_eq!(find(""), given);
        assert_eq!(find("/opt/ort.so"), Path::new("/opt/ort.so"));
    }

    #[test]
    fn a_program_of_an_environment_finds_the_library_of_its_python_package() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("bin/pfc-ingest");
        assert_eq!(beside(&program), None);
        let capi = folder.path().join("lib/python3.12/site-packages/onnxruntime/capi");
        std::fs::create_dir_all(&capi).unwrap();
        assert_eq!(beside(&program), None);
        for name in ["libonnxruntime_providers_shared.so", "libonnxruntime.so.1.32.0"] {
            std::fs::write(capi.join(name), "").unwrap();
        }
        assert_eq!(beside(&program), Some(capi.join("libonnxruntime.so.1.32.0")));
        assert_eq!(beside(Path::new("pfc-ingest")), None);
    }
}

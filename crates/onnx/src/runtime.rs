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

static ENVIRONMENT: OnceLock<Result<Environment, String>> = OnceLock::new();

/// The runtime, loaded if it is not yet.
///
/// # Errors
///
/// [`OnnxError::Runtime`], the same for the rest of the process.
pub fn load() -> Result<&'static Environment, OnnxError> {
    let environment = ENVIRONMENT.get_or_init(|| {
        let path = find(
            env::var_os(VARIABLE),
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

/// The library to load: the one that the user names, the one in the cache, or whatever the system's
/// loader finds.
fn find(
    named: Option<OsString>,
    cache_home: Option<OsString>,
    home: Option<OsString>,
    exists: &dyn Fn(&Path) -> bool,
) -> PathBuf {
    if let Some(named) = named.filter(|named| !named.is_empty()) {
        return named.into();
    }
    let cache = cache_home.filter(|cache| !cache.is_empty()).map(PathBuf::from);
    let cache = cache.or_else(|| home.map(|home| Path::new(&home).join(".cache")));
    let fetched = cache.map(|cache| {
        cache.join(format!("pfc/onnxruntime-{VERSION}")).join("lib/libonnxruntime.so")
    });
    fetched.filter(|path| exists(path)).unwrap_or_else(|| "libonnxruntime.so".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_word_comes_first_then_the_cache_then_the_system() {
        let check = |named: &str, cache: &str, exists: bool, expected: &str| {
            let found =
                find(Some(named.into()), Some(cache.into()), Some("/home/me".into()), &|_| exists);
            assert_eq!(found, Path::new(expected));
        };
        check("/opt/ort.so", "/c", true, "/opt/ort.so");
        check("", "/c", true, &format!("/c/pfc/onnxruntime-{VERSION}/lib/libonnxruntime.so"));
        let home = format!("/home/me/.cache/pfc/onnxruntime-{VERSION}/lib/libonnxruntime.so");
        check("", "", true, &home);
        check("", "/c", false, "libonnxruntime.so");
    }
}

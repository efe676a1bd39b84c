//! Commands of a shell, run with the programs that cargo has built.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// The folder of the programs that cargo has built beside this test; says so if one is missing.
pub fn programs() -> Option<PathBuf> {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().and_then(Path::parent).unwrap().to_owned();
    for program in ["pfc-ingest", "pfc-train", "pfc-train-torch", "pfc-eval", "pfc-eval-torch"] {
        if !folder.join(program).exists() {
            pfc_testing::skip(&format!(
                "{program} is not built beside the test: build the workspace"
            ));
            return None;
        }
    }
    Some(folder)
}

/// Runs lines of a shell in `folder`, and stops at the first that fails.
pub fn run(script: &str, folder: &Path, programs: &Path, place: &str) {
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", script])
        .current_dir(folder)
        .env("PATH", format!("{}:{path}", programs.display()))
        // Scripts run at the same time, and threads that wait for others would keep the processors busy.
        .env("OMP_WAIT_POLICY", "passive")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{place}: {script}\n{said}");
}

//! `pfc-train`.

use std::process::ExitCode;

fn main() -> ExitCode {
    pfc_cli::program(pfc_train::Cli::verbosity, pfc_train::run, pfc_train::HINTS)
}

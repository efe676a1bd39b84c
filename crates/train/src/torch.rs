//! `pfc-train`, the part that computes.

use std::process::ExitCode;

fn main() -> ExitCode {
    pfc_model::allocator::keep_freed_memory();
    pfc_cli::program(pfc_train::Cli::verbosity, pfc_train::run, pfc_train::HINTS)
}

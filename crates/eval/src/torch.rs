//! `pfc-eval`, the part that computes: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    pfc_model::allocator::keep_freed_memory();
    pfc_cli::program(pfc_eval::Cli::verbosity, pfc_eval::run, pfc_eval::HINTS)
}

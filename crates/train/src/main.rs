//! `pfc-train`, the part that users start.
//!
//! It names nothing of the library but the command line, so that the linker leaves libtorch out.

use std::process::ExitCode;

fn main() -> ExitCode {
    pfc_cli::front(pfc_train::Cli::completions, "pfc-train-torch")
}

//! The program `pfc-ingest`; everything it does is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    pfc_ingest::main()
}

//! `pfc-eval`: see the library.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = pfc_eval::Cli::parse();
    pfc_cli::init_log(cli.verbosity());
    let result = pfc_cli::interrupt::listen().map_err(Into::into).and_then(|()| pfc_eval::run(cli));
    pfc_cli::exit(result, pfc_eval::HINTS)
}

//! `pfc-train`.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = pfc_train::Cli::parse();
    pfc_cli::init_log(cli.verbosity());
    let ready = pfc_cli::interrupt::listen().map_err(anyhow::Error::from);
    pfc_cli::exit(ready.and_then(|()| pfc_train::run(cli)), pfc_train::HINTS)
}

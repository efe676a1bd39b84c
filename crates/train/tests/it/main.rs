//! The program `pfc-train` and its parts that share nothing of a process, in one test binary: each
//! binary links libtorch and all our crates anew.

#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout)] // helpers of tests may

mod arcface_torch;
mod cli;
mod configuration_page;
mod launchers;
mod loader;
mod models;
mod resume;
mod saving;
#[path = "../support/mod.rs"]
mod support;

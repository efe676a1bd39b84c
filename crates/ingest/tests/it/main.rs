//! The program `pfc-ingest` from outside: exit codes, messages, and the folders it makes.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod align;
mod bench;
mod clean;
mod common;
mod detect;
mod faults;
mod folders;
mod inputs;
mod inspect;
mod kill;
mod messages;
mod outputs;
mod pack;
mod pictures;
mod quality;
mod real_faces;
mod resume;
mod show;
mod synth;
mod verify;
mod workers;

//! `pfc-ingest export` from outside: every format read back by somebody else's reader.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "../it/common.rs"]
#[allow(dead_code)] // each test program uses some of it
mod common;

mod bin;
mod folder;
mod messages;
mod parquet;
mod recordio;
mod round_trip;
mod select;
mod sets;
mod webdataset;

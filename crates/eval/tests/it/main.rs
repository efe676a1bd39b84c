//! The program `pfc-eval` and what it is made of, in one test binary: each binary links libtorch and
//! all our crates anew.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // helpers of tests may

mod cli;
mod cli_protocols;
mod detector;
mod embed;
mod golden_bin;
mod golden_ijb;
mod golden_megaface;
mod inputs;
mod onnx;
mod real_faces;
mod support;
mod verification;

//! Detectors as the programs use them: graphs that see red squares, and published ones where they are at hand.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod photographs;
mod red;

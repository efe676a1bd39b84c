//! The instruction set of Python's pickles, for readers that run no code.
//!
//! A pickle is a program for a stack machine that can import and call anything. The crates that read
//! one bring their own machine, which knows what their files need and refuses everything else by
//! name. They share what lies below: the instructions' codes, the reading of their operands, and the
//! stack with its marks and its memory.

pub mod op;
mod reader;
mod stack;

pub use reader::Reader;
pub use stack::{Id, Limits, Sequences, Stack};

/// Why a pickle was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("byte {offset}: {problem}")]
pub struct PickleError {
    /// Where in the pickle, from 0.
    pub offset: usize,
    /// What is wrong there.
    pub problem: String,
}

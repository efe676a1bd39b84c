//! The judge: benchmark layouts in, figures out.
//!
//! The trainer uses [`verification`]; the program is [`run`].

mod error;
pub mod faces;
pub mod pairs;
pub mod verification;

pub use error::EvalError;

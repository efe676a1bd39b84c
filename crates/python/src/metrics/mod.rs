//! Figures of `pfc-metrics` from arrays.
//!
//! Arrays come in the types that the functions want: `pfc/_metrics.py` makes them so and describes the
//! figures, which go back as dictionaries.

mod all_pairs;
mod pairs;
mod templates;

pub use all_pairs::nn;
pub use pairs::verification;
pub use templates::ijb;

use pfc_metrics::{
    MetricError,
    bootstrap::{Bootstrap, Interval},
    roc::Far,
};
use pyo3::{prelude::*, types::PyDict};

use crate::failure::Failure;

/// How the intervals are made: resampled sets, coverage, seed.
#[derive(Debug, Clone, Copy, FromPyObject)]
pub struct Resampling(u32, f64, u64);

impl Resampling {
    fn bootstrap(self) -> Result<Bootstrap, Failure> {
        let Resampling(n_replicates, confidence, seed) = self;
        match confidence > 0.0 && confidence < 1.0 {
            true => Ok(Bootstrap { n_replicates, confidence, seed }),
            false => Err(Failure::value(
                format!("a confidence of {confidence} is outside (0, 1)"),
                "give a coverage such as 0.95",
            )),
        }
    }
}

fn fars(rates: &[f64]) -> Result<Vec<Far>, MetricError> {
    rates.iter().map(|&rate| Far::new(rate)).collect()
}

/// An interval as Python has it: two numbers, or nothing.
fn ends(interval: Option<Interval>) -> Option<(f64, f64)> {
    interval.map(|Interval { low, high }| (low, high))
}

/// A dictionary of what is named.
macro_rules! dict {
    ($py:expr, $($name:ident: $value:expr),+ $(,)?) => {{
        let dict = PyDict::new($py);
        $(dict.set_item(stringify!($name), $value)?;)+
        dict
    }};
}
use dict;

/// What `f` makes of each item.
fn list<'py, T>(
    items: impl IntoIterator<Item = T>,
    f: impl Fn(T) -> PyResult<Bound<'py, PyDict>>,
) -> PyResult<Vec<Bound<'py, PyDict>>> {
    items.into_iter().map(f).collect()
}

//! Where a step's time goes.

use std::{
    ops::{AddAssign, DivAssign},
    time::Instant,
};

/// Milliseconds of one step by phase, by the host's clock. Phases that several threads share count their
/// time divided by the number of threads. Where centres are on a GPU, a phase is the time it takes to hand
/// over the work, of which the GPU does most later: a figure of the host, not of the GPU. A step that is
/// handed over as a whole has no phases.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub struct Timings {
    /// Drawing the rows.
    pub sample_ms: f64,
    /// Reading, catching up and normalising rows.
    pub gather_ms: f64,
    /// The three matrix products.
    pub product_ms: f64,
    /// Exponentials and their sums.
    pub softmax_ms: f64,
    /// Moving the centres.
    pub update_ms: f64,
    /// Exchanges between ranks.
    pub communication_ms: f64,
}

impl Timings {
    /// All phases together; the step itself takes little more.
    #[must_use]
    pub fn total_ms(&self) -> f64 {
        self.sample_ms
            + self.gather_ms
            + self.product_ms
            + self.softmax_ms
            + self.update_ms
            + self.communication_ms
    }
}

impl DivAssign<f64> for Timings {
    fn div_assign(&mut self, divisor: f64) {
        self.sample_ms /= divisor;
        self.gather_ms /= divisor;
        self.product_ms /= divisor;
        self.softmax_ms /= divisor;
        self.update_ms /= divisor;
        self.communication_ms /= divisor;
    }
}

impl AddAssign for Timings {
    fn add_assign(&mut self, other: Timings) {
        self.sample_ms += other.sample_ms;
        self.gather_ms += other.gather_ms;
        self.product_ms += other.product_ms;
        self.softmax_ms += other.softmax_ms;
        self.update_ms += other.update_ms;
        self.communication_ms += other.communication_ms;
    }
}

/// Does `work` and adds the milliseconds it took to `phase_ms`.
pub(super) fn timed<T>(phase_ms: &mut f64, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    *phase_ms += start.elapsed().as_secs_f64() * 1e3;
    result
}

//! CosFace (arXiv 1801.09414): a margin in cosine.

use super::{Loss, Target};

/// `psi = cos(theta) - m`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cosface {
    pub m: f64,
}

impl Loss for Cosface {
    fn target(&self, _: usize, cosine: f64) -> Target {
        Target::new(cosine - self.m, 1.0)
    }
}

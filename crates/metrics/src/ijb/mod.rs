//! IJB-B and IJB-C: faces pooled to templates, template pairs scored, probes searched in galleries.
//!
//! The definitions are those of `InsightFace`'s `eval_ijbc.py` (1:1) and `ijb_evals.py` (1:N), which
//! published tables come from; the stricter ones stand beside them.

mod pairs;
mod pooling;
mod search;
mod spread;

pub use pairs::score_pairs;
pub use pooling::{Faces, Pooling, Templates, pool};
pub use search::{Gallery, Mated, Probes, Search, TpirAt, search};
pub use spread::{PairIntervals, ScoredPairs, pair_intervals, pair_intervals_until};

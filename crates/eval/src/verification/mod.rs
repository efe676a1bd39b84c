//! Pair verification: a list and its images, embedded and judged.
//!
//! `PairsSet` is what is judged, `Options` how, [`VerificationReport`] the outcome. The trainer calls
//! [`evaluate`]; a program that spreads the work calls [`PairsSet::embed`] on a part of the images
//! per worker, puts the parts together in order and calls [`PairsSet::judge`].

mod judge;
pub mod protocol;
mod report;
mod set;

pub use judge::{Judged, Options};
pub use report::{Accuracy, Figure, FoldRow, ReducedAccuracy, TarRow, ValRow, VerificationReport};
pub use set::{PairsSet, PeopleFrom};

use pfc_model::Embed;

use crate::EvalError;

/// Embeds every image of `set` once and judges its pairs.
///
/// # Errors
///
/// [`EvalError::Model`] from the network; [`EvalError::Metric`] if it gives broken numbers, or the
/// set is too small for its protocol.
pub fn evaluate<E: Embed + ?Sized>(
    embedder: &E,
    set: &PairsSet,
    options: &Options,
) -> Result<VerificationReport, EvalError> {
    let embeddings = set.embed(embedder, 0..set.n_images(), &mut |_| Ok(()))?;
    Ok(set.judge(&embeddings, options)?.report)
}

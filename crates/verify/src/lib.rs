//! Pair verification: a list of pairs and its images, embedded and judged.
//!
//! [`PairsSet`] is what is judged, [`Options`] how, and [`VerificationReport`] the outcome. [`evaluate`]
//! does all of it. A program that spreads the work over ranks calls [`PairsSet::embed`] on a part of the
//! images per rank, joins the parts in order and calls [`PairsSet::judge`].
//!
//! The trainer measures its model with this crate while it trains, and `pfc-eval` a finished one, so
//! both print the same figures.

mod error;
pub mod faces;
pub mod files;
mod judge;
mod packed;
pub mod pairs;
mod report;
mod set;

pub use error::VerifyError;
pub use judge::{Judged, Options};
pub use report::{Accuracy, Figure, FoldRow, ReducedAccuracy, TarRow, ValRow, VerificationReport};
pub use set::{Opening, PairsSet, PeopleFrom};

use pfc_model::Embed;

/// Embeds every image of `set` once and judges its pairs.
///
/// # Errors
///
/// [`VerifyError::Model`] from the network; [`VerifyError::Metric`] if it gives values that are not
/// finite, or the set is too small for its protocol.
pub fn evaluate<E: Embed + ?Sized>(
    embedder: &E,
    set: &PairsSet,
    options: &Options,
) -> Result<VerificationReport, VerifyError> {
    let embeddings = set.embed(embedder, 0..set.n_images(), &mut |_| Ok::<_, VerifyError>(()))?;
    Ok(set.judge(&embeddings, options)?.report)
}

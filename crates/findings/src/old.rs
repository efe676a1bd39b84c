//! What runs of earlier versions mean.

use pfc_shard::{Dataset, ShardError};

use crate::{Action, Decision};

/// Decisions as this version writes them.
///
/// A person who answered `keep` about two identities that may be one person was logged as keeping the
/// row that showed the first of them, which left the two joined. It means that they are different
/// people.
///
/// # Errors
///
/// [`ShardError`] for a shard that cannot be read. Rows that are not there are left to the caller.
pub(crate) fn translate(
    mut decisions: Vec<Decision>,
    dataset: &Dataset,
) -> Result<Vec<Decision>, ShardError> {
    for decision in &mut decisions {
        let is_old = decision.action == Action::Keep
            && decision.is_verdict()
            && decision.target.is_none()
            && decision.finding() == "same_person";
        let Some(partner) = decision.partner.filter(|row| is_old && *row < dataset.len()) else {
            continue;
        };
        let other = dataset.get(partner)?.label;
        if other != decision.label {
            decision.action = Action::Different;
            decision.target = Some(other);
        }
    }
    Ok(decisions)
}

//! Images that are not of the person that most of their identity shows.

use pfc_embeddings::Embeddings;
use pfc_findings::{Action, Decision};
use serde_json::json;

use super::{
    Bounds, SecondCluster, calibrate,
    centres::{Centres, cosine, robust_centre},
};
use crate::{CleanError, Work};

/// Shares of strangers that are nearer to a centre than the images that are left out, and than those that are
/// suspicions.
const OUTLIER_RATE: f64 = 2e-2;
const SUSPECT_RATE: f64 = 1e-3;
/// Least number of images that make a second person, and their least share of the identity.
const CLUSTER_MIN: usize = 3;
const CLUSTER_SHARE_MIN: f64 = 0.1;

/// Drops images of identities of three or more that are no nearer to their centre than strangers are; images
/// that are a little nearer, and those of identities in which most images are unlike, are suspicions. Images
/// that are like one another but not like the rest are a second person's: see [`SecondCluster`].
///
/// # Errors
///
/// [`CleanError`] if embeddings cannot be read, or are too few to calibrate with.
pub fn outliers(
    work: &mut Work<'_>,
    embeddings: &Embeddings,
    bounds: &Bounds,
) -> Result<Vec<Decision>, CleanError> {
    let centres = Centres::of(work, embeddings)?;
    let needs_tail = bounds.outlier.is_none() || bounds.stranger.is_none();
    let tail = needs_tail.then(|| calibrate::image_to_centre(&centres, embeddings)).transpose()?;
    let at = |rate: f64| tail.map_or(f32::NAN, |tail| tail.at(rate));
    let outlier = bounds.outlier.unwrap_or_else(|| at(OUTLIER_RATE));
    let stranger = bounds.stranger.unwrap_or_else(|| at(SUSPECT_RATE));
    work.notes.insert(
        "outliers".into(),
        json!({
            "outlier": outlier, "stranger": stranger, "false_match_rate": OUTLIER_RATE,
            "impostors": tail.map(|tail| tail.note()),
        }),
    );
    let mut decisions = Vec::new();
    let mut next_label = work.state.n_identities();
    for place in 0..centres.len() {
        let far: Vec<(u64, f32)> = centres
            .own(place)
            .filter(|(row, own)| *own < stranger && !work.state.is_pinned(*row))
            .collect();
        let cluster = second_cluster(&centres, place, &far, stranger, embeddings)?;
        // Of two images, or of images of which most are strangers to one another, none is known to be the
        // right one.
        let is_sure = centres.n_images(place) > 2 && centres.cohesion[place] >= stranger;
        let is_split = bounds.second_cluster == SecondCluster::Split && !cluster.is_empty();
        for &(row, own) in &far {
            let in_cluster = cluster.contains(&row);
            let decide = |action, reason: &str, bound: f32| {
                Decision::new(row, work.own_label(row), action, reason)
                    .scored(own, bound)
                    .with_partner(centres.typical[place])
            };
            decisions.push(match (in_cluster, bounds.second_cluster) {
                (true, SecondCluster::Split) => {
                    decide(Action::Relabel, "second_person", stranger).with_target(next_label)
                }
                (true, SecondCluster::Drop) => decide(Action::Drop, "second_person", stranger),
                (true, SecondCluster::Keep) => decide(Action::Suspect, "second_person", stranger),
                (false, _) if own < outlier && is_sure => decide(Action::Drop, "outlier", outlier),
                (false, _) => decide(Action::Suspect, "outlier", outlier),
            });
        }
        next_label += u32::from(is_split);
    }
    Ok(decisions)
}

/// Rows among `far` that show one other person; none if they are too few or unlike.
fn second_cluster(
    centres: &Centres,
    place: usize,
    far: &[(u64, f32)],
    stranger: f32,
    embeddings: &Embeddings,
) -> Result<Vec<u64>, CleanError> {
    let least = (CLUSTER_SHARE_MIN * centres.n_images(place) as f64).ceil() as usize;
    let least = least.max(CLUSTER_MIN);
    if far.len() < least {
        return Ok(Vec::new());
    }
    let rows: Vec<u64> = far.iter().map(|(row, _)| *row).collect();
    let data = embeddings.rows(&rows)?;
    let members: Vec<&[f32]> = data.chunks_exact(embeddings.dim()).collect();
    let centre = robust_centre(&members);
    let inside =
        rows.iter().zip(&members).filter(|(_, member)| cosine(member, &centre) >= stranger);
    let cluster: Vec<u64> = inside.map(|(row, _)| *row).collect();
    Ok(if cluster.len() < least { Vec::new() } else { cluster })
}

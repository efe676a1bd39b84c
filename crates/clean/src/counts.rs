//! Passes that count images, to find identities with too few or too many.

use pfc_findings::{Action, Decision};

use crate::{CleanError, Work};

/// Drops identities of fewer than `min` images. A pinned row keeps its identity.
pub fn few(work: &Work<'_>, min: u64) -> Vec<Decision> {
    let groups = work.groups();
    let small = groups.iter().filter(|(_, rows)| {
        (rows.len() as u64) < min && !rows.iter().any(|row| work.state.is_pinned(*row))
    });
    let drop = |row: u64, n: usize| {
        Decision::new(row, work.own_label(row), Action::Drop, "few_images")
            .scored(n as f32, min as f32)
    };
    let mut found: Vec<Decision> =
        small.flat_map(|(_, rows)| rows.iter().map(|row| drop(*row, rows.len()))).collect();
    found.sort_unstable_by_key(|decision| decision.row);
    found
}

/// Drops images beyond `max` of an identity, chosen by their hashes: at random, but always the same.
///
/// # Errors
///
/// [`CleanError::Shard`] if a row cannot be read.
pub fn many(work: &Work<'_>, max: u64) -> Result<Vec<Decision>, CleanError> {
    let mut found = Vec::new();
    for (_, rows) in work.groups().iter().filter(|(_, rows)| rows.len() as u64 > max) {
        let mut order = Vec::with_capacity(rows.len());
        for &row in rows {
            order.push((!work.state.is_pinned(row), work.dataset.get(row)?.hash, row));
        }
        order.sort_unstable();
        let beyond = order.iter().skip(max as usize).filter(|(is_free, ..)| *is_free);
        found.extend(beyond.map(|&(_, _, row)| {
            Decision::new(row, work.own_label(row), Action::Drop, "many_images")
                .scored(rows.len() as f32, max as f32)
        }));
    }
    found.sort_unstable_by_key(|decision| decision.row);
    Ok(found)
}

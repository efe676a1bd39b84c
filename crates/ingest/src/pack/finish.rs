//! From the journal of a pack whose shards are all there to a data set.

use std::collections::HashSet;

use pfc_durable::{Entry, remove_ours};
use pfc_shard::{SHARDS_DIR, ShardEntry, assemble};

use super::{
    journal::{self, Journal, ShardRecord, lists},
    quarantine::{Line, Quarantine},
    summary::Summary,
};
use crate::IngestError;

/// Writes the quarantine list, the table of identities, and the manifest last. The journal stays.
///
/// * `n_images`: rows of each label
///
/// # Errors
///
/// [`IngestError::NothingUsable`] if there is not one row, or [`IngestError`] if something cannot be
/// written or the journal is damaged.
pub fn finish(journal: &Journal, n_images: &[u64]) -> Result<Summary, IngestError> {
    let (out, job) = (journal.out(), journal.job());
    let mut list = Quarantine::create(out)?;
    lists::read_lines(&journal.left_out_path(), job.left_out_list, |line: Line| list.add(&line))?;
    let mut shards: Vec<ShardEntry> = Vec::new();
    let mut summary = Summary::default();
    for index in 0..journal.n_shards() {
        let record = record(journal, index)?;
        record.quarantine.iter().try_for_each(|line| list.add(line))?;
        record.count_in(&mut summary);
        shards.extend(record.entry());
    }
    if shards.is_empty() {
        let (path, n) = (job.sources.first().into_iter().collect(), job.images);
        let example = list.first.unwrap_or_default();
        return Err(IngestError::NothingUsable { path, n, example });
    }
    summary.quarantined = list.n_quarantined;
    summary.skipped = list.n_skipped;
    summary.identities = job.identities;
    summary.identities_without_images = Some(n_images.iter().filter(|n| **n == 0).count() as u64);
    list.commit()?;
    remove_strays(journal, &shards)?;
    let names = lists::read_labels(&journal.labels_path(), job.labels_list)?;
    journal.set_done(&summary)?;
    let count = |label: u32| n_images.get(label as usize).copied().unwrap_or(0);
    assemble(out, job.spec(), shards, &names, count)?;
    Ok(summary)
}

/// What the shards of one worker hold.
///
/// # Errors
///
/// [`IngestError`] if the journal is damaged.
pub fn summarize(journal: &Journal, shards: std::ops::Range<u64>) -> Result<Summary, IngestError> {
    let mut summary = Summary { identities: journal.job().identities, ..Summary::default() };
    for index in shards {
        let record = record(journal, index)?;
        record.count_in(&mut summary);
        summary.skipped += record.quarantine.iter().filter(|line| line.is_skip()).count() as u64;
        summary.quarantined +=
            record.quarantine.iter().filter(|line| !line.is_skip()).count() as u64;
    }
    Ok(summary)
}

fn record(journal: &Journal, index: u64) -> Result<ShardRecord, IngestError> {
    journal.shard(index)?.ok_or_else(|| {
        let path = journal.out().join(journal::DIR).join(format!("{index:05}.json"));
        super::PackError::DamagedJournal { path }.into()
    })
}

/// Removes what killed processes left beside the shards.
fn remove_strays(journal: &Journal, shards: &[ShardEntry]) -> Result<(), IngestError> {
    let listed: HashSet<&str> = shards.iter().filter_map(|s| s.file.rsplit('/').next()).collect();
    let is_stray = |entry: Entry<'_>| {
        let is_shard = entry.is_file && journal::is_shard_name(entry.path);
        entry.is_temporary() || (is_shard && !listed.contains(entry.path))
    };
    remove_ours(&journal.out().join(SHARDS_DIR), is_stray)?;
    Ok(remove_ours(journal.out(), |entry| entry.is_temporary())?)
}

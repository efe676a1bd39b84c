//! What a pack did, and what is said where there is no space on the disk for it.

use std::{io, time::Duration};

use pfc_cli::{
    print_table, table,
    units::{bytes, count},
};
use pfc_durable::DurableError;
use pfc_image::Tally;
use serde::{Deserialize, Serialize};

use super::journal::{JobRecord, Journal};
use crate::{IngestError, PackError};

/// Counts of a finished pack, as `--json` prints them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Rows of the data set.
    pub images: u64,
    pub identities: u64,
    /// Identities all of whose images were quarantined; of one worker's part nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identities_without_images: Option<u64>,
    /// Images stored as they were.
    pub passed_through: u64,
    /// Images decoded, resized and encoded anew.
    pub re_encoded: u64,
    /// What was done to the images that were encoded anew.
    #[serde(default)]
    pub changes: Tally,
    /// Images that could not be used.
    pub quarantined: u64,
    /// Files that are not images of an identity.
    pub skipped: u64,
    pub shards: u64,
    /// Bytes of the data set.
    pub bytes: u64,
    /// From the start of the listing to the end of the last write.
    pub seconds: f64,
    pub images_per_second: f64,
}

impl Summary {
    /// Notes how long it took.
    ///
    /// * `images`: of those, how many were packed just now and not before an interruption
    pub fn finish(&mut self, elapsed: Duration, images: u64) {
        self.seconds = elapsed.as_secs_f64();
        self.images_per_second = images as f64 / self.seconds.max(1e-9);
    }

    /// Prints the table.
    ///
    /// # Errors
    ///
    /// That of a closed standard output.
    pub fn print(&self) -> io::Result<()> {
        let mut table = table(["packed", ""]);
        let mut row = |name: &str, value: String| {
            table.add_row([name.to_owned(), value]);
        };
        row("images", count(self.images));
        row("identities", count(self.identities));
        if let Some(without @ 1..) = self.identities_without_images {
            row("identities without images", count(without));
        }
        row("passed through", count(self.passed_through));
        row("re-encoded", count(self.re_encoded));
        let Tally { turned, resized, reshaped, .. } = self.changes;
        for (name, n) in [("resized", resized), ("of another shape", reshaped), ("turned", turned)]
        {
            if n > 0 {
                row(name, count(n));
            }
        }
        row("quarantined", count(self.quarantined));
        row("skipped files", count(self.skipped));
        row("shards", count(self.shards));
        row("bytes", bytes(self.bytes));
        row("seconds", format!("{:.1}", self.seconds));
        row("images/s", count(self.images_per_second as u64));
        print_table(&table)
    }
}

/// Says of a write that failed for want of space what it was about.
pub fn explain_no_space(error: IngestError, space: impl FnOnce() -> Space) -> IngestError {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    match into_durable(error) {
        Ok(source)
            if matches!(source.source.kind(), StorageFull | QuotaExceeded | FileTooLarge) =>
        {
            let Space { shard_bytes, list_bytes, bytes_left, shards, shards_total } = space();
            let path = source.path.clone();
            let is_shard = path.extension().is_some_and(|e| e == "arrow")
                && path.file_name().is_some_and(|name| name != pfc_shard::IDENTITIES_FILE);
            let bytes_wanted = if is_shard { shard_bytes } else { list_bytes };
            PackError::NoSpace { path, bytes_wanted, bytes_left, shards, shards_total, source }
                .into()
        }
        Ok(source) => source.into(),
        Err(error) => error,
    }
}

/// What a pack takes on disk, estimated, and how far it is.
#[derive(Debug, Clone, Copy)]
pub struct Space {
    pub shard_bytes: u64,
    /// Of the lists beside the shards.
    pub list_bytes: u64,
    /// Of all that is not written yet.
    pub bytes_left: u64,
    pub shards: u64,
    pub shards_total: u64,
}

impl Space {
    /// Of a pack under way. A record that cannot be read counts as none.
    pub fn of(journal: &Journal) -> Space {
        let is_done = |index: &u64| journal.shard(*index).is_ok_and(|record| record.is_some());
        let done = (0..journal.n_shards()).filter(is_done).count();
        let job = journal.job();
        let images_done = (done as u64).saturating_mul(job.shard_images).min(job.images);
        Space {
            bytes_left: Space::bytes_of(job, job.images - images_done),
            shards: done as u64,
            ..Space::of_none(job)
        }
    }

    /// Of one that has not begun.
    pub fn of_none(job: &JobRecord) -> Space {
        let shard_images = job.shard_images.min(job.images);
        Space {
            shard_bytes: shard_images.saturating_mul(job.row_bytes),
            list_bytes: Space::bytes_of(job, 0),
            bytes_left: Space::bytes_of(job, job.images),
            shards: 0,
            shards_total: job.n_shards(),
        }
    }

    /// Of so many images and the lists.
    fn bytes_of(job: &JobRecord, images: u64) -> u64 {
        // What the table of identities takes besides the names.
        let table = job.identities.saturating_mul(24);
        let lists = job.labels_list.bytes.saturating_add(job.left_out_list.bytes);
        images.saturating_mul(job.row_bytes).saturating_add(lists).saturating_add(table)
    }
}

fn into_durable(error: IngestError) -> Result<DurableError, IngestError> {
    use pfc_shard::ShardError;
    match error {
        IngestError::Durable(source) | IngestError::Shard(ShardError::Durable(source)) => {
            Ok(source)
        }
        other => Err(other),
    }
}

/// Numbers as people write them: `shard 3`, `shards 1-4, 9`. At most a dozen ranges.
pub fn name_shards(shards: &[u64]) -> String {
    const RANGES_MAX: usize = 12;
    let ranges: Vec<&[u64]> = shards.chunk_by(|a, b| *b == a + 1).collect();
    let name = |range: &&[u64]| match range {
        [] => String::new(),
        [one] => one.to_string(),
        [first, .., last] => format!("{first}-{last}"),
    };
    let mut names: Vec<String> = ranges.iter().take(RANGES_MAX).map(name).collect();
    if ranges.len() > RANGES_MAX {
        names.push("...".into());
    }
    let noun = if shards.len() == 1 { "shard" } else { "shards" };
    format!("{noun} {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_named_in_ranges() {
        assert_eq!(name_shards(&[3]), "shard 3");
        assert_eq!(name_shards(&[1, 2, 3, 9, 11, 12]), "shards 1-3, 9, 11-12");
        let even: Vec<u64> = (0..100).step_by(2).collect();
        assert!(name_shards(&even).ends_with("20, 22, ..."));
    }

    #[test]
    fn a_write_that_fails_for_another_reason_stays_as_it_is() {
        let error = IngestError::at("write", "a".as_ref())(io::ErrorKind::NotFound.into());
        let space = || unreachable!("it is not for want of space");
        assert_eq!(explain_no_space(error, space).to_string(), "a: cannot write");
    }
}

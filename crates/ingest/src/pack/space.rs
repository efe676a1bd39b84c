//! What a pack takes on disk, and what is said where that has no room.

use pfc_durable::DurableError;

use super::journal::{JobRecord, Journal};
use crate::{IngestError, PackError};

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

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_write_that_fails_for_another_reason_stays_as_it_is() {
        let error = IngestError::at("write", "a".as_ref())(io::ErrorKind::NotFound.into());
        let space = || unreachable!("it is not for want of space");
        assert_eq!(explain_no_space(error, space).to_string(), "a: cannot write");
    }
}

//! A data set opened for reading.

use std::path::Path;

use crate::{Face, Identities, Manifest, ShardError};

/// A data set opened for reading, memory-mapped. `Send` and `Sync`: share one among all threads.
#[derive(Debug)]
pub struct Dataset {
    manifest: Manifest,
    identities: Identities,
}

impl Dataset {
    /// Opens the data set in `dir`.
    pub fn open(_dir: &Path) -> Result<Dataset, ShardError> {
        unimplemented!()
    }

    /// Maps and checks every shard now, in parallel, rather than when it is first read.
    pub fn preload(&self) -> Result<(), ShardError> {
        unimplemented!()
    }

    /// What the data set consists of.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Number of rows.
    pub fn len(&self) -> u64 {
        self.manifest.rows
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of identities; every label is below it.
    pub fn n_identities(&self) -> u32 {
        self.manifest.n_identities
    }

    /// Names and image counts of the identities.
    pub fn identities(&self) -> &Identities {
        &self.identities
    }

    /// The face at `row`, borrowed from the memory map. O(log shards), no allocation.
    pub fn get(&self, _row: u64) -> Result<Face<'_>, ShardError> {
        unimplemented!()
    }
}

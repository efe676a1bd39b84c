//! What a data set of format 1 is made of.

/// Name of the manifest in a data set's folder.
pub const MANIFEST_FILE: &str = "dataset.json";

/// Name of the table of identities in a data set's folder.
pub const IDENTITIES_FILE: &str = "identities.arrow";

/// Where the faces were found in their photographs, if a detector found them.
pub const DETECTIONS_FILE: &str = "detections.npy";

/// Name of the list of what was left out, in a data set's folder.
pub const QUARANTINE_FILE: &str = "quarantine.jsonl";

/// Folder of the shards in a data set's folder.
pub const SHARDS_DIR: &str = "shards";

/// The format this crate writes, and the only one it reads.
pub const FORMAT: u32 = 1;

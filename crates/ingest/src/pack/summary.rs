//! What a pack did.

use std::{io, time::Duration};

use pfc_cli::{
    print_table, table,
    units::{bytes, count},
};
use pfc_image::Tally;
use serde::{Deserialize, Serialize};

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
}

//! The table of a source's images: compact, since there may be hundreds of millions.

use std::{
    io::{self, Write},
    ops::Range,
};

/// Identities by label, each with its images.
///
/// Memory: the image names' own bytes and 8 bytes per image, and 72 bytes and the name per identity.
/// Measured by `examples/index_memory.rs`: 402 MiB at most for 17,091,657 images of 360,232
/// identities, as many as Glint360K has, and 669 MiB for a RecordIO file of as many.
#[derive(Debug, Default)]
pub struct Index {
    groups: Vec<Group>,
    /// All image names, end to end, in the order in which they were found.
    text: Vec<u8>,
    /// Where each name ends in `text`.
    ends: Vec<u64>,
}

#[derive(Debug)]
struct Group {
    name: String,
    /// Its images in `ends`.
    found: Range<usize>,
    /// The entry number of its first image.
    first_entry: u64,
}

impl Index {
    /// Adds an identity with at least one image; names may come in any order, but not twice.
    pub fn push<'a>(&mut self, identity: String, images: impl IntoIterator<Item = &'a str>) {
        let start = self.ends.len();
        for image in images {
            self.text.extend_from_slice(image.as_bytes());
            self.ends.push(self.text.len() as u64);
        }
        self.groups.push(Group { name: identity, found: start..self.ends.len(), first_entry: 0 });
    }

    /// Gives identities their labels, in byte order of their names, and images their entry numbers,
    /// once all are added.
    pub fn seal(&mut self) {
        self.groups.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        self.seal_in_order();
    }

    /// The same with labels in the order in which identities were added.
    pub fn seal_in_order(&mut self) {
        let mut next = 0;
        for group in &mut self.groups {
            group.first_entry = next;
            next += group.found.len() as u64;
        }
    }

    /// Writes all names in the order of labels, such that other names are other bytes.
    ///
    /// # Errors
    ///
    /// That of `out`.
    pub fn write_names(&self, out: &mut impl Write) -> io::Result<()> {
        for group in &self.groups {
            out.write_all(&(group.name.len() as u64).to_le_bytes())?;
            out.write_all(group.name.as_bytes())?;
            out.write_all(&(group.found.len() as u64).to_le_bytes())?;
            let start = self.start_of(group.found.start);
            for end in &self.ends[group.found.clone()] {
                out.write_all(&(end - start).to_le_bytes())?;
            }
            let end = self.start_of(group.found.end);
            out.write_all(&self.text[start as usize..end as usize])?;
        }
        Ok(())
    }

    /// Where the name of the image found as `found`-th begins in `text`.
    fn start_of(&self, found: usize) -> u64 {
        if found == 0 { 0 } else { self.ends[found - 1] }
    }

    /// Number of images; entries are below it.
    pub fn len(&self) -> u64 {
        self.ends.len() as u64
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Number of identities; labels are below it.
    pub fn n_identities(&self) -> usize {
        self.groups.len()
    }

    /// Names of the identities by label.
    pub fn identities(&self) -> impl ExactSizeIterator<Item = &str> {
        self.groups.iter().map(|group| group.name.as_str())
    }

    /// Whether there is an identity of this name in an index sealed by names.
    pub fn has_identity(&self, name: &str) -> bool {
        self.groups.binary_search_by(|group| group.name.as_str().cmp(name)).is_ok()
    }

    /// The label of image `entry`. O(log identities).
    pub fn label(&self, entry: u64) -> u32 {
        let label = self.groups.partition_point(|group| group.first_entry <= entry) - 1;
        u32::try_from(label).expect("the source has checked the number of identities")
    }

    /// Identity and name of image `entry`, joined by a slash.
    pub fn path(&self, entry: u64) -> String {
        let group = &self.groups[self.label(entry) as usize];
        let found = group.found.start + (entry - group.first_entry) as usize;
        let name = &self.text[self.start_of(found) as usize..self.ends[found] as usize];
        let name = std::str::from_utf8(name).expect("pushed as text");
        format!("{}/{name}", group.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_follow_the_byte_order_of_names_not_the_order_of_arrival() {
        let mut index = Index::default();
        index.push("b/x".into(), ["1.jpg", "2.jpg"]);
        index.push("a".into(), ["9.jpg"]);
        index.push("b-y".into(), ["3.jpg"]);
        index.seal();
        assert_eq!(index.identities().collect::<Vec<_>>(), ["a", "b-y", "b/x"]);
        let entries: Vec<_> = (0..index.len()).map(|e| (index.label(e), index.path(e))).collect();
        let expected = [(0, "a/9.jpg"), (1, "b-y/3.jpg"), (2, "b/x/1.jpg"), (2, "b/x/2.jpg")];
        assert_eq!(entries, expected.map(|(label, path)| (label, path.to_owned())));
        assert!(index.has_identity("b-y") && !index.has_identity("b"));
    }
}

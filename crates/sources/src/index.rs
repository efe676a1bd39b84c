//! The label of each entry of a source, in a compact form, as there may be hundreds of millions of entries.

use std::io::{self, Write};

/// Identities by label, each with a run of entries.
///
/// Memory: 56 bytes and the name per identity, and nothing per image.
#[derive(Debug, Default)]
pub struct Index {
    groups: Vec<Group>,
    /// Entries that belong to a group; those of nobody follow.
    n_known: u64,
    len: u64,
}

#[derive(Debug)]
struct Group {
    name: String,
    /// The entry number of its first image.
    first_entry: u64,
}

impl Index {
    /// Adds the identity of the next label with its number of images.
    pub(crate) fn push(&mut self, identity: String, n_images: u64) {
        self.groups.push(Group { name: identity, first_entry: self.len });
        self.len += n_images;
        self.n_known = self.len;
    }

    /// Adds the images whose identity is not known, after all identities.
    pub(crate) fn push_unknown(&mut self, n_images: u64) {
        self.len += n_images;
    }

    /// Gives identities other names.
    pub(crate) fn rename(&mut self, name: impl Fn(&str) -> Option<String>) {
        for group in &mut self.groups {
            if let Some(name) = name(&group.name) {
                group.name = name;
            }
        }
    }

    /// Writes the names and sizes of all identities; different ones give different bytes.
    ///
    /// # Errors
    ///
    /// That of `out`.
    pub fn write_names(&self, out: &mut dyn Write) -> io::Result<()> {
        let ends = self.groups.iter().skip(1).map(|next| next.first_entry).chain([self.n_known]);
        for (group, end) in self.groups.iter().zip(ends) {
            out.write_all(&(group.name.len() as u64).to_le_bytes())?;
            out.write_all(group.name.as_bytes())?;
            out.write_all(&(end - group.first_entry).to_le_bytes())?;
        }
        Ok(())
    }

    /// Number of images; entries are below it.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of identities; labels are below it.
    pub fn n_identities(&self) -> usize {
        self.groups.len()
    }

    /// Names of the identities by label.
    pub fn identities(&self) -> impl ExactSizeIterator<Item = &str> {
        self.groups.iter().map(|group| group.name.as_str())
    }

    /// The label of image `entry`, or `None` where its identity is not known, which occurs only in
    /// inputs that are opened for their images alone. O(log identities).
    ///
    /// # Panics
    ///
    /// If there is no such image.
    pub fn who(&self, entry: u64) -> Option<u32> {
        assert!(entry < self.len, "image {entry} of {}", self.len);
        (entry < self.n_known).then(|| self.label(entry))
    }

    /// The label of image `entry`, whose identity is known. O(log identities).
    ///
    /// # Panics
    ///
    /// If there is no such image.
    pub fn label(&self, entry: u64) -> u32 {
        let label = self.groups.partition_point(|group| group.first_entry <= entry) - 1;
        u32::try_from(label).expect("the source has checked the number of identities")
    }

    /// The name of the identity of image `entry`.
    ///
    /// # Panics
    ///
    /// If there is no such image.
    pub fn identity(&self, entry: u64) -> &str {
        &self.groups[self.label(entry) as usize].name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_follow_their_identities() {
        let mut index = Index::default();
        index.push("b".into(), 2);
        index.push("a".into(), 1);
        assert_eq!((index.len(), index.n_identities()), (3, 2));
        let labels: Vec<u32> = (0..3).map(|entry| index.label(entry)).collect();
        assert_eq!(labels, [0, 0, 1]);
        assert_eq!([index.identity(1), index.identity(2)], ["b", "a"]);
        index.push_unknown(1);
        assert_eq!((index.len(), index.n_identities()), (4, 2));
        assert_eq!([2, 3].map(|entry| index.who(entry)), [Some(1), None]);
    }
}

//! Who the labels are.

/// Names and image counts of a data set's identities, by label.
#[derive(Debug)]
pub struct Identities {}

impl Identities {
    /// Number of identities.
    pub fn len(&self) -> u32 {
        unimplemented!()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first name of identity `label`.
    pub fn name(&self, _label: u32) -> &str {
        unimplemented!()
    }

    /// All names of identity `label`: more than one after identities were merged.
    pub fn names(&self, _label: u32) -> impl Iterator<Item = &str> {
        std::iter::empty()
    }

    /// Number of rows of identity `label`.
    pub fn n_images(&self, _label: u32) -> u64 {
        unimplemented!()
    }

    /// The identity that has `name`.
    pub fn label_of(&self, _name: &str) -> Option<u32> {
        unimplemented!()
    }
}

/// Names for the identities of a data set being written, in label order.
///
/// Collect it from an iterator of single names, or [`push`](IdentityNames::push) several at a time.
#[derive(Debug, Clone, Default)]
pub struct IdentityNames {
    names: Vec<String>,
}

impl IdentityNames {
    /// Names the next label; the first name is the one shown.
    pub fn push<S: AsRef<str>>(&mut self, names: impl IntoIterator<Item = S>) {
        self.names.extend(names.into_iter().map(|n| n.as_ref().to_owned()));
    }
}

impl<S: AsRef<str>> FromIterator<S> for IdentityNames {
    fn from_iter<I: IntoIterator<Item = S>>(names: I) -> IdentityNames {
        let mut all = IdentityNames::default();
        names.into_iter().for_each(|name| all.push([name]));
        all
    }
}

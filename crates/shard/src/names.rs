//! The names given to the identities of a data set being written.

/// Bytes of one name at most.
pub const NAME_BYTES_MAX: usize = 4 << 10;

/// Names one identity may have at most.
const NAMES_PER_IDENTITY_MAX: usize = 1 << 10;

/// Names for the identities of a data set being written, in label order.
///
/// Collect it from an iterator of single names, or [`push`](IdentityNames::push) several at a time.
/// Flat, since there may be tens of millions.
///
/// ```
/// let mut names: pfc_shard::IdentityNames = ["alice", "bob"].into_iter().collect();
/// names.push(["carol", "caroline"]);
/// assert_eq!(names.len(), 3);
/// assert_eq!(names.names(2).last(), Some("caroline"));
/// ```
#[derive(Debug, Clone, Default)]
pub struct IdentityNames {
    text: String,
    /// Where each name ends in `text`.
    name_ends: Vec<usize>,
    /// Where the names of each identity end in `name_ends`.
    identity_ends: Vec<usize>,
}

impl IdentityNames {
    /// Names the next label; the first name is the one shown.
    pub fn push<S: AsRef<str>>(&mut self, names: impl IntoIterator<Item = S>) {
        for name in names {
            self.text.push_str(name.as_ref());
            self.name_ends.push(self.text.len());
        }
        self.identity_ends.push(self.name_ends.len());
    }

    /// Number of identities named.
    pub fn len(&self) -> u32 {
        // `check` refuses more.
        u32::try_from(self.identity_ends.len()).unwrap_or(u32::MAX)
    }

    /// Whether none is named.
    pub fn is_empty(&self) -> bool {
        self.identity_ends.is_empty()
    }

    /// The names of `label`; none if it was not pushed.
    pub fn names(&self, label: u32) -> impl ExactSizeIterator<Item = &str> {
        let range = match self.identity_ends.get(label as usize) {
            Some(&end) => start_of(&self.identity_ends, label as usize)..end,
            None => 0..0,
        };
        range.map(|k| &self.text[start_of(&self.name_ends, k)..self.name_ends[k]])
    }

    /// Whether every identity has a name and no two share one; else what is wrong.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.identity_ends.len() >= u32::MAX as usize {
            return Err(format!("{} identities are too many", self.identity_ends.len()));
        }
        let mut all = Vec::with_capacity(self.name_ends.len());
        for label in 0..self.len() {
            let n_names = self.names(label).len();
            if n_names == 0 || self.names(label).any(str::is_empty) {
                return Err(format!("label {label} has no name or an empty one"));
            }
            let bytes = self.names(label).map(str::len).max().unwrap_or(0);
            if n_names > NAMES_PER_IDENTITY_MAX || bytes > NAME_BYTES_MAX {
                return Err(format!(
                    "label {label} has {n_names} names of up to {bytes} bytes, the limits are \
                     {NAMES_PER_IDENTITY_MAX} and {NAME_BYTES_MAX}"
                ));
            }
            all.extend(self.names(label).map(|name| (name, label)));
        }
        all.sort_unstable();
        match all.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            Some(&[(name, first), (_, second)]) => {
                Err(format!("labels {first} and {second} are both named `{name}`"))
            }
            _ => Ok(()),
        }
    }
}

impl<S: AsRef<str>> FromIterator<S> for IdentityNames {
    fn from_iter<I: IntoIterator<Item = S>>(names: I) -> IdentityNames {
        let mut all = IdentityNames::default();
        names.into_iter().for_each(|name| all.push([name]));
        all
    }
}

fn start_of(ends: &[usize], i: usize) -> usize {
    if i == 0 { 0 } else { ends[i - 1] }
}

//! What can be wrong with the numbers handed in.

/// Why a figure cannot be computed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MetricError {
    /// A false accept rate that no threshold can have.
    #[error("a false accept rate of {far} is outside (0, 1)")]
    FarOutOfRange {
        /// The rate asked for.
        far: f64,
    },
    /// The sample holds too few impostors to place a threshold.
    #[error("FAR {far:e} of {n_impostors} impostor pairs is less than one pair")]
    TooFewImpostors {
        /// The rate asked for.
        far: f64,
        /// Impostor pairs in the sample.
        n_impostors: u64,
    },
    /// A NaN or an infinity among the inputs.
    #[error("{what} {index} is {value}, not a finite number")]
    NotFinite {
        /// What the value belongs to, in the singular.
        what: &'static str,
        /// Its position, from 0.
        index: usize,
        /// The value.
        value: f64,
    },
    /// Two inputs that belong together differ in length.
    #[error("{what}: {len} values where {expected} are expected")]
    Length {
        /// The input.
        what: &'static str,
        /// Its length.
        len: usize,
        /// The length that it must have.
        expected: usize,
    },
    /// Fewer pairs than folds, or too few folds to judge each by the others.
    #[error("{n_pairs} pairs cannot be split into {n_folds} folds")]
    TooFewPairs {
        /// Pairs in the set.
        n_pairs: usize,
        /// Folds asked for.
        n_folds: usize,
    },
    /// A figure that compares both classes was asked of a set with one.
    #[error("there are no {missing} pairs")]
    OneClass {
        /// `"genuine"` or `"impostor"`.
        missing: &'static str,
    },
    /// An index that names nothing.
    #[error("{what} {index} names number {value}, but there are {bound}, counted from 0")]
    NoSuch {
        /// What names it, in the singular.
        what: &'static str,
        /// Its position, from 0.
        index: usize,
        /// The index that it names.
        value: u64,
        /// Things there are.
        bound: u64,
    },
    /// A person whose faces are in two groups.
    #[error("identity {identity} is in group {} and in group {}", groups[0], groups[1])]
    SplitIdentity {
        /// The person.
        identity: u32,
        /// Two of the groups.
        groups: [u32; 2],
    },
    /// A projection to more dimensions than the data has.
    #[error("cannot keep {components} principal components of {n_rows} rows of {dim} values")]
    Components {
        /// Components asked for.
        components: usize,
        /// Rows that the projection is fitted on.
        n_rows: usize,
        /// Values per row.
        dim: usize,
    },
}

impl MetricError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            MetricError::FarOutOfRange { .. } => Some("give a rate such as 1e-3".to_owned()),
            MetricError::TooFewImpostors { n_impostors, .. } if *n_impostors > 0 => Some(format!(
                "the finest rate that {n_impostors} impostor pairs can measure is {:.1e}",
                1.0 / *n_impostors as f64
            )),
            MetricError::TooFewPairs { n_folds, .. } if *n_folds > 1 => Some(format!(
                "{n_folds} folds need a pair each; LFW's single-list layout is evaluated without folds"
            )),
            MetricError::NotFinite { what: "embedding value", .. } => {
                Some("the network's output is broken: was its training run healthy?".to_owned())
            }
            MetricError::Components { n_rows, dim, .. } => {
                Some(format!("keep between 1 and {}", (*dim).min(*n_rows)))
            }
            _ => None,
        }
    }
}

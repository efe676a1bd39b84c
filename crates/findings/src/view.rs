//! A data set with its decisions applied, as readers see it.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use pfc_shard::{Checksum, Dataset, Face, Identities, Manifest, ShardError, hash::content_hash};

use crate::{DecisionLog, FindingsError, KeptRows, State};

/// Stands for the label of an identity without rows.
const GONE: u32 = u32::MAX;

/// Whether decisions are applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reading {
    /// With the decisions beside the data set applied.
    #[default]
    Decided,
    /// As it was packed, without decisions.
    AsPacked,
}

impl Reading {
    /// The reading for the switch `as_packed`.
    pub fn from_switch(as_packed: bool) -> Reading {
        if as_packed { Reading::AsPacked } else { Reading::Decided }
    }
}

/// A data set with decisions applied: rows that are left out are not seen, and labels have no gaps.
///
/// Its rows are numbered anew, `0..len()`, in the order of the data set; [`row`](View::row) tells the
/// number in the data set, which decisions and messages use. `Send` and `Sync`.
///
/// Nothing is copied. Where decisions change anything, it takes a bit per row and an eighth of that (see
/// [`KeptRows`]), 20 bytes per identity and about 40 bytes per relabelled row: 50 MB for 42 million rows of 2
/// million identities. Otherwise it takes no memory.
#[derive(Debug)]
pub struct View {
    dataset: Dataset,
    applied: Option<Applied>,
    /// Checksum of what decisions change; `None` if they change nothing.
    checksum: Option<Checksum>,
}

/// The changes that decisions make to a data set.
#[derive(Debug)]
struct Applied {
    rows: KeptRows,
    /// The new label of rows that were relabelled one by one.
    relabelled: HashMap<u64, u32>,
    /// The new label by the old one, including identities that runs made.
    labels: Vec<u32>,
    people: Joined,
    n_merged: usize,
}

/// The identities of a view where decisions are applied.
#[derive(Debug, Default)]
struct Joined {
    /// Old labels of each identity, the one that leads first.
    members: Vec<u32>,
    /// Where the members of each identity end.
    ends: Vec<usize>,
    n_images: Vec<u64>,
    /// Names of identities that runs made, by old label.
    born: HashMap<u32, String>,
    /// New labels by those names.
    by_born: HashMap<String, u32>,
}

impl View {
    /// Opens the data set in `dir` and applies the decisions beside it, if `reading` says so. Where
    /// there are none, it takes as long as [`Dataset::open`]; else every decision is read, and the
    /// labels of the rows that are left out or relabelled.
    ///
    /// # Errors
    ///
    /// [`FindingsError`] if the data set or a run of decisions cannot be read, or they do not fit.
    pub fn open(dir: &Path, reading: Reading) -> Result<View, FindingsError> {
        let dataset = Dataset::open(dir)?;
        if reading == Reading::AsPacked {
            return Ok(View::as_packed(dataset));
        }
        let log = DecisionLog::open(dir)?;
        if log.is_empty() {
            return Ok(View::as_packed(dataset));
        }
        let state = log.state(&dataset)?;
        View::new(dataset, &state)
    }

    /// The data set without decisions.
    pub fn as_packed(dataset: Dataset) -> View {
        View { dataset, applied: None, checksum: None }
    }

    /// The data set with the decisions of `state`, which must belong to it.
    ///
    /// # Errors
    ///
    /// [`FindingsError::Shard`] if a row that was decided about cannot be read,
    /// [`FindingsError::Contradiction`] if the table of identities counts fewer images than were left
    /// out.
    pub fn new(dataset: Dataset, state: &State) -> Result<View, FindingsError> {
        let relabelled = relabelled(&dataset, state)?;
        let merges = state.merges();
        if state.n_dropped() == 0 && relabelled.is_empty() && merges.is_empty() {
            return Ok(View::as_packed(dataset));
        }
        let checksum = checksum(state, &relabelled, &merges);
        let counts = counts(&dataset, state, &relabelled)?;
        let mut followers: HashMap<u32, Vec<u32>> = HashMap::new();
        for (from, to) in &merges {
            followers.entry(*to).or_default().push(*from);
        }
        let mut labels = vec![GONE; state.n_identities() as usize];
        let mut people = Joined { born: names(&dataset, state, &relabelled), ..Joined::default() };
        for (old, &n_images) in (0u32..).zip(&counts).filter(|(_, n_images)| **n_images > 0) {
            let new = people.ends.len() as u32;
            let others = followers.get(&old).into_iter().flatten().copied();
            for member in std::iter::once(old).chain(others) {
                labels[member as usize] = new;
                people.members.push(member);
                if let Some(name) = people.born.get(&member) {
                    people.by_born.insert(name.clone(), new);
                }
            }
            people.ends.push(people.members.len());
            people.n_images.push(n_images);
        }
        let relabelled =
            relabelled.into_iter().map(|(row, old)| (row, labels[old as usize])).collect();
        let rows = KeptRows::without(dataset.len(), state.dropped());
        let applied = Applied { rows, relabelled, labels, people, n_merged: merges.len() };
        Ok(View { dataset, applied: Some(applied), checksum: Some(checksum) })
    }

    /// The data set without decisions.
    pub fn dataset(&self) -> &Dataset {
        &self.dataset
    }

    /// The same, but the checksum of every shard is verified before a row of it is used; see
    /// [`Dataset::checked`].
    #[must_use]
    pub fn checked(self) -> View {
        View { dataset: self.dataset.checked(), ..self }
    }

    /// The manifest of the data set, which knows no decisions.
    pub fn manifest(&self) -> &Manifest {
        self.dataset.manifest()
    }

    /// Number of rows that are not left out.
    pub fn len(&self) -> u64 {
        self.applied.as_ref().map_or(self.dataset.len(), |applied| applied.rows.len())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of identities; every label is below it.
    pub fn n_identities(&self) -> u32 {
        self.people().len()
    }

    /// Names and image counts of the identities.
    pub fn people(&self) -> People<'_> {
        let names = self.dataset.identities();
        People { names, joined: self.applied.as_ref().map(|applied| (applied, &applied.people)) }
    }

    /// The number in the data set of row `place` of the view. O(1).
    ///
    /// # Panics
    ///
    /// If decisions are applied and `place` is not below [`len`](View::len).
    pub fn row(&self, place: u64) -> u64 {
        self.applied.as_ref().map_or(place, |applied| applied.rows.row(place))
    }

    /// The number in the view of row `row` of the data set; `None` if it is left out.
    pub fn place(&self, row: u64) -> Option<u64> {
        match &self.applied {
            Some(applied) => applied.rows.place(row),
            None => Some(row).filter(|row| *row < self.dataset.len()),
        }
    }

    /// The face at `place` of the view, under its label in the view. It costs about ten steps more than
    /// [`Dataset::get`].
    ///
    /// # Errors
    ///
    /// [`ShardError`] as [`Dataset::get`].
    pub fn get(&self, place: u64) -> Result<Face<'_>, ShardError> {
        if place >= self.len() {
            let n_rows = self.len();
            return Err(ShardError::NoSuchRow { row: place, n_rows });
        }
        let row = self.row(place);
        self.relabel(row, self.dataset.get(row)?)
    }

    /// The face at `row` of the data set, under its label in the view; `None` if it is left out.
    ///
    /// # Errors
    ///
    /// [`ShardError`] as [`Dataset::get`].
    pub fn face(&self, row: u64) -> Result<Option<Face<'_>>, ShardError> {
        let face = self.dataset.get(row)?;
        self.place(row).map(|_| self.relabel(row, face)).transpose()
    }

    fn relabel<'a>(&self, row: u64, face: Face<'a>) -> Result<Face<'a>, ShardError> {
        Ok(Face { label: self.label_of(row, face.label)?, ..face })
    }

    /// The label in the view of a row that is not left out and whose label in the data set is `label`.
    fn label_of(&self, row: u64, label: u32) -> Result<u32, ShardError> {
        let Some(applied) = &self.applied else { return Ok(label) };
        match applied.relabelled.get(&row).unwrap_or(&applied.labels[label as usize]) {
            // The row's label was not what the table of identities counted.
            &GONE => Err(ShardError::Uncounted { row, label }),
            label => Ok(*label),
        }
    }

    /// The label of every row of the view, in their order. Reads only this column; takes 4 bytes per row.
    ///
    /// # Errors
    ///
    /// [`ShardError`] for the first shard at fault.
    pub fn labels(&self) -> Result<Vec<u32>, ShardError> {
        let labels = self.dataset.labels()?;
        if self.applied.is_none() {
            return Ok(labels);
        }
        let rows = (0..self.len()).map(|place| self.row(place));
        rows.map(|row| self.label_of(row, labels[row as usize])).collect()
    }

    /// The rows of one identity of the view, by their numbers in the data set. Reads the labels of all
    /// rows.
    ///
    /// # Errors
    ///
    /// [`ShardError`] for the first shard at fault.
    pub fn rows_of(&self, label: u32) -> Result<Vec<u64>, ShardError> {
        if self.applied.is_none() {
            return self.dataset.rows_of(label);
        }
        let labels = (0..).zip(self.labels()?);
        Ok(labels.filter(|(_, of)| *of == label).map(|(place, _)| self.row(place)).collect())
    }

    /// The label in the view of an identity of the data set or of one that a run made; `None` if no
    /// row is left of it.
    pub fn new_label(&self, old: u32) -> Option<u32> {
        match &self.applied {
            None => Some(old).filter(|old| *old < self.dataset.n_identities()),
            Some(applied) => applied.labels.get(old as usize).copied().filter(|new| *new != GONE),
        }
    }

    /// Asks the system to read the image at `place` ahead of its use; see [`Dataset::will_need`].
    pub fn will_need(&self, place: u64) {
        if place < self.len() {
            self.dataset.will_need(self.row(place));
        }
    }

    /// What decisions change and the switch that turns them off, as `168 of 192 rows are left out by
    /// decisions; --as-packed reads them`; `None` where they change nothing or are not applied.
    pub fn notice(&self, switch: &str) -> Option<String> {
        let applied = self.applied.as_ref()?;
        let (n_rows, n_kept) = (self.dataset.len(), applied.rows.len());
        let mut parts = Vec::new();
        if n_kept < n_rows {
            parts.push(format!("{} of {n_rows} rows are left out", n_rows - n_kept));
        }
        let are = |n: usize| if n == 1 { "is" } else { "are" };
        if !applied.relabelled.is_empty() {
            let n = applied.relabelled.len();
            let rows = if n == 1 { "row" } else { "rows" };
            parts.push(format!("{n} {rows} {} relabelled", are(n)));
        }
        if applied.n_merged > 0 {
            let n = applied.n_merged;
            let identities = if n == 1 { "identity" } else { "identities" };
            parts.push(format!("{n} {identities} {} merged into others", are(n)));
        }
        let is_dropping_only = parts.len() == 1 && n_kept < n_rows;
        let last = parts.pop()?;
        let text = if parts.is_empty() { last } else { format!("{} and {last}", parts.join(", ")) };
        let what = if is_dropping_only { "them" } else { "the data set as it was packed" };
        Some(format!("{text} by decisions; {switch} reads {what}"))
    }

    /// A checksum that differs between views of the same data set; `None` if decisions change nothing or are
    /// not applied.
    pub fn decisions(&self) -> Option<Checksum> {
        self.checksum
    }
}

/// Names and image counts of the identities of a view, by label.
#[derive(Debug, Clone, Copy)]
pub struct People<'a> {
    names: &'a Identities,
    joined: Option<(&'a Applied, &'a Joined)>,
}

impl<'a> People<'a> {
    /// Number of identities.
    pub fn len(&self) -> u32 {
        match self.joined {
            Some((_, joined)) => joined.ends.len() as u32,
            None => self.names.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first name of identity `label`.
    ///
    /// # Panics
    ///
    /// If `label` is not below [`len`](People::len).
    pub fn name(&self, label: u32) -> &'a str {
        self.names(label).next().unwrap_or_default()
    }

    /// All names of identity `label`: those of all that were merged.
    ///
    /// # Panics
    ///
    /// If `label` is not below [`len`](People::len).
    pub fn names(&self, label: u32) -> impl Iterator<Item = &'a str> {
        let people = *self;
        self.members(label).flat_map(move |old| people.names_of(old))
    }

    /// The old labels of identity `label`, the one that leads first.
    fn members(&self, label: u32) -> impl Iterator<Item = u32> + use<'a> {
        let (own, others) = match self.joined {
            None => (Some(label), &[][..]),
            Some((_, joined)) => {
                let i = label as usize;
                let start = if i == 0 { 0 } else { joined.ends[i - 1] };
                (None, &joined.members[start..joined.ends[i]])
            }
        };
        own.into_iter().chain(others.iter().copied())
    }

    fn names_of(&self, old: u32) -> impl Iterator<Item = &'a str> + use<'a> {
        let born = self.joined.and_then(|(_, joined)| joined.born.get(&old)).map(String::as_str);
        let packed = (old < self.names.len()).then(|| self.names.names(old));
        born.into_iter().chain(packed.into_iter().flatten())
    }

    /// Number of rows of identity `label`.
    ///
    /// # Panics
    ///
    /// If `label` is not below [`len`](People::len).
    pub fn n_images(&self, label: u32) -> u64 {
        match self.joined {
            Some((_, joined)) => joined.n_images[label as usize],
            None => self.names.n_images(label),
        }
    }

    /// The identity that has `name` among its names, if it has rows.
    pub fn label_of(&self, name: &str) -> Option<u32> {
        match self.joined {
            None => self.names.label_of(name),
            Some((applied, joined)) => {
                let packed = || {
                    let old = self.names.label_of(name)?;
                    Some(applied.labels[old as usize]).filter(|label| *label != GONE)
                };
                joined.by_born.get(name).copied().or_else(packed)
            }
        }
    }
}

/// Rows whose identity was changed one by one, by row, with the old label of the one they came to.
fn relabelled(dataset: &Dataset, state: &State) -> Result<Vec<(u64, u32)>, FindingsError> {
    let mut all = Vec::new();
    for (row, target) in state.relabelled() {
        let (own, target) = (state.resolve(dataset.get(row)?.label), state.resolve(target));
        if own != target {
            all.push((row, target));
        }
    }
    all.sort_unstable();
    Ok(all)
}

/// Rows by old label, once decisions are applied.
fn counts(
    dataset: &Dataset,
    state: &State,
    relabelled: &[(u64, u32)],
) -> Result<Vec<u64>, FindingsError> {
    let identities = dataset.identities();
    let mut counts = vec![0u64; state.n_identities() as usize];
    for label in 0..identities.len() {
        counts[state.resolve(label) as usize] += identities.n_images(label);
    }
    let mut leave = |label: u32| {
        let count = &mut counts[state.resolve(label) as usize];
        match count.checked_sub(1) {
            Some(rest) => *count = rest,
            None => {
                let name = identities.name(label);
                let what = format!("`{name}` has more rows than the table of identities counts");
                return Err(FindingsError::Contradiction { what });
            }
        }
        Ok(())
    };
    for (word, bits) in (0u64..).zip(state.dropped()) {
        let mut rest = *bits;
        while rest != 0 {
            let row = word * 64 + u64::from(rest.trailing_zeros());
            rest &= rest - 1;
            leave(dataset.get(row)?.label)?;
        }
    }
    for (row, _) in relabelled {
        leave(dataset.get(*row)?.label)?;
    }
    for (_, target) in relabelled {
        counts[*target as usize] += 1;
    }
    Ok(counts)
}

/// Names of the identities that runs made, by old label: that of the identity which the first of
/// their rows was of, with the first `#split-N` that is free.
fn names(dataset: &Dataset, state: &State, relabelled: &[(u64, u32)]) -> HashMap<u32, String> {
    let identities = dataset.identities();
    let mut names: HashMap<u32, String> = HashMap::new();
    let mut taken: HashSet<String> = HashSet::new();
    let mut next: HashMap<String, u64> = HashMap::new();
    let mut first: Vec<(u32, u64)> = Vec::new();
    for (row, target) in state.relabelled().chain(relabelled.iter().copied()) {
        if target >= state.n_old() {
            first.push((target, row));
        }
    }
    first.sort_unstable();
    first.dedup_by_key(|(target, _)| *target);
    for (target, row) in first {
        let own = dataset.get(row).map_or(0, |face| face.label);
        let stem = stem(identities.name(own)).to_owned();
        let number = next.entry(stem.clone()).or_default();
        let name = loop {
            let name = format!("{stem}{SPLIT}{number}");
            *number += 1;
            if identities.label_of(&name).is_none() && !taken.contains(&name) {
                break name;
            }
        };
        taken.insert(name.clone());
        names.insert(target, name);
    }
    names
}

/// Separates a name from the number of the person that was split off.
const SPLIT: &str = "#split-";

/// The name from which that of a split person was made.
fn stem(name: &str) -> &str {
    match name.rsplit_once(SPLIT) {
        Some((stem, number))
            if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) =>
        {
            stem
        }
        _ => name,
    }
}

/// Checksum of everything that decisions change, and of nothing else.
fn checksum(state: &State, relabelled: &[(u64, u32)], merges: &[(u32, u32)]) -> Checksum {
    let mut bytes = Vec::new();
    bytes.extend(b"view 1\0");
    state.dropped().iter().for_each(|word| bytes.extend(word.to_le_bytes()));
    bytes.extend((relabelled.len() as u64).to_le_bytes());
    for (row, label) in relabelled {
        bytes.extend(row.to_le_bytes());
        bytes.extend(label.to_le_bytes());
    }
    for (from, to) in merges {
        bytes.extend(from.to_le_bytes());
        bytes.extend(to.to_le_bytes());
    }
    Checksum(content_hash(&bytes))
}

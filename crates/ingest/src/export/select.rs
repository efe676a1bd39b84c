//! Which images go out, in which order, under which labels; and reading them, one after another,
//! each held against its hash.

use std::{collections::BTreeSet, fs, path::PathBuf, str::FromStr};

use clap::ValueEnum;
use pfc_cli::{Progress, interrupt};
use pfc_findings::View;
use pfc_shard::{Face, ImageSize, ShardError, hash::content_hash};

use crate::{ExportError, IngestError, people::label_of};

/// Rows between two looks at whether the user has had enough.
const CHUNK_ROWS: u64 = 1 << 16;

/// In place of the label of an identity that does not go out.
const NOT_SELECTED: u32 = u32::MAX;

/// The options that select.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Selection")]
pub struct SelectArgs {
    /// Only this identity; may be given more than once
    #[arg(long, value_name = "NAME")]
    pub identity: Vec<String>,
    /// Only the identities named in FILE, one a line
    #[arg(long, value_name = "FILE")]
    pub identities: Option<PathBuf>,
    /// Only the labels from A up to, but not including, B; either may be left out
    #[arg(long, value_name = "A..B")]
    pub label: Option<LabelRange>,
    /// Only part I of N of the people, I from 0; or parts I to J: 0/10 and 1-9/10 share nobody
    ///
    /// Who belongs to which part follows from the name alone, so that it stays when a data set grows.
    #[arg(long, value_name = "I[-J]/N")]
    pub split: Option<Split>,
    /// Only the first K selected images of each identity
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u64).range(1..))]
    pub per_identity: Option<u64>,
    /// Only the first N selected images, in the order of the output
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Keep the labels of the data set, rather than number the selected identities from 0
    #[arg(long)]
    pub keep_labels: bool,
}

/// Labels from `start` up to, but not including, `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LabelRange {
    start: u32,
    end: u32,
}

impl FromStr for LabelRange {
    type Err = String;

    fn from_str(text: &str) -> Result<LabelRange, String> {
        let (start, end) = text.split_once("..").ok_or("expected A..B, as in 0..1000")?;
        let number = |text: &str, default| match text {
            "" => Ok(default),
            text => text.parse::<u32>().map_err(|_| format!("`{text}` is no label")),
        };
        let (start, end) = (number(start, 0)?, number(end, u32::MAX)?);
        if start >= end {
            return Err(format!("no label is at least {start} and below {end}"));
        }
        Ok(LabelRange { start, end })
    }
}

/// Parts `first..=last` of `n`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Split {
    first: u32,
    last: u32,
    n: u32,
}

impl FromStr for Split {
    type Err = String;

    fn from_str(text: &str) -> Result<Split, String> {
        let expected = || "expected I/N or I-J/N, as in 0/10".to_owned();
        let number = |text: &str| text.parse::<u32>().map_err(|_| expected());
        let (parts, n) = text.split_once('/').ok_or_else(expected)?;
        let (first, last) = parts.split_once('-').unwrap_or((parts, parts));
        let split = Split { first: number(first)?, last: number(last)?, n: number(n)? };
        if split.first > split.last || split.last >= split.n {
            return Err(format!("parts of {n} run from 0 to {}", split.n.saturating_sub(1)));
        }
        Ok(split)
    }
}

impl Split {
    /// Whether the identity called `name` belongs to these parts.
    fn holds(self, name: &str) -> bool {
        // The remainder is below a u32.
        let part = (content_hash(name.as_bytes()) % u128::from(self.n)) as u32;
        (self.first..=self.last).contains(&part)
    }
}

/// In which order images go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RowOrder {
    /// By label, then by row of the data set.
    Label,
    /// By row of the data set, which is a shuffle unless it was packed otherwise.
    Row,
}

/// Rows of a data set, by their numbers as packed, in the order of the output.
///
/// Memory: 8 bytes per selected row, and per identity 4 that stay and 17 while selecting: 0.15 GB for
/// Glint360K.
pub struct Selection {
    rows: Vec<u64>,
    /// The label that goes out, by the data set's.
    labels: Vec<u32>,
}

impl Selection {
    /// Selects; maps and checks every shard.
    ///
    /// # Errors
    ///
    /// [`IngestError`] if an identity does not exist, nothing is selected, a shard is damaged, or the
    /// user interrupts.
    pub fn new(view: &View, args: &SelectArgs, order: RowOrder) -> Result<Selection, IngestError> {
        let labels = labels(view, args)?;
        view.dataset().preload()?;
        let mut rows = match order {
            RowOrder::Row => by_row(view, &labels, args.per_identity)?,
            RowOrder::Label => by_label(view, &labels, args.per_identity)?,
        };
        if let Some(count) = args.count {
            rows.truncate(usize::try_from(count).unwrap_or(usize::MAX));
        }
        if rows.is_empty() {
            return Err(ExportError::NothingSelected { n_rows: view.len() }.into());
        }
        Ok(Selection { rows, labels })
    }

    /// The rows, at least one.
    pub fn rows(&self) -> &[u64] {
        &self.rows
    }

    /// The label that goes out for the data set's `label`, which must be a selected row's.
    pub fn label(&self, label: u32) -> u32 {
        self.labels[label as usize]
    }

    /// The selected identities as (label of the data set, label that goes out), ascending; some may
    /// have no image.
    pub fn identities(&self) -> impl Iterator<Item = (u32, u32)> {
        let all = (0..).zip(self.labels.iter().copied());
        all.filter(|(_, label)| *label != NOT_SELECTED)
    }
}

/// The label that goes out for each identity.
fn labels(view: &View, args: &SelectArgs) -> Result<Vec<u32>, IngestError> {
    let n = view.n_identities();
    let identities = view.people();
    let mut is_selected = match named(view, args)? {
        None => vec![true; n as usize],
        Some(named) => {
            let mut is_selected = vec![false; n as usize];
            named.into_iter().for_each(|label| is_selected[label as usize] = true);
            is_selected
        }
    };
    if let Some(LabelRange { start, end }) = args.label {
        let is_inside = |label| (start..end).contains(&label);
        (0..n).zip(&mut is_selected).for_each(|(label, is)| *is &= is_inside(label));
    }
    if let Some(split) = args.split {
        let is_inside = |label| split.holds(identities.name(label));
        (0..n).zip(&mut is_selected).for_each(|(label, is)| *is = *is && is_inside(label));
    }
    let mut next = 0;
    let label = |(label, is_selected): (u32, bool)| {
        if !is_selected {
            return NOT_SELECTED;
        }
        next += 1;
        if args.keep_labels { label } else { next - 1 }
    };
    Ok((0..n).zip(is_selected).map(label).collect())
}

/// The identities that are named; `None` if names play no part.
fn named(view: &View, args: &SelectArgs) -> Result<Option<Vec<u32>>, IngestError> {
    if args.identity.is_empty() && args.identities.is_none() {
        return Ok(None);
    }
    let mut labels = Vec::new();
    for name in &args.identity {
        labels.push(label_of(view, name, || "--identity".into())?);
    }
    if let Some(path) = &args.identities {
        let text = fs::read_to_string(path).map_err(IngestError::at("read", path))?;
        let lines = text.strip_prefix('\u{feff}').unwrap_or(&text).lines();
        let names = (1..).zip(lines).filter(|(_, name)| !name.trim().is_empty());
        let before = labels.len();
        for (line, name) in names {
            labels.push(label_of(view, name, || format!("{}: line {line}", path.display()))?);
        }
        if labels.len() == before {
            return Err(ExportError::NoNames { path: path.clone() }.into());
        }
    }
    Ok(Some(labels))
}

fn by_row(view: &View, labels: &[u32], per_identity: Option<u64>) -> Result<Vec<u64>, IngestError> {
    let mut rows = Vec::new();
    let mut n_taken = vec![0u64; if per_identity.is_some() { labels.len() } else { 0 }];
    for_each_selected(view, labels, |row, label| {
        if let Some(per_identity) = per_identity {
            let n_taken = &mut n_taken[label as usize];
            *n_taken += 1;
            if *n_taken > per_identity {
                return;
            }
        }
        rows.push(row);
    })?;
    Ok(rows)
}

/// A counting sort: stable, and without a word of memory beside the result and the counts.
fn by_label(
    view: &View,
    labels: &[u32],
    per_identity: Option<u64>,
) -> Result<Vec<u64>, IngestError> {
    let mut ends = vec![0u64; labels.len()];
    for_each_selected(view, labels, |_, label| ends[label as usize] += 1)?;
    let mut total = 0;
    // Counts become the places of each label's first image.
    let mut nexts: Vec<u64> = Vec::with_capacity(labels.len());
    for end in &mut ends {
        nexts.push(total);
        total += per_identity.map_or(*end, |most| most.min(*end));
        *end = total;
    }
    let mut rows = vec![0; usize::try_from(total).unwrap_or(usize::MAX)];
    for_each_selected(view, labels, |row, label| {
        let next = &mut nexts[label as usize];
        if *next < ends[label as usize] {
            rows[*next as usize] = row;
            *next += 1;
        }
    })?;
    Ok(rows)
}

/// Calls `take` with row and label of every selected row.
fn for_each_selected(
    view: &View,
    labels: &[u32],
    mut take: impl FnMut(u64, u32),
) -> Result<(), IngestError> {
    let total = view.manifest().rows;
    for row in 0..total {
        if row.is_multiple_of(CHUNK_ROWS) && interrupt::requested() {
            return Err(IngestError::Interrupted { done: 0, total });
        }
        let Some(Face { label, .. }) = view.face(row)? else { continue };
        if labels[label as usize] != NOT_SELECTED {
            take(row, label);
        }
    }
    Ok(())
}

/// So far ahead of their use images are asked for from disk: rows by label lie all over a shuffled
/// data set.
const AHEAD: usize = 256;

/// An image on its way out.
#[derive(Clone, Copy)]
pub struct Item<'a> {
    /// Its row in the data set.
    pub row: u64,
    /// The label that goes out.
    pub label: u32,
    /// Who it shows.
    pub identity: &'a str,
    /// The rest; its label is the data set's.
    pub face: Face<'a>,
}

/// What an exporter reads.
pub struct Feed<'a> {
    view: &'a View,
    selection: &'a Selection,
    progress: Progress,
}

impl<'a> Feed<'a> {
    /// The images of `selection`, with a progress bar unless `quiet`.
    pub fn new(view: &'a View, selection: &'a Selection, quiet: bool) -> Feed<'a> {
        let total = selection.rows().len() as u64;
        let progress = Progress::new("export", "images", total, quiet);
        Feed { view, selection, progress }
    }

    /// Number of images, at least 1.
    pub fn len(&self) -> usize {
        self.selection.rows().len()
    }

    /// Width and height of every image.
    pub fn image_size(&self) -> ImageSize {
        self.view.manifest().image_size
    }

    /// The image at `place`, whose bytes are not looked at.
    ///
    /// # Errors
    ///
    /// [`IngestError::Shard`].
    pub fn peek(&self, place: usize) -> Result<Item<'a>, IngestError> {
        let row = self.selection.rows()[place];
        let n_rows = self.view.manifest().rows;
        let face = self.view.face(row)?.ok_or(ShardError::NoSuchRow { row, n_rows })?;
        let label = self.selection.label(face.label);
        let identity = self.view.people().name(face.label);
        Ok(Item { row, label, identity, face })
    }

    /// The image at `place`, whole, and counted as done.
    ///
    /// # Errors
    ///
    /// [`IngestError::Interrupted`], [`IngestError::Shard`].
    pub fn take(&self, place: usize) -> Result<Item<'a>, IngestError> {
        if interrupt::requested() {
            let (done, total) = (place as u64, self.len() as u64);
            return Err(IngestError::Interrupted { done, total });
        }
        if let Some(&row) = self.selection.rows().get(place + AHEAD) {
            self.view.dataset().will_need(row);
        }
        let item = self.peek(place)?;
        item.face.check(item.row)?;
        self.progress.add(1);
        Ok(item)
    }

    /// All images, as [`take`](Feed::take) gives them.
    pub fn items(&self) -> impl Iterator<Item = Result<Item<'a>, IngestError>> {
        (0..self.len()).map(|place| self.take(place))
    }

    /// Label that goes out and name of every selected identity, by label; some may have no image.
    pub fn identities(&self) -> impl Iterator<Item = (u32, &'a str)> {
        let identities = self.view.people();
        self.selection.identities().map(move |(own, label)| (label, identities.name(own)))
    }

    /// The labels of the images, which go out.
    ///
    /// # Errors
    ///
    /// [`IngestError::Shard`].
    pub fn labels(&self) -> Result<BTreeSet<u32>, IngestError> {
        (0..self.len()).map(|place| self.peek(place).map(|item| item.label)).collect()
    }

    /// Names by the labels that go out, from 0: with `--keep-labels` also those between that are
    /// not selected.
    pub fn names_by_label(&self) -> Vec<&'a str> {
        let identities = self.view.people();
        let keeps = self.selection.identities().all(|(own, label)| own == label);
        match (keeps, self.selection.identities().last()) {
            (true, Some((last, _))) => (0..=last).map(|label| identities.name(label)).collect(),
            _ => self.identities().map(|(_, name)| name).collect(),
        }
    }
}

impl Drop for Feed<'_> {
    fn drop(&mut self) {
        self.progress.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_ranges_leave_out_their_end() {
        let range = |start, end| Ok(LabelRange { start, end });
        assert_eq!("3..7".parse(), range(3, 7));
        assert_eq!("..7".parse(), range(0, 7));
        assert_eq!("3..".parse(), range(3, u32::MAX));
        for bad in ["", "3", "7..3", "3..3", "a..b", "-1..2", "3...7", "0..4294967296"] {
            assert!(bad.parse::<LabelRange>().is_err(), "{bad}");
        }
    }

    #[test]
    fn splits_name_parts_that_exist() {
        assert_eq!("0/10".parse(), Ok(Split { first: 0, last: 0, n: 10 }));
        assert_eq!("1-9/10".parse(), Ok(Split { first: 1, last: 9, n: 10 }));
        for bad in ["", "1", "10/10", "3-2/5", "0/0", "x/2", "0-5/5"] {
            assert!(bad.parse::<Split>().is_err(), "{bad}");
        }
    }

    #[test]
    fn each_name_is_in_one_part_and_parts_are_of_similar_size() {
        let mut sizes = [0u32; 4];
        for i in 0..4000 {
            let name = format!("Person_{i:06}");
            let homes: Vec<u32> =
                (0..4).filter(|&first| Split { first, last: first, n: 4 }.holds(&name)).collect();
            assert_eq!(homes.len(), 1);
            sizes[homes[0] as usize] += 1;
        }
        // Five standard deviations of a binomial with 4000 draws and p = 1/4.
        assert!(sizes.iter().all(|size| size.abs_diff(1000) < 137), "{sizes:?}");
    }

    #[test]
    fn the_part_of_a_name_is_that_of_its_hash_for_good() {
        // python: xxhash.xxh3_128_intdigest(b"Aaron_Eckhart") % 1000 == 877, "Person_000000": 92
        let is_in = |part: &str, name| part.parse::<Split>().unwrap().holds(name);
        assert!(is_in("877/1000", "Aaron_Eckhart") && is_in("92/1000", "Person_000000"));
    }
}

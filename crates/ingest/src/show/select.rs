//! Which rows are shown.

use std::{ops::Range, str::FromStr};

use pfc_shard::{Dataset, Permutation};

use crate::{IngestError, units};

/// The options that choose rows; one of them must be given.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct Which {
    /// All faces of the identity of this name
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
    /// All faces with this label
    #[arg(long, value_name = "N")]
    label: Option<u32>,
    /// The rows from A to before B, counted from 0
    #[arg(long, value_name = "A..B")]
    rows: Option<Rows>,
    /// This many rows, drawn at random by the seed
    #[arg(long, value_name = "N")]
    sample: Option<u64>,
}

/// Rows from `start` to before `end`.
#[derive(Debug, Clone)]
struct Rows(Range<u64>);

impl FromStr for Rows {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Rows, Self::Err> {
        let ends =
            text.split_once("..").and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        let (start, end) = ends.ok_or("rows are given as A..B, as in 0..100")?;
        if start < end { Ok(Rows(start..end)) } else { Err("there is no row from A to before B") }
    }
}

/// What is shown.
#[derive(Debug, PartialEq)]
pub struct Selection {
    /// Over the sheet.
    pub title: String,
    pub rows: Vec<u64>,
    /// Whether all rows are of one identity, which the title names.
    pub is_one_identity: bool,
}

/// The rows that `which` chooses.
///
/// # Errors
///
/// [`IngestError`] if there are none, or the labels cannot be read.
pub fn select(dataset: &Dataset, which: &Which, seed: u64) -> Result<Selection, IngestError> {
    let n_rows = dataset.len();
    match which {
        Which { identity: Some(name), .. } => of_label(dataset, find(dataset, name)?),
        Which { label: Some(label), .. } => of_label(dataset, *label),
        Which { rows: Some(Rows(rows)), .. } if rows.start >= n_rows => {
            Err(IngestError::NoSuchRows { start: rows.start, n_rows })
        }
        Which { rows: Some(Rows(rows)), .. } => {
            let (start, end) = (rows.start, rows.end.min(n_rows));
            let title = format!("rows {} to {}", units::count(start), units::count(end - 1));
            Ok(Selection { title, rows: (start..end).collect(), is_one_identity: false })
        }
        Which { sample, .. } => {
            let n = sample.unwrap_or_default().min(n_rows);
            let order = Permutation::new(n_rows, seed);
            let title = format!("{} of {}, seed {seed}", units::count(n), units::count(n_rows));
            let rows = (0..n).map(|place| order.apply(place)).collect();
            Ok(Selection { title, rows, is_one_identity: false })
        }
    }
}

fn of_label(dataset: &Dataset, label: u32) -> Result<Selection, IngestError> {
    let n_identities = dataset.n_identities();
    if label >= n_identities {
        return Err(IngestError::NoSuchLabel { label, n_identities });
    }
    let rows = dataset.rows_of(label)?;
    let (name, images) = (dataset.identities().name(label), units::of(rows.len() as u64, "image"));
    let title = format!("{name}, label {label}, {images}");
    Ok(Selection { title, rows, is_one_identity: true })
}

/// The label of the identity of this name.
fn find(dataset: &Dataset, name: &str) -> Result<u32, IngestError> {
    let identities = dataset.identities();
    if let Some(label) = identities.label_of(name) {
        return Ok(label);
    }
    let likeness = |label| strsim::jaro_winkler(identities.name(label), name);
    let nearest = (0..dataset.n_identities()).map(|label| (likeness(label), label));
    let nearest = nearest.max_by(|a, b| a.0.total_cmp(&b.0));
    let nearest = nearest.filter(|(likeness, _)| *likeness > 0.8);
    let nearest = nearest.map(|(_, label)| identities.name(label).to_owned());
    Err(IngestError::NoSuchIdentity { name: name.to_owned(), nearest })
}

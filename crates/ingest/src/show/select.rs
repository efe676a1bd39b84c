//! Which rows are shown.

use std::{ops::Range, str::FromStr};

use pfc_cli::units;
use pfc_findings::View;
use pfc_shard::Permutation;

use crate::IngestError;

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
pub fn select(view: &View, which: &Which, seed: u64) -> Result<Selection, IngestError> {
    let n_rows = view.manifest().rows;
    match which {
        Which { identity: Some(name), .. } => of_label(view, find(view, name)?),
        Which { label: Some(label), .. } => of_label(view, *label),
        Which { rows: Some(Rows(rows)), .. } if rows.start >= n_rows => {
            Err(IngestError::NoSuchRows { start: rows.start, n_rows })
        }
        Which { rows: Some(Rows(rows)), .. } => {
            let (start, end) = (rows.start, rows.end.min(n_rows));
            let title = format!("rows {} to {}", units::count(start), units::count(end - 1));
            let rows = (start..end).filter(|row| view.place(*row).is_some()).collect();
            Ok(Selection { title, rows, is_one_identity: false })
        }
        Which { sample, .. } => {
            let n_left = view.len();
            let n = sample.unwrap_or_default().min(n_left);
            let order = Permutation::new(n_left, seed);
            let title = format!("{} of {}, seed {seed}", units::count(n), units::count(n_left));
            let rows = (0..n).map(|i| view.row(order.apply(i))).collect();
            Ok(Selection { title, rows, is_one_identity: false })
        }
    }
}

fn of_label(view: &View, label: u32) -> Result<Selection, IngestError> {
    let n_identities = view.n_identities();
    if label >= n_identities {
        return Err(IngestError::NoSuchLabel { label, n_identities });
    }
    let rows = view.rows_of(label)?;
    let (name, images) = (view.people().name(label), units::of(rows.len() as u64, "image"));
    let title = format!("{name}, label {label}, {images}");
    Ok(Selection { title, rows, is_one_identity: true })
}

/// The label of the identity of this name.
fn find(view: &View, name: &str) -> Result<u32, IngestError> {
    let identities = view.people();
    if let Some(label) = identities.label_of(name) {
        return Ok(label);
    }
    let likeness = |label| strsim::jaro_winkler(identities.name(label), name);
    let nearest = (0..view.n_identities()).map(|label| (likeness(label), label));
    let nearest = nearest.max_by(|a, b| a.0.total_cmp(&b.0));
    let nearest = nearest.filter(|(likeness, _)| *likeness > 0.8);
    let nearest = nearest.map(|(_, label)| identities.name(label).to_owned());
    Err(IngestError::NoSuchIdentity { name: name.to_owned(), nearest })
}

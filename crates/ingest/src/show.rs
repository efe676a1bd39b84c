//! `pfc-ingest show`: faces of a data set as a contact sheet, to look at. Which rows are shown, and
//! the sheet they are drawn on.

use std::{ops::Range, path::PathBuf, str::FromStr};

use anyhow::Context;
use clap::Args;
use image::RgbImage;
use pfc_cli::{Format, Outcome, interrupt, print_json, units};
use pfc_findings::View;
use pfc_image::{Pixels, encode_png};
use pfc_report::sheet::{self, Plan, Tile};
use pfc_shard::{Face, Permutation};
use serde::Serialize;

use crate::{IngestError, output, people::label_of, quality, reading::ReadArgs};

/// Draw some faces of a data set on one sheet.
///
/// Writes a PNG with the crops in a grid. The caption of each gives its row, its identity where identities
/// differ, and the end of the path that it came from or, with --lowest and --highest, the value. An image that cannot be decoded is crossed out.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pfc-ingest show data --identity Aaron_Eckhart
  pfc-ingest show data --label 17 -o 17.png --force
  pfc-ingest show data --rows 1000..1100
  pfc-ingest show data --sample 100 --seed 7 --columns 20
  pfc-ingest show data --lowest sharpness --limit 60
  pfc-ingest show data --highest yaw -o turned.png

Exit codes: 0 all faces are drawn, 1 some cannot be decoded, 2 there is no sheet.")]
pub struct ShowArgs {
    /// Folder that `pack` wrote
    dataset: PathBuf,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    reading: ReadArgs,
    /// Seed of --sample
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// File to write
    #[arg(short, long, alias = "output", value_name = "FILE", default_value = "sheet.png")]
    out: PathBuf,
    /// Replace the file if it is there
    #[arg(long)]
    force: bool,
    /// Faces in a row of the sheet [default: as many as make the sheet square]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=200))]
    columns: Option<u32>,
    /// Maximum number of faces; if there are more, the first ones are drawn
    #[arg(long, value_name = "N", default_value_t = 400,
          value_parser = clap::value_parser!(u64).range(1..=5_000))]
    limit: u64,
    #[command(flatten)]
    format: Format,
}

/// What was drawn, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Shown {
    file: PathBuf,
    images: u64,
    /// Of these, crossed out.
    broken: u64,
    /// Faces that were asked for and are beyond the limit.
    left_out: u64,
    rows: Vec<u64>,
}

/// Runs the command.
pub fn run(args: &ShowArgs) -> anyhow::Result<Outcome> {
    let dir = args.dataset.display();
    let shown = show(args).with_context(|| format!("cannot show `{dir}`"))?;
    if shown.left_out > 0 {
        let images = units::of(shown.left_out, "image");
        tracing::warn!("{images} more are not drawn; --limit draws more");
    }
    if args.format.json {
        print_json(&shown)?;
    } else {
        use std::io::Write;
        let (file, images) = (shown.file.display(), units::of(shown.images, "image"));
        let broken = match shown.broken {
            0 => String::new(),
            n => format!(", {} broken", units::count(n)),
        };
        writeln!(pfc_cli::stdout(), "{file}: {images}{broken}")?;
    }
    Ok(if shown.broken == 0 { Outcome::Clean } else { Outcome::Findings })
}

fn show(args: &ShowArgs) -> anyhow::Result<Shown> {
    output::check_file(&args.out, args.force)?;
    let view = args.reading.open(&args.dataset)?;
    let size = view.manifest().image_size;
    let limit = args.limit.min(sheet::faces_max(size));
    if limit == 0 {
        return Err(IngestError::SheetTooLarge { size }.into());
    }
    if let Some((column, end)) = args.which.by_quality() {
        return show_by_quality(args, &view, column, end, limit);
    }
    let Selection { title, mut rows, is_one_identity } = select(&view, &args.which, args.seed)?;
    let left_out = (rows.len() as u64).saturating_sub(limit);
    rows.truncate(limit as usize);
    let sheet = draw(&view, &rows, title, args.columns, !is_one_identity)?;
    pfc_durable::write(&args.out, &png(sheet.pixels)?)?;
    let (images, broken) = (rows.len() as u64, sheet.n_broken);
    Ok(Shown { file: args.out.clone(), images, broken, left_out, rows })
}

/// Draws the faces at an end of a measure, each with its value.
fn show_by_quality(
    args: &ShowArgs,
    view: &View,
    column: &str,
    end: End,
    limit: u64,
) -> anyhow::Result<Shown> {
    let values = quality::of_dataset(&args.dataset)?.column(column)?;
    let ranked = ranked(view, &values, end, limit);
    if ranked.is_empty() {
        return Err(IngestError::Options {
            what: format!("no face has a value of `{column}`"),
            hint: "`pfc-ingest quality --help` says what each measure needs".into(),
        }
        .into());
    }
    let rows: Vec<u64> = ranked.iter().map(|(row, _)| *row).collect();
    let name = match end {
        End::Lowest => "lowest",
        End::Highest => "highest",
    };
    let title = format!("{} of the {name} {column}", units::of(rows.len() as u64, "face"));
    let value = |i: usize, _: &Face<'_>| format!("{column} {:.4}", ranked[i].1);
    let sheet = draw_with(view, &rows, title, args.columns, true, &value)?;
    pfc_durable::write(&args.out, &png(sheet.pixels)?)?;
    let (images, broken) = (rows.len() as u64, sheet.n_broken);
    Ok(Shown { file: args.out.clone(), images, broken, left_out: 0, rows })
}

/// Rows of the data set that `view` keeps and of which `values` has a number, and that number: `n` of them at most,
/// the outermost first, of equal ones the first row.
fn ranked(view: &View, values: &[f32], end: End, n: u64) -> Vec<(u64, f32)> {
    let kept = (0..view.len()).map(|place| view.row(place));
    let mut all: Vec<(u64, f32)> = kept
        .filter_map(|row| Some((row, *values.get(row as usize)?)))
        .filter(|(_, value)| !value.is_nan())
        .collect();
    all.sort_unstable_by(|(row_a, a), (row_b, b)| {
        let by_value = match end {
            End::Lowest => a.total_cmp(b),
            End::Highest => b.total_cmp(a),
        };
        by_value.then(row_a.cmp(row_b))
    });
    all.truncate(n as usize);
    all
}

/// An end of a measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Lowest,
    Highest,
}

impl Which {
    /// The measure by which faces are chosen, if they are.
    fn by_quality(&self) -> Option<(&str, End)> {
        let lowest = self.lowest.as_deref().map(|column| (column, End::Lowest));
        lowest.or(self.highest.as_deref().map(|column| (column, End::Highest)))
    }
}

fn png(pixels: RgbImage) -> Result<Vec<u8>, pfc_image::ImageError> {
    let (width, height) = pixels.dimensions();
    encode_png(&Pixels::rgb(width, height, pixels.into_raw()))
}

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
    /// The faces with the lowest values of a measure of `pfc-ingest quality`, the lowest first
    #[arg(long, value_name = "COLUMN")]
    lowest: Option<String>,
    /// Those with the highest values
    #[arg(long, value_name = "COLUMN")]
    highest: Option<String>,
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
    /// The title of the sheet.
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
        Which { identity: Some(name), .. } => {
            of_label(view, label_of(view, name, || "--identity".into())?)
        }
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

/// A drawn sheet.
pub struct Sheet {
    pub pixels: RgbImage,
    /// Faces that could not be decoded.
    pub n_broken: u64,
}

/// Draws `rows` of the data set in their order; those that are left out too, under the identity that
/// they were packed with. Captions say who it is if `names` is true.
///
/// # Errors
///
/// [`IngestError::Shard`] if a row cannot be read, [`IngestError::Interrupted`].
pub fn draw(
    view: &View,
    rows: &[u64],
    title: String,
    columns: Option<u32>,
    names: bool,
) -> Result<Sheet, IngestError> {
    let file = |_: usize, face: &Face<'_>| {
        face.source.rsplit('/').next().unwrap_or(face.source).to_owned()
    };
    draw_with(view, rows, title, columns, names, &file)
}

/// As [`draw`], with another last line below each face: that of row number `i` of `rows`.
fn draw_with(
    view: &View,
    rows: &[u64],
    title: String,
    columns: Option<u32>,
    names: bool,
    last_line: &dyn Fn(usize, &Face<'_>) -> String,
) -> Result<Sheet, IngestError> {
    let size = view.manifest().image_size;
    let plan = Plan { title, columns, group: 1, size, lines: if names { 3 } else { 2 } };
    let mut n_broken = 0;
    let pixels = sheet::draw(&plan, rows.len(), |i| {
        if interrupt::requested() {
            return Err(IngestError::Interrupted { done: i as u64, total: rows.len() as u64 });
        }
        let row = rows[i];
        let (face, name) = match view.face(row)? {
            Some(face) => (face, view.people().name(face.label)),
            None => {
                let face = view.dataset().get(row)?;
                (face, view.dataset().identities().name(face.label))
            }
        };
        let mut rgb = vec![0; size.rgb_bytes()];
        let is_decoded = match face.decode(row, &mut rgb) {
            Err(error) if error.is_of_image() => false,
            decoded => decoded.map(|()| true)?,
        };
        n_broken += u64::from(!is_decoded);
        let name = names.then(|| name.to_owned());
        let captions =
            [Some(format!("row {}", units::count(row))), name, Some(last_line(i, &face))];
        let captions = captions.into_iter().flatten().collect();
        Ok(Tile { rgb: is_decoded.then_some(rgb), captions })
    })?;
    Ok(Sheet { pixels, n_broken })
}

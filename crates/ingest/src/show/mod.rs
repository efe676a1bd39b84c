//! `pfc-ingest show`: faces of a data set on one sheet, to look at.

pub mod faces;
mod select;

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use pfc_cli::{Format, Outcome, print_json, units};
use pfc_image::{Pixels, encode_png};
use pfc_report::sheet;
use select::{Selection, Which};
use serde::Serialize;

use crate::{IngestError, output, reading::ReadArgs};

/// Draw some faces of a data set on one sheet.
///
/// Writes a PNG with the crops in a grid. Under each stand its row and, where known to differ, who
/// it is, and the end of the path it came from. An image that cannot be decoded is crossed out.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pfc-ingest show data --identity Aaron_Eckhart
  pfc-ingest show data --label 17 -o 17.png --force
  pfc-ingest show data --rows 1000..1100
  pfc-ingest show data --sample 100 --seed 7 --columns 20

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
    #[arg(short, long, value_name = "FILE", default_value = "sheet.png")]
    output: PathBuf,
    /// Replace the file if it is there
    #[arg(long)]
    force: bool,
    /// Faces in a row of the sheet [default: as makes it square]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=200))]
    columns: Option<u32>,
    /// Most faces to draw; of more, the first are drawn
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
    output::check_file(&args.output, args.force)?;
    let view = args.reading.open(&args.dataset)?;
    let Selection { title, mut rows, is_one_identity } =
        select::select(&view, &args.which, args.seed)?;
    let size = view.manifest().image_size;
    let limit = args.limit.min(sheet::faces_max(size));
    if limit == 0 {
        return Err(IngestError::SheetTooLarge { size }.into());
    }
    let left_out = (rows.len() as u64).saturating_sub(limit);
    rows.truncate(limit as usize);
    let sheet = faces::draw(&view, &rows, title, args.columns, !is_one_identity)?;
    pfc_durable::write(&args.output, &png(sheet.pixels)?)?;
    let (images, broken) = (rows.len() as u64, sheet.n_broken);
    Ok(Shown { file: args.output.clone(), images, broken, left_out, rows })
}

fn png(pixels: image::RgbImage) -> Result<Vec<u8>, pfc_image::ImageError> {
    let (width, height) = pixels.dimensions();
    encode_png(&Pixels::rgb(width, height, pixels.into_raw()))
}

//! `pfc-ingest align`: faces cut out of images by their landmarks.

mod run;

use std::{
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::Context;
use pfc_cli::{
    Format, Outcome, print_json, print_table, table,
    units::{self, count},
};
use pfc_image::{Fit, ImageSize, Limits, Tally};
use pfc_sources::Root;
use serde::Serialize;

use crate::{landmarks::LandmarkFormat, pack::quarantine, threads::Threads};

/// Cut faces out of images by five landmarks each.
///
/// LIST names images and their landmarks, one a line: path, then x y of left eye, right eye, nose,
/// left and right corner of the mouth (as seen in the image, in pixels), with tabs, blanks or as
/// CSV, or 68 points in the iBUG order. Each face is turned, scaled and shifted so that its points
/// come closest to InsightFace's template (least squares, bilinear, black outside the image), and
/// written to OUT under the path that LIST has. Images that are missing or unreadable, and landmarks
/// that make no face in their image, are left out and listed with their reason in
/// OUT/quarantine.jsonl. Each line is held to the same bounds: how far its points are from those of a
/// face, how large the face is, and how much of it lies within the image. Points that all lie between
/// 0 and 1 are taken for fractions of width and height, with a warning.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  pfc-ingest align landmarks.txt crops --root photos
  pfc-ingest align list_landmarks_celeba.csv crops --root img_celeba --format png
  pfc-ingest align casia_landmark.txt crops --size 96x112 --landmark-format label-xy

Header names understood: image, path, file, …; x1, y1, …; P1X, …; left_eye_x, lefteye_x, nose_x, ….
To pack without files in between: pfc-ingest pack photos data --landmarks landmarks.txt")]
pub struct AlignArgs {
    /// List of images and landmarks
    list: PathBuf,
    /// Folder to make
    out: PathBuf,
    /// Folder that the paths in LIST start from [default: the folder of LIST]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Width and height of the crops in pixels, as in 112, 224 or 96x112
    #[arg(long, value_name = "SIZE", default_value = "112")]
    size: Size,
    /// What the crops are written as; an extension that differs is replaced
    #[arg(long, value_enum, default_value_t)]
    format: CropFormat,
    /// Quality of JPEG crops; 100 is best
    #[arg(long, value_name = "1-100", default_value_t = 95,
          value_parser = clap::value_parser!(u8).range(1..=100))]
    quality: u8,
    /// Order of the numbers in LIST, if it has no header
    #[arg(long, value_enum, default_value_t)]
    landmark_format: LandmarkFormat,
    /// Pixels of the largest image to decode; larger ones are left out
    #[arg(long, value_name = "N", default_value_t = 50_000_000)]
    max_pixels: u64,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    output: Format,
}

/// File format of crops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum CropFormat {
    /// JPEG, lossy.
    #[default]
    Jpg,
    /// PNG, lossless.
    Png,
}

/// The `--size` option.
#[derive(Debug, Clone, Copy)]
struct Size(ImageSize);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let (width, height) = text.split_once('x').unwrap_or((text, text));
        let side = |text: &str| text.parse().ok().filter(|n| (8..=1024).contains(n));
        match (side(width), side(height)) {
            (Some(width), Some(height)) => Ok(Size(ImageSize { width, height })),
            _ => Err("a size is N or WxH, each from 8 to 1024".into()),
        }
    }
}

/// What is made of each line, and from where.
struct Recipe<'a> {
    root: &'a Root,
    crop: pfc_image::Recipe,
    format: CropFormat,
    quality: u8,
}

/// Counts of a finished run, as `--json` prints them.
#[derive(Debug, Default, Serialize)]
struct Summary {
    aligned: u64,
    quarantined: u64,
    /// What was done to the images beside aligning them.
    #[serde(skip)]
    changes: Tally,
    seconds: f64,
    images_per_second: f64,
}

/// Runs the command.
pub fn run(args: &AlignArgs, quiet: bool) -> anyhow::Result<Outcome> {
    let list = args.list.display();
    let summary = align(args, quiet).with_context(|| format!("cannot align `{list}`"))?;
    if args.output.json {
        print_json(&summary)?;
    } else {
        print(&summary)?;
    }
    for sentence in summary.changes.sentences(args.size.0, Fit::Crop) {
        tracing::warn!("{sentence}");
    }
    if summary.quarantined > 0 {
        let images = units::of(summary.quarantined, "image");
        let list = args.out.join(quarantine::FILE);
        tracing::warn!("{images} left out; the reasons are in {}", list.display());
    }
    Ok(Outcome::Clean)
}

fn align(args: &AlignArgs, quiet: bool) -> anyhow::Result<Summary> {
    let above = args.list.parent().filter(|parent| !parent.as_os_str().is_empty());
    let root = Root::of(args.root.as_deref().or(above).unwrap_or(Path::new(".")));
    let limits = Limits { pixels_max: args.max_pixels };
    let recipe = Recipe {
        root: &root,
        crop: pfc_image::Recipe { size: args.size.0, fit: Fit::Crop, limits },
        format: args.format,
        quality: args.quality,
    };
    let pool = args.threads.pool()?;
    let list = (&*args.list, args.landmark_format);
    Ok(pool.install(|| run::run(&recipe, list, &args.out, quiet))?)
}

fn print(summary: &Summary) -> std::io::Result<()> {
    let mut table = table(["aligned", ""]);
    table.add_row(["images".to_owned(), count(summary.aligned)]);
    table.add_row(["quarantined".to_owned(), count(summary.quarantined)]);
    table.add_row(["seconds".to_owned(), format!("{:.1}", summary.seconds)]);
    table.add_row(["images/s".to_owned(), count(summary.images_per_second as u64)]);
    print_table(&table)
}

//! `pfc-ingest align`: faces cut out of images by their landmarks.
//!
//! A whole list, in its order whatever the number of threads. It takes about 16 bytes of memory per line, and
//! 1024 whole lines.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::Context;
use pfc_cli::{
    Format, Outcome, Progress, interrupt, print_json, print_table, table,
    units::{self, count},
};
use pfc_image::{Changes, Crop, Fit, ImageFolder, Tally, has_image_extension, with_extensions};
use pfc_shard::hash::content_hash;
use pfc_sources::{
    Root, exists,
    landmarks::{BadLine, LandmarkFormat, LandmarkList, Marks, no_line},
    read_file,
};
use rayon::prelude::*;
use serde::Serialize;

use crate::{
    IngestError,
    crops::{CropArgs, CropFormat, Encoding},
    loss::LossArgs,
    output,
    pack::quarantine::{self, Line, Quarantine},
    reject::{Failure, Reject},
    threads::Threads,
};

/// Cut faces out of images by five landmarks each.
///
/// LIST names images and their landmarks, one image per line: path, then x y of left eye, right eye, nose,
/// left and right corner of the mouth (as seen in the image, in pixels), with tabs, blanks or as CSV, or 68
/// points in the iBUG order. Each face is turned, scaled and shifted so that its points come closest to
/// InsightFace's template (least squares, bilinear, black outside the image), and written to OUT under the
/// path that LIST has, with the extension of --format where it has another. Images that are missing or unreadable, landmarks that make no face in their image, and
/// lines that cannot be understood are left out and listed with their reason in OUT/quarantine.jsonl. Every
/// line is checked with the same bounds: how far its points are from those of a face, how large the face is,
/// and how much of it lies within the image. Points that all lie between 0 and 1 are taken for fractions of
/// width and height, with a warning.
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
    #[command(flatten)]
    crops: CropArgs,
    /// Order of the numbers in LIST, if it has no header
    #[arg(long, value_enum, default_value_t)]
    landmark_format: LandmarkFormat,
    #[command(flatten)]
    loss: LossArgs,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    output: Format,
}

/// How crops are made, and from which folder.
struct Recipe<'a> {
    root: &'a Path,
    /// The same folder, to check paths against.
    folder: ImageFolder,
    crop: pfc_image::Recipe,
    encoding: Encoding,
}

/// Counts of a finished run, as `--json` prints them.
#[derive(Debug, Default, Serialize)]
struct Summary {
    aligned: u64,
    quarantined: u64,
    /// Changes to the images other than aligning them.
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
    for sentence in summary.changes.sentences(args.crops.size(), Fit::Crop) {
        tracing::warn!("{sentence}");
    }
    if summary.quarantined > 0 {
        let images = units::of(summary.quarantined, "image");
        let list = args.out.join(quarantine::FILE);
        tracing::warn!("{images} left out; the reasons are in {}", list.display());
    }
    Ok(args.loss.judge(summary.aligned, summary.quarantined))
}

fn align(args: &AlignArgs, quiet: bool) -> anyhow::Result<Summary> {
    let above = args.list.parent().filter(|parent| !parent.as_os_str().is_empty());
    let root = args.root.as_deref().or(above).unwrap_or(Path::new("."));
    let crops = args.crops;
    let recipe = Recipe {
        root,
        folder: ImageFolder::at(root),
        crop: pfc_image::Recipe { size: crops.size(), fit: Fit::Crop, limits: crops.limits() },
        encoding: crops.encoding(),
    };
    let pool = args.threads.pool()?;
    let list = (&*args.list, args.landmark_format);
    Ok(pool.install(|| write_crops(&recipe, list, &args.out, quiet))?)
}

fn print(summary: &Summary) -> std::io::Result<()> {
    let mut table = table(["aligned", ""]);
    table.add_row(["images".to_owned(), count(summary.aligned)]);
    table.add_row(["quarantined".to_owned(), count(summary.quarantined)]);
    table.add_row(["seconds".to_owned(), format!("{:.1}", summary.seconds)]);
    table.add_row(["images/s".to_owned(), count(summary.images_per_second as u64)]);
    print_table(&table)
}

/// Number of lines that are read and then processed together.
const CHUNK_LINES: usize = 1024;

/// An image as it is called in messages, and what is to be cut out of it, or why nothing is.
type Job = (String, Result<(Marks, Place), Reject>);

/// Writes the crops of all of `list` into `out`, which appears once it is complete.
///
/// # Errors
///
/// [`IngestError`] if the list cannot be understood, `out` holds something, not one image is usable,
/// the user interrupts, or a write fails.
fn write_crops(
    recipe: &Recipe<'_>,
    (list, format): (&Path, LandmarkFormat),
    out: &Path,
    quiet: bool,
) -> Result<Summary, IngestError> {
    let started = Instant::now();
    let unfinished = output::begin(&[list], out)?;
    let list = LandmarkList::open(list, format)?;
    let (total, root) = look_ahead(&list, recipe)?;
    let mut quarantine = Quarantine::create(unfinished.path())?;
    let progress = Progress::new("align", "images", total, quiet);
    let mut taken = HashSet::new();
    let mut changes = Tally::default();
    let mut images = list.images()?;
    let mut done = 0;
    loop {
        let chunk: Vec<Result<Marks, BadLine>> =
            images.by_ref().take(CHUNK_LINES).collect::<Result<_, _>>()?;
        if chunk.is_empty() {
            break;
        }
        if interrupt::requested() {
            return Err(IngestError::Interrupted { done, total });
        }
        done += chunk.len() as u64;
        let mut jobs: Vec<Job> = Vec::new();
        for marks in chunk {
            jobs.push(match marks {
                Ok(marks) => {
                    let place = place(&recipe.folder, &marks, recipe.encoding.format, &mut taken);
                    (marks.image.clone(), place.map(|place| (marks, place)))
                }
                Err(BadLine { line, problem, .. }) => {
                    let source = format!("{}:{line}", list.path().display());
                    (source, Err(pfc_sources::Reject::BadLine(problem).into()))
                }
            });
        }
        let make = |(_, job): &Job| {
            progress.add(1);
            let (marks, place) = job.as_ref().map_err(Clone::clone)?;
            one(recipe, &root, marks, place, unfinished.path())
        };
        let results: Vec<Result<Changes, Failure>> = jobs.par_iter().map(make).collect();
        for ((source, _), result) in jobs.iter().zip(results) {
            match result {
                Ok(made) => changes.add(made),
                Err(Failure::Reject(reject)) => quarantine.add(&Line::new(source, &reject))?,
                Err(Failure::Fatal(error)) => return Err(error),
            }
        }
    }
    progress.finish();
    let quarantined = quarantine.n_quarantined;
    if quarantined == total {
        let example = quarantine.first.unwrap_or_default();
        let path = list.path().to_path_buf();
        return Err(IngestError::NothingUsable { path, n: total, example });
    }
    quarantine.commit()?;
    unfinished.commit()?;
    let (aligned, seconds) = (total - quarantined, started.elapsed().as_secs_f64());
    let images_per_second = aligned as f64 / seconds.max(1e-9);
    Ok(Summary { aligned, quarantined, changes, seconds, images_per_second })
}

/// How many lines a list has, and the folders that its images lie in, as they are now.
///
/// # Errors
///
/// [`IngestError`] if it cannot be read, or none of its lines be understood.
fn look_ahead(list: &LandmarkList, recipe: &Recipe<'_>) -> Result<(u64, Root), IngestError> {
    let (mut total, mut n_good, mut first_bad) = (0, 0, None);
    // An image of each folder.
    let (mut folders, mut images) = (HashSet::new(), Vec::new());
    for listed in list.images()? {
        total += 1;
        match listed? {
            Ok(Marks { image, .. }) => {
                n_good += 1;
                let Ok(image) = recipe.folder.below(&image) else { continue };
                let folder = image.parent().unwrap_or(Path::new(""));
                if !folders.contains(folder) {
                    folders.insert(folder.to_owned());
                    images.push(image);
                }
            }
            Err(bad) => first_bad = first_bad.or(Some(bad)),
        }
    }
    match first_bad.filter(|_| n_good == 0) {
        Some(bad) => Err(no_line(list.path(), total, &bad).into()),
        None => {
            let images = images.iter().filter_map(|image| image.to_str());
            Ok((total, Root::of_files(recipe.root, images)))
        }
    }
}

/// The image of a line, and where its crop goes; both relative.
struct Place {
    image: PathBuf,
    target: PathBuf,
}

/// Makes one crop and writes it below `out`.
fn one(
    recipe: &Recipe<'_>,
    root: &Root,
    marks: &Marks,
    place: &Place,
    out: &Path,
) -> Result<Changes, Failure> {
    let bytes = read_file(&source(root.path(), &place.image)?, root)?;
    let Crop { pixels, changes } = recipe
        .crop
        .crop(&bytes, Some(&marks.points))
        .map_err(|e| Failure::of(e.into(), || marks.image.clone()))?;
    let encoded = recipe.encoding.encode(&pixels);
    let encoded = encoded.map_err(|e| Failure::of(e.into(), || marks.image.clone()))?;
    let target = out.join(&place.target);
    let parent = target.parent().unwrap_or(out);
    fs::create_dir_all(parent).map_err(IngestError::at("create", parent))?;
    fs::write(&target, encoded).map_err(IngestError::at("write", &target))?;
    Ok(changes)
}

/// The image's file; lists such as that of `VGGFace2` leave the extension out.
fn source(root: &Path, image: &Path) -> Result<PathBuf, IngestError> {
    let path = root.join(image);
    if has_image_extension(&path) || exists(&path)? {
        return Ok(path);
    }
    for with in with_extensions(&path) {
        if exists(&with)? {
            return Ok(with);
        }
    }
    Ok(path)
}

/// Where the image lies and its crop goes; each crop's place is given once.
fn place(
    folder: &ImageFolder,
    marks: &Marks,
    format: CropFormat,
    taken: &mut HashSet<u64>,
) -> Result<Place, Reject> {
    let image = folder.below(&marks.image).map_err(pfc_sources::Reject::from)?;
    let extension = if format == CropFormat::Jpg { "jpg" } else { "png" };
    let target = match format {
        _ if !has_image_extension(&image) => {
            // The text after a point in the name need not be an extension.
            let mut target = image.clone().into_os_string();
            target.push(".");
            target.push(extension);
            target.into()
        }
        CropFormat::Jpg if is_jpeg(&image) => image.clone(),
        _ => image.with_extension(extension),
    };
    match taken.insert(content_hash(target.as_os_str().as_encoded_bytes()) as u64) {
        true => Ok(Place { image, target }),
        false => Err(Reject::ListedTwice),
    }
}

fn is_jpeg(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default();
    ["jpg", "jpeg"].iter().any(|known| extension.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use pfc_image::LeadsOut;

    use super::*;

    #[track_caller]
    fn check(image: &str, format: CropFormat, expected: Result<&str, Reject>) {
        let marks = Marks { line: 1, image: image.into(), points: [[0.0; 2]; 5] };
        let folder = ImageFolder::at(Path::new("/photos"));
        let found = place(&folder, &marks, format, &mut HashSet::new());
        assert_eq!(found.map(|place| place.target), expected.map(PathBuf::from));
    }

    #[test]
    fn crops_keep_their_relative_paths_but_for_the_extension() {
        check("a/1.jpg", CropFormat::Jpg, Ok("a/1.jpg"));
        check("a/1.JPEG", CropFormat::Jpg, Ok("a/1.JPEG"));
        check("a/1.bmp", CropFormat::Jpg, Ok("a/1.jpg"));
        check("a/1.jpg", CropFormat::Png, Ok("a/1.png"));
        check("n01/0001_01", CropFormat::Jpg, Ok("n01/0001_01.jpg"));
        check("a.b/1.2", CropFormat::Png, Ok("a.b/1.2.png"));
        check("/photos/a/1.jpg", CropFormat::Jpg, Ok("a/1.jpg"));
    }

    #[test]
    fn nothing_is_written_outside_of_the_output() {
        for image in ["../1.jpg", "a/../../1.jpg", "/etc/1.jpg", "", ".", "a/.."] {
            let reject = pfc_sources::Reject::from(LeadsOut { name: image.into() });
            check(image, CropFormat::Jpg, Err(reject.into()));
        }
    }
}

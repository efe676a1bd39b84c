//! `pfc-eval megaface embed` and `clean`: feature files in the devkit's layout.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use pfc_cli::{Outcome, Progress, units};
use pfc_durable::check_apart;
use pfc_findings::{Reading, View};
use pfc_image::Tally;
use pfc_metrics::verification::fuse_mirrored;
use pfc_model::Embed;
use pfc_sources::Root;
use rayon::prelude::*;

use super::{
    left_out::LeftOutList, megaface_set::SetArgs, model::ModelArgs, protocol::asked_to_stop,
};
use crate::{
    EvalError,
    faces::{Decoded, decode, warn_of_changes},
    images::read_below,
    megaface::{FeatureFolder, Gallery, Store, is_dataset},
};

/// Images that the network takes in one go.
const BATCH: usize = 256;

/// Distractors that are cleaned between two looks at Ctrl-C.
const PIECE: usize = 4096;

/// The list of the images without a feature, in the folder of the features.
const LEFT_OUT_FILE: &str = "left-out.tsv";

/// What `pfc-eval megaface embed` takes.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct EmbedArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Folder of aligned images, 112×112, or a packed data set
    #[arg(long, value_name = "FOLDER|DATASET")]
    images: PathBuf,
    /// List of image paths below it: lines, or the devkit's JSON; of a data set all without it
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,
    /// Read a data set as it was packed: do not apply the decisions beside it
    #[arg(long)]
    as_packed: bool,
    /// Folder for the features
    #[arg(short, long, value_name = "FOLDER")]
    out: PathBuf,
    /// What follows the image's path in the name of its feature: `_ALGORITHM.bin`
    #[arg(long, value_name = "SUFFIX")]
    suffix: String,
}

/// What `pfc-eval megaface clean` takes.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct CleanArgs {
    #[command(flatten)]
    set: SetArgs,
    /// Folder for the cleaned features, in facescrub/ and megaface/
    #[arg(short, long, value_name = "FOLDER")]
    out: PathBuf,
}

/// Encoded images by name.
enum Images {
    Folder(Root),
    Dataset { dataset: Box<View>, rows: HashMap<String, u64>, path: PathBuf },
}

impl Images {
    fn open(path: &Path, names: &[String], reading: Reading) -> Result<Images, EvalError> {
        if !is_dataset(path) {
            let names = names.iter().map(String::as_str);
            return Ok(Images::Folder(Root::of_files(path, names)));
        }
        let dataset = View::open(path, reading)?;
        if let Some(notice) = dataset.notice("--as-packed") {
            tracing::warn!("{}: {notice}", path.display());
        }
        let mut rows = HashMap::new();
        for row in 0..dataset.len() {
            rows.entry(dataset.get(row)?.source.to_owned()).or_insert(row);
        }
        Ok(Images::Dataset { dataset: Box::new(dataset), rows, path: path.to_owned() })
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, EvalError> {
        match self {
            Images::Folder(folder) => read_below(folder, name),
            Images::Dataset { dataset, rows, path } => {
                let missing =
                    || EvalError::NotPacked { path: path.clone(), image: name.to_owned() };
                Ok(dataset.get(*rows.get(name).ok_or_else(missing)?)?.image.to_vec())
            }
        }
    }

    fn place(&self, name: &str) -> String {
        match self {
            Images::Folder(folder) => folder.path().join(name).display().to_string(),
            Images::Dataset { path, .. } => format!("{}: {name}", path.display()),
        }
    }
}

/// Runs `pfc-eval megaface embed`.
pub(super) fn embed(args: &EmbedArgs, quiet: bool) -> anyhow::Result<Outcome> {
    let reading = Reading::from_switch(args.as_packed);
    let names = match &args.list {
        Some(list) => Gallery::read(list)?.paths,
        None if is_dataset(&args.images) => {
            let dataset = View::open(&args.images, reading)?;
            Gallery::of_dataset(&args.images, &dataset)?.paths
        }
        None => return Err(EvalError::NoImageList { images: args.images.clone() }.into()),
    };
    let images = Images::open(&args.images, &names, reading)?;
    let list = LeftOutList::at(args.out.join(LEFT_OUT_FILE), "feature")?;
    let embedder = args.model.open()?;
    let dim = embedder.embedding();
    check_apart(&args.images, &args.out).map_err(EvalError::from)?;
    let model = format!("model {}", embedder.fingerprint());
    let folder = FeatureFolder::claim(&args.out, &args.suffix, &model)?;
    let store = Store { root: folder.path().to_owned(), suffix: args.suffix.clone() };
    store.sweep(&names)?;
    let progress = Progress::new("embed", "images", names.len() as u64, quiet);
    let mut left_out = Vec::new();
    let mut changes = Tally::default();
    for batch in names.chunks(BATCH) {
        let mut missing = Vec::new();
        for name in batch {
            if !store.has(name, dim)? {
                missing.push(name);
            }
        }
        let (pixels, embedded) = decode_all(&images, &missing, &mut changes, &mut left_out)?;
        if !embedded.is_empty() {
            let embeddings = embedder.embed_with_mirror(&pixels, embedded.len())?;
            let fused = fuse_mirrored(&embeddings.original, &embeddings.mirrored, dim)?;
            for (name, row) in embedded.iter().zip(fused.chunks_exact(dim)) {
                let row: Vec<f32> = row.iter().map(|&value| value as f32).collect();
                store.write(name, &row)?;
            }
        }
        progress.add(batch.len() as u64);
        asked_to_stop()?;
    }
    progress.finish();
    warn_of_changes("megaface", &changes);
    list.write(&left_out)?;
    if left_out.is_empty() {
        return Ok(Outcome::Clean);
    }
    let images = units::of(left_out.len() as u64, "image");
    let list = list.path().display();
    tracing::warn!("{images} left out, which have no feature; the reasons are in {list}");
    Ok(Outcome::Findings)
}

/// Pixels `[images, 112, 112, 3]` of those images that can be read, and their names; the others are
/// added to `left_out` with their reasons.
///
/// # Errors
///
/// The first fault of the system, in order, which says nothing about an image.
fn decode_all<'a>(
    images: &Images,
    names: &[&'a String],
    changes: &mut Tally,
    left_out: &mut Vec<(String, String)>,
) -> Result<(Vec<u8>, Vec<&'a String>), EvalError> {
    let one = |name: &&'a String| {
        let bytes = images.read(name)?;
        let broken = |reason| EvalError::image(images.place(name), reason);
        decode(&bytes).map_err(broken)
    };
    let decoded: Vec<Result<Decoded, EvalError>> = names.par_iter().map(one).collect();
    let (mut pixels, mut usable) = (Vec::new(), Vec::new());
    for (name, decoded) in names.iter().zip(decoded) {
        match decoded.map_err(EvalError::of_image) {
            Ok(face) => {
                changes.add(face.changes);
                pixels.extend(face.rgb);
                usable.push(*name);
            }
            Err(reason) => {
                // Not within the macro, which looks at its arguments only where warnings are on.
                let reason = reason?;
                tracing::warn!("{}: left out: {reason}", images.place(name));
                left_out.push(((*name).clone(), reason));
            }
        }
    }
    Ok((pixels, usable))
}

/// Runs `pfc-eval megaface clean`.
pub(super) fn clean(args: &CleanArgs, quiet: bool) -> anyhow::Result<()> {
    let set = args.set.open()?;
    let noises = set.noises.clone().unwrap_or_default();
    let folder = FeatureFolder::claim(&args.out, &args.set.suffix, "megaface clean")?;
    let out = |name| Store { root: folder.path().join(name), suffix: args.set.suffix.clone() };
    out("facescrub").sweep(&set.probes.paths)?;
    let (values, dim) = set.probe_store.read(&set.probes.paths, None)?;
    let cleaned = noises.clean_probes(&set.probes, &values, dim);
    write_changed(&out("facescrub"), &set.probes.paths, &cleaned, dim + 1)?;
    let n_distractors: usize = set.galleries.iter().map(|gallery| gallery.paths.len()).sum();
    let progress = Progress::new("clean", "distractors", n_distractors as u64, quiet);
    // Galleries share images: what one has written the next finds.
    for gallery in &set.galleries {
        out("megaface").sweep(&gallery.paths)?;
    }
    for paths in set.galleries.iter().flat_map(|gallery| gallery.paths.chunks(PIECE)) {
        let (values, _) = set.distractor_store.read(paths, Some(dim))?;
        let cleaned = noises.clean_distractors(paths, &values, dim);
        write_changed(&out("megaface"), paths, &cleaned, dim + 1)?;
        progress.add(paths.len() as u64);
        asked_to_stop()?;
    }
    progress.finish();
    Ok(())
}

/// Writes the features that are not there as they are to be: those of other lists of noises or of another
/// model are no longer right.
fn write_changed(
    store: &Store,
    paths: &[String],
    rows: &[f32],
    dim: usize,
) -> Result<(), EvalError> {
    for (path, row) in paths.iter().zip(rows.chunks_exact(dim)) {
        if !store.holds(path, row)? {
            store.write(path, row)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nobody listens to warnings here, as with `-q`.
    #[test]
    fn a_folder_that_vanishes_stops_the_work_and_damaged_images_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let faces = dir.path().join("faces");
        std::fs::create_dir_all(faces.join("a")).unwrap();
        std::fs::write(faces.join("a/1.png"), b"\x89PNG").unwrap();
        let names = ["a/1.png", "a/2.png"].map(str::to_owned);
        let images = Images::Folder(Root::of_files(&faces, names.iter().map(String::as_str)));
        let decode = || {
            let mut left_out = Vec::new();
            let names: Vec<&String> = names.iter().collect();
            decode_all(&images, &names, &mut Tally::default(), &mut left_out).map(|_| left_out)
        };
        let left_out = decode().unwrap();
        assert_eq!(left_out[1], ("a/2.png".to_owned(), "there is no such file".to_owned()));
        assert_eq!(left_out.len(), 2);
        // A folder of some of the images, and that of all.
        for folder in ["faces/a", "faces"] {
            let folder = dir.path().join(folder);
            std::fs::rename(&folder, dir.path().join("gone")).unwrap();
            let error = decode().unwrap_err();
            assert!(error.to_string().ends_with("is gone"), "{error}");
            std::fs::rename(dir.path().join("gone"), &folder).unwrap();
        }
    }
}

//! Fine-tuning: where the first weights come from, and centres carried over by identity.

use std::path::Path;

use pfc_findings::{People, Reading, View};
use pfc_head::{ClassRange, Head};
use pfc_model::{Backbone, ModelError, checkpoint::Checkpoint, weights, weights::OpenOptions};
use pfc_shard::{MANIFEST_FILE, hash::content_hash};
use tch::Device;

use crate::{
    TrainError,
    checkpoint::{SavedRun, centres::Centres},
    config::{BadValue, Config, InitConfig, is_given},
    data::source::Source,
    step::Trainer,
};

/// Classes of the old data set whose centres are read at a time.
const CHUNK_CLASSES: u64 = 1 << 13;

/// Puts the weights in their place, and says what was done, a line each; `None` if nothing was to be.
///
/// # Errors
///
/// [`TrainError::Model`] if the file cannot be read or is of another network,
/// [`TrainError::Shard`] for the old data set, [`TrainError::OtherRun`] if the checkpoint was not
/// trained on it, [`TrainError::Value`] if there is not a centre for each of its identities,
/// [`TrainError::Head`] if the centres cannot be read.
pub fn begin(
    config: &InitConfig,
    trainer: &mut Trainer,
    source: &Source,
) -> Result<Option<String>, TrainError> {
    let origin = config.model.display().to_string();
    check_paths(config)?;
    let mut notes = Vec::new();
    if is_given(&config.model) {
        let loaded = weights::open(&config.model, Device::Cpu, OpenOptions::default())?;
        notes = loaded.notes;
        let state = loaded.backbone.state_dict();
        trainer.backbone.load_state_dict(&origin, &state)?;
        if let Some(ema) = &trainer.ema {
            ema.backbone().load_state_dict(&origin, &state)?;
        }
    }
    if !config.carries_centres() {
        notes.push(format!("the backbone begins with the weights of {origin}"));
        return Ok(is_given(&config.model).then(|| notes.join("\n")));
    }
    let range = trainer.head.range();
    let (mut centres, labels) = centres_and_labels(config, &range, source)?;
    check_width(&centres, config, trainer.head.config().dim)?;
    let n_carried = carry(&mut centres, &labels, &mut trainer.head)?;
    let carried = format!("{n_carried} of {} centres of the first rank", range.len());
    let from = origin_of_centres(config).display();
    notes.push(match (is_given(&config.model), is_given(&config.centres)) {
        (true, false) => format!("backbone and {carried} begin with those of {from}"),
        (true, true) => {
            format!(
                "the backbone begins with the weights of {origin}, {carried} with those of {from}"
            )
        }
        (false, _) => format!("{carried} begin with those of {from}"),
    });
    Ok(Some(notes.join("\n")))
}

/// Opens what a run is to begin with, and compares it with the network, the width of its embeddings and the
/// data set, without a trainer.
///
/// # Errors
///
/// Those of [`begin`], but for centres that turn out to be damaged as they are read.
pub(crate) fn check(config: &Config, source: &Source) -> Result<(), TrainError> {
    let Config { init, model, .. } = config;
    check_paths(init)?;
    if is_given(&init.model) {
        let loaded = weights::open(&init.model, Device::Cpu, OpenOptions::default())?;
        let origin = init.model.display().to_string();
        let state = loaded.backbone.state_dict();
        Backbone::from_state_dict(&model.spec(), Device::Cpu, &origin, &state)?;
    }
    if init.carries_centres() {
        let all = ClassRange::of_rank(source.n_identities().into(), 0, 1);
        let (centres, _) = centres_and_labels(init, &all, source)?;
        check_width(&centres, init, model.embedding as usize)?;
    }
    Ok(())
}

fn check_paths(config: &InitConfig) -> Result<(), BadValue> {
    for (key, path) in [("init.model", &config.model), ("init.centres", &config.centres)] {
        let is_there = !is_given(path) || path.exists();
        BadValue::unless(is_there, key, path.display(), "a file or folder that exists")?;
    }
    Ok(())
}

/// Where the centres come from.
fn origin_of_centres(config: &InitConfig) -> &Path {
    if is_given(&config.centres) { &config.centres } else { &config.model }
}

fn check_width(centres: &Centres, config: &InitConfig, dim: usize) -> Result<(), ModelError> {
    match centres.dim() {
        found if found == dim => Ok(()),
        found => Err(misfit(origin_of_centres(config), found, dim)),
    }
}

/// The centres of then, and for each class of `range` the label that it had, if it was there.
fn centres_and_labels(
    config: &InitConfig,
    range: &ClassRange,
    source: &Source,
) -> Result<(Centres, Vec<Option<u32>>), TrainError> {
    let new_file = is_given(&config.centres);
    if !is_given(&config.data) {
        let centres = Centres::open(&config.centres, None)?;
        check_count(&centres, config, u64::from(source.n_identities()), "this data set has")?;
        return Ok((centres, range.ids().map(|class| Some(class as u32)).collect()));
    }
    let Some(dataset) = source.dataset() else {
        let bound = "left out with data.synthetic, whose people have no names";
        return Err(BadValue::new("init.data", config.data.display(), bound).into());
    };
    let checkpoint = match new_file {
        true => None,
        false => Some(Checkpoint::open(&config.model)?),
    };
    let progress =
        checkpoint.as_ref().and_then(|checkpoint| checkpoint.manifest().progress.as_ref());
    // As the checkpoint was trained on it; other files are of data as it was packed.
    let as_packed = new_file || progress.is_some_and(|progress| progress.data.decisions.is_none());
    let old = View::open(&config.data, Reading::from_switch(as_packed))?;
    let labels = old_labels(range, dataset.people(), old.people());
    let centres = match checkpoint {
        Some(checkpoint) => {
            check_trained_on(&checkpoint, &config.model, &config.data, &old)?;
            Centres::of_run(&SavedRun::of(checkpoint, &config.model)?, None)?
        }
        None => Centres::open(&config.centres, None)?,
    };
    if new_file {
        check_count(&centres, config, u64::from(old.n_identities()), "init.data has")?;
    }
    Ok((centres, labels))
}

/// Refuses centres that are not one for each identity.
fn check_count(
    centres: &Centres,
    config: &InitConfig,
    n_identities: u64,
    who: &str,
) -> Result<(), BadValue> {
    let n_rows = centres.n_rows();
    let value = format!("{} with {n_rows} centres", config.centres.display());
    let bound = format!(
        "centres of {n_identities} identities, as {who}; init.data names the data set \
                         that they were trained on"
    );
    BadValue::unless(n_rows == n_identities, "init.centres", value, bound)
}

/// Refuses a checkpoint that was not trained on the data set at `data`.
fn check_trained_on(
    checkpoint: &Checkpoint,
    path: &Path,
    data: &Path,
    view: &View,
) -> Result<(), TrainError> {
    let manifest = data.join(MANIFEST_FILE);
    let bytes = std::fs::read(&manifest).map_err(TrainError::io("read", &manifest))?;
    let expected = format!("{:032x}", content_hash(&bytes));
    let progress = checkpoint.manifest().progress.as_ref();
    let found = progress.map_or("none", |progress| progress.data.checksum.as_str());
    let decisions = view.decisions().map(|checksum| checksum.to_string());
    match progress {
        Some(progress) if found == expected && progress.data.decisions != decisions => {
            let text =
                |decisions: &Option<String>| decisions.as_deref().unwrap_or("none").to_owned();
            Err(TrainError::OtherRun {
                path: path.to_path_buf(),
                key: "decisions about init.data with checksum".to_owned(),
                found: text(&progress.data.decisions),
                expected: text(&decisions),
            })
        }
        Some(_) if found == expected => Ok(()),
        _ => Err(TrainError::OtherRun {
            path: path.to_path_buf(),
            key: "init.data with checksum".to_owned(),
            found: found.to_owned(),
            expected,
        }),
    }
}

/// The label that each class of `range` had in the old data set, if it was in there under any of its
/// names.
fn old_labels(range: &ClassRange, new: People<'_>, old: People<'_>) -> Vec<Option<u32>> {
    range.ids().map(|class| new.names(class as u32).find_map(|name| old.label_of(name))).collect()
}

/// Copies the centres of known classes, some thousand classes of then at a time. Returns how many.
fn carry(
    centres: &mut Centres,
    labels: &[Option<u32>],
    head: &mut Head,
) -> Result<usize, TrainError> {
    let (n_rows, dim) = (centres.n_rows(), head.config().dim);
    // Labels of then and rows of the head, by the former.
    let mut known: Vec<(u64, u32)> = labels
        .iter()
        .enumerate()
        .filter_map(|(row, label)| Some((u64::from((*label)?), row as u32)))
        .filter(|(label, _)| *label < n_rows)
        .collect();
    known.sort_unstable();
    let chunks = known.chunk_by(|(a, _), (b, _)| a / CHUNK_CLASSES == b / CHUNK_CLASSES);
    for chunk in chunks {
        let (first, last) = (chunk[0].0, chunk[chunk.len() - 1].0);
        let found = centres.read(first..last + 1)?;
        let mut rows: Vec<(u32, &[f32])> = chunk
            .iter()
            .map(|(label, row)| (*row, &found[(label - first) as usize * dim..][..dim]))
            .collect();
        rows.sort_unstable_by_key(|(row, _)| *row);
        let weight: Vec<f32> = rows.iter().flat_map(|(_, weight)| *weight).copied().collect();
        let rows: Vec<u32> = rows.into_iter().map(|(row, _)| row).collect();
        head.set_centres(&rows, &weight)?;
    }
    Ok(known.len())
}

/// That centres are of another width than the head's.
fn misfit(path: &Path, found: usize, expected: usize) -> ModelError {
    ModelError::TensorShape {
        origin: path.display().to_string(),
        key: "centres.weight".to_owned(),
        found: vec![found as i64],
        expected: vec![expected as i64],
    }
}

//! The lists and features that the commands of `pfc-eval megaface` work on.

use std::path::{Path, PathBuf};

use pfc_findings::{Reading, View};

use crate::{
    EvalError,
    megaface::{Gallery, MegaFaceSet, Noises, ProbeList, Store, is_dataset, read_noises},
};

/// Which features, and which of them are noisy.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct SetArgs {
    /// Folder of the probes' features
    #[arg(long, value_name = "FOLDER")]
    pub(super) probes: PathBuf,
    /// Folder of the distractors' features
    #[arg(long, value_name = "FOLDER")]
    distractors: PathBuf,
    /// What follows the image's path in the name of its feature: `_ALGORITHM.bin`
    #[arg(long, value_name = "SUFFIX")]
    pub(super) suffix: String,
    /// List of the probes: the devkit's `facescrub_features_list.json`, or a line per image
    #[arg(long, value_name = "FILE")]
    probe_list: PathBuf,
    /// Lists of distractors: files, the devkit's folder of `megaface_features_list.json_SIZE_SET`, or
    /// a packed data set for all of its images
    #[arg(long, value_name = "PATH", num_args = 1.., required = true)]
    galleries: Vec<PathBuf>,
    /// Read data sets as they were packed: do not apply the decisions beside them
    #[arg(long)]
    as_packed: bool,
    /// List of noisy probes, `facescrub_noises.txt`
    #[arg(long, value_name = "FILE")]
    probe_noises: Option<PathBuf>,
    /// List of noisy distractors, `megaface_noises.txt`
    #[arg(long, value_name = "FILE")]
    distractor_noises: Option<PathBuf>,
}

impl SetArgs {
    pub(super) fn open(&self) -> Result<MegaFaceSet, EvalError> {
        let mut galleries = Vec::new();
        for path in &self.galleries {
            if is_dataset(path) {
                let dataset = View::open(path, Reading::from_switch(self.as_packed))?;
                if let Some(notice) = dataset.notice("--as-packed") {
                    tracing::warn!("{}: {notice}", path.display());
                }
                galleries.push(Gallery::of_dataset(path, &dataset)?);
            } else if path.is_dir() {
                for file in Gallery::find(path)? {
                    galleries.push(Gallery::read(&file)?);
                }
            } else {
                galleries.push(Gallery::read(path)?);
            }
        }
        let store = |root: &Path| Store { root: root.to_owned(), suffix: self.suffix.clone() };
        let names = |list: &Option<PathBuf>| {
            list.as_deref().map_or_else(|| Ok(Default::default()), read_noises)
        };
        let noisy = self.probe_noises.is_some() || self.distractor_noises.is_some();
        let noises = Noises {
            probes: names(&self.probe_noises)?,
            distractors: names(&self.distractor_noises)?,
        };
        Ok(MegaFaceSet {
            probes: ProbeList::read(&self.probe_list)?,
            probe_store: store(&self.probes),
            distractor_store: store(&self.distractors),
            galleries,
            noises: noisy.then_some(noises),
        })
    }
}

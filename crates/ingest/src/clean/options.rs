//! The command line of `clean`.

use std::path::PathBuf;

use clap::{Args, ValueEnum, builder::PossibleValue};
use pfc_cli::Format;

use super::{CleanError, Work, files, identities};
use crate::{
    IngestError,
    embeddings::{EmbedOptions, Embeddings, with_model},
    threads::Threads,
};

/// Find duplicates, bad images, outliers, wrong labels and people with two labels.
///
/// Writes what it finds as decisions beside the data set (DATASET/decisions/NNN.arrow) and changes
/// nothing else. Every command that reads the data set, the trainer too, applies them, unless it is
/// told --as-packed; `compact` writes a data set of its own. `decisions list` and `show` print them,
/// `decisions undo` takes them back, `report` draws them, `review` asks a person, whose answers stand
/// against later runs. Findings that are likely but not sure are suspicions, which change nothing.
///
/// Passes run in one order, each on what those before it left. An image that cannot be decoded is
/// left out (`undecodable`), whichever pass comes upon it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pfc-ingest clean data
  pfc-ingest clean data --pass exact,near,few --min-images 3
  pfc-ingest clean data --pass files,embeddings --embeddings data.npy
  pfc-ingest clean data --pass embeddings --model w600k_r50.onnx
  pfc-ingest clean data --pass overlap --model r50.onnx --probes ijbc.npy
  pfc-ingest clean data --pass merges --embeddings data.npy --same-person 0.62 --dry-run

Thresholds that are not stated are calibrated: pairs of different identities are sampled from the
data set itself, and the bound is put where --false-matches wrong pairs are expected among all that
are compared, or a share --label-rate of them. Figures and bounds are printed, and kept with the decisions.")]
pub struct CleanArgs {
    /// Folder that `pack` wrote
    pub(super) dataset: PathBuf,
    /// Passes to run; `files` and `embeddings` stand for all of their kind
    #[arg(long = "pass", value_name = "NAME", value_delimiter = ',', default_value = "files")]
    passes: Vec<PassName>,
    /// Embeddings of all rows: .npy, .npz, .arrow or .safetensors
    #[arg(long, value_name = "FILE", conflicts_with = "model")]
    embeddings: Option<PathBuf>,
    /// Network to embed with; what it gives is kept in DATASET/embeddings
    #[arg(long, value_name = "FILE.onnx")]
    model: Option<PathBuf>,
    /// Embed images alone, not summed with their mirror image
    #[arg(long, requires = "model")]
    no_mirror: bool,
    /// Embeddings of benchmark faces, by the same network: their people are left out
    #[arg(long, value_name = "FILE")]
    probes: Option<PathBuf>,
    #[command(flatten)]
    pub(super) near: files::NearOptions,
    #[command(flatten)]
    pub(super) flags: files::FlagOptions,
    #[command(flatten)]
    pub(super) bounds: identities::Bounds,
    /// few: drop identities of fewer images
    #[arg(long, value_name = "N")]
    pub(super) min_images: Option<u64>,
    /// many: drop images beyond this many of an identity
    #[arg(long, value_name = "N")]
    pub(super) max_images: Option<u64>,
    /// Print what would be decided and write nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    #[command(flatten)]
    pub(super) threads: Threads,
    #[command(flatten)]
    pub(super) format: Format,
}

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PassName {
    /// All that look at images, and few or many where their numbers are given
    Files,
    /// labels, outliers and merges; overlap where --probes is given
    Embeddings,
    One(Pass),
}

impl ValueEnum for PassName {
    fn value_variants<'a>() -> &'a [PassName] {
        const ALL: [PassName; 2 + Pass::ALL.len()] = {
            let mut all = [PassName::Files; 2 + Pass::ALL.len()];
            all[1] = PassName::Embeddings;
            let mut i = 0;
            while i < Pass::ALL.len() {
                all[2 + i] = PassName::One(Pass::ALL[i]);
                i += 1;
            }
            all
        };
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            PassName::Files => PossibleValue::new("files")
                .help("All that look at images, and few or many where their numbers are given"),
            PassName::Embeddings => PossibleValue::new("embeddings")
                .help("labels, outliers and merges; overlap where --probes is given"),
            PassName::One(pass) => PossibleValue::new(pass.name()).help(pass.help()),
        })
    }
}

/// A pass, in the order in which they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pass {
    Exact,
    Near,
    Small,
    Blurred,
    Blank,
    Aspect,
    Labels,
    Outliers,
    Merges,
    Overlap,
    Few,
    Many,
}

impl Pass {
    const ALL: [Pass; 12] = [
        Pass::Exact,
        Pass::Near,
        Pass::Small,
        Pass::Blurred,
        Pass::Blank,
        Pass::Aspect,
        Pass::Labels,
        Pass::Outliers,
        Pass::Merges,
        Pass::Overlap,
        Pass::Few,
        Pass::Many,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Pass::Exact => "exact",
            Pass::Near => "near",
            Pass::Small => "small",
            Pass::Blurred => "blurred",
            Pass::Blank => "blank",
            Pass::Aspect => "aspect",
            Pass::Labels => "labels",
            Pass::Outliers => "outliers",
            Pass::Merges => "merges",
            Pass::Overlap => "overlap",
            Pass::Few => "few",
            Pass::Many => "many",
        }
    }

    /// What it does.
    fn help(self) -> &'static str {
        match self {
            Pass::Exact => {
                "Drop copies within an identity: the same bytes or pixels. The same across identities \
                 is a suspicion"
            }
            Pass::Near => {
                "Drop images that look like a sharper one of their identity, as one encoded again. The \
                 same across identities is a suspicion"
            }
            Pass::Small => "Drop images upscaled from fewer than --min-detail pixels per side",
            Pass::Blurred => "Drop images whose sharpness is below --min-sharpness",
            Pass::Blank => "Drop images whose contrast is below --min-contrast",
            Pass::Aspect => "Drop images whose content within flat borders is a narrow strip",
            Pass::Labels => {
                "Move images that are unlike their identity and like another one to that one"
            }
            Pass::Outliers => {
                "Drop images that are unlike their identity; find second people in it"
            }
            Pass::Merges => "Merge identities whose centres are mutually nearest and alike enough",
            Pass::Overlap => "Drop identities that match a face of --probes",
            Pass::Few => "Drop identities of fewer than --min-images images",
            Pass::Many => "Drop images beyond --max-images of an identity, chosen at random",
        }
    }

    /// Whether it looks at pixels.
    pub fn needs_images(self) -> bool {
        self <= Pass::Aspect
    }

    /// Whether it compares embeddings.
    pub fn needs_embeddings(self) -> bool {
        matches!(self, Pass::Labels | Pass::Outliers | Pass::Merges | Pass::Overlap)
    }
}

impl CleanArgs {
    /// The passes asked for, in order, once each.
    ///
    /// # Errors
    ///
    /// [`CleanError`] if one lacks what it needs.
    pub(super) fn passes(&self) -> Result<Vec<Pass>, CleanError> {
        let mut all: Vec<Pass> = self.passes.iter().flat_map(|name| self.expand(*name)).collect();
        all.sort_unstable();
        all.dedup();
        let has_embeddings = self.embeddings.is_some() || self.model.is_some();
        for pass in &all {
            let missing = match pass {
                Pass::Few if self.min_images.is_none() => Some("--min-images"),
                Pass::Many if self.max_images.is_none() => Some("--max-images"),
                Pass::Overlap if self.probes.is_none() => Some("--probes"),
                _ => None,
            };
            if let Some(option) = missing {
                return Err(CleanError::Missing { pass: pass.name(), option });
            }
            if pass.needs_embeddings() && !has_embeddings {
                return Err(CleanError::NoEmbeddings { pass: pass.name() });
            }
        }
        Ok(all)
    }

    fn expand(&self, name: PassName) -> Vec<Pass> {
        let counts = [self.min_images.map(|_| Pass::Few), self.max_images.map(|_| Pass::Many)];
        match name {
            PassName::Files => {
                let images = Pass::ALL.into_iter().filter(|pass| pass.needs_images());
                images.chain(counts.into_iter().flatten()).collect()
            }
            PassName::Embeddings => {
                let overlap = self.probes.as_ref().map(|_| Pass::Overlap);
                [Pass::Labels, Pass::Outliers, Pass::Merges].into_iter().chain(overlap).collect()
            }
            PassName::One(pass) => vec![pass],
        }
    }

    /// Embeddings of the data set's rows, from the file or the network, and the rows whose images the
    /// network could not be given.
    pub(super) fn embeddings(
        &self,
        work: &Work<'_>,
    ) -> Result<(Embeddings, Vec<u64>), IngestError> {
        match (&self.embeddings, &self.model) {
            (Some(file), _) => {
                let embeddings = Embeddings::open(file)?.of_left(work.dataset, &work.state)?;
                Ok((embeddings, Vec::new()))
            }
            (None, Some(model)) => {
                let options = EmbedOptions { plain: self.no_mirror, quiet: work.quiet };
                with_model(model, work.dir, work.dataset, options)
            }
            (None, None) => Err(CleanError::NoEmbeddings { pass: "embeddings" }.into()),
        }
    }

    /// The faces of the benchmark.
    pub(super) fn probes(&self, expected: usize) -> Result<Embeddings, IngestError> {
        let missing = CleanError::Missing { pass: "overlap", option: "--probes" };
        let probes = Embeddings::open(self.probes.as_ref().ok_or(missing)?)?.in_order();
        match probes.dim() {
            found if found == expected => Ok(probes),
            found => Err(CleanError::Dim { found, expected }.into()),
        }
    }

    /// What decides the outcome, to be kept with it: not the number of threads, nor where files lie.
    pub(super) fn stated(&self) -> Vec<String> {
        let name =
            |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let file = |option: &str, path: &Option<PathBuf>| {
            path.as_ref().map(|path| format!("--{option}={}", name(path)))
        };
        let number = |option: &str, n: Option<u64>| n.map(|n| format!("--{option}={n}"));
        let passes = self.passes().unwrap_or_default();
        let passes: Vec<&str> = passes.iter().map(|pass| pass.name()).collect();
        let options = [
            file("embeddings", &self.embeddings),
            file("model", &self.model),
            self.no_mirror.then(|| "--no-mirror".into()),
            file("probes", &self.probes),
            number("min-images", self.min_images),
            number("max-images", self.max_images),
        ];
        let mut all = vec![format!("--pass={}", passes.join(","))];
        all.extend(options.into_iter().flatten());
        all.extend(self.near.stated());
        all.extend(self.flags.stated());
        all.extend(self.bounds.stated());
        all
    }
}

//! The command line of `clean`.

use std::path::PathBuf;

use clap::{Args, ValueEnum, builder::PossibleValue};
use pfc_clean::{
    Work,
    files::{FlagOptions, NearOptions},
    identities::{Bounds, SecondCluster},
};
use pfc_cli::{
    Format,
    number::{not_negative, positive, within},
};
use pfc_embeddings::Embeddings;

use crate::{IngestError, QualityBound, quality, threads::Threads, vectors::VectorArgs};

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
  pfc-ingest clean data --pass quality --quality yaw=-70..70 --quality sharpness=20..
  pfc-ingest clean data --pass merges --embeddings data.npy --same-person 0.62 --dry-run

Thresholds that are not stated are calibrated: pairs of different identities are sampled from the
data set itself, and the bound is put where --false-matches wrong pairs are expected among all that
are compared, or a share --label-rate of them. Figures and bounds are printed, and kept with the
decisions.")]
pub struct CleanArgs {
    /// Folder that `pack` wrote
    pub(super) dataset: PathBuf,
    /// Passes to run; `files` and `embeddings` stand for all of their kind
    #[arg(long = "pass", value_name = "NAME", value_delimiter = ',', default_value = "files")]
    passes: Vec<PassName>,
    #[command(flatten)]
    vectors: VectorArgs,
    /// Embeddings of benchmark faces, by the same network: their people are left out
    #[arg(long, value_name = "FILE")]
    probes: Option<PathBuf>,
    #[command(flatten)]
    near: NearArgs,
    #[command(flatten)]
    flags: FlagArgs,
    #[command(flatten)]
    bounds: BoundArgs,
    /// quality: a measure of `pfc-ingest quality` and the values between which it has to lie, as in yaw=-60..60
    /// or sharpness=20..; may be given several times
    #[arg(long = "quality", value_name = "COLUMN=LEAST..MOST")]
    quality: Vec<QualityBound>,
    /// few: drop identities with fewer images than this
    #[arg(long, value_name = "N")]
    pub(super) min_images: Option<u64>,
    /// many: keep at most this number of images of an identity
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

/// Bounds of the pass near.
#[derive(Debug, Clone, Copy, Args)]
struct NearArgs {
    /// near: number of bits, of 64, in which perceptual hashes may differ; pixels then decide, so that a
    /// larger number costs time and not precision (docs/cleaning.md)
    #[arg(long, value_name = "BITS", default_value_t = 4, value_parser = clap::value_parser!(u32).range(0..=7))]
    near_bits: u32,
    /// near: largest mean difference of two pictures, shrunk to 14x14, in grey levels, at which they
    /// count as the same
    #[arg(long, value_name = "LEVELS", default_value_t = 2.0, value_parser = within(0.0..=255.0f32))]
    near_levels: f32,
}

/// Bounds of the passes small, blurred, blank and aspect.
#[derive(Debug, Clone, Copy, Args)]
struct FlagArgs {
    /// small: least side in pixels of the picture that an image was enlarged from, as its detail tells
    #[arg(long, value_name = "PIXELS", default_value_t = 16)]
    min_detail: u16,
    /// blurred: least variance of the Laplacian of the luma
    #[arg(long, value_name = "X", default_value_t = 5.0, value_parser = not_negative::<f32>)]
    min_sharpness: f32,
    /// blank: least standard deviation of the luma, in grey levels
    #[arg(long, value_name = "X", default_value_t = 10.0, value_parser = not_negative::<f32>)]
    min_contrast: f32,
    /// aspect: least ratio of the sides of what lies within flat borders
    #[arg(long, value_name = "X", default_value_t = 0.5, value_parser = within(0.0..=1.0f32))]
    min_aspect: f32,
}

/// Bounds of the passes that compare embeddings; those not stated are calibrated.
#[derive(Debug, Clone, Copy, Args)]
struct BoundArgs {
    /// merges, overlap: wrong pairs to expect among all that are compared; bounds are calibrated to
    /// that, and of the pairs above them merges takes only those that are mutually nearest
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = positive::<f64>)]
    false_matches: f64,
    /// merges: cosine of two centres above which they are one person
    #[arg(long, value_name = "COSINE", value_parser = cosine)]
    same_person: Option<f32>,
    /// merges: cosine of two centres above which it is a suspicion that they are one person
    #[arg(long, value_name = "COSINE", value_parser = cosine)]
    maybe_same_person: Option<f32>,
    /// labels: cosine of an image with another identity's centre above which it belongs to that identity
    #[arg(long, value_name = "COSINE", value_parser = cosine)]
    label_match: Option<f32>,
    /// labels: share of images of other people that may exceed the bound, which is calibrated to it
    #[arg(long, value_name = "RATE", default_value_t = 1e-5, value_parser = positive::<f64>)]
    label_rate: f64,
    /// labels: by how much that centre must be nearer than its own
    #[arg(long, value_name = "COSINE", default_value_t = 0.1, value_parser = cosine)]
    label_margin: f32,
    /// outliers, labels: cosine with its own centre below which an image may be a stranger's
    #[arg(long, value_name = "COSINE", value_parser = cosine)]
    stranger: Option<f32>,
    /// outliers: cosine with its own centre below which an image is left out
    #[arg(long, value_name = "COSINE", value_parser = cosine)]
    outlier: Option<f32>,
    /// overlap: cosine of a probe with a centre above which the identity is left out
    #[arg(long, value_name = "COSINE", value_parser = cosine)]
    probe_match: Option<f32>,
    /// outliers: what becomes of a second person's images among those of one identity
    #[arg(long, value_name = "HOW", default_value = "keep")]
    second_cluster: SecondClusterName,
}

/// What becomes of images that are like one another, but not like the rest of their identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SecondClusterName {
    /// They stay, as a suspicion
    Keep,
    /// They become an identity of their own
    Split,
    /// They are left out
    Drop,
}

/// The value of an option that is a cosine.
pub fn cosine(text: &str) -> Result<f32, String> {
    within(-1.0..=1.0)(text)
}

impl NearArgs {
    fn stated(&self) -> Vec<String> {
        vec![
            format!("--near-bits={}", self.near_bits),
            format!("--near-levels={}", self.near_levels),
        ]
    }
}

impl FlagArgs {
    fn stated(&self) -> Vec<String> {
        vec![
            format!("--min-detail={}", self.min_detail),
            format!("--min-sharpness={}", self.min_sharpness),
            format!("--min-contrast={}", self.min_contrast),
            format!("--min-aspect={}", self.min_aspect),
        ]
    }
}

impl BoundArgs {
    fn stated(&self) -> Vec<String> {
        let bound = |name: &str, value: Option<f32>| value.map(|v| format!("--{name}={v}"));
        let second = match self.second_cluster {
            SecondClusterName::Keep => "keep",
            SecondClusterName::Split => "split",
            SecondClusterName::Drop => "drop",
        };
        let given = [
            bound("same-person", self.same_person),
            bound("maybe-same-person", self.maybe_same_person),
            bound("label-match", self.label_match),
            bound("stranger", self.stranger),
            bound("outlier", self.outlier),
            bound("probe-match", self.probe_match),
        ];
        let mut all = vec![
            format!("--false-matches={}", self.false_matches),
            format!("--label-rate={}", self.label_rate),
            format!("--label-margin={}", self.label_margin),
            format!("--second-cluster={second}"),
        ];
        all.extend(given.into_iter().flatten());
        all
    }
}

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PassName {
    /// All that look at images; quality, few and many where their bounds are given
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
            PassName::Files => PossibleValue::new("files").help(
                "All that look at images; quality, few and many where their bounds are given",
            ),
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
    Quality,
    Labels,
    Outliers,
    Merges,
    Overlap,
    Few,
    Many,
}

impl Pass {
    const ALL: [Pass; 13] = [
        Pass::Exact,
        Pass::Near,
        Pass::Small,
        Pass::Blurred,
        Pass::Blank,
        Pass::Aspect,
        Pass::Quality,
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
            Pass::Quality => "quality",
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
                "Drop images that look like a sharper one of their identity, as one encoded again or \
                 mirrored. The same across identities is a suspicion"
            }
            Pass::Small => "Drop images upscaled from fewer than --min-detail pixels per side",
            Pass::Blurred => "Drop images whose sharpness is below --min-sharpness",
            Pass::Blank => "Drop images whose contrast is below --min-contrast",
            Pass::Aspect => "Drop images whose content within flat borders is a narrow strip",
            Pass::Quality => "Drop images of which a measure lies beyond the bounds of --quality",
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
    /// [`IngestError::Options`] if one lacks what it needs.
    pub(super) fn passes(&self) -> Result<Vec<Pass>, IngestError> {
        let mut all: Vec<Pass> = self.passes.iter().flat_map(|name| self.expand(*name)).collect();
        all.sort_unstable();
        all.dedup();
        for pass in &all {
            let missing = match pass {
                Pass::Quality if self.quality.is_empty() => Some("--quality"),
                Pass::Few if self.min_images.is_none() => Some("--min-images"),
                Pass::Many if self.max_images.is_none() => Some("--max-images"),
                Pass::Overlap if self.probes.is_none() => Some("--probes"),
                _ => None,
            };
            if let Some(option) = missing {
                let what = format!("pass `{}` needs {option}", pass.name());
                return Err(IngestError::Options {
                    what,
                    hint: "state it, or leave the pass out".into(),
                });
            }
            if pass.needs_embeddings() && !self.vectors.is_given() {
                return Err(no_embeddings(pass.name()));
            }
        }
        Ok(all)
    }

    fn expand(&self, name: PassName) -> Vec<Pass> {
        let stated = [
            (!self.quality.is_empty()).then_some(Pass::Quality),
            self.min_images.map(|_| Pass::Few),
            self.max_images.map(|_| Pass::Many),
        ];
        match name {
            PassName::Files => {
                let images = Pass::ALL.into_iter().filter(|pass| pass.needs_images());
                images.chain(stated.into_iter().flatten()).collect()
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
        if let Some(file) = self.vectors.file() {
            let embeddings = Embeddings::open(file)?.of_left(work.dataset, &work.state)?;
            return Ok((embeddings, Vec::new()));
        }
        let computed = self.vectors.compute(&self.dataset, work.dataset, work.quiet)?;
        computed.ok_or_else(|| no_embeddings("embeddings"))
    }

    /// The bounds of the pass quality, each with the values of its column by row.
    pub(super) fn quality(&self) -> Result<Vec<(QualityBound, Vec<f32>)>, IngestError> {
        let table = quality::of_dataset(&self.dataset)?;
        let with_values = |bound: &QualityBound| Ok((bound.clone(), table.column(&bound.column)?));
        self.quality.iter().map(with_values).collect()
    }

    /// The faces of the benchmark.
    pub(super) fn probes(&self, expected: usize) -> Result<Embeddings, IngestError> {
        let missing = || IngestError::Options {
            what: "pass `overlap` needs --probes".into(),
            hint: "state it, or leave the pass out".into(),
        };
        let probes = Embeddings::open(self.probes.as_ref().ok_or_else(missing)?)?.in_order();
        match probes.dim() {
            found if found == expected => Ok(probes),
            found => Err(IngestError::Options {
                what: format!("the probes have {found} numbers, the embeddings {expected}"),
                hint: "embed both with the same network".into(),
            }),
        }
    }

    /// The bounds of the pass near.
    pub(super) fn near(&self) -> NearOptions {
        let NearArgs { near_bits, near_levels } = self.near;
        NearOptions { near_bits, near_levels }
    }

    /// The bounds of the passes that flag single images.
    pub(super) fn flags(&self) -> FlagOptions {
        let FlagArgs { min_detail, min_sharpness, min_contrast, min_aspect } = self.flags;
        FlagOptions { min_detail, min_sharpness, min_contrast, min_aspect }
    }

    /// The bounds of the passes that compare embeddings.
    pub(super) fn bounds(&self) -> Bounds {
        let given = &self.bounds;
        Bounds {
            false_matches: given.false_matches,
            same_person: given.same_person,
            maybe_same_person: given.maybe_same_person,
            label_match: given.label_match,
            label_rate: given.label_rate,
            label_margin: given.label_margin,
            stranger: given.stranger,
            outlier: given.outlier,
            probe_match: given.probe_match,
            second_cluster: match given.second_cluster {
                SecondClusterName::Keep => SecondCluster::Keep,
                SecondClusterName::Split => SecondCluster::Split,
                SecondClusterName::Drop => SecondCluster::Drop,
            },
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
            file("probes", &self.probes),
            number("min-images", self.min_images),
            number("max-images", self.max_images),
        ];
        let mut all = vec![format!("--pass={}", passes.join(","))];
        all.extend(self.vectors.stated());
        all.extend(options.into_iter().flatten());
        all.extend(self.quality.iter().map(|bound| format!("--quality={bound}")));
        all.extend(self.near.stated());
        all.extend(self.flags.stated());
        all.extend(self.bounds.stated());
        all
    }
}

fn no_embeddings(pass: &str) -> IngestError {
    IngestError::Options {
        what: format!("pass `{pass}` compares embeddings, and none are given"),
        hint: "give them with --embeddings FILE, or a network with --model FILE.onnx; \
               `--pass files` needs neither"
            .into(),
    }
}

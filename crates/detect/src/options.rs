//! The options of commands that find faces.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use pfc_cli::number::{not_negative, within};
use pfc_onnx::DeviceChoice;

use crate::{Bounds, Choice, DetectError, Detector, Finder, Opening};

/// How faces are looked for, and which of them count.
#[derive(Debug, Clone, Args)]
pub struct SearchArgs {
    /// Pixels of the longer side that a picture is scaled down to
    #[arg(long, value_name = "PIXELS", default_value_t = 640, requires = "detector",
          value_parser = clap::value_parser!(u32).range(64..=4096))]
    detect_size: u32,
    /// How many times a picture that is smaller than --detect-size is enlarged at most: landmarks are then surer,
    /// and it takes longer
    #[arg(long, value_name = "TIMES", default_value_t = 1, requires = "detector",
          value_parser = clap::value_parser!(u32).range(1..=4))]
    detect_enlarge: u32,
    /// Resolutions that a large picture is looked at in, each twice the one before, in tiles
    #[arg(long, value_name = "N", default_value_t = 2, requires = "detector",
          value_parser = clap::value_parser!(u32).range(1..=6))]
    detect_levels: u32,
    /// How sure the detector has to be [default: 0.5, or 0.6 of RetinaFace and YuNet]
    #[arg(long, value_name = "0-1", requires = "detector", value_parser = within(0.0..=1.0f32))]
    min_score: Option<f32>,
    /// Pixels of the picture that the shorter side of a face has at least
    #[arg(long, value_name = "PIXELS", default_value_t = 16.0, requires = "detector",
          value_parser = not_negative::<f32>)]
    min_face: f32,
    /// Sharpness of the aligned face at least: variance of its Laplacian
    #[arg(long, value_name = "X", requires = "detector", value_parser = not_negative::<f32>)]
    min_sharpness: Option<f32>,
    /// Degrees that a face is turned to the side at most, estimated from its landmarks
    #[arg(long, value_name = "DEGREES", requires = "detector", value_parser = within(0.0..=90.0f64))]
    max_yaw: Option<f64>,
    /// Degrees that a face looks up or down at most
    #[arg(long, value_name = "DEGREES", requires = "detector", value_parser = within(0.0..=90.0f64))]
    max_pitch: Option<f64>,
    /// Degrees that a face is turned in the plane of the picture at most
    #[arg(long, value_name = "DEGREES", requires = "detector", value_parser = within(0.0..=180.0f64))]
    max_roll: Option<f64>,
    /// Where the detector computes: auto, cpu, cuda or cuda:N; auto is a GPU if onnxruntime has one
    #[arg(long, value_name = "DEVICE", default_value = "auto", requires = "detector")]
    detector_device: DeviceChoice,
}

impl SearchArgs {
    /// Opens the detector.
    ///
    /// * `n_threads`: how many threads find faces at once
    ///
    /// # Errors
    ///
    /// As [`Detector::open`].
    pub fn open(
        &self,
        detector: &Path,
        choice: Choice,
        n_threads: usize,
    ) -> Result<Finder, DetectError> {
        let opening = Opening {
            n_threads,
            device: self.detector_device,
            size: self.detect_size,
            enlarge: self.detect_enlarge,
            n_levels: self.detect_levels,
            score_min: self.min_score,
        };
        let bounds = Bounds {
            side_min: self.min_face,
            sharpness_min: self.min_sharpness,
            yaw_max: self.max_yaw,
            pitch_max: self.max_pitch,
            roll_max: self.max_roll,
        };
        Ok(Finder { detector: Detector::open(detector, &opening)?, bounds, choice })
    }

    /// The arguments that decide which faces are found.
    ///
    /// * `finder`: what [`open`](SearchArgs::open) gave
    pub fn content_arguments(&self, finder: &Finder) -> Vec<String> {
        let optional =
            |name: &str, value: Option<f64>| value.map(|value| format!("--{name}={value}"));
        let mut arguments = vec![
            format!("--detector={:032x}", finder.detector.checksum()),
            format!("--detect-size={}", self.detect_size),
            format!("--detect-levels={}", self.detect_levels),
            format!("--min-face={}", self.min_face),
        ];
        // Left out as it was before there was such an option, so that what had begun then goes on.
        let enlarge = (self.detect_enlarge > 1).then_some(f64::from(self.detect_enlarge));
        arguments.extend(optional("detect-enlarge", enlarge));
        arguments.extend(optional("min-score", self.min_score.map(f64::from)));
        arguments.extend(optional("min-sharpness", self.min_sharpness.map(f64::from)));
        arguments.extend(optional("max-yaw", self.max_yaw));
        arguments.extend(optional("max-pitch", self.max_pitch));
        arguments.extend(optional("max-roll", self.max_roll));
        arguments
    }
}

/// Which face of a picture is taken where one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum OneFace {
    /// The largest.
    #[default]
    Largest,
    /// The one nearest the middle of the picture.
    Central,
}

impl From<OneFace> for Choice {
    fn from(face: OneFace) -> Choice {
        match face {
            OneFace::Largest => Choice::Largest,
            OneFace::Central => Choice::Central,
        }
    }
}

/// The options of commands that take one face of each photograph where they are given a detector.
#[derive(Debug, Clone, Args)]
pub struct DetectorArgs {
    /// Cut the face out of each photograph that this network finds: SCRFD, RetinaFace, YuNet or
    /// CenterFace, with five landmarks
    #[arg(long, value_name = "FILE.onnx")]
    detector: Option<PathBuf>,
    /// Which face of several is taken
    #[arg(long, value_enum, default_value_t, requires = "detector")]
    face: OneFace,
    #[command(flatten)]
    search: SearchArgs,
}

impl DetectorArgs {
    /// Opens the detector, if there is one, and tells the user what it is.
    ///
    /// * `n_threads`: how many threads find faces at once
    ///
    /// # Errors
    ///
    /// As [`Detector::open`].
    pub fn open(&self, n_threads: usize) -> Result<Option<Finder>, DetectError> {
        let Some(detector) = &self.detector else { return Ok(None) };
        let finder = self.search.open(detector, self.face.into(), n_threads)?;
        pfc_cli::tell(&finder.detector.describe());
        Ok(Some(finder))
    }

    /// Whether a detector is given.
    pub fn is_given(&self) -> bool {
        self.detector.is_some()
    }

    /// The arguments that decide which faces are found, for the manifest; none without a detector.
    ///
    /// * `finder`: what [`open`](DetectorArgs::open) gave
    pub fn content_arguments(&self, finder: Option<&Finder>) -> Vec<String> {
        let Some(finder) = finder else { return Vec::new() };
        let face = self.face.to_possible_value();
        let face = face.map(|value| value.get_name().to_owned()).unwrap_or_default();
        let mut arguments = vec![format!("--face={face}")];
        arguments.extend(self.search.content_arguments(finder));
        arguments
    }
}

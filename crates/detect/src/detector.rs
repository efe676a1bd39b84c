//! A network that finds faces, in use.

use std::path::Path;

use pfc_image::Pixels;
use pfc_onnx::{DeviceChoice, PictureNetwork};

use crate::{
    DetectError, Detection, Family,
    canvas::{Colours, paint},
    detection::{distinct, settled},
    family::Plan,
    table::describe,
    views::{Frame, View},
};

/// Rows and columns of the picture by which a network is recognised that takes any size.
const PROBE: [usize; 2] = [256, 128];

/// How a detector is opened.
#[derive(Debug, Clone, Copy)]
pub struct Opening {
    /// How many threads find faces at once.
    pub n_threads: usize,
    /// Where to compute.
    pub device: DeviceChoice,
    /// Pixels of the longer side that a picture is scaled down to.
    pub size: u32,
    /// How many times a smaller picture is enlarged at most, from 1.
    pub enlarge: u32,
    /// Resolutions that a picture is looked at in, each twice the one before.
    pub n_levels: u32,
    /// How sure the network has to be; by default what its family takes.
    pub score_min: Option<f32>,
}

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Search {
    /// Large faces: finer resolutions are looked at where coarser ones show none.
    Main,
    /// Every face, at all resolutions.
    Every,
}

/// A network that finds faces and their five landmarks. It may be used from many threads; what it finds
/// depends on the picture alone.
#[derive(Debug)]
pub struct Detector {
    network: PictureNetwork,
    plan: Plan,
    colours: Colours,
    frame: Frame,
    n_levels: u32,
    score_min: f32,
}

impl Detector {
    /// Opens an ONNX file and recognises what it is by what it makes of a grey picture.
    ///
    /// # Errors
    ///
    /// [`DetectError::Onnx`] if it does not run, [`DetectError::NotADetector`] if it is none that is known.
    pub fn open(path: &Path, opening: &Opening) -> Result<Detector, DetectError> {
        let network = PictureNetwork::open(path, opening.n_threads, opening.device)?;
        let fixed = network.fixed_size();
        let probe = fixed.unwrap_or(PROBE);
        let outputs = network.run(&vec![0.0; 3 * probe[0] * probe[1]], probe)?;
        let unknown = |reason: String| DetectError::NotADetector {
            path: path.to_owned(),
            reason,
            outputs: describe(&outputs),
        };
        let plan = Plan::recognise(&outputs, probe).map_err(unknown)?;
        let multiple = plan.multiple();
        Ok(Detector {
            network,
            colours: plan.colours(),
            frame: Frame { size: opening.size, enlarge: opening.enlarge, multiple, fixed },
            n_levels: opening.n_levels,
            score_min: opening.score_min.unwrap_or(plan.score_min()),
            plan,
        })
    }

    /// What it is.
    pub fn family(&self) -> Family {
        self.plan.family()
    }

    /// XXH3-128 of the model with all its weights.
    pub fn checksum(&self) -> u128 {
        self.network.checksum()
    }

    /// What computes it, by onnxruntime's name.
    pub fn provider(&self) -> &'static str {
        self.network.device().provider()
    }

    /// What it is and where it computes, for the user.
    pub fn describe(&self) -> String {
        let place = self.network.device();
        let size = match self.frame.fixed {
            Some([height, width]) => format!("of {width}x{height}, the only size it takes"),
            None => format!("scaled down to {} pixels", self.frame.size),
        };
        format!(
            "{}: {}, by its outputs; pictures {size}; faces of score {} and more; computed on {place} ({})",
            self.network.path().display(),
            self.family(),
            self.score_min,
            self.provider()
        )
    }

    /// The faces in a picture, the surest first.
    ///
    /// The whole picture is looked at, then tiles at twice, four times, … the resolution: all of them for
    /// [`Search::Every`], else until one shows a face. Where none does, the picture is looked at once more at
    /// half the size, as networks miss faces that fill it.
    ///
    /// # Errors
    ///
    /// [`DetectError`] if the network fails, which says nothing of the picture.
    pub fn find(&self, pixels: &Pixels, search: Search) -> Result<Vec<Detection>, DetectError> {
        let mut found = self.look(pixels, &self.frame.whole(pixels))?;
        for level in 1..self.n_levels {
            if search == Search::Main && !found.is_empty() {
                break;
            }
            for view in self.frame.tiles(pixels, level) {
                found.extend(self.look(pixels, &view)?);
            }
        }
        if found.is_empty() {
            found = self.look(pixels, &self.frame.afar(pixels))?;
        }
        Ok(distinct(found, self.plan.overlap_max()))
    }

    /// What the network finds in one view.
    fn look(&self, pixels: &Pixels, view: &View) -> Result<Vec<Detection>, DetectError> {
        let planes = paint(pixels, view, &self.colours)?;
        let outputs = self.network.run(&planes, view.canvas)?;
        let found = self.plan.decode(&outputs, view.canvas, self.score_min);
        let [height, width] = view.canvas;
        let found = found.map_err(|reason| DetectError::Outputs {
            path: self.network.path().to_owned(),
            width,
            height,
            reason,
        })?;
        let found = settled(found, self.plan.overlap_max());
        Ok(found.into_iter().filter_map(|face| view.back(face, pixels)).collect())
    }
}

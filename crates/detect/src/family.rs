//! Which detector a network is, by the shapes of its outputs for a picture of a known size.

use std::fmt;

use pfc_onnx::Tensor;

use crate::{
    canvas::Colours,
    centerface::CenterFace,
    detection::{Candidates, Detection},
    levels::{Levels, Reading},
    retinaface::RetinaFace,
    table::describe,
};

/// A kind of network whose outputs are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// SCRFD (Guo et al. 2021), and `InsightFace`'s detectors before it whose outputs are the same: for each
    /// stride and anchor a score, distances to the sides of a box, and five points.
    Scrfd,
    /// `RetinaFace` (Deng et al. 2019) as in `PyTorch`: boxes and points relative to prior boxes.
    RetinaFace,
    /// `YuNet` (Wu et al. 2023), of 2023 and later.
    YuNet,
    /// `CenterFace` (Xu et al. 2019): a map of middles, and what belongs to each.
    CenterFace,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::Scrfd => "SCRFD",
            Family::RetinaFace => "RetinaFace",
            Family::YuNet => "YuNet",
            Family::CenterFace => "CenterFace",
        })
    }
}

/// A recognised network: what it is given, and how its outputs are read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Plan {
    Levels(Levels),
    RetinaFace(RetinaFace),
    CenterFace(CenterFace),
}

impl Plan {
    /// Recognises the network that gave `outputs` for a picture of `size` rows and columns, both multiples of
    /// 128.
    ///
    /// # Errors
    ///
    /// What does not fit.
    pub(crate) fn recognise(outputs: &[Tensor], size: [usize; 2]) -> Result<Plan, String> {
        match outputs.len() {
            3 => RetinaFace::recognise(outputs, size).map(Plan::RetinaFace),
            4 => CenterFace::recognise(outputs, size).map(Plan::CenterFace),
            9 if is_of_mxnet(outputs) => Err(
                "it is a RetinaFace of MXNet, which is not read; SCRFD, such as det_10g.onnx, came after it"
                    .to_owned(),
            ),
            9 | 12 | 15 => Levels::recognise(outputs, size).map(Plan::Levels),
            6 | 10 => Err(format!(
                "{} outputs are those of an SCRFD without landmarks, by which faces are aligned",
                outputs.len()
            )),
            n => Err(format!(
                "it has {n} outputs, and a detector has 3 (RetinaFace), 4 (CenterFace), 9 or 15 (SCRFD) \
                 or 12 (YuNet)"
            )),
        }
    }

    pub(crate) fn family(&self) -> Family {
        match self {
            Plan::Levels(levels) => match levels.reading {
                Reading::Scrfd => Family::Scrfd,
                Reading::YuNet => Family::YuNet,
            },
            Plan::RetinaFace(_) => Family::RetinaFace,
            Plan::CenterFace(_) => Family::CenterFace,
        }
    }

    /// Sides of what the network is given are multiples of this.
    pub(crate) fn multiple(&self) -> usize {
        match self {
            Plan::Levels(levels) => levels.multiple(),
            Plan::RetinaFace(retina) => retina.multiple(),
            Plan::CenterFace(_) => 32,
        }
    }

    /// How the pixels are given.
    pub(crate) fn colours(&self) -> Colours {
        match self.family() {
            Family::Scrfd => Colours { is_bgr: false, mean: [127.5; 3], std: 128.0 },
            Family::RetinaFace => Colours { is_bgr: true, mean: [104.0, 117.0, 123.0], std: 1.0 },
            Family::YuNet => Colours { is_bgr: true, mean: [0.0; 3], std: 1.0 },
            Family::CenterFace => Colours { is_bgr: false, mean: [0.0; 3], std: 1.0 },
        }
    }

    /// The score from which a report counts unless the user says otherwise: what the authors' own programs
    /// take, and 0.6 for `YuNet`, whose 0.9 is meant for video.
    pub(crate) fn score_min(&self) -> f32 {
        match self.family() {
            Family::Scrfd | Family::CenterFace => 0.5,
            Family::RetinaFace | Family::YuNet => 0.6,
        }
    }

    /// The share that two faces may have in common, as in the authors' own programs.
    pub(crate) fn overlap_max(&self) -> f64 {
        match self.family() {
            Family::Scrfd | Family::RetinaFace => 0.4,
            Family::YuNet | Family::CenterFace => 0.3,
        }
    }

    /// Reads the outputs for a picture of `size`.
    ///
    /// # Errors
    ///
    /// Outputs that do not belong to that size.
    pub(crate) fn decode(
        &self,
        outputs: &[Tensor],
        size: [usize; 2],
        score_min: f32,
    ) -> Result<Vec<Detection>, String> {
        let mut candidates = Candidates::new(score_min, size);
        let decoded = match self {
            Plan::Levels(levels) => levels.decode(outputs, size, &mut candidates),
            Plan::RetinaFace(retina) => retina.decode(outputs, size, &mut candidates),
            Plan::CenterFace(center) => center.decode(outputs, size, &mut candidates),
        };
        match decoded {
            Some(()) => Ok(candidates.finish()),
            None => Err(format!("they are {}", describe(outputs))),
        }
    }
}

/// Whether `outputs` are those of `InsightFace`'s first `RetinaFace`: for each of three strides maps of the classes,
/// boxes and points of two anchors.
fn is_of_mxnet(outputs: &[Tensor]) -> bool {
    let n_maps = |channels: usize| {
        let is_map = |output: &&Tensor| output.shape.len() == 4 && output.shape[1] == channels;
        outputs.iter().filter(is_map).count()
    };
    [4, 8, 20].into_iter().all(|channels| n_maps(channels) == 3)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::detection::distinct;

    /// What `tests/detectors/make.py` computed.
    const KNOWN: &str = include_str!("../tests/known/decoded.json");

    struct Known {
        name: String,
        size: [usize; 2],
        score_min: f32,
        outputs: Vec<Tensor>,
        faces: Vec<Detection>,
    }

    fn numbers(value: &Value) -> Vec<f32> {
        value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
    }

    fn known() -> Vec<Known> {
        let cases: Vec<Value> = serde_json::from_str(KNOWN).unwrap();
        cases.iter().map(case).collect()
    }

    fn case(case: &Value) -> Known {
        let name = case["family"].as_str().unwrap().to_owned();
        let size = numbers(&case["size"]);
        let output = |output: &Value| {
            let shape: Vec<usize> =
                numbers(&output["shape"]).into_iter().map(|side| side as usize).collect();
            let (low, high) = (output["low"].as_f64().unwrap(), output["high"].as_f64().unwrap());
            let label = output["name"].as_str().unwrap();
            let n = shape.iter().product();
            let mut values = pfc_testing::formula(0, &format!("{name}/{label}"), n, low, high);
            if label == "conf" && low == 0.0 {
                values.chunks_exact_mut(2).for_each(|row| row[0] = 1.0 - row[1]);
            }
            Tensor { name: label.to_owned(), shape, values }
        };
        let face = |face: &Value| {
            let mut landmarks = [[0.0; 2]; 5];
            landmarks.as_flattened_mut().copy_from_slice(&numbers(&face["landmarks"]));
            Detection {
                score: face["score"].as_f64().unwrap() as f32,
                bounds: numbers(&face["bounds"]).try_into().unwrap(),
                landmarks,
            }
        };
        Known {
            size: [size[0] as usize, size[1] as usize],
            score_min: case["score_min"].as_f64().unwrap() as f32,
            outputs: case["outputs"].as_array().unwrap().iter().map(output).collect(),
            faces: case["faces"].as_array().unwrap().iter().map(face).collect(),
            name,
        }
    }

    fn found(known: &Known, outputs: &[Tensor]) -> Vec<Detection> {
        let plan = Plan::recognise(outputs, known.size).unwrap();
        let found = plan.decode(outputs, known.size, known.score_min).unwrap();
        distinct(found, plan.overlap_max())
    }

    #[test]
    fn each_familys_outputs_mean_what_numpy_says() {
        for known in known() {
            let found = found(&known, &known.outputs);
            assert_eq!(found.len(), known.faces.len(), "{}", known.name);
            for (found, expected) in found.iter().zip(&known.faces) {
                let all = |face: &Detection| {
                    let landmarks = face.landmarks.as_flattened().to_vec();
                    [vec![face.score], face.bounds.to_vec(), landmarks].concat()
                };
                for (a, b) in all(found).iter().zip(all(expected)) {
                    assert!((a - b).abs() < 2e-3, "{}: {found:?} {expected:?}", known.name);
                }
            }
        }
    }

    #[test]
    fn the_family_is_told_by_shapes_alone() {
        let families = [
            ("scrfd", Family::Scrfd),
            ("yunet", Family::YuNet),
            ("retinaface", Family::RetinaFace),
            ("retinaface-slim", Family::RetinaFace),
            ("centerface", Family::CenterFace),
        ];
        for known in known() {
            let expected = families.iter().find(|(name, _)| *name == known.name).unwrap().1;
            let mut outputs = known.outputs.clone();
            for (i, output) in outputs.iter_mut().enumerate() {
                output.name = format!("{}", 400 + i);
            }
            // CenterFace's sides and shifts have one shape: their order tells them apart.
            if expected != Family::CenterFace {
                outputs.reverse();
            }
            let plan = Plan::recognise(&outputs, known.size).unwrap();
            assert_eq!(plan.family(), expected);
            if expected != Family::YuNet {
                assert_eq!(found(&known, &outputs), found(&known, &known.outputs));
            }
        }
    }

    #[test]
    fn shapes_of_no_detector_are_refused_with_what_does_not_fit() {
        for known in known() {
            for i in 0..known.outputs.len() {
                let mut outputs = known.outputs.clone();
                outputs[i].shape.push(1);
                outputs[i].shape[0] = 2;
                assert!(Plan::recognise(&outputs, known.size).is_err(), "{} {i}", known.name);
                outputs.remove(i);
                assert!(Plan::recognise(&outputs, known.size).is_err(), "{} {i}", known.name);
            }
            // For a picture of another size the same outputs are refused as well.
            let plan = Plan::recognise(&known.outputs, known.size).unwrap();
            assert!(plan.decode(&known.outputs, [128, 128], 0.5).is_err(), "{}", known.name);
        }
        let error = Plan::recognise(&known()[0].outputs[..6], [128, 192]).unwrap_err();
        assert!(error.contains("SCRFD without landmarks"), "{error}");
        let map = |channels: usize, side: usize| Tensor {
            name: String::new(),
            shape: vec![1, channels, side, side],
            values: vec![0.0; channels * side * side],
        };
        let maps: Vec<Tensor> =
            [16, 8, 4].into_iter().flat_map(|side| [4, 8, 20].map(|n| map(n, side))).collect();
        let error = Plan::recognise(&maps, [128, 128]).unwrap_err();
        assert!(error.contains("RetinaFace of MXNet"), "{error}");
        let error = Plan::recognise(&[], [128, 192]).unwrap_err();
        assert!(error.starts_with("it has 0 outputs"), "{error}");
    }

    #[test]
    fn outputs_of_nonsense_give_no_face_of_nonsense() {
        let nonsense = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30, -1e30, f32::MAX, 0.999];
        for known in known() {
            let plan = Plan::recognise(&known.outputs, known.size).unwrap();
            for value in nonsense {
                for i in 0..known.outputs.len() {
                    let mut outputs = known.outputs.clone();
                    outputs[i].values.fill(value);
                    let found = plan.decode(&outputs, known.size, 0.1).unwrap();
                    let reach = 4.1 * known.size[1] as f32;
                    for face in found {
                        let mut all = face.bounds.iter().chain(face.landmarks.as_flattened());
                        assert!(all.all(|v| v.abs() < reach), "{} {value}: {face:?}", known.name);
                        assert!(face.score > 0.0 && face.score <= 1.0 && face.area() > 0.0);
                    }
                }
            }
        }
    }

    #[test]
    fn scores_that_are_logits_are_noticed() {
        let known = known().remove(0);
        let mut outputs = known.outputs.clone();
        for output in &mut outputs[..3] {
            output.values.iter_mut().for_each(|p| *p = (p.max(1e-6) / (1.0 - *p).max(1e-6)).ln());
        }
        let (one, two) = (found(&known, &known.outputs), found(&known, &outputs));
        assert_eq!(one.len(), two.len());
        assert!(one.iter().zip(&two).all(|(a, b)| a.bounds == b.bounds));
    }
}

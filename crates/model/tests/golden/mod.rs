//! Finds the recorded cases and computes the weights they were made with.

use std::path::{Path, PathBuf};

use pfc_model::{Architecture, Backbone};
use pfc_testing::formula;
use serde_json::Value;
use tch::{Device, Kind, Tensor};

/// The folder of recorded backbones; without it, says so and gives none.
pub fn folder() -> Option<PathBuf> {
    pfc_testing::golden("backbones")
}

/// Files of `folder` whose name ends in `ending`, in order; says so if there are none.
pub fn json_files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.to_str().is_some_and(|path| path.ends_with(ending)));
    paths.sort();
    if paths.is_empty() {
        pfc_testing::skip(&format!("no file in {} ends in {ending}", folder.display()));
    }
    paths
}

/// Lists of the small networks whose answers are there as well.
pub fn small_networks(folder: &Path) -> Vec<PathBuf> {
    let mut lists = json_files(folder, TENSORS);
    lists.retain(|list| pfc_testing::is_known(&beside(list, ".golden.safetensors")));
    lists
}

const TENSORS: &str = ".tensors.json";

/// The file of the network that `list` describes whose name ends in `ending`.
pub fn beside(list: &Path, ending: &str) -> PathBuf {
    let stem = list.to_str().unwrap().strip_suffix(TENSORS).unwrap();
    PathBuf::from(format!("{stem}{ending}"))
}

/// The images that all cases were run on, `[N, 3, 112, 112]`.
pub fn input() -> Tensor {
    Tensor::from_slice(&pfc_testing::network_input()).view([-1, 3, 112, 112])
}

/// Of these, as many as `expected` has rows.
pub fn input_of(expected: &Tensor) -> Tensor {
    input().narrow(0, 0, expected.size()[0])
}

/// max|a − b| / max|b|.
pub fn relative_error(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.size(), expected.size());
    let (found, expected) = (found.to_kind(Kind::Double), expected.to_kind(Kind::Double));
    let difference = (&found - &expected).abs().max().double_value(&[]);
    // A NaN must not compare as small.
    assert!(difference.is_finite());
    difference / expected.abs().max().double_value(&[]).max(f64::MIN_POSITIVE)
}

/// The smallest element.
pub fn worst(values: &Tensor) -> f64 {
    values.min().double_value(&[])
}

/// A list of tensors with what else is known of a network.
pub struct Case(Value);

/// One line of such a list.
pub struct Listed {
    pub key: String,
    pub shape: Vec<i64>,
    pub kind: Kind,
    range: Option<(f64, f64)>,
}

impl Case {
    pub fn open(path: &Path) -> Case {
        Case(serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap())
    }

    pub fn text(&self, field: &str) -> &str {
        self.0[field].as_str().unwrap()
    }

    pub fn number(&self, field: &str) -> i64 {
        self.0[field].as_i64().unwrap()
    }

    pub fn texts(&self, field: &str) -> Vec<String> {
        serde_json::from_value(self.0[field].clone()).unwrap()
    }

    pub fn tensors(&self) -> impl Iterator<Item = Listed> {
        self.0["tensors"].as_array().unwrap().iter().map(|row| Listed {
            key: row[0].as_str().unwrap().to_owned(),
            shape: serde_json::from_value(row[1].clone()).unwrap(),
            kind: match row[2].as_str().unwrap() {
                "float32" => Kind::Float,
                "int64" => Kind::Int64,
                other => panic!("no kind is called {other}"),
            },
            range: row[3].as_f64().zip(row[4].as_f64()),
        })
    }

    /// The seed that the list itself names.
    pub fn seed(&self) -> u64 {
        self.0["seed"].as_u64().unwrap()
    }

    /// Every tensor of the list, by the formula.
    pub fn weights(&self, seed: u64) -> Vec<(String, Tensor)> {
        self.tensors().map(|listed| (listed.key.clone(), listed.tensor(seed))).collect()
    }

    /// The network whose state dict this is, told from its tensors' shapes.
    pub fn small_backbone(&self) -> Backbone {
        let (architecture, embedding) = self.architecture();
        Backbone::with_architecture(architecture, embedding, Device::Cpu, 0).unwrap()
    }

    fn architecture(&self) -> (Architecture, i64) {
        let shapes: std::collections::BTreeMap<String, Vec<i64>> =
            self.tensors().map(|listed| (listed.key, listed.shape)).collect();
        let first = |key: &str| shapes[key][0];
        // How many numbers follow `prefix`, as in `blocks.0.`, `blocks.1.`.
        let count = |prefix: &str| {
            (0..)
                .take_while(|i| shapes.keys().any(|key| key.starts_with(&format!("{prefix}{i}."))))
                .count()
        };
        if shapes.contains_key("patch_embed.proj.weight") {
            let patches = &shapes["patch_embed.proj.weight"];
            let vit = Architecture::Vit {
                dim: patches[0],
                depth: count("blocks."),
                heads: self.heads(),
                patch: patches[3],
                drop_path: 0.0,
                mask: 0.0,
            };
            return (vit, first("feature.3.weight"));
        }
        if shapes.contains_key("conv_sep.layers.0.weight") {
            let blocks = [1, 3, 5, 7].map(|layer| count(&format!("layers.{layer}.layers.")));
            // A single second block is a plain convolution, whose three layers are no blocks.
            let single = shapes.contains_key("layers.1.layers.2.weight");
            let blocks = if single { [1, blocks[1], blocks[2], blocks[3]] } else { blocks };
            let scale = first("layers.0.layers.0.weight") / 64;
            return (
                Architecture::MobileFaceNet { blocks, scale },
                first("features.layers.2.weight"),
            );
        }
        let stages = [1, 2, 3, 4].map(|stage| format!("layer{stage}."));
        let layers = stages.clone().map(|stage| count(&stage));
        let widths = stages.map(|stage| first(&format!("{stage}0.conv1.weight")));
        (Architecture::IResNet { layers, widths }, first("fc.weight"))
    }

    /// The one number that no shape tells, from the description: "…, 4 heads" or "heads 4".
    fn heads(&self) -> i64 {
        let words: Vec<&str> = self.text("about").split([' ', ',']).collect();
        let at = words.iter().position(|word| *word == "heads").unwrap();
        let number = |word: Option<&&str>| word.and_then(|word| word.parse().ok());
        number(words.get(at + 1)).or_else(|| number(at.checked_sub(1).map(|i| &words[i]))).unwrap()
    }
}

impl Listed {
    fn tensor(&self, seed: u64) -> Tensor {
        match self.range {
            None => Tensor::zeros(&self.shape, (self.kind, Device::Cpu)),
            Some((low, high)) => {
                let n = self.shape.iter().product::<i64>() as usize;
                Tensor::from_slice(&formula(seed, &self.key, n, low, high)).view(&self.shape[..])
            }
        }
    }
}

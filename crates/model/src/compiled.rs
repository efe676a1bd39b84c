//! A network's passes in training, compiled ahead of time by `scripts/compile-backbone` (`AOTInductor`).
//!
//! A folder holds a package of the forward and one of the backward pass, and `manifest.json`, which states what
//! they were compiled for. Weights are inputs of both: the network keeps them, and everything but a training pass
//! goes on as without packages.
//!
//! A package is a shared library, and runs as the user who loads it: it is loaded for somebody who names its folder
//! alone. The manifest's SHA-256 keeps the two packages and the manifest together; it says nothing of who made them.

#![allow(unsafe_code)]

// B = batch, E = embedding.

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use pfc_autograd::{lists, package::Package, with_gradient};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tch::{Device, Kind, TchError, Tensor};

use crate::{Backbone, ModelError, Network, Precision};

/// The layout that is read.
const FORMAT: u64 = 1;
/// The libtorch that packages are compiled for: another one has other entries for them.
const TORCH: &str = "2.11.0";
/// Larger than any manifest.
const MANIFEST_BYTES_MAX: u64 = 16 << 20;
/// Larger than any package, which holds code and no weights.
const PACKAGE_BYTES_MAX: u64 = 1 << 30;

/// What `manifest.json` says.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format: u64,
    network: Network,
    embedding: i64,
    batch: i64,
    precision: Precision,
    device: String,
    torch: String,
    /// The images, then every tensor of the network but counters, in state-dict order.
    inputs: Vec<Described>,
    /// Embeddings, moved running statistics in state-dict order, and what is kept for the backward pass.
    given: Vec<Described>,
    /// Keys of the gradients that the backward pass gives, in their order.
    learns: Vec<String>,
    /// Inputs of the backward pass, after which comes the gradient of the embeddings.
    sources: Vec<Source>,
    forward_sha256: String,
    backward_sha256: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Described {
    name: String,
    shape: Vec<i64>,
    strides: Vec<i64>,
    kind: String,
}

/// Where an input of the backward pass comes from.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Source {
    /// The input of the forward pass at this place.
    Input(usize),
    /// Its output at this place.
    Output(usize),
}

/// What packages have to be compiled for.
#[derive(Debug, Clone, Copy)]
pub struct Purpose {
    /// The network.
    pub network: Network,
    /// Numbers in an embedding.
    pub embedding: i64,
    /// Images of one pass.
    pub batch: i64,
    /// What the large layers compute in.
    pub precision: Precision,
    /// Where the network computes.
    pub device: Device,
}

impl Purpose {
    fn device_name(&self) -> &'static str {
        if self.device.is_cuda() { "cuda" } else { "cpu" }
    }

    /// The command that makes packages for it.
    fn command(&self, folder: &Path) -> String {
        let Purpose { network, embedding, batch, precision, .. } = self;
        let (device, folder) = (self.device_name(), folder.display());
        format!(
            "scripts/compile-backbone {network} --batch {batch} --embedding {embedding} --precision {precision} \
             --device {device} --out {folder}"
        )
    }
}

/// A folder of packages that fits a purpose; nothing of it has been loaded.
#[derive(Debug)]
pub struct Packages {
    folder: PathBuf,
    manifest: Manifest,
    forward: Vec<u8>,
    backward: Vec<u8>,
}

impl Packages {
    /// Reads `folder` and compares it with what it is wanted for. Runs nothing of it.
    ///
    /// # Errors
    ///
    /// [`ModelError::Compiled`] for the first mismatch, a package that is not the one of its manifest
    /// included, [`ModelError::Manifest`], and those of reading files.
    pub fn open(folder: &Path, purpose: &Purpose) -> Result<Packages, ModelError> {
        let path = folder.join("manifest.json");
        let text = read(&path, MANIFEST_BYTES_MAX, folder, purpose)?;
        let manifest: Manifest = serde_json::from_slice(&text)
            .map_err(|source| ModelError::Manifest { path, source })?;
        let refuse = |what: &str, found: String, wanted: String| ModelError::Compiled {
            folder: folder.to_owned(),
            reason: format!("{what} is {found}, but has to be {wanted}"),
            way_out: purpose.command(folder),
        };
        let device = purpose.device_name();
        let pairs = [
            ("the format", manifest.format.to_string(), FORMAT.to_string()),
            ("the PyTorch that compiled it", manifest.torch.clone(), TORCH.to_owned()),
            ("the network", manifest.network.to_string(), purpose.network.to_string()),
            ("the embedding", manifest.embedding.to_string(), purpose.embedding.to_string()),
            ("the batch", manifest.batch.to_string(), purpose.batch.to_string()),
            ("the precision", manifest.precision.to_string(), purpose.precision.to_string()),
            ("the device", manifest.device.clone(), device.to_owned()),
        ];
        for (what, found, wanted) in pairs {
            if found != wanted {
                return Err(refuse(what, found, wanted));
            }
        }
        let package = |name: &str, sha256: &str| {
            let bytes = read(&folder.join(name), PACKAGE_BYTES_MAX, folder, purpose)?;
            let found: String =
                Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            if found == sha256 {
                return Ok(bytes);
            }
            Err(refuse(&format!("the SHA-256 of {name}"), found, sha256.to_owned()))
        };
        let forward = package("forward.pt2", &manifest.forward_sha256)?;
        let backward = package("backward.pt2", &manifest.backward_sha256)?;
        let packages = Packages { folder: folder.to_owned(), manifest, forward, backward };
        packages.check_places().map_err(|reason| ModelError::Compiled {
            folder: folder.to_owned(),
            reason,
            way_out: purpose.command(folder),
        })?;
        Ok(packages)
    }

    /// Refuses a manifest whose places are not there.
    fn check_places(&self) -> Result<(), String> {
        let Manifest { inputs, given, sources, .. } = &self.manifest;
        let n_statistics = inputs.iter().filter(|input| is_statistic(&input.name)).count();
        if given.len() <= n_statistics {
            return Err(format!(
                "it gives {} tensors, too few for {n_statistics} statistics",
                given.len()
            ));
        }
        let is_there = |source: &Source| match *source {
            Source::Input(place) => place < inputs.len(),
            Source::Output(place) => place < given.len(),
        };
        match sources.iter().find(|source| !is_there(source)) {
            Some(source) => Err(format!("the backward pass takes {source:?}, which is not there")),
            None => Ok(()),
        }
    }

    /// Loads both packages, which runs their code, for `backbone`.
    ///
    /// # Errors
    ///
    /// [`ModelError::Compiled`] if a tensor of the network is not laid out as they expect;
    /// [`ModelError::Torch`] and [`ModelError::Memory`] if libtorch cannot load them.
    pub fn load(self, backbone: &Backbone) -> Result<CompiledPasses, ModelError> {
        let Packages { folder, manifest, forward, backward } = self;
        let device = backbone.device();
        let tensors = backbone.package_inputs();
        let refuse = |reason: String| ModelError::Compiled {
            folder: folder.clone(),
            reason,
            way_out: "scripts/compile-backbone of this version, into another folder".to_owned(),
        };
        let expected = manifest.inputs.get(1..).unwrap_or_default();
        if expected.len() != tensors.len() {
            let reason = format!(
                "it takes {} tensors, but the network has {}",
                expected.len(),
                tensors.len()
            );
            return Err(refuse(reason));
        }
        for (expected, (key, tensor)) in expected.iter().zip(&tensors) {
            let found = described(key, tensor);
            if found.name != expected.name || !found.is_laid_out_as(expected) {
                return Err(refuse(format!(
                    "it takes {expected:?}, but the network has {found:?}"
                )));
            }
        }
        let learning = backbone.named_parameters();
        let keys: Vec<&str> = learning.iter().map(|(key, _)| key.as_str()).collect();
        if keys != manifest.learns.iter().map(String::as_str).collect::<Vec<_>>() {
            return Err(refuse("its gradients are those of other parameters".to_owned()));
        }
        let forward = load(&forward, device)?;
        let backward = Arc::new(load(&backward, device)?);
        Ok(CompiledPasses { manifest: Arc::new(manifest), forward, backward })
    }
}

fn read(path: &Path, most: u64, folder: &Path, purpose: &Purpose) -> Result<Vec<u8>, ModelError> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(ModelError::io("open", path))?;
    file.take(most + 1).read_to_end(&mut bytes).map_err(ModelError::io("read", path))?;
    if bytes.len() as u64 > most {
        return Err(ModelError::Compiled {
            folder: folder.to_owned(),
            reason: format!("{} has more than {most} bytes", path.display()),
            way_out: purpose.command(folder),
        });
    }
    Ok(bytes)
}

/// From a file of our own, whose bytes are those that were looked at.
fn load(bytes: &[u8], device: Device) -> Result<Package, ModelError> {
    let file = tempfile::Builder::new().prefix("pfc-").suffix(".pt2").tempfile();
    let mut file = file.map_err(ModelError::io("make a file in", &std::env::temp_dir()))?;
    file.write_all(bytes).map_err(ModelError::io("write", file.path()))?;
    Package::load(file.path(), device).map_err(ModelError::torch("load a compiled network"))
}

fn is_statistic(key: &str) -> bool {
    key.ends_with(".running_mean") || key.ends_with(".running_var")
}

fn described(name: &str, tensor: &Tensor) -> Described {
    let kind = match tensor.kind() {
        Kind::Float => "f32".to_owned(),
        Kind::BFloat16 => "bf16".to_owned(),
        Kind::Half => "f16".to_owned(),
        other => format!("{other:?}"),
    };
    Described { name: name.to_owned(), shape: tensor.size(), strides: tensor.stride(), kind }
}

/// The passes of a network in training, loaded.
#[derive(Debug)]
pub struct CompiledPasses {
    manifest: Arc<Manifest>,
    forward: Package,
    backward: Arc<Package>,
}

impl CompiledPasses {
    /// Embeddings `[B, E]` of `images`, with their place in a backward pass, and the moved running statistics in
    /// state-dict order.
    ///
    /// * `tensors`: those that the packages were loaded for
    ///
    /// # Errors
    ///
    /// [`TchError::Shape`] if the images are not those of the packages, and libtorch's words.
    pub(crate) fn forward(
        &self,
        images: &Tensor,
        tensors: &[(String, Tensor)],
    ) -> Result<(Tensor, Vec<Tensor>), TchError> {
        let mut inputs = vec![images.detach()];
        inputs.extend(tensors.iter().map(|(_, tensor)| tensor.detach()));
        let names = std::iter::once("images").chain(tensors.iter().map(|(key, _)| key.as_str()));
        for ((name, input), expected) in names.zip(&inputs).zip(&self.manifest.inputs) {
            check(name, input, expected)?;
        }
        // SAFETY: every input was compared with what the packages were compiled for, and `load` their number.
        let mut given = unsafe { self.forward.run(&inputs, self.manifest.given.len()) }?;
        for (tensor, expected) in given.iter().zip(&self.manifest.given) {
            check("", tensor, expected)?;
        }
        let embeddings = given[0].shallow_clone();
        let n_statistics = tensors.iter().filter(|(key, _)| is_statistic(key)).count();
        let statistics =
            given.iter().skip(1).take(n_statistics).map(Tensor::shallow_clone).collect();
        let mut kept: Vec<Tensor> = Vec::with_capacity(self.manifest.sources.len() + 1);
        for source in &self.manifest.sources {
            kept.push(match *source {
                Source::Input(place) => inputs[place].shallow_clone(),
                Source::Output(place) => given[place].shallow_clone(),
            });
        }
        given.clear();
        let by_key =
            |key: &String| tensors.iter().find(|(other, _)| other == key).map(|(_, tensor)| tensor);
        let learning: Vec<&Tensor> = self.manifest.learns.iter().filter_map(by_key).collect();
        let (backward, n_gradients) = (Arc::clone(&self.backward), learning.len());
        let expected = self.manifest.given[0].clone();
        let embeddings = with_gradient(embeddings, &learning, move |output| {
            kept.push(output.tensor.contiguous());
            check("gradient", &kept[kept.len() - 1], &expected)
                // SAFETY: the others are outputs of the forward pass or inputs, which were compared.
                .and_then(|()| unsafe { backward.run(&kept, n_gradients) })
                .unwrap_or_else(|error| panic!("the compiled backward pass fails: {error}"))
        });
        Ok((embeddings, statistics))
    }
}

/// Refuses a tensor that a package would misread.
fn check(name: &str, tensor: &Tensor, expected: &Described) -> Result<(), TchError> {
    let found = described(name, tensor);
    if found.is_laid_out_as(expected) {
        return Ok(());
    }
    let said = format!("a compiled network takes {expected:?} as `{name}`, not {found:?}");
    Err(TchError::Shape(said))
}

impl Described {
    /// But for the name, and for strides of axes of one element, which say nothing.
    fn is_laid_out_as(&self, other: &Described) -> bool {
        let strides = |of: &Described| -> Vec<i64> {
            let axes = of.strides.iter().zip(&of.shape);
            axes.filter(|(_, side)| **side > 1).map(|(stride, _)| *stride).collect()
        };
        self.shape == other.shape && self.kind == other.kind && strides(self) == strides(other)
    }
}

/// Puts moved running statistics in their places.
pub(crate) fn move_statistics(
    tensors: &[(String, Tensor)],
    moved: &[Tensor],
) -> Result<(), TchError> {
    let own: Vec<&Tensor> =
        tensors.iter().filter(|(key, _)| is_statistic(key)).map(|(_, tensor)| tensor).collect();
    tch::no_grad(|| lists::copy(&own, moved))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn purpose() -> Purpose {
        let network = "r10_w8".parse().unwrap();
        let (precision, device) = (Precision::F32, Device::Cpu);
        Purpose { network, embedding: 24, batch: 4, precision, device }
    }

    fn folder(change: impl Fn(String) -> String) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        // SHA-256 of "abc" is an example of FIPS 180.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let input = r#"{"name": "images", "shape": [4], "strides": [1], "kind": "f32"}"#;
        let manifest = format!(
            r#"{{"format": 1, "network": "r10_w8", "embedding": 24, "batch": 4, "precision": "f32",
                "device": "cpu", "torch": "2.11.0", "inputs": [{input}], "given": [{input}],
                "learns": [], "sources": [{{"input": 0}}, {{"output": 0}}],
                "forward_sha256": "{abc}", "backward_sha256": "{abc}"}}"#
        );
        fs::write(folder.path().join("manifest.json"), change(manifest)).unwrap();
        for name in ["forward.pt2", "backward.pt2"] {
            fs::write(folder.path().join(name), "abc").unwrap();
        }
        folder
    }

    #[test]
    fn packages_for_the_purpose_are_taken() {
        let folder = folder(|text| text);
        Packages::open(folder.path(), &purpose()).unwrap();
    }

    #[test]
    fn every_mismatch_is_refused_with_the_command_that_mends_it() {
        let cases = [
            (r#""format": 1"#, r#""format": 2"#, "the format is 2, but has to be 1"),
            ("r10_w8", "r50", "the network is r50, but has to be r10_w8"),
            (r#""embedding": 24"#, r#""embedding": 25"#, "the embedding is 25, but has to be 24"),
            (r#""batch": 4"#, r#""batch": 8"#, "the batch is 8, but has to be 4"),
            (r#""f32","#, r#""bf16","#, "the precision is bf16, but has to be f32"),
            (r#""cpu""#, r#""cuda""#, "the device is cuda, but has to be cpu"),
            ("2.11.0", "2.10.0", "the PyTorch that compiled it is 2.10.0, but has to be 2.11.0"),
            ("ba7816bf", "00000000", "the SHA-256 of forward.pt2 is ba7816bf"),
            (r#"{"output": 0}"#, r#"{"output": 1}"#, "takes Output(1), which is not there"),
        ];
        for (from, to, said) in cases {
            let folder = folder(|text| text.replacen(from, to, 1));
            let error = Packages::open(folder.path(), &purpose()).unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
            let hint = error.hint().unwrap();
            assert!(hint.contains("scripts/compile-backbone r10_w8 --batch 4"), "{hint}");
        }
    }
}

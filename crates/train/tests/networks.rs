//! Every network by name: two ranks get the gradients that one process gets in two parts.

// B = images of all ranks, E = embedding.

#![allow(clippy::unwrap_used)]

mod support;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use pfc_model::{Architecture, Backbone, BackboneSpec, Network};
use pfc_train::{
    config::{EvalConfig, EvalSet},
    data::plan::mix,
    optim::global_norm,
    ranks::Ranks,
    run::evaluate::{Measured, Verifier},
    step::gradients::{BackwardInput, Gradients, RecordedForward},
};
use support::ranks::{on_ranks, variant};
use tch::{Device, Kind, Tensor};

const BATCH: i64 = 4;
const EMBEDDING: i64 = 8;
/// Each gradient is a sum of two numbers that both sides compute by the same kernels from the same
/// images, so that only the order of additions within libtorch may differ: a few units in the last place
/// of f32, 6e-8 of the largest number that takes part. A sum that one rank's part is missing from is
/// off by about half.
const ROUNDING: f64 = 1e-5;
/// Four halves of the distance from 1 to the next f32, each of which one rounding may add.
const FEW_UNITS: f64 = 4.0 * (f32::EPSILON / 2.0) as f64;

/// The network of that name, narrow and shallow: every kind of layer that it has, at least once.
fn reduced(network: Network) -> Architecture {
    match network.architecture() {
        Architecture::IResNet { layers, widths } => Architecture::IResNet {
            layers: layers.map(|n| n.min(2)),
            widths: widths.map(|width| (width / 8).max(8)),
        },
        Architecture::MobileFaceNet { blocks, scale } => {
            Architecture::MobileFaceNet { blocks: blocks.map(|n| n.min(2)), scale }
        }
        Architecture::Vit { dim, depth, heads, drop_path, mask, .. } => Architecture::Vit {
            dim: dim / 8,
            depth: depth.min(3),
            heads,
            patch: 28,
            drop_path,
            mask,
        },
    }
}

fn random(shape: &[i64], seed: u64) -> Tensor {
    let n = shape.iter().product::<i64>() as u64;
    let number = |i: u64| (mix(mix(seed) ^ i) >> 40) as f32 / (1 << 24) as f32 - 0.5;
    Tensor::from_slice(&(0..n).map(number).collect::<Vec<f32>>()).view(shape)
}

/// One step's gradients by name, with the share of the images of this rank taken in parts.
fn gradients(
    network: Network,
    ranks: &Ranks,
    n_parts: usize,
    recompute: usize,
) -> Vec<(String, Tensor)> {
    let architecture = reduced(network);
    let mut backbone =
        Backbone::with_architecture(architecture, EMBEDDING, Device::Cpu, 3).unwrap();
    let named = backbone.named_parameters();
    let by_name: Vec<(&str, &Tensor)> =
        named.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let parameters: Vec<&Tensor> = named.iter().map(|(_, tensor)| tensor).collect();
    // Small buckets: there are several of them, as in large networks.
    let mut gradients = Gradients::new(ranks, &by_name, 16 << 10).unwrap();
    let images = random(&[BATCH, 3, 112, 112], 1);
    let grad_be = random(&[BATCH, EMBEDDING], 2);
    let (rank, world) = (ranks.rank(), ranks.world());
    let mut found = None;
    for part in 0..n_parts {
        let first = (rank + world * part) as i64;
        let share = |all: &Tensor| all.slice(0, first, None, (world * n_parts) as i64);
        backbone.seed_noise(5 + first as u64);
        let forward = match recompute {
            0 => RecordedForward::Whole(backbone.forward(&share(&images), true)),
            n_blocks => RecordedForward::Checkpointed(
                backbone.forward_checkpointed(&share(&images), n_blocks),
            ),
        };
        let input = BackwardInput { backbone: &backbone, forward, grad_bd: &share(&grad_be) };
        found = gradients.add(input, &parameters, part + 1 == n_parts).unwrap();
    }
    let names = named.iter().map(|(name, _)| name.clone());
    names.zip(found.unwrap().iter().map(Tensor::copy)).collect()
}

fn file(folder: &str, network: Network, world: usize, recompute: usize) -> PathBuf {
    Path::new(folder).join(format!("{network}-{world}-{recompute}.safetensors"))
}

#[test]
fn two_ranks_get_the_gradients_that_one_gets_in_two_parts_for_every_network() {
    let name = "two_ranks_get_the_gradients_that_one_gets_in_two_parts_for_every_network";
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().display().to_string();
    on_ranks(name, &folder, 2, |group| {
        tch::set_num_threads(1);
        let (folder, ranks) = (variant(), Ranks::of_group(group));
        for network in Network::all() {
            for recompute in [0, 1] {
                let found = gradients(network, &ranks, 1, recompute);
                if ranks.is_first() {
                    let path = file(&folder, network, 2, recompute);
                    Tensor::write_safetensors(&found, path).unwrap();
                }
            }
        }
        ranks.meet().unwrap();
    });
    tch::set_num_threads(1);
    for network in Network::all() {
        let expected = gradients(network, &Ranks::solo(), 2, 0);
        for recompute in [0, 1] {
            let found = Tensor::read_safetensors(file(&folder, network, 2, recompute)).unwrap();
            check_near(&found, &expected, &format!("{network}, recompute {recompute}"));
        }
    }
}

#[track_caller]
fn check_near(found: &[(String, Tensor)], expected: &[(String, Tensor)], place: &str) {
    assert_eq!(found.len(), expected.len(), "{place}");
    let largest = |tensor: &Tensor| tensor.abs().max().double_value(&[]);
    let all = |named: &[(String, Tensor)]| -> Vec<Tensor> {
        named.iter().map(|(_, tensor)| tensor.shallow_clone()).collect()
    };
    let norms = [found, expected].map(|named| global_norm(&all(named)).unwrap());
    let error = (norms[0] - norms[1]).abs();
    assert!(error <= ROUNDING * norms[1], "{place}: norms {norms:?}");
    // Gradients of what the next normalisation takes out again are rounding and nothing else: a few units
    // in the last place of the numbers that cancel, which are as large as the largest gradient.
    let of_all = expected.iter().map(|(_, tensor)| largest(tensor)).fold(0.0, f64::max);
    for (name, expected) in expected {
        let (_, found) = found.iter().find(|(other, _)| other == name).unwrap();
        let bound = (ROUNDING * largest(expected)).max(FEW_UNITS * of_all);
        let error = largest(&(found - expected).to_kind(Kind::Double));
        assert!(error <= bound, "{place}, {name}: {error:e} > {bound:e}");
    }
}

/// The kinds of parameters, as names without numbers.
fn kinds(backbone: &Backbone) -> BTreeSet<String> {
    let without_numbers = |name: String| name.replace(|c: char| c.is_ascii_digit(), "");
    backbone.named_parameters().into_iter().map(|(name, _)| without_numbers(name)).collect()
}

#[test]
fn the_reduced_networks_have_every_kind_of_parameter_that_the_whole_ones_have() {
    for network in Network::all() {
        let whole = Backbone::shapes(&BackboneSpec { network, embedding: 512 }).unwrap();
        let reduced =
            Backbone::with_architecture(reduced(network), EMBEDDING, Device::Cpu, 3).unwrap();
        assert_eq!(kinds(&reduced), kinds(&whole), "{network}");
    }
}

#[test]
fn every_network_is_measured_before_its_first_step_or_said_not_to_be() {
    let dir = tempfile::tempdir().unwrap();
    // One list of two pairs, in LFW's layout.
    for (person, image) in [(0, 1), (0, 2), (1, 1)] {
        let folder = dir.path().join(format!("P{person}"));
        fs::create_dir_all(&folder).unwrap();
        let name = format!("P{person}_{image:04}.jpg");
        fs::write(folder.join(name), support::jpeg(person, image)).unwrap();
    }
    let pairs = dir.path().join("pairs.txt");
    fs::write(&pairs, "1\nP0\t1\t2\nP0\t1\tP1\t1\n").unwrap();
    let (name, data) = ("made".to_owned(), dir.path().to_owned());
    let set = EvalSet { name, data, pack: PathBuf::new(), pairs, as_packed: false };
    let verifier = Verifier::open(&EvalConfig { every_steps: 0, sets: vec![set] }).unwrap();
    let mut overflowing = Vec::new();
    for network in Network::all() {
        // As a whole: what an untrained network does follows from its depth and its width.
        let spec = BackboneSpec { network, embedding: EMBEDDING };
        let backbone = Backbone::new(&spec, Device::Cpu, 3).unwrap();
        match verifier.run(&backbone, &Ranks::solo(), true).unwrap() {
            Measured::Scores(scores) => {
                assert!(scores[0].accuracy >= 0.0, "{network}: {scores:?}");
            }
            Measured::Unusable { set, reason } => {
                assert_eq!(set, "made");
                assert!(reason.contains(".jpg` is not finite"), "{network}: {reason}");
                overflowing.push(network.name());
            }
            Measured::Interrupted => panic!("nobody asked"),
        }
    }
    // Without one that overflows nothing was tested.
    assert!(overflowing.contains(&"r100"), "{overflowing:?}");
}

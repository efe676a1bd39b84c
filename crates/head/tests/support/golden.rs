//! Cases that `PartialFC_V2` of InsightFace computed, and the head's answers to them.

// B = batch of one rank, G = global batch, D = embedding, C = classes of one rank.

#![allow(dead_code)] // Each test file uses its own part.

use std::{path::PathBuf, sync::Arc};

use pfc_head::{
    ArcfaceGradient, Communicator, Draw, Head, HeadConfig, Margin, Parts, Sampler, Update,
};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use tch::{Kind, Tensor};

/// Bounds of the loss, relative, and of tensors as `max|a - b| / max|b|`.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub loss: f64,
    pub weight: f64,
    /// Of gradients and the momentum that they add up to.
    pub gradient: f64,
}

/// The README's, for centres in f32.
pub const EXACT: Bounds = Bounds { loss: 1e-5, weight: 1e-4, gradient: 1e-4 };

/// One file: a run of a few steps on some ranks. Everything that describes it is in the file.
pub struct Case {
    pub path: PathBuf,
    bytes: Vec<u8>,
}

pub fn cases() -> Vec<PathBuf> {
    pfc_testing::golden_cases("pfc", |path| pfc_testing::has_extension(path, "safetensors"))
}

impl Case {
    pub fn open(path: PathBuf) -> Arc<Case> {
        let bytes = std::fs::read(&path).unwrap();
        Arc::new(Case { path, bytes })
    }

    /// A value of the metadata, which is JSON.
    fn value(&self, name: &str) -> Value {
        let (_, metadata) = SafeTensors::read_metadata(&self.bytes).unwrap();
        let values = metadata.metadata().clone().unwrap();
        let text = values.get(name).unwrap_or_else(|| panic!("{}: no {name}", self.path.display()));
        serde_json::from_str(text).unwrap()
    }

    pub fn number(&self, name: &str) -> f64 {
        self.value(name).as_f64().unwrap()
    }

    pub fn world(&self) -> usize {
        self.number("world") as usize
    }

    pub fn n_steps(&self) -> u64 {
        self.number("steps") as u64
    }

    /// A number, or `NUMBER*(1-step/steps)`.
    pub fn lr(&self, step: u64) -> f64 {
        match self.value("lr") {
            Value::Number(lr) => lr.as_f64().unwrap(),
            Value::String(text) => {
                let (first, falls) = text.split_once('*').unwrap();
                assert_eq!(falls, "(1-step/steps)", "{}", self.path.display());
                first.parse::<f64>().unwrap() * (1.0 - step as f64 / self.n_steps() as f64)
            }
            other => panic!("{}: lr is {other}", self.path.display()),
        }
    }

    pub fn config(&self) -> HeadConfig {
        let [m1, m2, m3] = ["m1", "m2", "m3"].map(|name| self.number(name));
        // As the reference chooses its branch.
        let margin = if m1 == 1.0 && m3 == 0.0 {
            let straight = self.value("arcface_gradient") == "straight-through";
            let gradient =
                if straight { ArcfaceGradient::StraightThrough } else { ArcfaceGradient::Exact };
            Margin::Arcface { m: m2, gradient }
        } else {
            Margin::Cosface { m: m3 }
        };
        let update = self.value("centre_update");
        let is_dense = update.as_str().is_some_and(|text| text.starts_with("dense"));
        HeadConfig {
            sample_rate: self.number("sample_rate"),
            margin,
            scale: self.number("scale"),
            interclass_filter: self.number("interclass_filter"),
            update: if is_dense { Update::Dense } else { Update::Sparse },
            momentum: self.number("momentum"),
            weight_decay: self.number("weight_decay"),
            ..HeadConfig::new(self.number("classes") as u64, self.number("dim") as usize)
        }
    }

    pub fn tensor(&self, name: &str) -> Tensor {
        let tensors = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = tensors.tensor(name).unwrap();
        let kind = match view.dtype() {
            Dtype::F32 => Kind::Float,
            Dtype::F64 => Kind::Double,
            Dtype::I32 => Kind::Int,
            Dtype::I64 => Kind::Int64,
            other => panic!("{name} is {other:?}"),
        };
        let shape: Vec<i64> = view.shape().iter().map(|&n| n as i64).collect();
        Tensor::from_data_size(view.data(), &shape, kind)
    }

    pub fn integers(&self, name: &str) -> Vec<i64> {
        Vec::try_from(self.tensor(name).to_kind(Kind::Int64).reshape([-1])).unwrap()
    }

    /// A tensor of every rank, stacked.
    pub fn of_all_ranks(&self, name: impl Fn(usize) -> String) -> Tensor {
        let tensors: Vec<Tensor> = (0..self.world()).map(|rank| self.tensor(&name(rank))).collect();
        Tensor::cat(&tensors, 0)
    }

    /// The rows of a rank that take part in a step.
    pub fn rows(&self, rank: usize, step: u64, n_rows: usize) -> Vec<u32> {
        if self.number("sample_rate") >= 1.0 {
            return (0..n_rows as u32).collect();
        }
        let rows = self.integers(&format!("rank{rank}.step{step}.sampled_rows"));
        rows.into_iter().map(|row| row as u32).collect()
    }

    /// Centres and momentum of a rank before a step.
    pub fn before(&self, rank: usize, step: u64) -> (Tensor, Tensor) {
        match step.checked_sub(1) {
            None => {
                let weight_cd = self.tensor(&format!("rank{rank}.weight.init"));
                let momentum_cd = weight_cd.zeros_like();
                (weight_cd, momentum_cd)
            }
            Some(last) => {
                let after = |what: &str| self.tensor(&format!("rank{rank}.step{last}.{what}"));
                (after("weight.after"), after("momentum.after"))
            }
        }
    }
}

/// Gives the rows that the reference drew.
struct Recorded {
    case: Arc<Case>,
    rank: usize,
}

impl Sampler for Recorded {
    fn draw(&mut self, draw: &Draw<'_>) -> Vec<u32> {
        self.case.rows(self.rank, draw.step, draw.range.len())
    }
}

/// After which steps the centres are looked at, which catches them up.
#[derive(Clone, Copy)]
pub enum Look {
    EveryStep,
    AtTheEnd,
}

/// * `slack`: what is allowed beyond the bound, absolute
#[track_caller]
pub fn check(found: &Tensor, expected: &Tensor, bound: f64, slack: f64, place: &str) {
    let largest = |t: Tensor| t.to_kind(Kind::Double).abs().max().double_value(&[]);
    assert_eq!(found.size(), expected.size(), "{place}");
    let (error, scale) = (largest(found - expected), largest(expected.shallow_clone()));
    assert!(error <= bound * scale + slack, "{place}: {error:e} off, of {scale:e}");
}

/// The head of one rank, with the reference's initial centres and rows.
pub fn head_of_rank(case: &Arc<Case>, member: Box<dyn Communicator>, config: &HeadConfig) -> Head {
    let rank = member.rank();
    let mut parts = Parts::of_config(config, member).unwrap();
    parts.sampler = Box::new(Recorded { case: Arc::clone(case), rank });
    let mut head = Head::with_parts(config, parts).unwrap();
    begin_at(&mut head, case, rank, 0);
    head
}

/// Puts the reference's centres before a step into the head.
pub fn begin_at(head: &mut Head, case: &Case, rank: usize, step: u64) {
    let (weight_cd, momentum_cd) = case.before(rank, step);
    let first = head.range().first() as i64;
    let state = [
        ("centres.weight".to_owned(), weight_cd),
        ("centres.momentum".to_owned(), momentum_cd),
        ("centres.first_class".to_owned(), Tensor::from_slice(&[first])),
    ];
    head.load_state(&state).unwrap();
}

/// Takes all steps of a case one after the other.
pub fn check_rank(case: &Arc<Case>, rank: usize, mut head: Head, look: Look, bounds: Bounds) {
    for step in 0..case.n_steps() {
        let looks = matches!(look, Look::EveryStep) || step + 1 == case.n_steps();
        check_step(case, rank, &mut head, step, looks, bounds, Slack::default());
    }
}

/// What is allowed beyond the bounds, absolute.
#[derive(Debug, Clone, Copy, Default)]
pub struct Slack {
    pub loss: f64,
    pub grad_embeddings: f64,
    /// Of the gradient by the centres, and of the momentum.
    pub momentum: f64,
}

/// Takes one step and compares loss and gradients, and the centres if `looks`.
pub fn check_step(
    case: &Case,
    rank: usize,
    head: &mut Head,
    step: u64,
    looks: bool,
    bounds: Bounds,
    slack: Slack,
) {
    let name = |what: &str| format!("rank{rank}.step{step}.{what}");
    let place = |what: &str| format!("{}: {}", case.path.display(), name(what));
    let labels = case.integers(&name("labels"));
    let lr = case.lr(step);
    let output = head.step(&case.tensor(&name("embeddings")), &labels, step, lr).unwrap();
    let loss = case.tensor(&name("loss")).sum(Kind::Double).double_value(&[]);
    let error = (output.loss - loss).abs();
    let bound = bounds.loss * loss + slack.loss;
    assert!(error <= bound, "{}: {} for {loss}, bound {bound}", place("loss"), output.loss);
    let expected = case.tensor(&name("grad_embeddings"));
    let found = &output.grad_embeddings_bd;
    check(found, &expected, bounds.gradient, slack.grad_embeddings, &place("grad_embeddings"));
    if looks {
        let state = head.state().unwrap();
        let (weight, momentum) = (lr * slack.momentum, slack.momentum);
        let after = [
            ("weight.after", bounds.weight, weight),
            ("momentum.after", bounds.gradient, momentum),
        ];
        for ((_, found), (what, bound, slack)) in state.iter().zip(after) {
            check(found, &case.tensor(&name(what)), bound, slack, &place(what));
        }
    }
}
